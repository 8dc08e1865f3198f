"""Full disks, removed folders and truncated files: a clear error, nothing lost, nothing billed twice."""

from __future__ import annotations

import errno
import os
import shutil

import polars as pl
import pytest

import batchframe as bf
from batchframe._core import events
from batchframe._store import filesystem
from batchframe.cli import main

N = 30
FRAME = pl.DataFrame({"n": range(N)})
ARGUMENTS = {"model": "gpt-4o-mini", "poll_seconds": 0.02, "settle_seconds": 0.2}
LIMITS = bf.Limits(max_requests=20)  # parts of 2, 20 and 8
SLOW = pytest.mark.slow


def run(client, path, **options):
    return bf.run(FRAME, "Repeat {n}", client=client, run_dir=path, limits=LIMITS, **ARGUMENTS | options)


def is_whole(out):
    return out["n"].to_list() == list(range(N)) and out["error"].null_count() == N


def once_each(emu):
    return emu.ledger()["by_custom_id"] == {f"row-{n}": 1 for n in range(N)}


@pytest.fixture
def trigger():
    """Call a function the first time that a run reaches a trigger point."""
    points = []

    def begin(point, act):
        def once():
            events.set_trigger(point, None)
            act()

        points.append(point)
        events.set_trigger(point, once)

    yield begin
    for point in points:
        events.set_trigger(point, None)


# -- a full disk


@pytest.mark.parametrize("nth", [0, pytest.param(1, marks=SLOW), 5, 9, pytest.param(14, marks=SLOW), 20])
def test_full_disk_error_names_the_file_and_the_call_resumes(emu, client, tmp_path, monkeypatch, nth):
    emu.row_fault("status", status=500, custom_ids=["row-3"])
    fsync, writes = os.fsync, iter(range(1_000))

    def full(handle):
        if next(writes) >= nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        run(client, tmp_path / "run")
    assert str(caught.value.filename).startswith(str(tmp_path))
    monkeypatch.undo()
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp") or path.name.startswith(".new")]
    assert is_whole(run(client, tmp_path / "run"))
    assert once_each(emu)


def test_polars_write_error_names_the_file(tmp_path):
    """Polars raises its own error, or an OSError without number and name."""
    for error in (
        OSError("No space left on device (os error 28)"),
        pl.exceptions.ComputeError("parquet: underlying IO error: No space left on device (os error 28)"),
    ):
        with pytest.raises(OSError, match="No space left on device: ") as caught, filesystem.naming(tmp_path / "x"):
            raise error
        assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "x"))
    with pytest.raises(pl.exceptions.ComputeError), filesystem.naming(tmp_path / "x"):
        raise pl.exceptions.ComputeError("a mistake of the user's")


def test_unsaved_answers_are_not_reported_missing(client, tmp_path, monkeypatch):
    """A rename may fail because the disk is full, not only because another process was first."""
    run(client, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "results")
    (tmp_path / "run" / "results.json").unlink()
    rename = type(tmp_path).rename

    def refused(self, target):
        if ".answers" in str(target):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        return rename(self, target)

    monkeypatch.setattr(type(tmp_path), "rename", refused)
    with pytest.raises(OSError, match="No space left"):
        bf.open_run(tmp_path / "run").result()
    monkeypatch.undo()
    assert is_whole(bf.open_run(tmp_path / "run").result())


# -- a folder that goes away


POINTS = ("after_upload_call", "before_create", "after_create_call", "after_download", "before_settle")


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("how", ["moved", pytest.param("deleted", marks=SLOW), "replaced by a file"])
def test_folder_removed_during_a_pass(emu, tmp_path, trigger, how, point):
    client = emu.client()
    here, there = tmp_path / "here", tmp_path / "there"

    def go_away():
        if how == "moved":
            here.rename(there)
            return
        shutil.rmtree(here)
        if how != "deleted":
            here.write_text("")

    trigger(point, go_away)
    with pytest.raises((bf.RunNotFoundError, OSError), match=str(here)):
        run(client, here)
    assert not here.is_dir()
    if here.exists():
        here.unlink()
    assert is_whole(run(client, there if how == "moved" else here))
    assert once_each(emu)


