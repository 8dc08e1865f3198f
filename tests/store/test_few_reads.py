"""A handle reads each record once, and again only after another process changed it; the cache is never stale."""

from __future__ import annotations

import collections
import os
import sys
from pathlib import Path

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import batchframe as bf
from batchframe._store.record_files import RecordFiles
from batchframe._store.records import PartRecord, SubmissionRecord
from batchframe._store.run_folder import RunFolder

ARGUMENTS = {"model": "gpt-4o-mini", "poll_seconds": 0.02, "limits": bf.Limits(max_requests=1)}


class Opened:
    """Counts how often each record was opened for reading."""

    def __init__(self):
        self.counts = None
        # A hook cannot be removed; it counts only while a test listens.
        sys.addaudithook(self._hear)

    def _hear(self, event, arguments):
        if event == "open" and self.counts is not None:
            path, _, flags = arguments
            is_record = isinstance(path, str) and path.endswith(".json") and not path.endswith("lease.json")
            if is_record and not flags & (os.O_WRONLY | os.O_RDWR) and Path(path).exists():
                self.counts[path] += 1


OPENED = Opened()


@pytest.fixture
def opened():
    OPENED.counts = collections.Counter()
    yield OPENED.counts
    OPENED.counts = None


def submitted(emu, parts):
    """Submit every part; batches progress only in steps."""
    emu.configure(progression="stepped")
    run = bf.submit(pl.DataFrame({"n": range(parts)}), "Repeat {n}", client=emu.client(), **ARGUMENTS)
    while len(run.batches()) < parts:
        run.advance()
        emu.step()
    return run


@pytest.mark.parametrize("parts", [8, pytest.param(80, marks=pytest.mark.slow)])
def test_five_passes_read_each_record_once(emu, opened, parts):
    path = submitted(emu, parts).path
    run = bf.open_run(path, client=emu.client())
    opened.clear()
    for _ in range(4):
        run.advance()
    emu.step(9)
    assert run.advance().succeeded == parts
    assert len(opened) >= 2 * parts
    assert max(opened.values()) == 1


def test_only_records_changed_by_another_handle_are_read_again(emu, opened):
    watching = submitted(emu, 8)
    assert watching.status(refresh=False).pending == 8
    opened.clear()
    assert watching.status(refresh=False).pending == 8
    assert opened == {}
    emu.step(9)
    working = bf.open_run(watching.path, client=emu.client())
    assert working.advance().done
    opened.clear()
    assert watching.status(refresh=False).succeeded == 8
    records = {os.path.relpath(path, watching.path) for path in opened}
    assert records == {f"parts/{number:04d}/submissions/0.json" for number in range(8)} | {
        "results.json",
        "retries.json",
    }
    assert watching.result().equals(working.result())


def test_unwritten_change_is_not_cached(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_submission(0, SubmissionRecord(0, "uploaded"))
    folder.write_part(PartRecord(0, 1, 1, 1, custom_ids=["a"]))
    (submission,), (part,) = folder.submissions(0), folder.parts()
    submission.stage = "submitted"
    submission.times["x"] = submission.said
    part.custom_ids.append("b")
    assert folder.submissions(0) == [SubmissionRecord(0, "uploaded")]
    assert folder.parts() == [PartRecord(0, 1, 1, 1, custom_ids=["a"])]


def test_large_record_is_not_cached(tmp_path, opened):
    folder = RunFolder(tmp_path)
    part = PartRecord(0, 1, 1, 1, custom_ids=[f"row-{n}" for n in range(20_000)])
    folder.write_part(part)
    assert folder.parts() == folder.parts() == [part]
    assert set(opened.values()) == {2}


SECOND = 1_000_000_000
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "remove", "read"]), st.integers(0, 2), st.integers(0, 9),
        st.sampled_from([0, 1, -SECOND, SECOND]),
    ),
    max_size=30,
)  # fmt: skip


@given(STEPS)
@example([("write", 0, 1, 0), ("write", 1, 2, 0), ("write", 2, 3, 0)])
@example([("write", 0, 1, 0), ("write", 1, 2, SECOND), ("write", 2, 3, -SECOND)])
def test_cache_is_never_stale_at_any_clock(tmp_path_factory, steps):
    """All records have the same size, and inodes are reused, so only their times differ."""
    path = tmp_path_factory.mktemp("run")
    (path / "run.json").touch()
    folders = [RunFolder(path) for _ in range(3)]
    present, now, latest = None, 10**18, 10**18
    date = RecordFiles.date

    def date_by_this_clock(temporary, replaced):
        os.utime(temporary, ns=(now, now))
        return date(temporary, replaced)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RecordFiles, "date", staticmethod(date_by_this_clock))
        for step, who, value, passed in steps:
            now += passed
            latest = max(now, latest) + 1_000
            if step == "write":
                folders[who].write_note("note.json", value)
                present = value
            elif step == "remove":
                folders[who].remove_note("note.json")
                present, now = None, latest + SECOND  # it comes back later than it went
            assert folders[who].read_note("note.json") == present
        assert [folder.read_note("note.json") for folder in folders] == [present] * 3
