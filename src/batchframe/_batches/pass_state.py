"""What the steps of a pass share: the parts and submissions of the run, the service, the settings and the time.

Every change of a submission is written to disk before anything that depends on it is done. What other processes changed
is read at the beginning of each pass, and whenever a step has replaced parts; see `_store/record_files.py` for what
that costs.
"""

from __future__ import annotations

import datetime as dt
import itertools
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from batchframe._batches.admission import Admission, Load
from batchframe._batches.watch import FEW, to_ask
from batchframe._core.events import Event, Listener, logger
from batchframe._core.exceptions import InvalidCallError, NotVisibleError
from batchframe._core.lenient import integer, mapping
from batchframe._providers.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchframe._core.clock import Clock
    from batchframe._core.remote import RemoteBatch
    from batchframe._providers.client import BatchClient
    from batchframe._store.records import PartRecord, Stage, SubmissionRecord
    from batchframe._store.run_folder import RunFolder

UNVALIDATED = frozenset({None, "validating"})
_NOTE = "queue.json"
# The pages of a list are read as far back as batches may be running, and no further than this many batches.
_WINDOW, _MARGIN, _MAX_LISTED = dt.timedelta(hours=25), dt.timedelta(minutes=5), 2_000


@dataclass(frozen=True)
class LoopSettings:
    """What the loop sends along, and how long it waits for what may still appear."""

    run_id: str
    endpoint: str
    model: str
    completion_window: str = "24h"
    metadata: dict[str, str] = field(default_factory=dict)
    expires_after: int | None = None
    settle_seconds: float = 60.0
    # For how long a list must show a batch unchanged until that is asked for by id.
    unmoved_seconds: float = 300.0
    max_attempts: int = 3
    has_pilot: bool = False
    limits: Limits = field(default_factory=Limits)
    # Requests that may be enqueued at once, where the service limits them.
    max_enqueued_requests: int | None = None


