"""A run's folder: readable files, each written whole under a temporary name, synced, then renamed."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import socket
import time
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import msgspec
import polars as pl

from batchframe._core.events import trigger
from batchframe._core.exceptions import (
    DamagedRunError,
    ResultsError,
    RunMismatchError,
    RunNotFoundError,
    StoreVersionError,
)
from batchframe._store.record_files import RecordFiles
from batchframe._store.records import SCHEMA_VERSION, PartRecord, RetryRecord, RunRecord, SubmissionRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

T = TypeVar("T")

RECORD = "run.json"
# Files that tell nothing of some rows are fetched once more; both copies are kept, and the better answer counts.
RESULT_KINDS = ("output", "error", "output.again", "error.again")
# Results that take another process longer to assemble than this are assembled twice.
_PATIENCE = 600.0
_POLL_SECONDS = 0.05
_SCRATCH = ".new-"
# What a disk says that takes no more, and how Polars passes it on.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


class RunFolder:
    """Reads and writes one run's folder; knows names and formats, and nothing of the service.

    Parameters
    ----------
    path
        The folder. Everything in it is named relative to it, so that it can be moved.
    fence
        What each write takes its name inside of: the lease's, for who works on the run (see `Lease.fence`).
    root
        The run's folder, where ``path`` is a folder in it; None where it is ``path``.
    files
        What reads its small files; None for one of its own.
    """

    def __init__(
        self,
        path: Path,
        fence: Callable[[], AbstractContextManager[None]] = nullcontext,
        root: Path | None = None,
        files: RecordFiles | None = None,
    ) -> None:
        self.path = path
        self.fence = fence
        self._root = root or path
        self._files = files or RecordFiles()

    def fenced(self, fence: Callable[[], AbstractContextManager[None]]) -> RunFolder:
        """Return the same folder with another fence; both remember the same records."""
        return RunFolder(self.path, fence, self._root, self._files)

    def _inner(self, *names: str) -> RunFolder:
        return RunFolder(self.path.joinpath(*names), root=self._root, files=self._files)

    # -- the run

    def exists(self) -> bool:
        """Whether a run was committed here."""
        return (self.path / RECORD).is_file()

    @property
    def is_scratch(self) -> bool:
        """Whether it is a run in the making, or one that is being deleted."""
        return self.path.name.startswith(_SCRATCH)

    def record(self) -> RunRecord:
        """Return ``run.json``.

        Raises
        ------
        RunNotFoundError
            There is none.
        StoreVersionError
            It was written by a newer batchframe.
        DamagedRunError
            It cannot be read.
        """
        path = self.path / RECORD
        try:
            data = self._files.read(path)
        except (FileNotFoundError, NotADirectoryError):
            msg = f"there is no run in {self.path}: it has no {RECORD}. bf.run(...) makes one"
            raise RunNotFoundError(msg) from None
        with self.reading(path):
            version = msgspec.json.decode(data, type=_Version).schema_version
        if version > SCHEMA_VERSION:
            msg = (
                f"{self.path} has schema version {version}, and this batchframe reads up to {SCHEMA_VERSION}: "
                "a newer batchframe wrote it; upgrade to read it"
            )
            raise StoreVersionError(msg)
        with self.reading(path):
            return msgspec.json.decode(data, type=RunRecord)

    @contextmanager
    def reading(self, path: Path) -> Iterator[None]:
        """Say of a file of the run that is gone, or cannot be read, which it is and what to do.

        Raises
        ------
        RunNotFoundError
            The whole run is gone: another process deleted it, or somebody moved it.
        DamagedRunError
            The file was changed, or cut off.
        """
        try:
            yield
        except (FileNotFoundError, NotADirectoryError) as error:
            self._ensure_there()
            raise DamagedRunError.from_file(path, "is gone", self._root) from error
        except (msgspec.DecodeError, pl.exceptions.PolarsError) as error:
            said = str(error).partition("\n")[0]
            raise DamagedRunError.from_file(path, f"cannot be read ({said})", self._root) from error

    def _ensure_there(self) -> None:
        if not (self._root / RECORD).is_file():
            msg = f"there is no run in {self._root} any more: it was deleted or moved"
            raise RunNotFoundError(msg)

    def _decoded(self, path: Path, kind: type[T]) -> T | None:
        """Return what a JSON file holds; None where it is not there."""
        with self.reading(path):
            try:
                data = self._files.read(path)
            except FileNotFoundError:
                self._ensure_there()
                return None
            return msgspec.json.decode(data, type=kind)

    def make_parent(self, path: Path) -> None:
        """Make the folder that a file of the run is in.

        Raises
        ------
        RunNotFoundError
            The run's own folder is gone: no empty one is left in its place.
        """
        if not self._root.is_dir():
            self._ensure_there()
        path.parent.mkdir(parents=True, exist_ok=True)

    def take(self, scratch: RunFolder, record: RunRecord) -> bool:
        """Make what was rendered in ``scratch`` this run: one rename, so that a run is there whole or not at all.

        Returns
        -------
        bool
            False where another process made the same run in the meantime; ``scratch`` is then left as it is.

        Raises
        ------
        RunMismatchError
            There is something else.
        """
        scratch.write_note(RECORD, record)
        trigger("before_commit")
        try:
            # On POSIX an empty folder is replaced, and one that holds anything is not.
            scratch.path.rename(self.path)
        except OSError as error:
            if self.exists():
                return False
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
                raise
            msg = f"{self.path} is in the way, and is no run: move it away, and make the same call again"
            raise RunMismatchError(msg) from error
        _sync_folder(self.path.parent)
        return True

    @classmethod
    def scratch(cls, parent: Path) -> RunFolder:
        """Return a fresh ``.new-…`` folder in ``parent``, after removing those that dead processes left there."""
        parent.mkdir(parents=True, exist_ok=True)
        for old in parent.glob(f"{_SCRATCH}*"):
            if _is_left_over(old):
                shutil.rmtree(old, ignore_errors=True)
        folder = cls(_scratch_name(parent))
        try:
            make_private(folder.path)
        except OSError:
            shutil.rmtree(folder.path, ignore_errors=True)
            raise
        return folder

    def remove(self) -> None:
        """Delete the folder: at once for all who look, under a name that is cleared away after a crash."""
        away = _scratch_name(self.path.parent)
        try:
            self.path.rename(away)
        except FileNotFoundError:
            return
        shutil.rmtree(away, ignore_errors=True)

    # -- rows, results and views: parquet, a file a block

    def rows_path(self, block: int) -> Path:
        """Return where a block of input rows is."""
        return self.path / "rows" / f"{block:04d}.parquet"

    def results_path(self, block: int) -> Path:
        """Return where a block of results is."""
        return self.path / "results" / f"{block:04d}.parquet"

    def view(self, digest: str) -> RunFolder:
        """Return the same run seen through another arrangement of its rows: a folder with its own rows and results."""
        return self._inner("views", digest)

    def reparsed(self, digest: str) -> RunFolder:
        """Return where the results are that were read as another type than the call's: a folder of their own.

        Whoever reads those of one type does not find those of the other in their place.
        """
        return self._inner("reparsed", digest)

    def read_frame(self, path: Path, columns: list[str] | None = None) -> pl.DataFrame:
        """Read a block; errors as for `reading`."""
        with self.reading(path):
            return pl.read_parquet(path, columns=columns, glob=False)

    def write_frame(self, path: Path, frame: pl.DataFrame) -> None:
        """Write a block whole.

        It is not compressed: that would be the most expensive step of all, and the input file beside it holds the
        same texts as plain bytes.
        """
        self.make_parent(path)
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
            return msgspec.json.decode(self._files.read(self.path / name))
        except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
            return None

    def read_order(self, name: str, kind: type[T]) -> T | None:
        """Read a small JSON file that is an order of the user's, or None where there is none; errors as for `reading`.

        What can be computed again is a note; an order that cannot be read must not pass for none.
        """
        return self._decoded(self.path / name, kind)

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
            acquired = acquire(filelock.FileLock(self.path / ".results.lock"), _PATIENCE)
        except (OSError, NotImplementedError):
            acquired = nullcontext()
        with acquired:
            try:
                yield
            except (FileNotFoundError, NotADirectoryError):
                self._ensure_there()
                raise

    def results(self) -> list[RunFolder]:
        """Return the folders that have results: this one, those of other types, those of other arrangements."""
        reparsed = [self._inner("reparsed", path.name) for path in sorted(self.path.glob("reparsed/*"))]
        views = [self._inner("views", path.name) for path in sorted(self.path.glob("views/*"))]
        return [self, *reparsed, *(found for view in views for found in view.results())]

    # -- what `Run.retry` was asked for

    def retry_path(self, generation: int) -> Path:
        """Return where the requests of a retry are, and their changes."""
        return self.path / "retries" / f"{generation:04d}.parquet"

    def retries(self) -> list[RetryRecord]:
        """Return what `Run.retry` was asked for, the first call first."""
        folder = self.path / "retries"
        found = [self._decoded(path, RetryRecord) for path in folder.glob("*.json")]
        return sorted((record for record in found if record is not None), key=lambda record: record.generation)

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
        read = [self._decoded(path, PartRecord) for path in folder.glob("*/part.json")]
        found = [part for part in read if part is not None]
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
        found = [self._decoded(path, SubmissionRecord) for path in names]
        return sorted((one for one in found if one is not None), key=lambda submission: submission.number)

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
        self.make_parent(path)
        with self._replacing(path) as temporary, temporary.open("wb") as handle:
            yield handle

    def _write_json(self, path: Path, value: object) -> None:
        data = msgspec.json.format(msgspec.json.encode(value)) + b"\n"
        self.make_parent(path)
        with self._replacing(path) as temporary:
            temporary.write_bytes(data)
            version = self._files.date(temporary, path)
        self._files.keep(path, version, data)

    @contextmanager
    def _replacing(self, path: Path) -> Iterator[Path]:
        """Give a temporary name to write to; sync it and rename it to ``path`` when all went well."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with writing(temporary, path):
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
            except (FileNotFoundError, NotADirectoryError):
                self._ensure_there()
                raise


