"""The main job over real HTTP: a frame in, a frame out, each row with its own answer."""

from __future__ import annotations

import json

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import batchframe as bf
from batchframe.emulator import answer

TOKENS = ("input_tokens", "output_tokens", "total_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")
ADDED = {
    "custom_id": pl.String,
    "response": pl.String,
    "finish_reason": pl.String,
    "usage": pl.Struct(dict.fromkeys(TOKENS, pl.Int64)),
    "error": pl.Struct({"code": pl.String, "message": pl.String}),
}
ARGUMENTS = {"model": "gpt-4o-mini", "poll_seconds": 0.05, "settle_seconds": 0.5}


def expected(frame, prompt, **options):
    """What the service answers to each request line, from the emulator's own pure function."""
    lines = bf.requests(frame, prompt, model="gpt-4o-mini", **options)["request"]
    return [
        None if line is None else answer(json.loads(line)["body"])["choices"][0]["message"]["content"] for line in lines
    ]


def test_each_row_gets_the_answer_to_its_own_request(emu, client):
    frame = pl.DataFrame({"text": [f'text number {n} 😀 "quoted"\n\u2028end' for n in range(500)], "n": range(500)})
    out = frame.batch.run("Repeat: {text}", client=client, **ARGUMENTS)
    assert out.columns == ["text", "n", *ADDED]
    assert out["response"].to_list() == expected(frame, "Repeat: {text}")
    assert out["custom_id"].to_list() == [f"row-{n}" for n in range(500)]
    assert out["error"].null_count() == 500
    assert_frame_equal(out.select("text", "n"), frame)
    assert emu.ledger()["by_custom_id"] == {f"row-{n}": 1 for n in range(500)}


def test_usage_is_what_the_service_said(client):
    frame = pl.DataFrame({"text": ["a", "b c d"]})
    out = bf.run(frame, "Repeat: {text}", client=client, **ARGUMENTS)
    lines = bf.requests(frame, "Repeat: {text}", model="gpt-4o-mini")["request"]
    for line, usage in zip(lines, out["usage"], strict=True):
        said = answer(json.loads(line)["body"])["usage"]
        assert usage == {
            "input_tokens": said["prompt_tokens"],
            "output_tokens": said["completion_tokens"],
            "total_tokens": said["total_tokens"],
            "cached_tokens": said["prompt_tokens_details"]["cached_tokens"],
            "cache_write_tokens": None,
            "reasoning_tokens": said["completion_tokens_details"]["reasoning_tokens"],
        }


def failing_frame():
    return pl.DataFrame({"text": ["good", None, "too hot"], "temperature": [0.5, 0.5, 99.0]})


def test_a_failed_row_is_a_value_and_is_warned_of_once(client):
    with pytest.warns(bf.BatchframeWarning, match=r"2 of 3 rows did not succeed: 1 .*, 1 .*") as warned:
        out = failing_frame().batch.run("Repeat: {text}", temperature=pl.col("temperature"), client=client, **ARGUMENTS)
    assert [str(one.filename) for one in warned] == [__file__]
    codes = out["error"].struct.field("code").to_list()
    assert codes[:2] == [None, "null_input"]
    assert codes[2] not in {None, "null_input"}
    assert "temperature" in out["error"][2]["message"]
    assert out["response"].is_null().to_list() == [False, True, True]


CASES = {
    "0 rows": pl.DataFrame(schema={"text": pl.String}),
    "nothing sent": pl.DataFrame({"text": [None, None]}, schema={"text": pl.String}),
    "some": pl.DataFrame({"text": ["a", "b"]}),
}


@pytest.mark.filterwarnings("ignore::batchframe.BatchframeWarning")
@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_dtypes_are_the_same_whatever_happened(client, case, lazy):
    frame = CASES[case].lazy() if lazy else CASES[case]
    include = ["raw", "batch_id", "model", "request_id"]
    out = bf.run(frame, "Repeat: {text}", client=client, include=include, **ARGUMENTS)
    assert isinstance(out, pl.LazyFrame) is lazy
    more = dict.fromkeys(["model", "request_id", "batch_id", "raw"], pl.String)
    assert dict(out.collect_schema()) == {"text": pl.String} | ADDED | more
    assert out.collect_schema() == bf.result_schema(frame, "Repeat: {text}", include=include, model="gpt-4o-mini")
    assert out.lazy().collect().height == CASES[case].height


