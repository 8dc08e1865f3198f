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


# The last clock is in use; the first is the machine's.
_clocks = [Clock()]


def current_clock() -> Clock:
    """Return the clock for runs that are created or opened now."""
    return _clocks[-1]


@contextmanager
def using(clock: Clock) -> Iterator[None]:
    """Use another clock for all runs that are created or opened inside, in any thread."""
    _clocks.append(clock)
    try:
        yield
    finally:
        _clocks.remove(clock)  # not pop(): another thread may have added a clock since
