"""Where an emulator keeps things: a temporary folder, or one that outlives the process.

A kept folder holds, besides the bytes of files, partial results and the ledger, a small record of each file and of each
batch, replaced as a whole whenever its state changes: the records are what counts, bytes without one are left-overs.
Prompts and answers are in it, so nobody else may read it.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from batchframe.emulator._batches import Batch  # noqa: TC001 - msgspec reads the annotations
from batchframe.emulator._files import File, Files, Handling

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchframe.emulator._lifecycle import Job


class FileRecord(msgspec.Struct):
    """A file: its object, and what is not shown of it."""

    number: int
    file: File
    handling: Handling


class BatchRecord(msgspec.Struct):
    """A batch: its object, and what its work needs."""

    number: int
    batch: Batch
    owner: str
    deadline: float | None
    """None: it does not expire."""
    life_seconds: int | None
    stop: Literal["cancel", "expire"] | None
    deletes_input: bool = False


class State:
    """The folder of one emulator; `kept` names one that stays."""

    def __init__(self, kept: str | os.PathLike[str] | None = None) -> None:
        self.is_kept = kept is not None
        self.root = Path(tempfile.mkdtemp(prefix="batchframe-emulator-")) if kept is None else Path(kept)
        self._locked = contextlib.ExitStack()
        if self.is_kept:
            self._locked.enter_context(_locked(self.root))
        self.scratch = self.root / "scratch"
        # Uploads that were under way when the process died.
        shutil.rmtree(self.scratch, ignore_errors=True)
        for name in ("scratch", "files", "work"):
            _make_private(self.root / name)
        self._files, self._batches = _records(self.root)

    def files(self) -> Files:
        """Open the files."""
        return _KeptFiles(self.root / "files", self._files) if self.is_kept else Files(self.root / "files")

    def work_folder(self, batch_id: str) -> Path:
        """Return the folder for the work on a batch."""
        folder = self.root / "work" / batch_id
        _make_private(folder)
        return folder

    def batches(self) -> Iterator[BatchRecord]:
        """Return the batches that are there, the oldest first."""
        yield from self._batches.read()

    def keep(self, job: Job) -> None:
        """Record the state of a batch."""
        if self.is_kept:
            number = self._batches.number(job.id)
            deadline = None if job.deadline == math.inf else job.deadline
            record = BatchRecord(number, job.batch, job.owner, deadline, job.life_seconds, job.stop, job.deletes_input)
            self._batches.write(job.id, record)

    def handed_over(self, path: Path) -> Path:
        """Return a result file as it is given away; its batch may need it again until the end is on record."""
        if not self.is_kept:
            return path
        other = path.with_suffix(".handed-over")
        other.unlink(missing_ok=True)
        _link(path, other)
        return other

    def own_input(self, batch_id: str, path: Path) -> Path:
        """Return a batch's input, which a batch of a kept folder has for itself: the file may be deleted meanwhile."""
        if not self.is_kept:
            return path
        own = self.work_folder(batch_id) / "input"
        if not own.exists():
            _link(path, own)
        return own

    def close(self) -> None:
        """Let go of a folder that stays; remove any other."""
        self._locked.close()
        if not self.is_kept:
            shutil.rmtree(self.root, ignore_errors=True)

    def clear(self) -> None:
        """Remove what is in the folder; the emulator must not be working on it."""
        for name in ("scratch", "files", "work", "file-records", "batch-records"):
            shutil.rmtree(self.root / name, ignore_errors=True)
        (self.root / "ledger").unlink(missing_ok=True)


