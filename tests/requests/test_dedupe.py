"""With ``dedupe`` equal requests are sent once, and every row still gets its answer."""

from __future__ import annotations

import json
import tempfile
import warnings
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import batchframe as bf
from batchframe._requests import frame_source

ARGUMENTS = {"model": "gpt-4o-mini", "poll_seconds": 0.02, "settle_seconds": 0.3}
# Rows 2, 3 and 5 ask what rows 0 and 1 ask.
TEXTS = ["a", "b", "a", "b", "c", "a"]
FRAME = pl.DataFrame({"t": TEXTS, "n": range(6)})


def ask(client, frame=FRAME, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bf.BatchframeWarning)
        return bf.run(frame, "Repeat {t}", client=client, **ARGUMENTS | options)


@pytest.fixture
def slices_of(monkeypatch):
    return lambda rows: monkeypatch.setattr(frame_source, "SLICE_ROWS", rows)


def own(emu):
    return emu.ledger()["by_custom_id"]


@pytest.mark.parametrize("rows", [1, 2, 4, 100])
def test_each_distinct_request_is_executed_once(emu, client, slices_of, rows):
    slices_of(rows)
    out = ask(client, dedupe=True)
    assert_frame_equal(out.select("t", "n"), FRAME)
    assert out["custom_id"].to_list() == [f"row-{n}" for n in range(6)]
    assert out["error"].null_count() == 6
    by_text = dict(zip(out["t"], out["response"], strict=True))
    assert len(set(by_text.values())) == 3
    assert out["response"].to_list() == [by_text[text] for text in TEXTS]
    assert own(emu) == {"row-0": 1, "row-1": 1, "row-4": 1}


@settings(
    max_examples=1 + settings.default.max_examples // 20, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    texts=st.lists(
        st.sampled_from(["a", "b", "", "ä\u2028", '"q"', None, "x" * 40]) | st.text(max_size=2), min_size=1, max_size=12
    ),
    rows=st.integers(1, 12),
    requests=st.integers(1, 12),
    on_null=st.sampled_from(["skip", "render"]),
)
@example(texts=[None, None, "", ""], rows=1, requests=1, on_null="render")
@example(texts=["a"] * 9 + ["b"], rows=2, requests=1, on_null="skip")
def test_dedupe_does_not_change_the_result(texts, rows, requests, on_null, emulate):
    frame = pl.DataFrame({"t": texts}, schema={"t": pl.String})
    call = {"limits": bf.Limits(max_requests=requests), "on_null": on_null}
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as home:
        patch.setenv("BATCHFRAME_HOME", home)
        patch.setattr(frame_source, "SLICE_ROWS", rows)
        with emulate() as first, emulate() as second:  # both running: two accounts, so two runs
            without = ask(first.client(), frame, **call)
            executions = first.ledger()["executions"]
            out = ask(second.client(), frame, dedupe=True, **call)
            bodies = second.ledger()["by_body"]
    assert_frame_equal(out, without)
    distinct = {text or "" if on_null == "render" else text for text in texts} - {None}
    assert len(bodies) == len(distinct)
    assert set(bodies.values()) <= {1}
    assert executions == sum(on_null == "render" or text is not None for text in texts)


def test_frame_without_duplicates_is_the_same_run(emu, client):
    frame = pl.DataFrame({"t": ["a", "b", "c"]})
    out = ask(client, frame)
    assert_frame_equal(ask(client, frame, dedupe=True), out)
    assert emu.ledger()["executions"] == 3


def test_frame_with_duplicates_is_another_run(emu, client):
    ask(client, dedupe=True)
    ask(client)
    assert emu.ledger()["executions"] == 3 + 6


def test_other_multiplicities_are_the_same_run(emu, client, slices_of):
    slices_of(2)
    first = ask(client, dedupe=True)
    by_text = dict(zip(first["t"], first["response"], strict=True))
    texts = ["c", "b", "c", None, "b", "a", "c", "b", "b", "c", "a"]
    for frame in (pl.DataFrame({"t": texts}), pl.LazyFrame({"t": texts})):
        out = ask(client, frame, dedupe=True).lazy().collect()
        assert out["t"].to_list() == texts
        assert out["response"].to_list() == [by_text.get(text) for text in texts]
        assert out["error"].struct.field("code").to_list() == [None if text else "null_input" for text in texts]
    # Each once, and without the option: the requests are the same.
    assert ask(client, pl.DataFrame({"t": ["c", "a", "b"]}))["response"].to_list() == [by_text[t] for t in "cab"]
    assert emu.ledger()["executions"] == 3


