"""With ``reuse`` rows whose request succeeded in another run take that answer, and only the others are sent."""

from __future__ import annotations

import json
import logging
import shutil
import warnings

import openai
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import batchframe as bf
from batchframe import testing
from batchframe._requests import frame_source

ARGUMENTS = {"model": "gpt-4o-mini", "poll_seconds": 0.02, "settle_seconds": 0.3}


def ask(client, texts, **options):
    frame = texts if isinstance(texts, (pl.DataFrame, pl.LazyFrame)) else pl.DataFrame({"t": texts})
    options.setdefault("include", ["reused", "batch_id"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bf.BatchframeWarning)
        return bf.run(frame, options.pop("prompt", "Repeat {t}"), client=client, **ARGUMENTS | options)


def answers(out):
    return dict(zip(out["t"], out["response"], strict=True))


def codes(out):
    return out["error"].struct.field("code").to_list()


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -- what is sent


GROWN = {"system": {"system": "Be brief"}, "model": {"model": "gpt-4o"}, "temperature": {"temperature": 0.5}}


def test_a_frame_that_grew_sends_what_is_new(emu, client):
    """10,000 rows; the frame grows by 10, and 3 rows change."""
    texts = [f"text {n}" for n in range(10_000)]
    first = ask(client, texts, prefix="was_", include=[])
    grown = texts[:5_000] + [f"more {n}" for n in range(10)] + texts[5_000:]
    for row in (0, 7_005, 10_009):
        grown[row] = f"changed {row}"
    new = [0, *range(5_000, 5_010), 7_005, 10_009]
    out = ask(client, grown, reuse="all", include=["reused"])
    assert emu.ledger()["executions"] == 10_000 + 13
    assert out["error"].null_count() == 10_010
    assert out["t"].to_list() == grown
    assert (~out["reused"]).arg_true().to_list() == new
    same = out.filter("reused").join(first, on="t", how="left", maintain_order="left")
    assert same["response"].equals(same["was_response"])
    assert same["usage"].equals(same["was_usage"])


@pytest.mark.parametrize("change", GROWN)
def test_with_another_body_nothing_is_reused(emu, client, change):
    texts = ["a", "b", "c"]
    ask(client, texts)
    out = ask(client, texts, reuse="all", **GROWN[change])
    assert emu.ledger()["executions"] == 6
    assert out["reused"].to_list() == [False] * 3


def test_only_what_succeeded_is_reused(emu, client):
    emu.row_fault("status", status=400, code="bad_thing", custom_ids=["row-0"])
    emu.row_fault("rate_limited", custom_ids=["row-1"], attempts=None)
    emu.row_fault("refusal", custom_ids=["row-2"])
    assert codes(ask(client, ["a", "b", "c", "d", None], max_attempts=2))[3:] == [None, "null_input"]
    emu.clear_faults()
    out = ask(client, ["a", "b", "c", "d", None, "e"], reuse="all")
    assert out["reused"].to_list() == [False, False, False, True, False, False]
    assert codes(out) == [None, None, None, None, "null_input", None]


def test_an_answer_of_a_later_attempt_is_reused(emu, client):
    emu.row_fault("rate_limited", custom_ids=["row-1"])
    first = ask(client, ["a", "b"])
    out = ask(client, ["b", "x", "a"], reuse="all")
    assert out["reused"].to_list() == [True, False, True]
    assert [out["response"][0], out["response"][2]] == [first["response"][1], first["response"][0]]
    assert out["batch_id"][0] == first["batch_id"][1] != first["batch_id"][0]
    assert emu.ledger()["billed"] == 3


def test_equal_rows_take_an_answer_each(emu, client):
    first = ask(client, ["a", "b", "a"])
    out = ask(client, ["a", "a", "c", "a"], reuse="all")
    assert out["reused"].to_list() == [True, True, False, False]
    assert out["response"][:2].to_list() == [first["response"][0], first["response"][2]]
    assert emu.ledger()["executions"] == 3 + 2


def test_with_dedupe_equal_rows_take_one(emu, client):
    first = answers(ask(client, ["a", "b", "a"]))
    out = ask(client, ["a", "c", "a", "c", "a", "a"], reuse="all", dedupe=True)
    assert out["reused"].to_list() == [True, False, True, False, True, True]
    assert set(out.filter(t="a")["response"]) == {first["a"]}
    assert codes(out) == [None] * 6
    assert emu.ledger()["executions"] == 3 + 1


def test_a_source_that_was_deduped_has_one_answer_of_each(emu, client):
    ask(client, ["a", "a", "a"], dedupe=True)
    out = ask(client, ["a", "a", "b"], reuse="all")
    assert out["reused"].to_list() == [True, False, False]
    assert emu.ledger()["executions"] == 1 + 2


def test_copies_of_one_answer_count_once(emu, client):
    """The second run holds a copy of the first one's answer, which was paid for once."""
    ask(client, ["a", "x"])
    ask(client, ["a", "y"], reuse="all")
    out = ask(client, ["a", "a", "z"], reuse="all")
    assert out["reused"].to_list() == [True, False, False]
    assert emu.ledger()["executions"] == 2 + 1 + 2


def test_copied_answers_can_be_reused_after_the_source_is_deleted(emu, client, batchframe_home):
    first = answers(ask(client, ["a", "x"]))
    (gone,) = batchframe_home.glob("[!.]*")
    out = ask(client, ["y", "a"], reuse="all")
    shutil.rmtree(gone)
    assert out["reused"].to_list() == [False, True]
    out = ask(client, ["z", "z", "a"], reuse="all")
    assert out["reused"].to_list() == [False, False, True]
    assert out["response"][2] == first["a"]
    assert emu.ledger()["executions"] == 2 + 1 + 2


# -- from where


def test_of_all_runs_the_newest_comes_first(emu, client, caplog):
    ask(client, ["a", "b"])
    second = ask(client, ["a", "c"], name="fresh")
    with caplog.at_level(logging.INFO, logger="batchframe"):
        out = ask(client, ["a", "b", "c", "d"], reuse="all")
    assert out["reused"].to_list() == [True, True, True, False]
    assert out["batch_id"][0] == second["batch_id"][0]
    assert emu.ledger()["executions"] == 4 + 1
    (said,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("reuse:")]
    assert said.startswith("reuse: answers are taken from earlier runs (2 of run ")
    assert ", 1 of run " in said
    assert said.endswith("); 1 of 4 requests remain")


@pytest.mark.parametrize("spelled", ["run", "path", "text"])
def test_reuse_of_one_named_run(emu, client, tmp_path, spelled):
    one = bf.submit(pl.DataFrame({"t": ["a"]}), "Repeat {t}", client=client, run_dir=tmp_path / "r", **ARGUMENTS)
    one.wait()
    ask(client, ["b"])
    reuse = {"run": one, "path": tmp_path / "r", "text": str(tmp_path / "r")}[spelled]
    assert ask(client, ["a", "b"], reuse=reuse)["reused"].to_list() == [True, False]
    assert emu.ledger()["executions"] == 3


def test_all_runs_are_those_of_the_root_and_the_account(emu, client, tmp_path, emulate):
    ask(client, ["a"], run_dir=tmp_path / "r")  # elsewhere
    ask(emu.client(project="proj_2"), ["a"])  # another's
    with emulate() as other:
        ask(other.client(), ["a"])
    assert ask(client, ["a", "b"], reuse="all")["reused"].to_list() == [False, False]
    out = ask(emu.client(project="proj_3"), ["a", "b"], reuse=tmp_path / "r")  # named, it may be another's
    assert out["reused"].to_list() == [True, False]


def test_an_unfinished_run_gives_what_it_has(emu, client):
    emu.batch_fault("stuck", times=1)
    one = bf.submit(
        pl.DataFrame({"t": [f"{n}" for n in range(20)]}),
        "Repeat {t}",
        client=client,
        limits=bf.Limits(max_requests=10),
        **ARGUMENTS,
    )
    while one.advance().succeeded < 19:
        pass
    # Of parts of 1, 10 and 9 rows the first is stuck.
    texts = [f"{n}" for n in range(20, -1, -1)]
    out = ask(client, texts, reuse=one)
    assert out.filter(~pl.col("reused"))["t"].to_list() == ["20", "0"]
    assert codes(out) == [None] * 21
    assert not one.status(refresh=False).done


def test_reuse_of_a_folder_without_a_run_is_refused(client, tmp_path):
    with pytest.raises(bf.RunNotFoundError, match=r"has no run\.json"):
        ask(client, ["a"], reuse=tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(bf.RunNotFoundError):
        ask(client, ["a"], reuse=tmp_path / "file")
    for value in (5, ["all"], True):
        with pytest.raises(bf.OptionError, match=r'reuse must be a run, the folder of one, or "all", got'):
            ask(client, ["a"], reuse=value)
    with pytest.raises(bf.OptionError, match="reuse must be a local folder"):
        ask(client, ["a"], reuse="s3://bucket/run")


def test_another_endpoint_is_refused(client, tmp_path):
    ask(client, ["a"], run_dir=tmp_path / "r")
    path = tmp_path / "r" / "run.json"
    path.write_text(path.read_text().replace("/v1/chat/completions", "/v1/responses"))
    with pytest.raises(bf.OptionError, match=r"asked /v1/responses, and this call asks /v1/chat/completions"):
        ask(client, ["a", "b"], reuse=tmp_path / "r")


def test_nothing_to_reuse_is_said(client, caplog):
    with caplog.at_level(logging.INFO, logger="batchframe"):
        ask(client, ["a"], reuse="all")
        ask(client, ["b"], reuse="all")
    assert "reuse: there is no run yet that answers could come from" in caplog.text
    assert "answered none of the 1 requests" in caplog.text


def test_result_files_that_changed_are_not_believed(client, tmp_path):
    ask(client, ["a", "b"], run_dir=tmp_path / "r")
    path = tmp_path / "r" / "parts" / "0000" / "submissions" / "0.output.jsonl"
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if '"row-1"' not in line))
    with pytest.raises(bf.ResultsError, match=r"says that 'row-1' was answered, and its result files do not"):
        ask(client, ["a", "b", "c"], reuse=tmp_path / "r", run_dir=tmp_path / "s")
    assert [found.name for found in tmp_path.iterdir() if found.name != "batchframe-home"] == ["r"]


