"""Time, sleep and random numbers."""

from __future__ import annotations

import datetime as dt
import random
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True)
class Clock:
    """Time, sleep and random numbers, in one object that tests can replace."""

    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.timezone.utc)
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random


# The last one is the time that runs live in; the first is the machine's.
_clocks = [Clock()]


def current_clock() -> Clock:
    """Return the clock of the runs that are made or opened now."""
    return _clocks[-1]


@contextmanager
def using(clock: Clock) -> Iterator[None]:
    """Let the runs of all threads that are made or opened inside live in another time."""
    _clocks.append(clock)
    try:
        yield
    finally:
        _clocks.remove(clock)  # its own, whichever thread has come or gone meanwhile