@pytest.mark.filterwarnings("ignore::batchframe.BatchframeWarning")
def test_dtypes_when_every_row_failed(client):
    out = bf.run(pl.DataFrame({"text": ["a"]}), "{text}", temperature=99, client=client, **ARGUMENTS)
    assert dict(out.schema) == {"text": pl.String} | ADDED
    assert out["error"][0]["code"] is not None
    assert out["usage"][0] is None


def test_include_tells_where_an_answer_came_from(client):
    frame = pl.DataFrame({"text": ["a", "b"]})
    out = bf.run(
        frame, "Repeat: {text}", include=["raw", "model", "batch_id", "request_id"], client=client, **ARGUMENTS
    )
    assert out.columns[-4:] == ["model", "request_id", "batch_id", "raw"]
    for row in out.iter_rows(named=True):
        line = json.loads(row["raw"])
        assert line["custom_id"] == row["custom_id"]
        assert line["response"]["request_id"] == row["request_id"]
        assert line["response"]["body"]["model"] == row["model"] == "gpt-4o-mini-2024-07-18"
    assert out["batch_id"].unique().to_list() == [client.batches.list().data[0].id]


def test_include_is_free_to_change_between_calls(emu, client):
    frame = pl.DataFrame({"text": ["a", "b"]})
    first = bf.run(frame, "Repeat: {text}", client=client, **ARGUMENTS)
    again = bf.run(frame, "Repeat: {text}", include="raw", prefix="x_", client=client, **ARGUMENTS)
    assert again.columns == ["text", *("x_" + name for name in ADDED), "x_raw"]
    assert again["x_response"].to_list() == first["response"].to_list()
    assert json.loads(again["x_raw"][1])["custom_id"] == "row-1"
    assert emu.ledger()["executions"] == 2


def test_a_column_that_would_be_overwritten_is_refused_and_prefix_mends_it(client):
    frame = pl.DataFrame({"text": ["a"], "response": ["mine"]})
    with pytest.raises(bf.InputError, match=r"'response' already.*prefix="):
        bf.run(frame, "Repeat: {text}", client=client, **ARGUMENTS)
    out = bf.run(frame, "Repeat: {text}", prefix="ai_", client=client, **ARGUMENTS)
    assert out["response"].to_list() == ["mine"]
    assert out["ai_response"].to_list() == expected(frame, "Repeat: {text}", prefix="ai_")
    lazy = bf.run(frame.lazy(), "Repeat: {text}", prefix="ai_", client=client, **ARGUMENTS)
    assert_frame_equal(lazy.collect(), out)


def test_custom_ids_of_the_users_own(emu, client):
    frame = pl.DataFrame({"id": [17, -3, 0], "text": ["a", "b", "c"]})
    out = bf.run(frame, "Repeat: {text}", custom_id="id", client=client, **ARGUMENTS)
    assert out["custom_id"].to_list() == ["17", "-3", "0"]
    assert set(emu.ledger()["by_custom_id"]) == {"17", "-3", "0"}
    named = pl.DataFrame({"custom_id": ["x", "y"], "text": ["a", "b"]})
    out = bf.run(named, "Repeat: {text}", custom_id="custom_id", client=client, **ARGUMENTS)
    assert out.columns == ["custom_id", "text", "response", "finish_reason", "usage", "error"]
    assert out["custom_id"].to_list() == ["x", "y"]
    assert out["response"].to_list() == expected(named, "Repeat: {text}", custom_id="custom_id")


def test_duplicate_ids_are_refused_before_anything_is_sent(emu, client):
    frame = pl.DataFrame({"id": ["a", "b", "a"], "text": ["x", "y", "z"]})
    with pytest.raises(bf.InputError, match=r"'id' has 'a' in rows 0, 2"):
        bf.run(frame, "{text}", custom_id="id", client=client, **ARGUMENTS)
    assert emu.calls() == {}


def test_several_files_full_but_for_the_first_and_the_last(emu, client):
    frame = pl.DataFrame({"n": range(1000)})
    out = bf.run(frame, "Repeat {n}", limits=bf.Limits(max_requests=300), client=client, **ARGUMENTS)
    assert out["response"].to_list() == expected(frame, "Repeat {n}")
    counts = sorted(batch.request_counts.total for batch in client.batches.list())
    assert counts == [30, 70, 300, 300, 300]
    assert max(emu.ledger()["by_custom_id"].values()) == 1