# -- the new run


def test_reused_answers_survive_deletion_of_the_source(emu, client, batchframe_home):
    ask(client, ["a", "b"])
    (source,) = batchframe_home.glob("[!.]*")
    out = ask(client, ["b", "c", "a"], reuse="all", include=["reused", "raw"])
    shutil.rmtree(source)
    (path,) = batchframe_home.glob("[!.]*")
    shutil.rmtree(path / "results")
    run = bf.open_run(path, client=client)
    assert run.result()["response"].equals(out["response"])
    assert json.loads(out["raw"][0])["custom_id"] == out["custom_id"][0] == "row-0"
    assert run.batches()["requests"].to_list() == [1]
    status = run.status()
    assert (status.succeeded, status.batches) == (3, {"completed": 1})
    assert status.usage["total_tokens"] == out["usage"].struct.field("total_tokens")[1]
    reused = json.loads((path / "parts" / "0001" / "part.json").read_text())
    assert (reused["reused_from"], reused["attempt"], reused["requests"]) == (source.name, 0, 2)
    assert not (path / "parts" / "0001" / "input.jsonl").exists()


def test_the_same_call_goes_on_when_the_source_is_gone(emu, client, tmp_path):
    ask(client, ["a"], run_dir=tmp_path / "r")
    emu.batch_fault("stuck", times=1)
    with pytest.raises(bf.RunPendingError):
        ask(client, ["a", "b"], reuse=tmp_path / "r", timeout_seconds=0.1)
    shutil.rmtree(tmp_path / "r")
    with pytest.raises(bf.RunPendingError):
        ask(client, ["a", "b"], reuse=tmp_path / "r", timeout_seconds=0.1)
    assert emu.calls()["create_batch"] == 2
    with pytest.raises(bf.RunNotFoundError):
        ask(client, ["a", "c"], reuse=tmp_path / "r")


