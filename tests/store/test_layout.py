"""The layout on disk is fixed: a run folder built by hand from its description can be read."""

from __future__ import annotations

import hashlib
import json

import polars as pl
import pytest

import batchframe as bf
from batchframe._results import assemble


@pytest.fixture(params=[64_000_000, 0], ids=["in memory", "spilled"], autouse=True)
def held_bytes(monkeypatch, request):
    """Read the answers both ways: as few, and as too many for memory."""
    monkeypatch.setattr(assemble, "_HELD_BYTES", request.param)


def line(custom_id, text=None, *, status=200, code=None):
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    body = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}], "usage": usage}
    if status != 200:
        body = {"error": {"code": code, "message": f"said {code}"}}
    response = {"status_code": status, "request_id": f"req-{custom_id}", "body": body}
    return json.dumps({"custom_id": custom_id, "response": response, "error": None}) + "\n"


class Builder:
    """Writes a run folder from the description of the layout alone."""

    def __init__(self, path, rows, blocks, *, request=None, code=None):
        self.path = path
        ids = [f"row-{n}" for n in range(len(rows))]
        frame = pl.DataFrame(
            {
                "text": rows,
                "batchframe:custom_id": ids,
                "batchframe:digest": [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in rows],
                "batchframe:request": request or [None] * len(rows),
                "batchframe:code": code or [None] * len(rows),
                "batchframe:message": [None if not value else "why" for value in code or [None] * len(rows)],
            },
            schema_overrides=dict.fromkeys(["batchframe:request", "batchframe:code", "batchframe:message"], pl.String),
        )
        (path / "rows").mkdir(parents=True)
        offset = 0
        for number, height in enumerate(blocks):
            frame[offset : offset + height].write_parquet(path / "rows" / f"{number:04d}.parquet")
            offset += height
        account = {"provider": "openai", "base_url": "https://api.openai.com/v1", "organization": None, "project": None}
        identity = {"digest": "0" * 32, "requests": len(rows), "endpoint": "/v1/chat/completions", "account": account}
        self.json(
            "run.json",
            {
                "schema_version": 1,
                "run_id": "a" * 32,
                "identity": identity,
                "rows": len(rows),
                "blocks": blocks,
                "options": {"model": "gpt-4o-mini", "max_attempts": 1},
                "created_at": "2026-11-01T00:00:00Z",
                "batchframe_version": "0.1.0",
            },
        )

    def json(self, name, value):
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))

    def part(self, number, **what):
        self.json(f"parts/{number:04d}/part.json", {"number": number, "requests": 1, "bytes": 1, "tokens": 1} | what)

    def submission(self, part, number, *, stage="downloaded", status="completed", output="", error=None):
        batch_id = f"batch-{part}-{number}"
        self.json(
            f"parts/{part:04d}/submissions/{number}.json",
            {"number": number, "stage": stage, "batch_id": batch_id, "status": status},
        )
        for kind, text in (("output", output), ("error", error)):
            if stage == "downloaded" and text is not None:
                (self.path / f"parts/{part:04d}/submissions/{number}.{kind}.jsonl").write_text(text)


def codes(frame):
    return frame["error"].struct.field("code").to_list()


def test_retry_second_submission_and_block_boundary(tmp_path):
    built = Builder(tmp_path / "r", list("abcdef"), [4, 2])
    # Part 0: rows 0 to 4, over both blocks. Its first submission failed validation, its second was answered in part.
    built.part(0, ranges=[[0, 0, 4], [1, 0, 1]])
    built.submission(0, 0, stage="ended", status="failed")
    built.submission(
        0,
        1,
        output=line("row-3", "D") + line("row-0", "A"),
        error=line("row-1", status=500, code="server_error") + line("row-4", status=429, code="slow"),  # fmt: skip
    )
    built.part(1, ranges=[[1, 1, 2]])
    built.submission(1, 0, output=line("row-5", "F"))
    # A retry of the failures of part 0, in another order; row 4 fails again, with another message.
    built.part(2, custom_ids=["row-4", "row-1"], attempt=2)
    built.submission(2, 0, output=line("row-1", "B"), error=line("row-4", status=400, code="bad"))
    run = bf.open_run(tmp_path / "r")
    out = run.result()
    assert out["text"].to_list() == list("abcdef")
    assert out["response"].to_list() == ["A", "B", None, "D", None, "F"]
    assert codes(out) == [None, None, "missing", None, "bad", None]
    status = run.status(refresh=False)
    assert (status.done, status.succeeded, status.failed, status.not_sent, status.pending) == (True, 4, 2, 0, 0)
    assert status.usage["total_tokens"] == 12
    assert run.batches()["batch_id"].to_list() == ["batch-0-0", "batch-0-1", "batch-1-0", "batch-2-0"]


