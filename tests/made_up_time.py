"""A time that tests make: hours pass in it without waiting."""

from __future__ import annotations

import dataclasses
import datetime as dt
import random

from batchframe._core.clock import Clock
from batchframe._runs.run import Run


class Time:
    """A time in which sleeping is free; it begins now."""

    def __init__(self) -> None:
        start = dt.datetime.now(dt.timezone.utc)
        self.passed = 0.0
        self.slept: list[float] = []
        chance = random.Random(1)
        self.clock = Clock(
            now=lambda: start + dt.timedelta(seconds=self.passed),
            monotonic=lambda: self.passed,
            sleep=self.sleep,
            chance=chance.random,
        )

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.passed += seconds

    def run(self, begun: Run, **options) -> Run:
        """Return a run as a process of this time opens it, perhaps with other options."""
        settings = dataclasses.replace(begun._settings, **options)
        return Run(begun._folder, begun._record, settings, begun._service, clock=self.clock)
