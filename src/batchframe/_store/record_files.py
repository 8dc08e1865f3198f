"""Small JSON files, each read once, and again only when another file has taken its name.

A pass looks at the record of every part and of every submission several times, and few of them have changed since. So
their bytes are kept, together with the version of the file they came from: its time, its size and its inode. Why no
reader ever gets an old record:

* The disk is asked each time. A kept record costs one ``stat`` instead of an open, a read and a close; nothing is taken
  on trust from the lease, since another process may take the run over, or cancel it, at any moment.
* Records are never changed in place. Each is written under a temporary name and renamed, so that a changed record is
  another file. Inodes are used again, and clocks tick slowly and are set back. Therefore a record always gets a later
  time than the one that it replaces (see `RecordFiles.date`), and no version of it occurs twice. Where that cannot be
  (a file system that keeps whole seconds, a record that was removed and comes back, a process of batchframe 0.1.0), the
  clock, the size and the inode would all have to be the same by chance.
* The version is that of the open file that the bytes are read from, not of its name: they belong together, whoever
  replaces the file in the meantime.

What is kept are bytes and not objects. Each caller decodes records of its own: what it changes in them and then fails
to write is seen by nobody else. Threads may share all of this.

Large files, such as the record of a part that lists the ids of its requests, are not kept: memory does not grow with
the rows of a run.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

_MAX_BYTES = 65_536
# More than any usual file system rounds away; NTFS counts in tenths of it.
_TICK_NS = 1_000


class Version(NamedTuple):
    """What tells a file from every other that has had, or will have, its name."""

    mtime_ns: int
    size: int
    inode: int


class RecordFiles:
    """Reads small files, and remembers them for as long as they stay the same."""

    def __init__(self) -> None:
        self._kept: dict[Path, tuple[Version, bytes]] = {}

    def read(self, path: Path) -> bytes:
        """Return what a file holds.

        Raises
        ------
        FileNotFoundError, NotADirectoryError
            It is not there.
        """
        kept = self._kept.get(path)
        if kept is not None and kept[0] == version_of(path):
            return kept[1]
        self._kept.pop(path, None)
        with path.open("rb") as file:
            version = _version(os.fstat(file.fileno()))
            data = file.read()
        self.keep(path, version, data)
        return data

    def keep(self, path: Path, version: Version, data: bytes) -> None:
        """Remember what a version of a file holds."""
        if len(data) <= _MAX_BYTES:
            self._kept[path] = version, data

    @staticmethod
    def date(temporary: Path, path: Path) -> Version:
        """Give a file that is to take the place of another a later time than that has, and return its version."""
        replaced, fresh = version_of(path), version_of(temporary)
        assert fresh is not None
        if replaced is not None and fresh.mtime_ns <= replaced.mtime_ns:
            at = replaced.mtime_ns + _TICK_NS
            with suppress(OSError):  # some network file systems cannot; there the size and the inode must do
                os.utime(temporary, ns=(at, at))
            fresh = version_of(temporary)
            assert fresh is not None
        return fresh


def version_of(path: Path) -> Version | None:
    """Return the version of a file, or None where it is not there."""
    try:
        return _version(path.stat())
    except (FileNotFoundError, NotADirectoryError):
        return None


def _version(found: os.stat_result) -> Version:
    return Version(found.st_mtime_ns, found.st_size, found.st_ino)