class _Records:
    """Records of one kind, each in a file of its own."""

    def __init__(self, folder: Path, kind: type[Any]) -> None:
        self._folder = folder
        self._decoder = msgspec.json.Decoder(kind)
        self._numbers: dict[str, int] = {}
        self._next = itertools.count()

    def read(self) -> list[Any]:
        """Read all, in the order of their creation."""
        found = {path.stem: self._read(path) for path in self._folder.glob("*.json")}
        self._numbers = {name: record.number for name, record in found.items()}
        self._next = itertools.count(max(self._numbers.values(), default=-1) + 1)
        return sorted(found.values(), key=lambda record: record.number)

    def _read(self, path: Path) -> Any:
        try:
            return self._decoder.decode(path.read_bytes())
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            msg = f"the record {path} is damaged: {exc}. Move it away to start without what it is of"
            raise RuntimeError(msg) from exc

    def number(self, name: str) -> int:
        """Return the place of a record in that order."""
        if name not in self._numbers:
            self._numbers[name] = next(self._next)
        return self._numbers[name]

    def write(self, name: str, record: Any) -> None:
        """Write a record whole or not at all, so that it survives the machine too."""
        _make_private(self._folder)
        path = self._folder / f"{name}.json"
        new = path.with_suffix(".new")
        with new.open("wb") as file:
            file.write(msgspec.json.encode(record))
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        _sync_folder(self._folder)

    def remove(self, name: str) -> None:
        """Remove a record."""
        (self._folder / f"{name}.json").unlink(missing_ok=True)
        self._numbers.pop(name, None)


class _KeptFiles(Files):
    """Files with records."""

    def __init__(self, folder: Path, records: _Records) -> None:
        super().__init__(folder)
        self._records = records
        for record in records.read():
            self._files[record.file.id] = record.file
            self._handling[record.file.id] = record.handling
        for path in folder.iterdir():
            if path.name not in self._files:
                path.unlink()

    def add(self, source: Path, file: File, handling: Handling) -> File:
        with source.open("rb") as written:
            os.fsync(written.fileno())
        super().add(source, file, handling)
        _sync_folder(self._folder)
        self._records.write(file.id, FileRecord(self._records.number(file.id), file, handling))
        return file

    def _drop(self, file_id: str) -> None:
        self._records.remove(file_id)
        super()._drop(file_id)


def drop_results(files: Files, batch: Batch, owner: str) -> None:
    """Remove result files that were made when the process died before the batch's end was on record."""
    names = {f"{batch.id}_output.jsonl", f"{batch.id}_error.jsonl"}
    for file in files.newest_first(owner):
        if file.purpose == "batch_output" and file.filename in names:
            files.delete(file.id, owner)


def check_usable(folder: str | os.PathLike[str] | None) -> None:
    """Refuse, before a server starts, a folder that another emulator has, or in which a record is damaged."""
    if folder is not None:
        with _locked(Path(folder)):
            for records in _records(Path(folder)):
                records.read()


def _records(root: Path) -> tuple[_Records, _Records]:
    """Return the records of files and those of batches."""
    return _Records(root / "file-records", FileRecord), _Records(root / "batch-records", BatchRecord)


def _make_private(folder: Path) -> None:
    """Make a folder that only its owner can enter; one that an earlier version made becomes so."""
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)


def _link(path: Path, other: Path) -> None:
    """Give a file a second name, or make a copy where the file system has no such thing."""
    try:
        os.link(path, other)
    except OSError:
        # Renamed: a copy that was not finished must not be taken for the file.
        unfinished = other.with_suffix(".unfinished")
        shutil.copyfile(path, unfinished)
        unfinished.replace(other)


def _sync_folder(folder: Path) -> None:
    """Make new names in a folder survive the machine, where folders can be opened at all."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _locked(folder: Path) -> contextlib.AbstractContextManager[Any]:
    """Lock a folder against a second emulator; the system lets go of the lock when the process dies, however."""
    try:
        import filelock  # noqa: PLC0415 - only who keeps state needs it
    except ImportError as exc:
        raise ImportError(f'state_dir needs the extra: pip install "batchframe[emulator]" ({exc})') from exc
    # A folder that was there stays as open as it is: it is the user's. What is put into it is private.
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / "lock", mode=0o600)
    try:
        return lock.acquire(timeout=0)
    except filelock.Timeout as exc:
        raise RuntimeError(f"another emulator works in {folder}") from exc