def test_missing_parts_are_not_missing_answers(emu, client, tmp_path):
    assert is_whole(run(client, tmp_path / "run"))
    shutil.rmtree(tmp_path / "run" / "parts" / "0001")
    (tmp_path / "run" / "results.json").unlink()
    with pytest.raises(bf.DamagedRunError, match=r"parts is incomplete \(20 rows are in no part\)"):
        bf.open_run(tmp_path / "run", client=client).wait()
    (tmp_path / "run").rename(tmp_path / "away")
    assert is_whole(run(client, tmp_path / "run"))
    assert once_each(emu)


# -- files that are cut off, or something else


FILES = ("run.json", "parts/0001/part.json", "parts/0001/submissions/0.json", "rows/0000.parquet")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty", marks=SLOW),
        pytest.param(None, id="half"),
        pytest.param(b"\xff\x00\xff", id="other bytes", marks=SLOW),
        pytest.param(b"{}", id="{}", marks=SLOW),
    ],
)
@pytest.mark.parametrize("name", FILES)
def test_damaged_file_error_names_file_and_remedies(emu, tmp_path, name, content, capsys):
    client = emu.client()
    run(client, tmp_path / "run")
    path = tmp_path / "run" / name
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    (tmp_path / "run" / "results.json").unlink()
    message = rf"{name} cannot be read \(.*\)\. Restore it from a copy of the run; or move the folder .* away"
    with pytest.raises(bf.DamagedRunError, match=message):
        bf.open_run(tmp_path / "run", client=client).result()
    assert main(["status", str(tmp_path / "run")]) == 1
    assert name in capsys.readouterr().err
    with pytest.warns(bf.BatchframeWarning, match="is left out: "):
        assert bf.list_runs(tmp_path).height == 0
    with pytest.raises(bf.DamagedRunError, match=message):
        run(client, tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "away")
    assert is_whole(run(client, tmp_path / "run"))
    assert once_each(emu)


def test_unreadable_cancel_is_not_ignored(emu, client, tmp_path):
    emu.configure(progression="stepped")
    going = bf.submit(FRAME, "Repeat {n}", client=client, run_dir=tmp_path / "run", limits=LIMITS, **ARGUMENTS)
    (going.path / "stopped.json").write_text('{"generation": 0, "rea')
    creates = emu.calls()["create_batch"]
    with pytest.raises(bf.DamagedRunError, match=r"stopped\.json cannot be read"):
        going.advance()
    assert emu.calls()["create_batch"] == creates


@pytest.mark.parametrize("content", [pytest.param(b"", marks=SLOW), b"half", pytest.param(b"[1]", marks=SLOW), b"{}"])
@pytest.mark.parametrize("name", ["results.json", "results/0000.parquet", "retries.json", "account.json"])
def test_derived_files_are_rebuilt(emu, client, tmp_path, name, content):
    run(client, tmp_path / "run")
    (tmp_path / "run" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "run" / name).write_bytes(content)
    assert is_whole(bf.open_run(tmp_path / "run").result())
    assert is_whole(run(client, tmp_path / "run"))
    assert once_each(emu)


def test_truncated_parsed_answers_are_rebuilt(emu, client, tmp_path):
    emu.row_fault("status", status=500, custom_ids=["row-3"])
    going = bf.submit(FRAME, "Repeat {n}", client=client, run_dir=tmp_path / "run", limits=LIMITS, **ARGUMENTS)
    while going.status().pending > 1:
        assert not going.is_finished
    paths = list(going.path.glob("results/.answers/*/*.arrow"))
    assert paths
    for path in paths:
        path.write_bytes(path.read_bytes()[:100])
    assert going.result()["error"].null_count() == N - 1
    assert going.wait().succeeded == N
    assert once_each(emu)
