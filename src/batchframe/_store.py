"""A run's folder: readable files, each written whole under a temporary name, synced, then renamed."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec

from batchframe._events import trigger
from batchframe._exceptions import ResultsError, RunNotFoundError, StoreVersionError
from batchframe._types import SCHEMA_VERSION, PartRecord, RetryRecord, RunRecord, SubmissionRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    import polars as pl

RECORD = "run.json"
# Files that tell nothing of some rows are fetched once more; both copies are kept, and the better answer counts.
RESULT_KINDS = ("output", "error", "output.again", "error.again")
# Results that take another process longer to assemble than this are assembled twice.
_PATIENCE = 600.0


class RunFolder:
    """Reads and writes one run's folder; knows names and formats, and nothing of the service.

    Parameters
    ----------
    path
        The folder. Everything in it is named relative to it, so that it can be moved.
    fence
        What each write takes its name inside of: the lease's, for who works on the run (see `Lease.fence`).
    """

    def __init__(self, path: Path, fence: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        self.path = path
        self.fence = fence

    # -- the run

    def exists(self) -> bool:
        """Whether a run was committed here."""
        return (self.path / RECORD).is_file()

    def record(self) -> RunRecord:
        """Return ``run.json``.

        Raises
        ------
        RunNotFoundError
            There is none.
        StoreVersionError
            It was written by a newer batchframe.
        """
        try:
            data = (self.path / RECORD).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            msg = f"there is no run in {self.path}: it has no {RECORD}. bf.run(...) makes one"
            raise RunNotFoundError(msg) from None
        version = msgspec.json.decode(data, type=_Version).schema_version
        if version > SCHEMA_VERSION:
            msg = (
                f"{self.path} has schema version {version}, and this batchframe reads up to {SCHEMA_VERSION}: "
                "a newer batchframe wrote it; upgrade to read it"
            )
            raise StoreVersionError(msg)
        return msgspec.json.decode(data, type=RunRecord)

    def take(self, scratch: RunFolder, record: RunRecord) -> bool:
        """Make what was rendered in ``scratch`` this run: one rename, so that a run is there whole or not at all.

        Returns
        -------
        bool
            False where another process made the same run in the meantime; ``scratch`` is then left as it is.
        """
        scratch.write_note(RECORD, record)
        trigger("before_commit")
        try:
            # On POSIX an empty folder is replaced, and one that holds anything is not.
            scratch.path.rename(self.path)
        except OSError:
            if self.exists():
                return False
            raise
        _sync_folder(self.path.parent)
        return True

    @classmethod
    def scratch(cls, parent: Path) -> RunFolder:
        """Return a fresh ``.new-…`` folder in ``parent``, after removing those that dead processes left there."""
        parent.mkdir(parents=True, exist_ok=True)
        for old in parent.glob(".new-*"):
            if _is_left_over(old):
                shutil.rmtree(old, ignore_errors=True)
        path = parent / f".new-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        make_private(path)
        return cls(path)

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.path, ignore_errors=True)

    # -- rows, results and views: parquet, a file a block

    def rows_path(self, block: int) -> Path:
        """Return where a block of input rows is."""
        return self.path / "rows" / f"{block:04d}.parquet"

    def results_path(self, block: int) -> Path:
        """Return where a block of results is."""
        return self.path / "results" / f"{block:04d}.parquet"

    def view(self, digest: str) -> RunFolder:
        """Return the same run seen through another arrangement of its rows: a folder with its own rows and results."""
        return RunFolder(self.path / "views" / digest)

    def write_frame(self, path: Path, frame: pl.DataFrame) -> None:
        """Write a block whole.

        It is not compressed: that would be the most expensive step of all, and the input file beside it holds the
        same texts as plain bytes.
        """
        path.parent.mkdir(exist_ok=True, parents=True)
        with self._replacing(path) as temporary:
            frame.write_parquet(temporary, compression="uncompressed", statistics=False)

    def stream_frame(self, path: Path, frame: pl.LazyFrame, group_rows: int) -> None:
        """Write a block that is too large to be held."""
        with self._replacing(path) as temporary:
            frame.sink_parquet(temporary, compression="uncompressed", statistics=False, row_group_size=group_rows)

    def write_note(self, name: str, value: object) -> None:
        """Write a small JSON file beside the blocks."""
        self._write_json(self.path / name, value)

    def read_note(self, name: str) -> object:
        """Read a small JSON file, or None where it is not there or not whole."""
        try:
            return msgspec.json.decode((self.path / name).read_bytes())
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def remove_note(self, name: str) -> None:
        """Remove a small JSON file, where it is there."""
        with self.fence():
            (self.path / name).unlink(missing_ok=True)

    @contextmanager
    def assembling(self) -> Iterator[None]:
        """Keep other processes from removing or writing what is assembled here; where no lock is to be had, do without.

        It is computed from the same bytes by whoever does it; but who is done removes what others may still read.
        """
        import filelock  # noqa: PLC0415 - see `Lease.lock`

        try:
            self.path.stat()  # where the folder was moved away, the lock would make an empty one in its place
            acquired: AbstractContextManager[Any] = filelock.FileLock(self.path / ".results.lock").acquire(_PATIENCE)
        except (OSError, NotImplementedError):
            acquired = nullcontext()
        with acquired:
            yield

    def views(self) -> list[RunFolder]:
        """Return the other arrangements that are kept of the run."""
        folder = self.path / "views"
        return [RunFolder(path) for path in sorted(folder.iterdir())] if folder.is_dir() else []

    # -- what `Run.retry` was asked for

    def retry_path(self, generation: int) -> Path:
        """Return where the requests of a retry are, and their changes."""
        return self.path / "retries" / f"{generation:04d}.parquet"

    def retries(self) -> list[RetryRecord]:
        """Return what `Run.retry` was asked for, the first call first."""
        folder = self.path / "retries"
        found = [msgspec.json.decode(path.read_bytes(), type=RetryRecord) for path in folder.glob("*.json")]
        return sorted(found, key=lambda record: record.generation)

    def write_retry(self, record: RetryRecord, requests: pl.DataFrame) -> None:
        """Write a retry; the record comes last, so that one that is there is whole."""
        path = self.retry_path(record.generation)
        self.write_frame(path, requests)
        trigger("before_retry_record")
        self._write_json(path.with_suffix(".json"), record)

    # -- parts and their submissions

    def part_path(self, number: int) -> Path:
        """Return a part's folder."""
        return self.path / "parts" / f"{number:04d}"

    def input_path(self, number: int) -> Path:
        """Return a part's input file: exactly the bytes to upload."""
        return self.part_path(number) / "input.jsonl"

    def renamed_path(self, number: int) -> Path:
        """Return where it says what the requests of a part are called in a batch that was found in the account."""
        return self.part_path(number) / "renamed.parquet"

    def parts(self) -> list[PartRecord]:
        """Return the parts in the order of their numbers; pieces that a crash left alone are none."""
        folder = self.path / "parts"
        if not folder.is_dir():
            return []
        found = [msgspec.json.decode(path.read_bytes(), type=PartRecord) for path in folder.glob("*/part.json")]
        siblings: dict[int | None, list[int]] = {}
        for part in found:
            siblings.setdefault(part.split_from, []).append(part.pieces)
        whole = {source for source, pieces in siblings.items() if source is None or set(pieces) == {len(pieces)}}
        return sorted((part for part in found if part.split_from in whole), key=lambda part: part.number)

    def count_parts(self) -> int:
        """Return how many parts there are: they grow more until the run is finished."""
        return sum(1 for _ in (self.path / "parts").glob("*/part.json"))

    def write_part(self, part: PartRecord) -> None:
        """Write ``part.json``; the input file comes first, so that a part that is there is whole."""
        self._write_json(self.part_path(part.number) / "part.json", part)

    def submissions(self, number: int) -> list[SubmissionRecord]:
        """Return a part's submissions, the oldest first."""
        folder = self.part_path(number) / "submissions"
        if not folder.is_dir():
            return []
        names = [path for path in folder.glob("*.json") if path.stem.isdigit()]
        found = [msgspec.json.decode(path.read_bytes(), type=SubmissionRecord) for path in names]
        return sorted(found, key=lambda submission: submission.number)

    def write_submission(self, number: int, submission: SubmissionRecord) -> None:
        """Write where a submission stands."""
        self._write_json(self.part_path(number) / "submissions" / f"{submission.number}.json", submission)

    def result_path(self, number: int, submission: int, kind: str) -> Path:
        """Return where the downloaded ``"output"`` or ``"error"`` file of a submission is."""
        return self.part_path(number) / "submissions" / f"{submission}.{kind}.jsonl"

    def result_files(self, number: int) -> list[tuple[SubmissionRecord, str, Path]]:
        """Return what was downloaded for a part: submission, ``"output"`` or ``"error"``, path; oldest first.

        Raises
        ------
        ResultsError
            A submission says that its files were downloaded, and neither is there.
        """
        found = []
        for submission in self.submissions(number):
            here = [(kind, self.result_path(number, submission.number, kind)) for kind in RESULT_KINDS]
            there = [(submission, kind, path) for kind, path in here if path.is_file()]
            if submission.stage == "downloaded" and not there and submission.output_expired_at is None:
                msg = f"{here[0][1]} is gone, although it was downloaded: restore it from a copy of the run"
                raise ResultsError(msg)
            found += there
        return found

    @contextmanager
    def receiving(self, path: Path) -> Iterator[IO[bytes]]:
        """Open a file for bytes to come; it takes its name only when they all came."""
        path.parent.mkdir(exist_ok=True, parents=True)
        with self._replacing(path) as temporary, temporary.open("wb") as handle:
            yield handle

    def _write_json(self, path: Path, value: object) -> None:
        path.parent.mkdir(exist_ok=True, parents=True)
        with self._replacing(path) as temporary:
            temporary.write_bytes(msgspec.json.format(msgspec.json.encode(value)) + b"\n")

    @contextmanager
    def _replacing(self, path: Path) -> Iterator[Path]:
        """Give a temporary name to write to; sync it and rename it to ``path`` when all went well."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            yield temporary
            handle = os.open(temporary, os.O_RDWR)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
            with self.fence():
                temporary.replace(path)
                _sync_folder(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


class _Version(msgspec.Struct):
    schema_version: int


def make_private(path: Path) -> None:
    """Make a folder that only its owner can read, and that git does not see."""
    if not path.is_dir():
        path.mkdir(parents=True, mode=0o700, exist_ok=True)  # another process may be quicker
        (path / ".gitignore").write_text("*\n")


def _sync_folder(path: Path) -> None:
    """Bring a rename to the disk; Windows has no call for it."""
    if os.name != "nt":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _is_left_over(path: Path) -> bool:
    """Whether the process that made a scratch folder is gone; other hosts' folders are theirs to remove."""
    host, pid = path.name.removeprefix(".new-").rsplit("-", 2)[:2]
    return host == socket.gethostname() and pid.isdigit() and is_dead(int(pid))


def is_dead(pid: int) -> bool:
    """Whether a process of this host is gone, for certain."""
    if os.name == "nt":
        return False  # os.kill(pid, 0) is a Ctrl-C there
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    try:  # one that was killed and not waited for has an id, and does nothing any more
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z"
    except (OSError, IndexError):
        return False