@contextmanager
def writing(temporary: Path, path: Path) -> Iterator[None]:
    """Leave no half of a file behind; errors as for `naming`."""
    try:
        with naming(path):
            yield
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Say what could not be written where the disk is full: neither the system nor Polars tells a name.

    Raises
    ------
    OSError
        With the path.
    """
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        told = _OS_ERROR.search(str(error))
        number = int(told[1]) if told else getattr(error, "errno", None)
        if number not in _FULL or getattr(error, "filename", None) is not None:
            raise
        raise OSError(number, os.strerror(number), os.fspath(path)) from error


def acquire(lock: Any, seconds: float) -> AbstractContextManager[Any]:
    """Acquire a file lock, in a folder that is there; the library would make one that was moved away meanwhile.

    Raises
    ------
    FileNotFoundError
        It is not there.
    filelock.Timeout
        Another process holds the lock for longer than this.
    """
    import filelock  # noqa: PLC0415 - see `Lease.lock`

    end = time.monotonic() + seconds
    while True:
        if not Path(lock.lock_file).parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), lock.lock_file)
        try:
            acquired: AbstractContextManager[Any] = lock.acquire(timeout=0)
        except filelock.Timeout:
            if time.monotonic() >= end:
                raise
            time.sleep(_POLL_SECONDS)
        else:
            return acquired


class _Version(msgspec.Struct):
    schema_version: int


def make_private(path: Path) -> None:
    """Make a folder that only its owner can read, and that git does not see."""
    if not path.is_dir():
        path.mkdir(parents=True, mode=0o700, exist_ok=True)  # another process may be quicker
        with naming(path / ".gitignore"):
            (path / ".gitignore").write_text("*\n")


def _sync_folder(path: Path) -> None:
    """Bring a rename to the disk; Windows has no call for it."""
    if os.name != "nt":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _scratch_name(parent: Path) -> Path:
    return parent / f"{_SCRATCH}{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


def _is_left_over(path: Path) -> bool:
    """Whether the process that made a scratch folder is gone; other hosts' folders are theirs to remove."""
    host, _, pid = path.name.removeprefix(_SCRATCH).rpartition("-")[0].rpartition("-")
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
