"""Runs of batchframe 0.1.0 are read, resumed and retried by this one, and no answer is billed twice.

`data/runs-of-0.1.0/make.py` says how they were made.
"""

from __future__ import annotations

import datetime as dt
import shutil
from pathlib import Path

import polars as pl
import pytest

import batchframe as bf
from batchframe._batches import access_check
from batchframe._results import result_lines

DATA = Path(__file__).parents[1] / "data" / "runs-of-0.1.0"
TOKENS = ("input_tokens", "output_tokens", "total_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")
USAGE = pl.Struct(dict.fromkeys(TOKENS, pl.Int64))
MOOD = pl.Struct({"mood": pl.String, "score": pl.Float64})
TEXTS = pl.DataFrame({"n": range(26), "text": [None if n == 9 else f"text {n}" for n in range(26)]})
EIGHT = pl.DataFrame({"n": range(8), "text": [f"text {n}" for n in range(8)]})


@pytest.fixture
def take(emu, tmp_path, monkeypatch):
    """Return a copy of one of the runs, as if its service were the one of this test."""
    monkeypatch.setattr(access_check, "_KEPT", dt.timedelta())  # this service has forgotten the batches that ended

    def taken(name):
        folder = shutil.copytree(DATA / name, tmp_path / name)
        record = folder / "run.json"
        record.write_text(record.read_text().replace("http://service/v1", emu.base_url))
        return folder

    return taken


def submit_again(emu, folder, part):
    """Have the service execute a part's batch, with other ids than those in the run."""
    client = emu.client()
    record = folder / "parts" / part / "submissions" / "0.json"
    known = bf.open_run(folder).batches().filter(pl.col("part") == int(part)).row(0, named=True)
    with (folder / "parts" / part / "input.jsonl").open("rb") as handle:
        file = client.files.create(file=handle, purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"batchframe_run": "x"},
    )
    text = record.read_text().replace(known["batch_id"], batch.id).replace(known["input_file_id"], file.id)
    record.write_text(text)


def executions(emu):
    return emu.ledger()["by_custom_id"]


def half_done(emu, folder, **options):
    return bf.run(
        TEXTS, "Repeat {text}", client=emu.client(), model="gpt-4o-mini", temperature=0, run_dir=folder,
        poll_seconds=0.02, limits=bf.Limits(max_requests=10, max_in_flight=1), **options,
    )  # fmt: skip


def finished(emu, folder, frame=EIGHT, **options):
    return bf.run(
        frame, "How is {text}?", client=emu.client(), model="gpt-4o-mini", response_format=MOOD, run_dir=folder,
        poll_seconds=0.02, max_attempts=1, include=["model", "raw"], **options,
    )  # fmt: skip


def test_unfinished_run_is_read_without_a_service(take):
    run = bf.open_run(take("half-done"))
    out = run.result()
    assert out["usage"].dtype == USAGE
    status = run.status(refresh=False)
    # Row 5 is the one that 0.1.0 could not read; rows 3 and 7 were refused, row 9 is not sent.
    assert (status.succeeded, status.failed, status.not_sent, status.pending) == (9, 2, 1, 14)
    assert out["response"][5] == "In short: Repeat text 5 \ufffd."


def test_unfinished_run_resumes(emu, take):
    folder = take("half-done")
    submit_again(emu, folder, "0002")
    with pytest.warns(bf.BatchframeWarning, match="1 content_filter, 1 null_input"):
        out = half_done(emu, folder)
    assert executions(emu) == {f"row-{n}": 1 for n in (3, *range(12, 26))}, "parts 2 and 3, and what was refused"
    assert out["response"][5] == "In short: Repeat text 5 \ufffd."
    assert out["error"].null_count() == 24


def test_unfinished_run_retries_its_failures(emu, take):
    folder = take("half-done")
    submit_again(emu, folder, "0002")
    run = bf.open_run(folder, client=emu.client())
    run.wait()
    before = executions(emu)
    run.retry(codes="content_filter").wait()
    assert executions(emu) == before | {"row-7": 1}
    assert run.result()["error"].null_count() == 25


