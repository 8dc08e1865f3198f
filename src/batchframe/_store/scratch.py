"""Temporary folders, for runs being created or deleted: named ``.new-…`` after their process."""

from __future__ import annotations

import os
import secrets
import socket
from typing import TYPE_CHECKING

from batchframe._store import filesystem
from batchframe._store.processes import is_dead

if TYPE_CHECKING:
    from pathlib import Path

_PREFIX = ".new-"


def scratch_path(parent: Path) -> Path:
    """Return an unused temporary path in a folder."""
    return parent / f"{_PREFIX}{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


def is_scratch(path: Path) -> bool:
    """Whether a path has the name of a temporary folder."""
    return path.name.startswith(_PREFIX)


def remove_left_over(parent: Path) -> None:
    """Remove the temporary folders of dead processes of this host; other hosts remove their own."""
    for name in filesystem.names_in(parent):
        if name.startswith(_PREFIX) and _is_left_over(name):
            filesystem.remove_tree(parent / name)


def _is_left_over(name: str) -> bool:
    host, _, pid = name.removeprefix(_PREFIX).rpartition("-")[0].rpartition("-")
    return host == socket.gethostname() and pid.isdigit() and is_dead(int(pid))