def test_the_source_is_not_touched(emu, client, batchframe_home):
    ask(client, ["a", "b"])
    (source,) = batchframe_home.glob("[!.]*")
    before = files(source)
    ask(client, ["a", "b", "c"], reuse="all")
    assert files(source) == before


def test_reuse_does_not_change_the_run_id(emu, client, batchframe_home):
    ask(client, ["a", "b"])
    out = ask(client, ["c", "b", "a"], reuse="all")
    calls = emu.calls()
    assert_frame_equal(ask(client, ["c", "b", "a"]), out)
    assert_frame_equal(ask(client, ["c", "b", "a"], reuse="all"), out)
    assert not list(batchframe_home.glob("*/views"))
    turned = ask(client, pl.LazyFrame({"t": ["a", None, "c", "b"]}), reuse="all").collect()
    assert turned["reused"].to_list() == [True, False, False, True]
    assert answers(turned) == answers(out) | {None: None}
    assert emu.calls() == calls


def test_a_run_that_is_there_is_not_altered(emu, client, batchframe_home):
    emu.row_fault("status", status=400, code="bad_thing", custom_ids=["row-1"])
    first = ask(client, ["a", "b"])
    emu.clear_faults()
    (path,) = batchframe_home.glob("[!.]*")
    ask(client, ["b"])
    before = files(path)
    assert_frame_equal(ask(client, ["a", "b"], reuse="all"), first)
    assert files(path) == before


def test_all_reused_asks_nothing_of_the_service(client, caplog):
    with testing.emulator() as service:
        base_url = service.base_url
        first = ask(service.client(), ["a", "b"])
    with openai.OpenAI(api_key="another", base_url=base_url) as gone, caplog.at_level(logging.INFO, "batchframe"):
        out = ask(gone, ["b"], reuse="all")
        assert out["response"].to_list() == [first["response"][1]]
        run = bf.submit(pl.DataFrame({"t": ["a"]}), "Repeat {t}", client=gone, reuse="all", **ARGUMENTS)
        assert run.status().done
        assert run.batches().height == 0
        assert run.status().batches == {}
    assert caplog.text.count("; 0 of 1 requests remain") == 2
    assert "is finished: its answers are returned" not in caplog.text