@dataclass
class PassState:
    """The run as the steps of a pass see it; `reload` reads its records again."""

    folder: RunFolder
    client: BatchClient
    settings: LoopSettings
    listen: Listener
    clock: Clock
    parts: list[PartRecord] = field(default_factory=list)
    submissions: dict[int, list[SubmissionRecord]] = field(default_factory=dict)
    pilot: PartRecord | None = None
    is_stale: bool = False
    # Whether nothing is submitted in this pass, since it is not known yet what is running already.
    is_held: bool = False
    # The ids of the run's files and batches that the service has shown to this client, or has taken from it.
    shown: set[str] = field(default_factory=set)
    listed: dict[str, RemoteBatch] = field(default_factory=dict)
    # The ids of the listed batches that are asked for by id all the same.
    to_ask: set[str] = field(default_factory=set)
    # What asking by id showed of batches that are not ours yet, where the list is late.
    asked: dict[str, RemoteBatch] = field(default_factory=dict)
    others: Load = field(default_factory=Load)
    _noted: dict[dt.datetime, float] = field(default_factory=dict)
    admission: Admission = field(init=False)

    def __post_init__(self) -> None:
        note = mapping(self.folder.read_note(_NOTE))
        learned = note.get("enqueued_token_limit")
        limits = [limit for limit in (self.settings.limits.max_enqueued_tokens, learned) if limit is not None]
        requests = note.get("enqueued_request_limit", self.settings.max_enqueued_requests)
        self.admission = Admission(min(limits, default=None), requests)

    def reload(self) -> None:
        """Read the parts that are neither empty nor replaced by others, and their submissions."""
        self.is_stale = False
        parts = [part for part in self.folder.parts() if part.reused_from is None]
        replaced = {part.split_from for part in parts}
        self.parts = [part for part in parts if part.number not in replaced and part.requests]
        # The first part, or what is left of it after lines were refused.
        first = 0
        for part in parts:
            first = part.number if part.split_from == first else first
        self.pilot = next((part for part in self.parts if part.number == first), None)
        self.submissions = {part.number: self.folder.submissions(part.number) for part in self.parts}

    def list_batches(self) -> None:
        """List the account's batches, where that takes fewer calls than to ask for each.

        A batch that the list shows unchanged for long is asked for by id now and then: see `watch.py`.
        """
        self.admission.begin_pass()
        latest = [submission for part in self.parts if (submission := self.last(part)) is not None]
        own = [submission for submission in latest if submission.stage == "submitted"]
        self.listed, self.to_ask, self.others = {}, set(), Load()
        is_tight = self.admission.is_tight and any(self._is_to_be_admitted(part) for part in self.parts)
        if len(own) <= FEW and not is_tight:
            return
        created = [submission.created_at for submission in own]
        oldest = min((at for at in created if at is not None), default=self.clock.now())
        oldest = min(oldest, self.clock.now() - _WINDOW) if is_tight else oldest
        for batch in itertools.islice(self._listing(), _MAX_LISTED):
            if batch.created_at is not None and batch.created_at < oldest - _MARGIN:
                break
            self.listed[batch.id] = batch
            self.others += self._load_of_other_run(batch)
        self.to_ask = to_ask(own, self.listed, self.clock.now(), self.settings.unmoved_seconds)

    def _listing(self) -> Iterator[RemoteBatch]:
        try:
            yield from self.client.list()
        except (NotVisibleError, InvalidCallError):
            return  # a service without a list: each batch is asked for

    def _is_to_be_admitted(self, part: PartRecord) -> bool:
        """Whether a part has yet to find room in the queue, as far as is known here."""
        last = self.last(part)
        if last is not None and last.stage == "submitted":
            return last.status in UNVALIDATED
        return last is None or not (last.is_alive or last.stage == "downloaded")

    def _load_of_other_run(self, batch: RemoteBatch) -> Load:
        """Return what a batch holds in the queue that another run of ours made; nothing for any other batch."""
        metadata = mapping(batch.raw.get("metadata"))
        is_other = metadata.get("batchframe_run", self.settings.run_id) != self.settings.run_id
        if batch.is_terminal or not is_other or metadata.get("batchframe_model") != self.settings.model:
            return Load()
        tokens, requests = (str(metadata.get(f"batchframe_{what}", "")) for what in ("tokens", "requests"))
        # The service counts requests when it validates them; until then the total is 0.
        counted = integer(mapping(batch.raw.get("request_counts")).get("total"))
        announced = int(requests) if requests.isdecimal() else 0
        return Load(int(tokens) if tokens.isdecimal() else 0, counted or announced)

    def in_flight(self, part: PartRecord) -> Load:
        """Return what all our runs of this model have in the queue beside a part, as far as is known."""
        own = [other for other in self.parts if other is not part and self.is_in_flight(other)]
        return self.others + Load(sum(other.tokens for other in own), sum(other.requests for other in own))

    def refused(self, part: PartRecord, message: str) -> None:
        """Note that the service had no room for a part, and the limit that it named."""
        admission = self.admission
        before = admission.limit, admission.max_requests
        load = Load(part.tokens, part.requests)
        admission.refused(
            part.number, load, self.in_flight(part), message, others=any(self.others), chance=self.clock.chance()
        )
        if (admission.limit, admission.max_requests) != before:
            learned = {"enqueued_token_limit": admission.limit, "enqueued_request_limit": admission.max_requests}
            self.folder.write_note(_NOTE, {name: limit for name, limit in learned.items() if limit is not None})

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
        submission.times[f"{stage}_at"] = self.now()
        self.write(part, submission)

    def write(self, part: PartRecord, submission: SubmissionRecord) -> None:
        """Write a submission to disk."""
        self.folder.write_submission(part.number, submission)

    def now(self) -> dt.datetime:
        """Return the time to note something with."""
        at = self.clock.now()
        self._noted[at] = self.clock.monotonic()
        return at

    def first_noted(self, at: dt.datetime | None) -> dt.datetime:
        """Return when something was first noted: now where it was not, or where the clock was set back since."""
        return self.now() if at is None or self.seconds_since(at) < 0 else at

    def seconds_since(self, at: dt.datetime) -> float:
        """Return how long ago something was noted.

        For what this process noted, the monotonic clock tells, whatever was done to the time of day. For what another
        process noted, the time of day is all there is; the answer is negative where that was set back.
        """
        if at in self._noted:
            return self.clock.monotonic() - self._noted[at]
        return (self.clock.now() - at).total_seconds()

    def is_within_settling(self, at: dt.datetime) -> bool:
        """Whether something that was first seen then may still change by itself."""
        return 0 <= self.seconds_since(at) < self.settings.settle_seconds

    def notice(self, message: str, level: int = logging.INFO) -> None:
        """Log a message, and pass it to the listener."""
        logger.log(level, message)
        self.listen(Event("notice", message))
