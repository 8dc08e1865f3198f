"""A folder of Parquet blocks (rows or results), with small files beside them."""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
from contextlib import contextmanager, nullcontext
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

import msgspec
import polars as pl

from batchframe._core.exceptions import DamagedRunError, RunNotFoundError
from batchframe._store import filesystem
from batchframe._store.record_files import RecordFiles
from batchframe._store.scratch import scratch_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

T = TypeVar("T")

RECORD = "run.json"
# Another process that assembles results for longer than this is not waited for: they are assembled twice.
_LOCK_SECONDS = 600.0


class BlockFolder:
    """The folder of a run, or a folder in it with its own rows and results.

    Parameters
    ----------
    path
        The folder. Paths within it are stored as relative ones, so that it can be moved.
    fence
        A context manager around the rename of each write: `Lease.fence`, for the process that works on the run.
    root
        The run's folder, if ``path`` is a folder in it; None if it is ``path``.
    files
        The cache of its small files; None for a new one.
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

    # -- errors

    @contextmanager
    def reading(self, path: Path | str) -> Iterator[None]:
        """Turn the error of a missing or unreadable file into one that names it and says what to do.

        Raises
        ------
        RunNotFoundError
            The whole run is gone: it was deleted or moved.
        DamagedRunError
            The file is missing, was changed, or is truncated.
        """
        try:
            yield
        except (FileNotFoundError, NotADirectoryError) as error:
            self.ensure_exists()
            raise self.damaged(path, "is gone") from error
        except (msgspec.DecodeError, pl.exceptions.PolarsError) as error:
            reason = str(error).partition("\n")[0]
            raise self.damaged(path, f"cannot be read ({reason})") from error

    def damaged(self, path: Path | str, problem: str) -> DamagedRunError:
        """Return the error for a damaged file or folder of the run; ``path`` may be relative to this folder."""
        return DamagedRunError.from_file(self.path / path, problem, self._root)

    def ensure_exists(self) -> None:
        """Check that the run still exists.

        Raises
        ------
        RunNotFoundError
            It does not.
        """
        if not filesystem.is_file(self._root / RECORD):
            msg = f"there is no run in {self._root} any more: it was deleted or moved"
            raise RunNotFoundError(msg)

    # -- any file

    def open(self, path: Path | str) -> IO[bytes]:
        """Open a file for reading bytes; ``path`` may be relative to this folder."""
        return filesystem.open_to_read(self.path / path)

    def size_of(self, path: Path) -> int | None:
        """Return the size of a file in bytes; None if there is none."""
        return filesystem.size_of(path)

    def name_of(self, path: Path) -> str:
        """Return the path of a file relative to this folder."""
        return path.relative_to(self.path).as_posix()

    def remove_file(self, path: Path) -> None:
        """Remove a file if it exists."""
        filesystem.remove_file(path)

    def make_parent(self, path: Path) -> None:
        """Create the parent folder of a file of the run.

        Raises
        ------
        RunNotFoundError
            The run's own folder is gone; no empty one is created in its place.
        """
        if not filesystem.is_folder(self._root):
            self.ensure_exists()
        filesystem.make_folder(path.parent)

    @contextmanager
    def receiving(self, path: Path) -> Iterator[IO[bytes]]:
        """Open a file for writing bytes; it gets its name only after all of them were written."""
        self.make_parent(path)
        with self._replacing(path) as temporary, temporary.open("wb") as handle:
            yield handle

    @contextmanager
    def _replacing(self, path: Path) -> Iterator[Path]:
        """Yield a temporary path to write to, which is renamed to ``path`` on success."""
        try:
            with filesystem.replacing(path, self.fence) as temporary:
                yield temporary
        except (FileNotFoundError, NotADirectoryError):
            self.ensure_exists()
            raise

    # -- small JSON files

    def write_note(self, name: str, value: object) -> None:
        """Write a small JSON file beside the blocks."""
        self._write_json(self.path / name, value)

    def read_note(self, name: str) -> object:
        """Read a small JSON file; None if it is missing or truncated."""
        try:
            return msgspec.json.decode(self._files.read(self.path / name))
        except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
            return None

    def read_order(self, name: str, kind: type[T]) -> T | None:
        """Read a small JSON file that records an order of the user; None if there is none; errors as for `reading`.

        A note can be computed again. An order cannot, so an unreadable one must not count as missing.
        """
        return self._decoded(self.path / name, kind)

    def remove_note(self, name: str) -> None:
        """Remove a small JSON file if it exists."""
        with self.fence():
            filesystem.remove_file(self.path / name)

    def _decoded(self, path: Path, kind: type[T]) -> T | None:
        """Decode a JSON file; None if there is none."""
        with self.reading(path):
            try:
                data = self._files.read(path)
            except FileNotFoundError:
                self.ensure_exists()
                return None
            return msgspec.json.decode(data, type=kind)

    def _write_json(self, path: Path, value: object) -> None:
        data = msgspec.json.format(msgspec.json.encode(value)) + b"\n"
        self.make_parent(path)
        with self._replacing(path) as temporary:
            temporary.write_bytes(data)
            version = self._files.date(temporary, path)
        self._files.store(path, version, data)

    # -- blocks

    def rows_path(self, block: int) -> Path:
        """Return the path of a block of input rows."""
        return self.path / "rows" / f"{block:04d}.parquet"

    def results_path(self, block: int) -> Path:
        """Return the path of a block of results."""
        return self.path / "results" / f"{block:04d}.parquet"

    def result_sizes(self, blocks: int) -> list[int | None]:
        """Return the size of each block of results in bytes; None for a missing one."""
        return [filesystem.size_of(self.results_path(number)) for number in range(blocks)]

    def read_frame(self, path: Path, columns: list[str] | None = None) -> pl.DataFrame:
        """Read a block; errors as for `reading`."""
        with self.reading(path):
            return pl.read_parquet(path, columns=columns, glob=False)

    def write_frame(self, path: Path, frame: pl.DataFrame) -> None:
        """Write a block.

        It is not compressed: that would be the most expensive step, and the input file beside it holds the same texts
        as plain bytes anyway.
        """
        self.make_parent(path)
        with self._replacing(path) as temporary:
            frame.write_parquet(temporary, compression="uncompressed", statistics=False)

    def write_pieces(self, path: Path, pieces: Iterator[pl.DataFrame]) -> int | None:
        """Write a block from pieces that together may be too large for memory.

        Returns
        -------
        int or None
            The average number of rows of the pieces; None if there is only one.
        """
        first, second = next(pieces), next(pieces, None)
        if second is None:
            self.write_frame(path, first)
            return None
        # Polars writes a Parquet file from one frame, or streams it from other files.
        self.make_parent(path)
        with (
            filesystem.naming(path),
            tempfile.TemporaryDirectory(prefix=f".{path.stem}-", dir=path.parent) as folder,
        ):
            rows, paths = 0, []
            for number, piece in enumerate(chain((first, second), pieces)):
                rows += piece.height
                paths.append(Path(folder) / f"{number:06d}.parquet")
                piece.write_parquet(paths[-1], compression="uncompressed", statistics=False)
            group_rows = -(-rows // len(paths))
            whole = pl.scan_parquet(paths, glob=False)
            with self._replacing(path) as temporary:
                whole.sink_parquet(temporary, compression="uncompressed", statistics=False, row_group_size=group_rows)
        return group_rows

    # -- the same rows in two folders

    def has_rows_of(self, other: BlockFolder, blocks: int) -> bool:
        """Whether another folder has the same blocks of rows, byte for byte; errors as for `reading`."""
        with self.reading("rows"):
            return all(
                filesystem.have_same_bytes(other.rows_path(number), self.rows_path(number)) for number in range(blocks)
            )

    def digest_of_rows(self, blocks: int) -> str:
        """Return a digest of the bytes of all blocks of rows."""
        hasher = hashlib.blake2b(digest_size=16)
        for number in range(blocks):
            for chunk in filesystem.chunks_of(self.rows_path(number)):
                hasher.update(chunk)
        return hasher.hexdigest()

    def take_rows(self, source: BlockFolder) -> None:
        """Move the rows of another folder into this one."""
        self.make_parent(self.path / "rows")
        filesystem.move(source.path / "rows", self.path / "rows")

    # -- the folders in this one

    def reparsed(self, digest: str) -> BlockFolder:
        """Return the folder of results that were parsed as another type than the run's.

        Each type has its own folder, so that a reader of one type is not given results of another.
        """
        return self._inner("reparsed", digest)

    def view(self, digest: str) -> BlockFolder:
        """Return the folder of another arrangement of the run's rows, with its own rows and results."""
        return self._inner("views", digest)

    def results(self) -> list[BlockFolder]:
        """Return all folders with results: this one, those of other types, those of other arrangements."""
        reparsed = [self.reparsed(name) for name in filesystem.folders_in(self.path / "reparsed")]
        views = [self.view(name) for name in filesystem.folders_in(self.path / "views")]
        return [self, *reparsed, *(folder for view in views for folder in view.results())]

    def _inner(self, *names: str) -> BlockFolder:
        return BlockFolder(self.path.joinpath(*names), root=self._root, files=self._files)

    def remove(self) -> None:
        """Delete the folder. It is renamed to a scratch name first, which is cleaned up if the process crashes."""
        away = scratch_path(self.path.parent)
        try:
            filesystem.move(self.path, away)
        except FileNotFoundError:
            return
        filesystem.remove_tree(away)

    # -- parsed answers: Arrow files, which can be rebuilt

    def parsed_answers(self, name: str, *, lines: bool) -> list[Path] | None:
        """Return the Arrow files of a part's answers in order; None if it was not parsed.

        Parameters
        ----------
        name
            The key of the part, its result files and the version of the reader.
        lines
            Whether they include the places of the result lines.
        """
        target = self._parsed_folder(name, lines=lines)
        if not filesystem.is_folder(target):
            return None
        paths = [target / file for file in filesystem.names_in(target) if file.endswith(".arrow")]
        if all(_is_whole(path) for path in paths):
            return paths
        filesystem.remove_tree(target, must_go=True)  # they are not synced, so a crash of the machine can truncate them
        return None

    @contextmanager
    def parsing(self, name: str, *, lines: bool) -> Iterator[Path]:
        """Yield a folder for the Arrow files of a part's answers; readers see it only when it is complete."""
        target = self._parsed_folder(name, lines=lines)
        self.make_parent(target)
        temporary = target.with_name(f".{target.name}-{os.getpid()}-{secrets.token_hex(4)}")
        try:
            filesystem.make_new_folder(temporary)
            with filesystem.naming(target):
                yield temporary
            try:
                filesystem.move(temporary, target)
            except OSError:
                if not filesystem.is_folder(target):  # else another process parsed the same bytes first
                    raise
        finally:
            filesystem.remove_tree(temporary)

    def remove_parsed_answers(self) -> None:
        """Remove all Arrow files of parsed answers."""
        for lines in (False, True):
            filesystem.remove_tree(self._parsed_folder("", lines=lines))

    def _parsed_folder(self, name: str, *, lines: bool) -> Path:
        return self.path / "results" / (".answers-lines" if lines else ".answers") / name

    @contextmanager
    def assembling(self) -> Iterator[None]:
        """Lock the results against other processes while they are assembled; without a lock if none can be had.

        Every process computes the same results from the same bytes. But one that is done removes the parsed answers,
        which others may still be reading.
        """
        import filelock  # noqa: PLC0415 - see `Lease.lock`

        try:
            acquired = filesystem.acquire(filelock.FileLock(self.path / ".results.lock"), _LOCK_SECONDS)
        except (OSError, NotImplementedError):
            acquired = nullcontext()
        with acquired:
            try:
                yield
            except (FileNotFoundError, NotADirectoryError):
                self.ensure_exists()
                raise


def _is_whole(path: Path) -> bool:
    try:
        pl.read_ipc_schema(path)
    except (OSError, pl.exceptions.PolarsError):
        return False
    return True
