"""The pace of a batch: its steps and waits, its deadline, and a stop before its work is done."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from batchframe.emulator._batches.host import Host
    from batchframe.emulator._faults.batch_faults import BatchFault


class Pace:
    """When one batch moves on."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.stop: Literal["cancel", "expire"] | None = None
        self.wake = asyncio.Event()
        """Set it to make a waiting batch look at the settings again."""
        self.idle = asyncio.Event()
        """Set while the batch waits for a step, is held by a fault, or has ended."""
        self._steps = 0

    def stop_for(self, reason: Literal["cancel", "expire"]) -> None:
        """End the batch before its work is done."""
        self.stop = reason
        self.wake.set()

    def grant_step(self) -> None:
        """Allow one more step; ``idle`` is set again when it has been taken."""
        self._steps += 1
        self.idle.clear()
        self.wake.set()

    def check_deadline(self) -> None:
        """Stop the batch if its window has ended."""
        if self.stop is None and time.time() >= self.deadline:
            self.stop = "expire"

    async def gate(self, host: Host, seconds: float, *, stoppable: bool = True) -> None:
        """Wait as the progression says: not at all, `seconds`, or for a step. A stop ends the wait."""
        started = time.monotonic()
        while not (stoppable and self.stop is not None):
            progression = host.settings.progression
            if progression == "instant":
                return
            if progression == "stepped":
                if self._steps:
                    self._steps -= 1
                    return
                self.idle.set()
                await self.pause(None)
            else:
                left = started + seconds - time.monotonic()
                if left <= 0:
                    return
                await self.pause(left)

    async def hold(self, fault: BatchFault | None) -> None:
        """Wait as a fault says, for ever or for some seconds. A stop ends the wait."""
        if fault is None:
            return
        seconds = 1.0 if fault.seconds is None else fault.seconds
        end = math.inf if fault.kind == "stuck" else time.monotonic() + seconds
        while self.stop is None and (left := end - time.monotonic()) > 0:
            self.idle.set()
            await self.pause(None if left == math.inf else left)

    async def pause(self, seconds: float | None) -> None:
        """Sleep until something changes, `seconds` have passed or the window has ended."""
        limits = [self.deadline - time.time()] if self.stop is None else []
        if seconds is not None:
            limits.append(seconds)
        self.wake.clear()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.wake.wait(), max(0.0, min(limits)) if limits else None)
        self.check_deadline()
