"""Whether a process of this host is dead."""

from __future__ import annotations

import os
from pathlib import Path


def is_dead(pid: int) -> bool:
    """Whether a process of this host is certainly dead."""
    if os.name == "nt":
        return False  # os.kill(pid, 0) is a Ctrl-C there
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    try:  # a zombie still has its id, but runs no more code
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z"
    except (OSError, IndexError):
        return False
