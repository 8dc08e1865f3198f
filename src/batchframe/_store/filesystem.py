"""The operations on the local file system that a run needs; another kind of store would replace this module.

A file gets its name only when it is complete: it is written under a temporary name, synced, then renamed.
"""

from __future__ import annotations

import errno
import filecmp
import os
import re
import shutil
import time
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

_POLL_SECONDS = 0.05
# The errors of a full or read-only disk, and how Polars quotes them.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_CHUNK_BYTES = 1_000_000


# -- looking


def is_file(path: Path) -> bool:
    """Whether there is a file of this name."""
    return path.is_file()


def is_folder(path: Path) -> bool:
    """Whether there is a folder of this name."""
    return path.is_dir()


def names_in(folder: Path) -> list[str]:
    """Return the sorted names in a folder; an empty list if there is no such folder."""
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 - names, not paths
    except (FileNotFoundError, NotADirectoryError):
        return []


def folders_in(folder: Path) -> list[str]:
    """Return the sorted names of the subfolders of a folder, without files such as a desktop's ``.DS_Store``."""
    return [name for name in names_in(folder) if (folder / name).is_dir()]


def size_of(path: Path) -> int | None:
    """Return the size of a file in bytes; None if there is none."""
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return None


# -- reading


def open_to_read(path: Path) -> IO[bytes]:
    """Open a file for reading bytes."""
    return path.open("rb")


def chunks_of(path: Path) -> Iterator[bytes]:
    """Yield a file's bytes, about a MB at a time."""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def have_same_bytes(first: Path, second: Path) -> bool:
    """Whether two files have the same content.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        One of them does not exist.
    """
    return filecmp.cmp(first, second, shallow=False)


# -- writing


@contextmanager
def replacing(path: Path, fence: Callable[[], AbstractContextManager[None]] = nullcontext) -> Iterator[Path]:
    """Yield a temporary path to write to; on success, sync that file and rename it to ``path``.

    Parameters
    ----------
    path
        The file.
    fence
        A context manager around the rename.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(temporary, path):
        yield temporary
        _sync(temporary, os.O_RDWR)
        with fence():
            temporary.replace(path)
            sync_folder(path.parent)


@contextmanager
def writing(temporary: Path, path: Path) -> Iterator[None]:
    """Remove the temporary file if writing fails; errors as for `naming`."""
    try:
        with naming(path):
            yield
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the path to the error of a full disk, which neither the system nor Polars names.

    Raises
    ------
    OSError
        The same error, with the path.
    """
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        quoted = _OS_ERROR.search(str(error))
        number = int(quoted[1]) if quoted else getattr(error, "errno", None)
        if number not in _FULL or getattr(error, "filename", None) is not None:
            raise
        raise OSError(number, os.strerror(number), os.fspath(path)) from error


def sync_folder(path: Path) -> None:
    """Sync a folder, so that a rename in it survives a crash; Windows has no call for it."""
    if os.name != "nt":
        _sync(path, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# -- folders, moving and removing


def make_folder(path: Path) -> None:
    """Create a folder and its missing parents."""
    path.mkdir(parents=True, exist_ok=True)


def make_new_folder(path: Path) -> None:
    """Create a folder in an existing one.

    Raises
    ------
    FileNotFoundError, FileExistsError
        The parent does not exist; or the folder does.
    """
    path.mkdir()


def make_private(path: Path) -> None:
    """Create a folder that only its owner can read, and that git ignores."""
    if not path.is_dir():
        path.mkdir(parents=True, mode=0o700, exist_ok=True)  # another process may be quicker
        with naming(path / ".gitignore"):
            (path / ".gitignore").write_text("*\n")


def move(source: Path, target: Path) -> None:
    """Rename a file or folder; POSIX replaces an empty target folder, but no other."""
    source.rename(target)


def remove_file(path: Path) -> None:
    """Remove a file if it exists."""
    path.unlink(missing_ok=True)


def remove_tree(path: Path, *, must_go: bool = False) -> None:
    """Remove a folder with its content, as far as possible.

    Raises
    ------
    OSError
        It ``must_go``, and something in it cannot be removed.
    """
    shutil.rmtree(path, ignore_errors=not must_go)


# -- locks


def acquire(lock: Any, seconds: float) -> AbstractContextManager[Any]:
    """Acquire a file lock in an existing folder; filelock itself would create a folder that was moved away.

    Raises
    ------
    FileNotFoundError
        The folder does not exist.
    filelock.Timeout
        Another process held the lock for longer than ``seconds``.
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
