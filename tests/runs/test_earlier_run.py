"""Resume a run that an earlier version of batchframe started.

The fixture was killed while it uploaded its second part; a row of the first had been refused for its rate.
"""

from __future__ import annotations

import datetime as dt
import shutil
from pathlib import Path

import polars as pl
import pytest

import batchframe as bf
from batchframe._batches import access_check

FIXTURE = Path(__file__).parents[1] / "data" / "run-of-version-1"


@pytest.fixture
def folder(emu, tmp_path, monkeypatch):
    """The run, as if its service were the one of this test, which has forgotten the batch of the first part."""
    monkeypatch.setattr(access_check, "_KEPT", dt.timedelta())
    copied = shutil.copytree(FIXTURE, tmp_path / "run")
    record = copied / "run.json"
    record.write_text(record.read_text().replace("http://service/v1", emu.base_url))
    return copied


def test_reading_needs_no_service(folder):
    run = bf.open_run(folder)
    assert run.result().select("n", "text").rows() == [(n, None if n == 5 else f"text {n}") for n in range(12)]
    status = run.status(refresh=False)
    assert (status.rows, status.not_sent, status.failed, status.pending) == (12, 1, 1, 10)
    assert status.state == "running"


def test_opened_run_can_be_finished(emu, folder):
    status = bf.open_run(folder, client=emu.client()).wait()
    assert (status.succeeded, status.not_sent) == (11, 1)
    out = bf.open_run(folder).result()
    answered = out.filter(pl.col("error").is_null())
    assert answered["response"].to_list() == [f"In short: Repeat text {n}." for n in range(12) if n != 5]
    assert emu.ledger()["by_custom_id"] == {f"row-{n}": 1 for n in range(12) if n != 5}


def test_repeated_call_resumes_it(emu, folder):
    frame = pl.DataFrame({"n": range(12), "text": [None if n == 5 else f"text {n}" for n in range(12)]})
    with pytest.warns(bf.BatchframeWarning, match="1 null_input"):
        out = bf.run(frame, "Repeat {text}", client=emu.client(), model="gpt-4o-mini", temperature=0,
                     poll_seconds=0.02, run_dir=folder)  # fmt: skip
    assert out["error"].null_count() == 11
    assert emu.ledger(summary=True)["executions"] == 11