def test_attempt_prepared_by_0_1_0_omits_rows_readable_now(emu, take):
    folder = take("before-retry")
    with pytest.warns(bf.BatchframeWarning, match="1 content_filter"):
        out = bf.run(EIGHT, "Repeat {text}", client=emu.client(), model="gpt-4o-mini", temperature=0, run_dir=folder,
                     poll_seconds=0.02)  # fmt: skip
    assert executions(emu) == {"row-3": 1}
    assert out["response"][5] == "In short: Repeat text 5 \ufffd."


def test_attempt_with_only_readable_rows_is_not_submitted(emu, take):
    folder = take("before-retry")
    part = folder / "parts" / "0001"
    lines = (part / "input.jsonl").read_bytes().splitlines(keepends=True)
    (part / "input.jsonl").write_bytes(next(line for line in lines if b"row-5" in line))
    record = (part / "part.json").read_text()
    (part / "part.json").write_text(record.replace('"row-3",', "").replace('"requests": 2', '"requests": 1'))
    (folder / "retries.json").write_text('{"generation": 0, "settled_attempt": 1}')
    status = bf.open_run(folder, client=emu.client()).wait()
    assert (status.state, status.succeeded, status.failed) == ("finished", 6, 2)
    assert executions(emu) == {}


def check_finished(out):
    assert out["usage"].dtype == USAGE
    assert out["usage"].struct.field("cache_write_tokens").null_count() == 8
    assert out["error"].struct.field("code").to_list() == [None] * 7 + ["content_filter"]
    assert out["response"][5]["mood"].startswith("so so \ufffd")
    assert out["response"][6]["mood"] == "How is text 6"


def test_finished_run_is_read_again_from_its_result_files(take):
    check_finished(bf.open_run(take("finished")).result())


@pytest.mark.filterwarnings("ignore:1 of 8 rows")
def test_finished_run_is_returned_by_the_same_call(emu, take):
    folder = take("finished")
    check_finished(finished(emu, folder))
    check_finished(finished(emu, folder, EIGHT.reverse()).reverse())
    assert (emu.calls(), executions(emu)) == ({}, {})


def test_finished_run_is_read_as_another_type(take):
    run = bf.open_run(take("finished"))
    out = run.reparse(response_format=None).result()
    assert out["response"][5].startswith('{"mood": "so so \ufffd')
    assert out["usage"].dtype == USAGE


def test_finished_run_retries_once(emu, take):
    run = bf.open_run(take("finished"), client=emu.client())
    run.retry(codes="rate_limit_exceeded").wait()
    assert executions(emu) == {}
    run.retry(codes="content_filter").wait()
    assert executions(emu) == {"row-7": 1}
    assert run.result()["error"].null_count() == 8


def test_finished_run_without_result_files_keeps_its_results(take):
    folder = take("finished")
    for path in folder.glob("parts/*/submissions/*.jsonl"):
        path.unlink()
    with pytest.warns(
        bf.BatchframeWarning, match=r"by an earlier version .* cannot be read again: .*0\.output\.jsonl is gone"
    ):
        out = bf.open_run(folder).result()
    assert out["usage"].dtype == USAGE
    assert out["usage"][0]["input_tokens"] == 66
    assert out["usage"].struct.field("cache_write_tokens").null_count() == 8
    assert out["error"].struct.field("code").to_list() == [None] * 5 + ["malformed_line"] * 2 + ["content_filter"]


@pytest.mark.filterwarnings("ignore:.* of 8 rows")
def test_answers_are_reused_by_another_run(emu, take):
    folder = take("finished")
    bf.run(EIGHT, "How is {text}?", client=emu.client(), model="gpt-4o-mini", response_format=MOOD, reuse=folder,
           poll_seconds=0.02, name="anew")  # fmt: skip
    assert executions(emu) == {"row-7": 1}


def test_later_reader_rebuilds_derived_files(emu, take, monkeypatch):
    """Files derived from result files are rebuilt once for each version of the reader."""
    run = bf.open_run(take("finished"))
    run.result()
    note = run.path / "results.json"
    for version in (result_lines.READER, result_lines.READER + 1):
        monkeypatch.setattr("batchframe._results.result_blocks.READER", version)
        before = note.stat().st_mtime_ns
        bf.open_run(run.path).result()
        assert (note.stat().st_mtime_ns > before) == (version != result_lines.READER)
        assert f'"reader": {version}' in note.read_text()
