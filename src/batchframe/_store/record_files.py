"""A cache of small JSON files: each is read once, and again only after it was replaced.

A pass reads the record of every part and every submission several times, and few of them change. The cache keeps their
bytes together with the version of the file: its modification time, size and inode. A reader never gets a stale record:

* Each read checks the disk. A cached record costs one ``stat`` instead of an open, a read and a close. The lease does
  not make the check unnecessary, since another process may take the run over, or cancel it, at any moment.
* Records are never changed in place. Each is written under a temporary name and renamed, so a changed record is another
  file. Inodes are reused, and clocks are coarse and can be set back. Therefore a record always gets a later time than
  the one it replaces (see `RecordFiles.date`), and no version occurs twice. Where that is not possible (a file system
  with whole seconds, a record that was removed and written again, a process of batchframe 0.1.0), a stale read would
  need the same time, size and inode by chance.
* The version is read from the open file, not from its name. So it belongs to the bytes, even if another process
  replaces the file in the meantime.

The cache holds bytes, not objects. Each caller decodes its own records, so nobody else sees a change that failed to be
written. Threads may share a cache.

Large files, such as the record of a part that lists the ids of its requests, are not cached: memory must not grow with
the rows of a run.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

_MAX_BYTES = 65_536
# Coarser than the timestamps of common file systems; NTFS has a tenth of it.
_TICK_NS = 1_000


class Version(NamedTuple):
    """Identifies one file among all that have had, or will have, the same name."""

    mtime_ns: int
    size: int
    inode: int


class RecordFiles:
    """Reads small files, and caches them until they are replaced."""

    def __init__(self) -> None:
        self._cache: dict[Path, tuple[Version, bytes]] = {}

    def read(self, path: Path) -> bytes:
        """Return the bytes of a file.

        Raises
        ------
        FileNotFoundError, NotADirectoryError
            There is no such file.
        """
        cached = self._cache.get(path)
        if cached is not None and cached[0] == version_of(path):
            return cached[1]
        self._cache.pop(path, None)
        with path.open("rb") as file:
            version = _version(os.fstat(file.fileno()))
            data = file.read()
        self.store(path, version, data)
        return data

    def store(self, path: Path, version: Version, data: bytes) -> None:
        """Cache the bytes of a version of a file, unless they are large."""
        if len(data) <= _MAX_BYTES:
            self._cache[path] = version, data

    @staticmethod
    def date(temporary: Path, path: Path) -> Version:
        """Give a temporary file a later time than the file it will replace, and return its version."""
        current, new = version_of(path), version_of(temporary)
        assert new is not None
        if current is not None and new.mtime_ns <= current.mtime_ns:
            at = current.mtime_ns + _TICK_NS
            with suppress(OSError):  # some network file systems cannot: there the size and inode must suffice
                os.utime(temporary, ns=(at, at))
            new = version_of(temporary)
            assert new is not None
        return new


def version_of(path: Path) -> Version | None:
    """Return the version of a file; None if there is none."""
    try:
        return _version(path.stat())
    except (FileNotFoundError, NotADirectoryError):
        return None


def _version(status: os.stat_result) -> Version:
    return Version(status.st_mtime_ns, status.st_size, status.st_ino)