def test_success_beats_a_later_failure(tmp_path):
    built = Builder(tmp_path / "r", ["a", "b"], [2])
    built.part(0, ranges=[[0, 0, 2]])
    built.submission(0, 0, output=line("row-0", "A"), error=line("row-1", status=500, code="first"))
    built.part(1, custom_ids=["row-0", "row-1"], attempt=2)
    built.submission(1, 0, error=line("row-0", status=500, code="late") + line("row-1", status=400, code="second"))
    out = bf.open_run(tmp_path / "r").result()
    assert out["response"].to_list() == ["A", None]
    assert codes(out) == [None, "second"]


def test_running_retry_is_pending(tmp_path):
    built = Builder(tmp_path / "r", ["a", "b", "c"], [3])
    built.part(0, ranges=[[0, 0, 3]])
    failed = line("row-1", status=500, code="x") + line("row-2", status=400, code="y")
    built.submission(0, 0, output=line("row-0", "A"), error=failed)
    built.part(1, custom_ids=["row-1"], attempt=2)
    built.submission(1, 0, stage="submitted", status="in_progress")
    run = bf.open_run(tmp_path / "r")
    assert codes(run.result()) == [None, "pending", "y"]
    assert not run.status(refresh=False).done


def test_split_part_is_replaced_by_its_pieces(tmp_path):
    built = Builder(tmp_path / "r", ["a", "b", "c"], [3])
    built.part(0, ranges=[[0, 0, 3]])
    built.submission(0, 0, stage="ended", status="failed")
    built.part(1, ranges=[[0, 0, 2]], split_from=0, pieces=2)
    built.submission(1, 0, output=line("row-1", "B") + line("row-0", "A"))
    # A crash left one piece alone: it does not count.
    assert codes(bf.open_run(tmp_path / "r").result()) == ["pending"] * 3
    built.part(2, custom_ids=["row-2"], split_from=0, pieces=2)
    built.submission(2, 0, stage="submitted", status="validating")
    run = bf.open_run(tmp_path / "r")
    assert run.result()["response"].to_list() == ["A", "B", None]
    assert codes(run.result()) == [None, None, "pending"]
    built.submission(2, 0, output=line("row-2", "C"))
    assert bf.open_run(tmp_path / "r").status(refresh=False).succeeded == 3


def test_dedupe_run_fans_out_answers(tmp_path):
    # Rows 2 and 3 have the requests of rows 0 and 1; row 4 was not sent. Rows and the requests that answer them lie in
    # different blocks.
    request = [None, None, "row-0", "row-1", None]
    code = [None, None, None, None, "null_input"]
    built = Builder(tmp_path / "r", ["a", "b", "a", "b", "x"], [2, 3], request=request, code=code)
    built.part(0, custom_ids=["row-0"])
    built.submission(0, 0, output=line("row-0", "A"))
    built.part(1, custom_ids=["row-1"])
    built.submission(1, 0, stage="submitted", status="in_progress")
    run = bf.open_run(tmp_path / "r")
    assert run.result()["response"].to_list() == ["A", None, "A", None, None]
    assert codes(run.result()) == [None, "pending", None, "pending", "null_input"]
    built.submission(1, 0, output="", error=line("row-1", status=400, code="bad"))
    run = bf.open_run(tmp_path / "r")
    assert codes(run.result()) == [None, "bad", None, "bad", "null_input"]
    assert run.result()["custom_id"].to_list() == [f"row-{n}" for n in range(5)]
    status = run.status(refresh=False)
    assert (status.succeeded, status.failed, status.not_sent, status.rows) == (2, 2, 1, 5)


def test_unsubmitted_part_is_pending(tmp_path):
    built = Builder(tmp_path / "r", ["a", "b"], [1, 1])
    built.part(0, ranges=[[0, 0, 1]])
    built.submission(0, 0, output=line("row-0", "A"))
    built.part(1, ranges=[[1, 0, 1]])
    assert codes(bf.open_run(tmp_path / "r").result()) == [None, "pending"]


def test_results_are_rebuilt_from_result_files(tmp_path):
    built = Builder(tmp_path / "r", ["a", "b"], [1, 1])
    built.part(0, ranges=[[0, 0, 1], [1, 0, 1]])
    built.submission(0, 0, output=line("row-1", "B") + line("row-0", "A"))
    first = bf.open_run(tmp_path / "r").result()
    (tmp_path / "r" / "results" / "0001.parquet").unlink()
    assert bf.open_run(tmp_path / "r").result().equals(first)
    (tmp_path / "r" / "results.json").unlink()
    assert bf.open_run(tmp_path / "r").result().equals(first)
    assert not [path for path in (tmp_path / "r" / "results").iterdir() if path.name.startswith(".")]


def test_missing_downloaded_file_is_named(tmp_path):
    built = Builder(tmp_path / "r", ["a"], [1])
    built.part(0, ranges=[[0, 0, 1]])
    built.submission(0, 0, output=line("row-0", "A"))
    (tmp_path / "r" / "parts" / "0000" / "submissions" / "0.output.jsonl").unlink()
    with pytest.raises(bf.ResultsError, match=r"0\.output\.jsonl is gone"):
        bf.open_run(tmp_path / "r").result()
