"""The local file system, as far as a run needs one: another kind of store would take the place of this module.

A file takes its name only when it is whole: it is written under a temporary name, synced, then renamed.
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
# What a full or read-only disk says, and how Polars passes it on.
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
    """Return the names of what is in a folder, sorted; none where it is not there."""
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 - names, not paths
    except (FileNotFoundError, NotADirectoryError):
        return []


def folders_in(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted: a desktop leaves files of its own anywhere."""
    return [name for name in names_in(folder) if (folder / name).is_dir()]


def size_of(path: Path) -> int | None:
    """Return how many bytes a file has; None where it is not there."""
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return None


# -- reading


def open_to_read(path: Path) -> IO[bytes]:
    """Open a file to read its bytes."""
    return path.open("rb")


def chunks_of(path: Path) -> Iterator[bytes]:
    """Yield a file's bytes, about a MB at a time."""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def have_same_bytes(one: Path, other: Path) -> bool:
    """Whether two files hold the same.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        One of them is not there.
    """
    return filecmp.cmp(one, other, shallow=False)


# -- writing


@contextmanager
def replacing(path: Path, fence: Callable[[], AbstractContextManager[None]] = nullcontext) -> Iterator[Path]:
    """Give a temporary name to write to; where all went well, sync that file and rename it to ``path``.

    Parameters
    ----------
    path
        The file.
    fence
        What the renaming is done inside of.
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
    """Name the file that could not be written where the disk is full: neither the system nor Polars does.

    Raises
    ------
    OSError
        With the path.
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
    """Bring a rename to the disk; Windows has no call for it."""
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
    """Make a folder and those that it is in, as far as they are not there."""
    path.mkdir(parents=True, exist_ok=True)


def make_new_folder(path: Path) -> None:
    """Make a folder in one that is there.

    Raises
    ------
    FileNotFoundError, FileExistsError
        The other is not there; or this one is.
    """
    path.mkdir()


def make_private(path: Path) -> None:
    """Make a folder that only its owner can read, and that git does not see."""
    if not path.is_dir():
        path.mkdir(parents=True, mode=0o700, exist_ok=True)  # another process may be quicker
        with naming(path / ".gitignore"):
            (path / ".gitignore").write_text("*\n")


def move(source: Path, target: Path) -> None:
    """Rename a file or folder; on POSIX an empty folder is replaced, and one that holds anything is not."""
    source.rename(target)


def remove_file(path: Path) -> None:
    """Remove a file, where it is there."""
    path.unlink(missing_ok=True)


def remove_tree(path: Path, *, must_go: bool = False) -> None:
    """Remove a folder and all that is in it, as far as that can be done.

    Raises
    ------
    OSError
        It ``must_go``, and something in it cannot be removed.
    """
    shutil.rmtree(path, ignore_errors=not must_go)


# -- locks


def acquire(lock: Any, seconds: float) -> AbstractContextManager[Any]:
    """Acquire a file lock in a folder that is there; the library would make one that was moved away meanwhile.

    Raises
    ------
    FileNotFoundError
        The folder is not there.
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
