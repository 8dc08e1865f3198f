"""Where an emulator keeps its data: a temporary folder, or a state folder that outlives the process.

A state folder holds the bytes of files, partial results, the ledger, and a small record of each file and each batch. A
record is replaced as a whole whenever its state changes. Records are authoritative: bytes without one are leftovers.
The folder holds prompts and answers, so only its owner may read it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
import msgspec

from batchframe.emulator._batches.batch_record import BatchRecord
from batchframe.emulator._batches.files import File, Files, Handling

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchframe.emulator._batches.batch_object import Batch


class FileRecord(msgspec.Struct):
    """A file object, and what clients do not see of the file."""

    number: int
    """The file's place in the order of creation."""
    file: File
    handling: Handling


class Storage:
    """The folder of one emulator. `state_dir` outlives the process; None makes a temporary folder."""

    def __init__(self, state_dir: str | os.PathLike[str] | None = None) -> None:
        self.is_kept = state_dir is not None
        self.root = Path(tempfile.mkdtemp(prefix="batchframe-emulator-")) if state_dir is None else Path(state_dir)
        self._locked = contextlib.ExitStack()
        if self.is_kept:
            self._locked.enter_context(_locked(self.root))
        self.scratch = self.root / "scratch"
        # Uploads that were under way when an earlier process died.
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
        """Return the recorded batches, oldest first."""
        yield from self._batches.read()

    def keep(self, record: BatchRecord) -> None:
        """Record the state of a batch."""
        if self.is_kept:
            record.number = self._batches.number(record.batch.id)
            self._batches.write(record.batch.id, record)

    def movable_copy(self, path: Path) -> Path:
        """Return a path of a result file that may be moved away: the batch needs its own until its end is recorded."""
        if not self.is_kept:
            return path
        copy = path.with_suffix(".handed-over")
        copy.unlink(missing_ok=True)
        _link(path, copy)
        return copy

    def own_input(self, batch_id: str, path: Path) -> Path:
        """Return a batch's input; in a state folder a link of its own, as the file may be deleted meanwhile."""
        if not self.is_kept:
            return path
        own = self.work_folder(batch_id) / "input"
        if not own.exists():
            _link(path, own)
        return own

    def close(self) -> None:
        """Unlock a state folder; remove a temporary one."""
        self._locked.close()
        if not self.is_kept:
            shutil.rmtree(self.root, ignore_errors=True)

    def clear(self) -> None:
        """Remove everything in the folder; no work may be going on in it."""
        for name in ("scratch", "files", "work", "file-records", "batch-records"):
            shutil.rmtree(self.root / name, ignore_errors=True)
        (self.root / "ledger").unlink(missing_ok=True)


class _Records:
    """The records of one kind, each in a file of its own."""

    def __init__(self, folder: Path, kind: type[Any]) -> None:
        self._folder = folder
        self._decoder = msgspec.json.Decoder(kind)
        self._numbers: dict[str, int] = {}
        self._next = itertools.count()

    def read(self) -> list[Any]:
        """Read all records, in the order of creation."""
        records = {path.stem: self._read(path) for path in self._folder.glob("*.json")}
        self._numbers = {name: record.number for name, record in records.items()}
        self._next = itertools.count(max(self._numbers.values(), default=-1) + 1)
        return sorted(records.values(), key=lambda record: record.number)

    def _read(self, path: Path) -> Any:
        try:
            return self._decoder.decode(path.read_bytes())
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            msg = f"the record {path} is damaged: {exc}. Move it away to start without it"
            raise RuntimeError(msg) from exc

    def number(self, name: str) -> int:
        """Return a record's place in the order of creation."""
        if name not in self._numbers:
            self._numbers[name] = next(self._next)
        return self._numbers[name]

    def write(self, name: str, record: Any) -> None:
        """Write a record atomically, and durably even if the machine crashes."""
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
    """The files of a state folder, each with a record."""

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
    """Remove the result files of a batch whose process died before it recorded the batch's end."""
    names = {f"{batch.id}_output.jsonl", f"{batch.id}_error.jsonl"}
    for file in files.newest_first(owner):
        if file.purpose == "batch_output" and file.filename in names:
            files.delete(file.id, owner)


def check_usable(folder: str | os.PathLike[str] | None) -> None:
    """Refuse, before a server starts, a folder that another emulator uses, or that holds a damaged record."""
    if folder is not None:
        with _locked(Path(folder)):
            for records in _records(Path(folder)):
                records.read()


def _records(root: Path) -> tuple[_Records, _Records]:
    """Return the records of the files and those of the batches."""
    return _Records(root / "file-records", FileRecord), _Records(root / "batch-records", BatchRecord)


def _make_private(folder: Path) -> None:
    """Make a folder that only its owner can enter; the mode of an existing one is corrected."""
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)


def _link(path: Path, other: Path) -> None:
    """Give a file a second name; copy it where the file system has no hard links."""
    try:
        os.link(path, other)
    except OSError:
        # Copied under another name first: an unfinished copy must not pass for the file.
        unfinished = other.with_suffix(".unfinished")
        shutil.copyfile(path, unfinished)
        unfinished.replace(other)


def _sync_folder(folder: Path) -> None:
    """Make new names in a folder durable, where folders can be synced at all."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _locked(folder: Path) -> contextlib.AbstractContextManager[Any]:
    """Lock a folder against a second emulator; the system releases the lock when the process dies."""
    # The mode of an existing folder is the user's business; everything in it is made private.
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / "lock", mode=0o600)
    try:
        return lock.acquire(timeout=0)
    except filelock.Timeout as exc:
        raise RuntimeError(f"another emulator works in {folder}") from exc