def test_new_rows_are_retried_and_the_reused_are_not(emu, client):
    ask(client, ["a", "b"])
    emu.row_fault("rate_limited", custom_ids=["row-1"])
    emu.row_fault("missing", custom_ids=["row-3"])
    out = ask(client, ["a", "c", "b", "d", "e"], reuse="all")
    assert codes(out) == [None] * 5
    assert out["reused"].to_list() == [True, False, True, False, False]
    assert emu.ledger()["billed"] == 2 + 3 + 1  # what is missing was executed


def test_reused_answers_show_before_the_run_is_finished(emu, client):
    ask(client, ["a", "b"])
    emu.batch_fault("stuck", times=None)
    frame = pl.DataFrame({"t": ["a", "c", None]})
    run = bf.submit(frame, "Repeat {t}", client=client, reuse="all", include=["reused"], **ARGUMENTS)
    out = run.result()
    assert out["reused"].to_list() == [True, False, False]
    assert codes(out) == [None, "pending", "null_input"]
    status = run.status()
    assert (status.succeeded, status.pending, status.not_sent, status.done) == (1, 1, 1, False)
    assert sum(status.batches.values()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 3, 100])
@pytest.mark.parametrize("dedupe", [False, True])
def test_reuse_in_many_blocks_and_parts(emu, client, monkeypatch, rows, dedupe):
    monkeypatch.setattr(frame_source, "SLICE_ROWS", rows)
    limits = bf.Limits(max_requests=4)
    first = ask(client, [f"{n % 9}" for n in range(12)], limits=limits)
    executions = emu.ledger()["executions"]
    texts = [f"{n % 12}" for n in range(26, 0, -1)]
    out = ask(client, texts, reuse="all", dedupe=dedupe, limits=limits)
    assert out["t"].to_list() == texts
    assert codes(out) == [None] * 26
    assert answers(out).items() >= answers(first).items()
    reused = [text for text, is_reused in zip(texts, out["reused"], strict=True) if is_reused]
    if dedupe:
        assert sorted(reused) == sorted(text for text in texts if int(text) < 9)
        assert emu.ledger()["executions"] == executions + 3
    else:
        assert sorted(reused) == sorted(f"{n % 9}" for n in range(12))
        assert emu.ledger()["executions"] == executions + 26 - 12


def test_ids_of_the_users_own(emu, client):
    frame = pl.DataFrame({"t": ["a", "b", "c"], "key": ['x "1"', "ä\u20282", "3"]})
    first = answers(ask(client, frame, custom_id="key"))
    out = ask(client, ["c", "b", "d"], reuse="all")
    assert answers(out).items() >= {"c": first["c"], "b": first["b"]}.items()
    named = pl.DataFrame({"t": ["d", "a", "e"], "key": ["ß" * 60, "\\n", "3"]})
    out = ask(client, named, custom_id="key", reuse="all")
    assert out["custom_id"].to_list() == named["key"].to_list()
    assert out["reused"].to_list() == [True, True, False]
    assert codes(out) == [None] * 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["crlf", "blank_lines", "no_final_newline", "duplicate", "in_error_file", "unknown_id"]
)
def test_files_of_any_shape_are_copied(emu, client, kind):
    emu.row_fault(kind)
    first = answers(ask(client, ["a", "b", "c"]))
    emu.clear_faults()
    out = ask(client, ["c", "a", "b", "d"], reuse="all")
    assert out["reused"].to_list() == [True, True, True, False]
    assert answers(out).items() >= first.items()


def test_over_parquet(emu, client, tmp_path):
    pl.DataFrame({"t": ["a", "b"]}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"t": ["c", "b", "a"]}).write_parquet(tmp_path / "b.parquet")
    one = bf.run_parquet(tmp_path / "a.parquet", tmp_path / "out.parquet", "Repeat {t}", client=client, **ARGUMENTS)
    call = {"reuse": one, "include": ["reused"], "run_dir": tmp_path / "r"} | ARGUMENTS
    bf.run_parquet(tmp_path / "b.parquet", tmp_path / "out.parquet", "Repeat {t}", client=client, **call)
    assert pl.read_parquet(tmp_path / "out.parquet")["reused"].to_list() == [False, True, True]
    assert emu.ledger()["executions"] == 3
    assert json.loads((tmp_path / "r" / "run.json").read_text())["options"]["reuse"] == str(one.path)
    assert bf.open_run(tmp_path / "r").status(refresh=False).succeeded == 3
