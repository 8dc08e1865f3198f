"""CPU time, wall time and peak memory of this process. Imports nothing heavy, so it can measure imports."""

from __future__ import annotations

import gc
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def cpu_seconds() -> float:
    """Return the CPU time of all threads of this process and of the children it waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def peak_bytes() -> int:
    """Return the largest resident size so far.

    On Linux ``getrusage`` will not do: its figure survives an exec, so a child starts with its parent's.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def timed(function: Callable[[], Any]) -> dict[str, float]:
    """Call a function and return its CPU and wall seconds, and the peak memory after it."""
    gc.collect()
    wall, cpu = time.perf_counter(), cpu_seconds()
    function()
    return {"cpu": cpu_seconds() - cpu, "wall": time.perf_counter() - wall, "peak": peak_bytes()}


def in_turn(repeat: int, ours: Callable[[], Any], loop: Callable[[], Any]) -> dict[str, Any]:
    """Measure both in turn, A B A B …, so that both see the same noise."""
    figures: dict[str, Any] = {"ours": [], "loop": []}
    for _ in range(repeat):
        figures["ours"].append(timed(ours))
        figures["loop"].append(timed(loop))
    return figures
