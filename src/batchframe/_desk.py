"""What the steps of a pass share: the run's parts and submissions, the service, the settings, and the time.

Every change of a submission goes to the disk before anything is done that depends on it.
"""

from __future__ import annotations

import datetime as dt
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from batchframe._events import Event, Listener, logger
from batchframe._limits import Limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchframe._client import BatchClient
    from batchframe._exceptions import APICallError
    from batchframe._store import RunFolder
    from batchframe._types import PartRecord, Stage, SubmissionRecord

# The service has no room for the file now, and takes the same file later: reference of both services.
NO_ROOM = frozenset({"token_limit_exceeded"})


@dataclass(frozen=True)
class Clock:
    """Time, sleep and chance, so that tests need none of them."""

    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.timezone.utc)
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random


@dataclass(frozen=True)
class LoopSettings:
    """What the loop sends along, and how long it doubts."""

    run_id: str
    endpoint: str
    completion_window: str = "24h"
    metadata: dict[str, str] = field(default_factory=dict)
    expires_after: int | None = None
    settle_seconds: float = 60.0
    max_in_flight: int | None = None
    max_attempts: int = 3
    has_pilot: bool = False
    limits: Limits = field(default_factory=Limits)


@dataclass
class Pass:
    """What one pass saw."""

    done: bool = False
    by_status: Counter[str] = field(default_factory=Counter)
    done_requests: int = 0
    trouble: APICallError | None = None
    is_brief: bool = False
    waiting_for: list[str] = field(default_factory=list)


@dataclass
class Desk:
    """The run as the steps of a pass see it; `open` reads it anew."""

    folder: RunFolder
    client: BatchClient
    settings: LoopSettings
    listen: Listener
    clock: Clock
    parts: list[PartRecord] = field(default_factory=list)
    submissions: dict[int, list[SubmissionRecord]] = field(default_factory=dict)
    pilot: PartRecord | None = None
    is_stale: bool = False
    # Whether nothing is submitted in this pass, since it is not known what runs already.
    is_held: bool = False
    accepted_calls: int = 0

    def open(self) -> None:
        """Read the parts that are not replaced by others, nor empty, and their submissions."""
        self.is_stale = False
        parts = self.folder.parts()
        replaced = {part.split_from for part in parts}
        self.parts = [part for part in parts if part.number not in replaced and part.requests]
        # The first part, or what is left of it after lines were refused.
        first = 0
        for part in parts:
            first = part.number if part.split_from == first else first
        self.pilot = next((part for part in self.parts if part.number == first), None)
        self.submissions = {part.number: self.folder.submissions(part.number) for part in self.parts}

    def last(self, part: PartRecord) -> SubmissionRecord | None:
        """Return a part's latest submission."""
        submissions = self.submissions[part.number]
        return submissions[-1] if submissions else None

    def is_downloaded(self, part: PartRecord) -> bool:
        """Whether the answers to a part are on disk."""
        return any(submission.stage == "downloaded" for submission in self.submissions[part.number])

    def is_in_flight(self, part: PartRecord) -> bool:
        """Whether a batch of this part is at the service, or may be."""
        return any(submission.is_in_flight for submission in self.submissions[part.number])

    def move(self, part: PartRecord, submission: SubmissionRecord, stage: Stage) -> None:
        """Take a submission to another stage."""
        submission.stage = stage
        submission.times[f"{stage}_at"] = self.clock.now()
        self.write(part, submission)

    def write(self, part: PartRecord, submission: SubmissionRecord) -> None:
        """Bring a submission to the disk."""
        self.folder.write_submission(part.number, submission)

    def seconds_since(self, at: dt.datetime) -> float:
        """Return how long ago something was noted; negative where the clock was set back since."""
        return (self.clock.now() - at).total_seconds()

    def is_within_settling(self, at: dt.datetime) -> bool:
        """Whether what was first seen then may still change by itself."""
        return 0 <= self.seconds_since(at) < self.settings.settle_seconds

    def notice(self, message: str) -> None:
        """Say something worth showing."""
        logger.info(message)
        self.listen(Event("notice", message))
