"""A folder of Parquet blocks, which are rows or results, and of the small files beside them."""

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
# Results that take another process longer to assemble than this are assembled twice.
_PATIENCE = 600.0


class BlockFolder:
    """The folder of a run, or a folder in it that has rows and results of its own.

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

    # -- errors

    @contextmanager
    def reading(self, path: Path | str) -> Iterator[None]:
        """Name a file of the run that is gone or cannot be read, and say what to do.

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
            self.ensure_there()
            raise self.damaged(path, "is gone") from error
        except (msgspec.DecodeError, pl.exceptions.PolarsError) as error:
            reason = str(error).partition("\n")[0]
            raise self.damaged(path, f"cannot be read ({reason})") from error

    def damaged(self, path: Path | str, what: str) -> DamagedRunError:
        """Return the error for a file or folder of the run that was changed, by its path or its name in this folder."""
        return DamagedRunError.from_file(self.path / path, what, self._root)

    def ensure_there(self) -> None:
        """Make sure that the run is there.

        Raises
        ------
        RunNotFoundError
            It is gone.
        """
        if not filesystem.is_file(self._root / RECORD):
            msg = f"there is no run in {self._root} any more: it was deleted or moved"
            raise RunNotFoundError(msg)

    # -- any file

    def open(self, path: Path | str) -> IO[bytes]:
        """Open a file of the folder, by its path or by its name in the folder, to read its bytes."""
        return filesystem.open_to_read(self.path / path)

    def size_of(self, path: Path) -> int | None:
        """Return how many bytes a file has; None where it is not there."""
        return filesystem.size_of(path)

    def name_of(self, path: Path) -> str:
        """Return what a file is called within the folder."""
        return path.relative_to(self.path).as_posix()

    def remove_file(self, path: Path) -> None:
        """Remove a file, where it is there."""
        filesystem.remove_file(path)

    def make_parent(self, path: Path) -> None:
        """Make the folder that a file of the run is in.

        Raises
        ------
        RunNotFoundError
            The run's own folder is gone: no empty one is left in its place.
        """
        if not filesystem.is_folder(self._root):
            self.ensure_there()
        filesystem.make_folder(path.parent)

    @contextmanager
    def receiving(self, path: Path) -> Iterator[IO[bytes]]:
        """Open a file for bytes to come; it takes its name only when they all came."""
        self.make_parent(path)
        with self._replacing(path) as temporary, temporary.open("wb") as handle:
            yield handle

    @contextmanager
    def _replacing(self, path: Path) -> Iterator[Path]:
        """Give a temporary name to write to, which is renamed to ``path`` when all went well."""
        try:
            with filesystem.replacing(path, self.fence) as temporary:
                yield temporary
        except (FileNotFoundError, NotADirectoryError):
            self.ensure_there()
            raise

    # -- small JSON files

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
            filesystem.remove_file(self.path / name)

    def _decoded(self, path: Path, kind: type[T]) -> T | None:
        """Return what a JSON file holds; None where it is not there."""
        with self.reading(path):
            try:
                data = self._files.read(path)
            except FileNotFoundError:
                self.ensure_there()
                return None
            return msgspec.json.decode(data, type=kind)

    def _write_json(self, path: Path, value: object) -> None:
        data = msgspec.json.format(msgspec.json.encode(value)) + b"\n"
        self.make_parent(path)
        with self._replacing(path) as temporary:
            temporary.write_bytes(data)
            version = self._files.date(temporary, path)
        self._files.keep(path, version, data)

    # -- blocks

    def rows_path(self, block: int) -> Path:
        """Return where a block of input rows is."""
        return self.path / "rows" / f"{block:04d}.parquet"

    def results_path(self, block: int) -> Path:
        """Return where a block of results is."""
        return self.path / "results" / f"{block:04d}.parquet"

    def result_sizes(self, blocks: int) -> list[int | None]:
        """Return how many bytes each block of results has; None for one that is not there."""
        return [filesystem.size_of(self.results_path(number)) for number in range(blocks)]

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

    def write_pieces(self, path: Path, pieces: Iterator[pl.DataFrame]) -> int | None:
        """Write a block that may be too large to be held, and comes in pieces.

        Returns
        -------
        int or None
            How many rows the pieces have on average; None where there is only one.
        """
        first, second = next(pieces), next(pieces, None)
        if second is None:
            self.write_frame(path, first)
            return None
        # A Parquet file is written at once, or streamed from others.
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
        """Whether another folder has the same blocks of rows, byte by byte; errors as for `reading`."""
        with self.reading("rows"):
            return all(
                filesystem.have_same_bytes(other.rows_path(number), self.rows_path(number)) for number in range(blocks)
            )

    def digest_of_rows(self, blocks: int) -> str:
        """Return a digest of the bytes of all rows."""
        hashed = hashlib.blake2b(digest_size=16)
        for number in range(blocks):
            for chunk in filesystem.chunks_of(self.rows_path(number)):
                hashed.update(chunk)
        return hashed.hexdigest()

    def take_rows(self, source: BlockFolder) -> None:
        """Move the rows of another folder here."""
        self.make_parent(self.path / "rows")
        filesystem.move(source.path / "rows", self.path / "rows")

    # -- the folders in this one

    def reparsed(self, digest: str) -> BlockFolder:
        """Return where the results are that were read as another type than the call's: a folder of their own.

        Whoever reads those of one type does not find those of the other in their place.
        """
        return self._inner("reparsed", digest)

    def view(self, digest: str) -> BlockFolder:
        """Return the same run seen through another arrangement of its rows: a folder with its own rows and results."""
        return self._inner("views", digest)

    def results(self) -> list[BlockFolder]:
        """Return the folders that have results: this one, those of other types, those of other arrangements."""
        reparsed = [self.reparsed(name) for name in filesystem.folders_in(self.path / "reparsed")]
        views = [self.view(name) for name in filesystem.folders_in(self.path / "views")]
        return [self, *reparsed, *(folder for view in views for folder in view.results())]

    def _inner(self, *names: str) -> BlockFolder:
        return BlockFolder(self.path.joinpath(*names), root=self._root, files=self._files)

    def remove(self) -> None:
        """Delete the folder: at once for all who look, under a name that is cleared away after a crash."""
        away = scratch_path(self.path.parent)
        try:
            filesystem.move(self.path, away)
        except FileNotFoundError:
            return
        filesystem.remove_tree(away)

    # -- parsed answers: Arrow files, which can be made again

    def parsed_answers(self, name: str, *, lines: bool) -> list[Path] | None:
        """Return the Arrow files of a part's answers in their order; None where they are not there.

        Parameters
        ----------
        name
            What the part, its result files and what reads them are called together.
        lines
            Whether with the places of the result lines.
        """
        target = self._parsed_folder(name, lines=lines)
        if not filesystem.is_folder(target):
            return None
        paths = [target / found for found in filesystem.names_in(target) if found.endswith(".arrow")]
        if all(_is_whole(path) for path in paths):
            return paths
        filesystem.remove_tree(target, must_go=True)  # they are not synced: the whole machine went down
        return None

    @contextmanager
    def parsing(self, name: str, *, lines: bool) -> Iterator[Path]:
        """Give a folder for the Arrow files of a part's answers, which are found as soon as they are all there."""
        target = self._parsed_folder(name, lines=lines)
        self.make_parent(target)
        making = target.with_name(f".{target.name}-{os.getpid()}-{secrets.token_hex(4)}")
        try:
            filesystem.make_new_folder(making)
            with filesystem.naming(target):
                yield making
            try:
                filesystem.move(making, target)
            except OSError:
                if not filesystem.is_folder(target):  # else another process was quicker: it read the same bytes
                    raise
        finally:
            filesystem.remove_tree(making)

    def forget_parsed_answers(self) -> None:
        """Remove the Arrow files."""
        for lines in (False, True):
            filesystem.remove_tree(self._parsed_folder("", lines=lines))

    def _parsed_folder(self, name: str, *, lines: bool) -> Path:
        return self.path / "results" / (".answers-lines" if lines else ".answers") / name

    @contextmanager
    def assembling(self) -> Iterator[None]:
        """Keep other processes from removing or writing what is assembled here; where no lock is to be had, do without.

        It is computed from the same bytes by whoever does it; but who is done removes what others may still read.
        """
        import filelock  # noqa: PLC0415 - see `Lease.lock`

        try:
            acquired = filesystem.acquire(filelock.FileLock(self.path / ".results.lock"), _PATIENCE)
        except (OSError, NotImplementedError):
            acquired = nullcontext()
        with acquired:
            try:
                yield
            except (FileNotFoundError, NotADirectoryError):
                self.ensure_there()
                raise


def _is_whole(path: Path) -> bool:
    try:
        pl.read_ipc_schema(path)
    except (OSError, pl.exceptions.PolarsError):
        return False
    return True
