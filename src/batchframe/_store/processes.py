"""Which processes of this host are gone."""

from __future__ import annotations

import os
from pathlib import Path


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