def test_max_in_flight_is_held(emu, client):
    emu.configure(progression="stepped")
    frame = pl.DataFrame({"n": range(50)})
    limits = bf.Limits(max_requests=10, max_in_flight=2)
    run = bf.submit(frame, "Repeat {n}", limits=limits, client=client, **ARGUMENTS)
    assert run.advance().batches == {"validating": 2}
    for _ in range(40):
        emu.step()
        alive = [batch for batch in client.batches.list() if batch.status not in {"completed", "failed"}]
        assert len(alive) <= 2
        if run.advance().done:
            break
    assert run.status().succeeded == 50


def test_anything_with_an_arrow_stream_is_a_frame(client):
    table = pl.DataFrame({"text": ["a", "b"]}).to_arrow()
    out = bf.run(table, "Repeat: {text}", client=client, **ARGUMENTS)
    assert isinstance(out, pl.DataFrame)
    assert out["text"].to_list() == ["a", "b"]
    assert out["error"].null_count() == 2


def test_the_frames_own_columns_come_back_as_they_were(client):
    frame = pl.DataFrame(
        {
            "text": ["a", "b"],
            "kind": pl.Series(["x", "y"], dtype=pl.Enum(["x", "y"])),
            "when": pl.Series([None, 1], dtype=pl.Datetime("ns", "Europe/Berlin")),
            "nested": [{"a": [1, None]}, None],
            "bytes": [b"\x00\xff", None],
        }
    )
    out = bf.run(frame, "Repeat: {text}", client=client, **ARGUMENTS)
    assert_frame_equal(out.select(frame.columns), frame)
    lazy = bf.run(frame.lazy(), "Repeat: {text}", client=client, **ARGUMENTS).collect()
    assert_frame_equal(lazy, out)


def test_columns_with_names_that_polars_reads_as_patterns(client):
    frame = pl.DataFrame({"*": ["a"], "^x.*$": [1], "xy": ["b"]})
    for one in (frame, frame.lazy()):
        out = bf.run(one, "Repeat: {xy} {*}", client=client, **ARGUMENTS).lazy().collect()
        assert out.columns == [*frame.columns, *ADDED]
        assert_frame_equal(out[frame.columns], frame)


def test_expressions_see_the_whole_frame_in_every_part(client, monkeypatch):
    monkeypatch.setattr("batchframe._requests.frame_source.SLICE_ROWS", 7)
    frame = pl.DataFrame({"n": range(50)})
    prompt = pl.format("{} of {}", pl.col("n"), pl.col("n").max())
    out = bf.run(
        frame.lazy(), prompt, system=pl.format("rank {}", pl.col("n").rank("ordinal")), client=client, **ARGUMENTS
    )
    again = bf.run(frame, prompt, system=pl.format("rank {}", pl.col("n").rank("ordinal")), client=client, **ARGUMENTS)
    assert_frame_equal(out.collect(), again)
    bodies = bf.requests(frame, prompt, model="gpt-4o-mini", system=pl.format("rank {}", pl.col("n").rank("ordinal")))
    messages = json.loads(bodies["request"][41])["body"]["messages"]
    assert [message["content"] for message in messages] == ["rank 42", "41 of 49"]


def test_metadata_and_file_names_tell_whose_the_batch_is(client):
    out = bf.submit(pl.DataFrame({"t": ["a"]}), "{t}", metadata={"team": "x"}, client=client, **ARGUMENTS)
    (batch,) = client.batches.list()
    assert batch.metadata["team"] == "x"
    assert batch.metadata["batchframe_run"] == out.id
    assert batch.metadata["batchframe_part"] == "0"
    assert client.files.retrieve(batch.input_file_id).filename.startswith("batchframe-")
    out.wait()


def test_the_handle_reads_without_a_service(emu, client):
    frame = pl.DataFrame({"t": ["a", None]})
    run = bf.submit(frame, "Repeat {t}", client=client, **ARGUMENTS)
    run.wait()
    emu.configure(progression="timed", seconds={"in_progress": 30.0})
    assert run.path.is_dir()
    early = bf.submit(pl.DataFrame({"t": ["z", None]}), "Repeat {t}", client=client, **ARGUMENTS)
    out = bf.open_run(early.path).result()
    assert out["error"].struct.field("code").to_list() == ["pending", "null_input"]
    status = bf.open_run(early.path).status(refresh=False)
    assert (status.succeeded, status.failed, status.not_sent, status.pending) == (0, 0, 1, 1)
    assert status.rows == 2
    assert run.errors()["code"].to_list() == ["null_input"]
    assert run.batches()["status"].to_list() == ["completed"]
    assert run.status(refresh=False).batches == {"completed": 1}