def test_mismatch_with_a_run_without_dedupe_is_explained(client, tmp_path):
    ask(client, run_dir=tmp_path / "r")
    with pytest.raises(bf.RunMismatchError, match=r"dedupe was False, is True; it had 6 requests, this call has 3"):
        ask(client, run_dir=tmp_path / "r", dedupe=True)


def test_failed_request_is_retried_once_and_fanned_out(emu, client, slices_of):
    slices_of(2)
    emu.row_fault("rate_limited", custom_ids=["row-1"])
    out = ask(client, dedupe=True)
    assert out["error"].null_count() == 6
    assert out["response"][1] == out["response"][3]
    assert emu.ledger()["billed"] == 3
    assert emu.calls()["create_batch"] == 2


def test_failure_is_fanned_out(emu, client):
    emu.row_fault("status", status=400, code="bad_thing", custom_ids=["row-0"])
    out = ask(client, dedupe=True)
    assert out["error"].struct.field("code").to_list() == ["bad_thing", None, "bad_thing", None, None, "bad_thing"]


def test_pending_request_is_pending_in_every_row(emu, client, slices_of):
    slices_of(2)
    emu.batch_fault("stuck", times=None)
    run = bf.submit(FRAME, "Repeat {t}", client=client, dedupe=True, include=["reused"], **ARGUMENTS)
    out = run.result()
    assert set(out["error"].struct.field("code")) == {"pending"}
    assert out["reused"].to_list() == [False] * 6
    assert run.status(refresh=False).pending == 6


def test_skipped_rows_are_not_duplicates(emu, client):
    frame = pl.DataFrame({"t": [None, "a", None, "a", "x" * 3_000, "x" * 3_000]})
    out = ask(client, frame, dedupe=True, limits=bf.Limits(max_bytes=2_000))
    codes = out["error"].struct.field("code").to_list()
    assert codes == ["null_input", None, "null_input", None, "request_too_large", "request_too_large"]
    assert own(emu) == {"row-1": 1}


def test_custom_ids_with_dedupe(emu, client):
    frame = FRAME.with_columns(key=pl.format('a rather long id with "quotes" {}', "n"))
    out = ask(client, frame, dedupe=True, custom_id="key")
    assert out["custom_id"].to_list() == frame["key"].to_list()
    assert out["error"].null_count() == 6
    assert own(emu) == dict.fromkeys(frame["key"].gather([0, 1, 4]), 1)
    with pytest.raises(bf.InputError, match=r"in rows (0, 2, 5|1, 3)"):
        ask(client, FRAME, dedupe=True, custom_id="t")


def test_dedupe_over_parquet(emu, client, tmp_path):
    FRAME.write_parquet(tmp_path / "in.parquet")
    paths = (tmp_path / "in.parquet", tmp_path / "out.parquet")
    run = bf.run_parquet(*paths, "Repeat {t}", client=client, dedupe=True, **ARGUMENTS)
    assert pl.read_parquet(tmp_path / "out.parquet")["error"].null_count() == 6
    assert run.status().succeeded == 6
    assert bf.open_run(run.path).result()["response"].null_count() == 0
    assert emu.ledger()["executions"] == 3
    assert json.loads((Path(run.path) / "run.json").read_text())["options"]["dedupe"] is True


def test_preview_shows_distinct_requests():
    lines = bf.requests(FRAME, "Repeat {t}", model="m", dedupe=True)
    assert lines["request"].is_not_null().to_list() == [True, True, False, False, True, False]
    assert lines["custom_id"].to_list() == [f"row-{n}" for n in range(6)]


@pytest.mark.parametrize("value", [1, "yes"])
def test_dedupe_must_be_a_bool(value):
    with pytest.raises(bf.OptionError, match=r"dedupe must be True \(equal requests are sent once\) or False, got"):
        bf.requests(FRAME, "{t}", model="m", dedupe=value)
