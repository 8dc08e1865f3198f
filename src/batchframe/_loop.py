"""One pass over a run: resume what was begun, collect what is finished, submit what is next. It never sleeps.

The dangerous window is the create call: it spends money and is not idempotent. The intent is on disk before it, so
after a crash or a lost reply a submission that is ``submitting`` is in doubt, and only the service's own list (or the
deletion of the input file) settles it.
"""

from __future__ import annotations

import datetime as dt
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from batchframe._adoption import batch_of_input_file
from batchframe._assembly import part_states
from batchframe._blocks import forget_results
from batchframe._events import Event, Listener, ignore, logger, trigger
from batchframe._exceptions import (
    APICallError,
    AuthenticationError,
    InputFileRejectedError,
    NotVisibleError,
    ResultsError,
    RunError,
    ServiceError,
)
from batchframe._limits import Limits
from batchframe._retry import NOT_TOLD, due, prepare_retries, settle, unsettled
from batchframe._types import RemoteBatch, SubmissionRecord

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import polars as pl

    from batchframe._client import BatchClient
    from batchframe._store import RunFolder
    from batchframe._types import PartRecord, Stage

# The service has no room for the file now, and takes the same file later: reference of both services.
_NO_ROOM = frozenset({"token_limit_exceeded"})
# A file in one of these states is still being looked at (Azure); no state at all, or another, is tried.
_LOOKED_AT = frozenset({"pending", "running", "notrunning", "uploading"})
_LOOK_SECONDS = 1_800
_NOT_FOUND, _SPURIOUS_TRIES = "Cannot find file", 3


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
    limits: Limits = field(default_factory=Limits)


@dataclass
class Pass:
    """What one pass saw."""

    done: bool = False
    in_flight: int = 0
    by_status: Counter[str] = field(default_factory=Counter)
    done_requests: int = 0
    trouble: APICallError | None = None
    is_brief: bool = False
    waiting_for: list[str] = field(default_factory=list)


class Loop:
    """Takes one run forward, pass by pass.

    Parameters
    ----------
    folder
        The run; all that a pass must remember is in it.
    client
        The service.
    settings
        See `LoopSettings`.
    """

    def __init__(
        self,
        folder: RunFolder,
        client: BatchClient,
        settings: LoopSettings,
        *,
        listen: Listener = ignore,
        clock: Clock | None = None,
    ) -> None:
        self._folder = folder
        self._client = client
        self._settings = settings
        self._listen = listen
        self._clock = clock or Clock()
        self._refused: set[int] = set()
        self._submissions: dict[int, list[SubmissionRecord]] = {}
        self.accepted_calls = 0

    @property
    def was_ever_accepted(self) -> bool:
        """Whether the service took a call of this run, now or in an earlier process."""
        return bool(self.accepted_calls) or any(
            submission.input_file_id for submissions in self._submissions.values() for submission in submissions
        )

    @property
    def min_poll_seconds(self) -> float:
        """How long the service wants to be left alone between two looks."""
        return self._client.min_poll_seconds

    def refresh(self) -> Pass:
        """Collect what is finished, and submit nothing; errors as for `advance`."""
        return self._pass(submit=False)

    def advance(self) -> Pass:
        """Do what can be done now.

        Raises
        ------
        InputFileRejectedError
            The service refused an input file; the other parts were seen to first.
        AuthenticationError, InvalidCallError, RunError
            What no waiting mends. The run stays resumable.
        """
        return self._pass(submit=True)

    def _pass(self, *, submit: bool) -> Pass:
        seen = Pass()
        fatal: list[Exception] = []
        parts = [part for part in self._folder.parts() if part.reused_from is None]
        replaced = {part.split_from for part in parts}
        todo = [part for part in parts if part.number not in replaced]
        self._submissions = {part.number: self._folder.submissions(part.number) for part in todo}
        for part in todo:
            self._guarded(seen, fatal, self._collect, part)
        for part in todo:
            if submit and not fatal:
                self._guarded(seen, fatal, self._submit, part, seen)
        for part in todo:
            self._count(seen, part)
        if submit and not fatal and all(self._is_downloaded(part) for part in todo):
            self._guarded(seen, fatal, self._ask_again, seen)
        self._listen(Event("status", self._sentence(seen), seen.done_requests, sum(part.requests for part in todo)))
        if fatal:
            raise fatal[0]
        return seen

    def _guarded(self, seen: Pass, fatal: list[Exception], step: Callable[..., None], *arguments: Any) -> None:
        """Take one step for one part: its trouble never touches another part."""
        if any(isinstance(error, AuthenticationError) for error in fatal):
            return
        try:
            step(*arguments)
        except APICallError as error:
            if error.is_transient:
                seen.trouble = error
                self._notice(f"{error}. Trying again later")
            else:
                fatal.append(error)
        except RunError as error:
            fatal.append(error)

    # -- resume and collect

    def _collect(self, part: PartRecord) -> None:
        submission = self._last(part)
        if submission is None:
            return
        if submission.stage == "submitting" and not submission.refused:
            self._settle(part, submission)
        if submission.stage == "submitted":
            self._poll(part, submission)
        if submission.stage == "ended" and submission.has_files:
            self._download(part, submission)

    def _settle(self, part: PartRecord, submission: SubmissionRecord) -> None:
        """Find out what became of a create that got no answer; see DESIGN: the dangerous window."""
        assert submission.input_file_id is not None
        now = self._clock.now()
        if submission.doubt_at is None or now < submission.doubt_at:
            submission.doubt_at = now
            self._write(part, submission)
        if submission.input_deleted_at is None:
            try:
                self._client.retrieve_file(submission.input_file_id)
            except NotVisibleError as error:
                msg = (
                    f"part {part.number}: a create got no answer, and the service does not show its input file "
                    f"{submission.input_file_id} to this client: another key or project made it. Nothing was sent; "
                    f"go on with the key of the first call ({error})"
                )
                raise RunError(msg) from error
        if self._adopt(part, submission):
            return
        if submission.input_deleted_at is None:
            if (now - submission.doubt_at).total_seconds() < self._settings.settle_seconds:
                return
            self._client.delete_file(submission.input_file_id)
            submission.input_deleted_at = self._clock.now()
            self._write(part, submission)
            trigger("after_input_deleted")
            if self._adopt(part, submission):
                return
        submission.reason = (
            "the create had no answer and made no batch; its input file was deleted, so none can come of it"
        )
        self._move(part, submission, "ended")

    def _adopt(self, part: PartRecord, submission: SubmissionRecord) -> bool:
        assert submission.input_file_id is not None
        batch = batch_of_input_file(self._client.list(), submission.input_file_id, submission.input_file_created_at)
        if batch is None:
            return False
        self._notice(f"part {part.number}: found its batch {batch.id}, whose create had no answer")
        self._created(part, submission, batch)
        return True

    def _poll(self, part: PartRecord, submission: SubmissionRecord) -> None:
        assert submission.batch_id is not None
        batch = self._client.retrieve(submission.batch_id)
        self.accepted_calls += 1
        before = submission.batch or {}
        changed = [batch.raw.get(name) != before.get(name) for name in ("status", "request_counts")]
        submission.status, submission.batch = batch.status, batch.raw
        if not batch.is_terminal:
            if any(changed):
                self._write(part, submission)
            return
        if self._output_is_late(batch, submission):
            self._write(part, submission)
            return
        self._move(part, submission, "ended")
        trigger("after_ended")
        if batch.status == "failed":
            self._refuse(part, submission, batch)

    def _output_is_late(self, batch: RemoteBatch, submission: SubmissionRecord) -> bool:
        """Whether a completed batch shows no output file yet, and may show one soon."""
        if batch.status != "completed" or batch.output_file_id is not None:
            return False
        if batch.error_file_id is not None and not batch.completed_requests:
            return False  # all requests failed: there will be none
        seen_at = submission.times.setdefault("completed_at", self._clock.now())
        return 0 <= (self._clock.now() - seen_at).total_seconds() < self._settings.settle_seconds

    def _refuse(self, part: PartRecord, submission: SubmissionRecord, batch: RemoteBatch) -> None:
        """Raise what the service said of an input file that it refused, unless the same file may go again."""
        codes = {code for _, code, _ in batch.errors}
        if codes and codes <= _NO_ROOM:
            self._notice(f"part {part.number}: {batch.errors[0][2]} It is submitted again when there is room")
            return
        if self._is_spurious(part, submission, batch):
            self._notice(f"part {part.number}: {batch.errors[0][2]} It is there all the same, and is submitted again")
            return
        self._refused.add(part.number)
        msg = (
            f"the service refused the input file of part {part.number} ({part.requests} requests, batch {batch.id}): "
            f"{_summary(batch.errors)} Nothing of it was executed or charged. The file is "
            f"{self._folder.input_path(part.number)}; correct the call, or make it again to submit the same file anew"
        )
        raise InputFileRejectedError(msg, batch.errors)

    def _is_spurious(self, part: PartRecord, submission: SubmissionRecord, batch: RemoteBatch) -> bool:
        """Whether the service did not find an input file that it shows: a fault of its own that others met too."""
        if not batch.errors or not all(_NOT_FOUND in message for _, _, message in batch.errors):
            return False
        if len(self._submissions[part.number]) > _SPURIOUS_TRIES:
            return False
        try:
            self._client.retrieve_file(submission.input_file_id or "")
        except NotVisibleError:
            return False
        return True

    def _download(self, part: PartRecord, submission: SubmissionRecord) -> None:
        batch = submission.batch or {}
        paths = {kind: self._folder.result_path(part.number, submission.number, kind) for kind in ("output", "error")}
        for kind, path in paths.items():
            file_id = batch.get(f"{kind}_file_id")
            if not file_id or path.exists():
                continue
            try:
                with self._folder.receiving(path) as handle:
                    self._client.download(file_id, handle)
                self.accepted_calls += 1
            except NotVisibleError as error:
                if kind == "output":  # an error file that is not there has nothing to tell
                    self._require(part, submission, file_id, error)
        if not any(path.exists() for path in paths.values()):
            with self._folder.receiving(paths["output"]):
                pass  # a batch that ended with neither file has answered nothing
        trigger("after_download")
        self._move(part, submission, "downloaded")

    def _require(self, part: PartRecord, submission: SubmissionRecord, file_id: str, error: NotVisibleError) -> None:
        """Raise for an output file that is not there: as something passing at first, then for good."""
        waited = (self._clock.now() - submission.times["ended_at"]).total_seconds()
        if 0 <= waited < self._settings.settle_seconds:
            raise ServiceError(str(error), call="download", status_code=404) from error
        msg = (
            f"part {part.number}: batch {submission.batch_id} has an output file {file_id} that the service does not "
            f"show ({error}). It may have expired, or belong to another key or project; nothing was submitted again"
        )
        raise ResultsError(msg) from error

    # -- submit

    def _submit(self, part: PartRecord, seen: Pass) -> None:
        submission = self._last(part)
        if submission is not None and submission.stage == "ended" and not submission.has_files:
            if part.number in self._refused:
                return
            submission = None  # it came to nothing, and cost nothing: the file goes again
        if submission is None:
            if not self._has_room(part, seen):
                return
            submission = SubmissionRecord(number=len(self._submissions[part.number]))
            self._submissions[part.number].append(submission)
            self._move(part, submission, "written")
        if submission.stage in {"written", "uploading"}:
            self._upload(part, submission)
        if submission.stage == "uploaded" or submission.refused:
            if self._is_file_ready(part, submission):
                self._create(part, submission)
            else:
                seen.waiting_for.append("the service to look at an input file")
                seen.is_brief = True
        elif submission.stage == "submitting":
            seen.waiting_for.append("what became of a create that got no answer")

    def _has_room(self, part: PartRecord, seen: Pass) -> bool:
        in_flight = sum(self._is_in_flight(number) for number in self._submissions)
        limit = self._settings.max_in_flight
        if limit is not None and in_flight >= limit:
            seen.waiting_for.append(f"one of {in_flight} batches in flight to end (limits.max_in_flight={limit})")
            return False
        last = self._last(part)
        if in_flight and last is not None and _codes_of(last) & _NO_ROOM:
            seen.waiting_for.append("room in the queue of enqueued tokens")
            return False
        return True

    def _upload(self, part: PartRecord, submission: SubmissionRecord) -> None:
        self._move(part, submission, "uploading")
        trigger("before_upload")
        filename = f"batchframe-{self._settings.run_id[:12]}-{part.number:04d}.jsonl"
        with self._folder.input_path(part.number).open("rb") as handle:
            file = self._client.upload(handle, filename, self._settings.expires_after)
        self.accepted_calls += 1
        trigger("after_upload_call")
        if file.bytes is not None and file.bytes != part.bytes:
            self._client.delete_file(file.id)
            msg = f"upload: the service received {file.bytes} of the {part.bytes} bytes of part {part.number}"
            raise ServiceError(msg, call="upload")
        submission.input_file_id, submission.input_file_created_at = file.id, file.created_at
        submission.file_status = file.status
        self._move(part, submission, "uploaded")
        trigger("after_upload")

    def _is_file_ready(self, part: PartRecord, submission: SubmissionRecord) -> bool:
        """Whether a batch can be made of the uploaded file; some services look at it first, which takes a while."""
        assert submission.input_file_id is not None
        if submission.file_status not in _LOOKED_AT:
            return True
        submission.file_status = self._client.retrieve_file(submission.input_file_id).status
        if submission.file_status == "error":
            submission.reason = "the service refused the input file after the upload"
            self._move(part, submission, "ended")
            msg = (
                f"part {part.number}: the service gave the input file {submission.input_file_id} the status 'error'. "
                f"Nothing was charged. The file is {self._folder.input_path(part.number)}; the same call sends it anew"
            )
            raise InputFileRejectedError(msg)
        if submission.file_status not in _LOOKED_AT:
            return True
        waited = (self._clock.now() - submission.times["uploaded_at"]).total_seconds()
        if waited > _LOOK_SECONDS:
            submission.reason = f"the service had not looked at the input file after {_LOOK_SECONDS} seconds"
            self._move(part, submission, "ended")
            msg = f"part {part.number}: {submission.reason}. Nothing was charged; the same call uploads it anew"
            raise RunError(msg)
        return False

    def _create(self, part: PartRecord, submission: SubmissionRecord) -> None:
        assert submission.input_file_id is not None
        submission.refused = False
        self._move(part, submission, "submitting")
        trigger("before_create")
        metadata = self._settings.metadata | {
            "batchframe_run": self._settings.run_id,
            "batchframe_part": str(part.number),
            "batchframe_digest": part.digest,
            "batchframe_tokens": str(part.tokens),
        }
        settings = self._settings
        try:
            batch = self._client.create(
                submission.input_file_id,
                settings.endpoint,
                settings.completion_window,
                metadata,
                settings.expires_after,
            )
        except APICallError as error:
            submission.said.append(_said(error, self._clock.now()))
            if error.is_in_doubt:
                submission.doubt_at = self._clock.now()
                self._write(part, submission)
            elif error.is_transient:
                submission.refused = True
                self._write(part, submission)
            else:
                submission.reason = str(error)
                self._move(part, submission, "ended")
            raise
        self.accepted_calls += 1
        trigger("after_create_call")
        self._created(part, submission, batch)

    def _created(self, part: PartRecord, submission: SubmissionRecord, batch: RemoteBatch) -> None:
        submission.batch_id, submission.status, submission.batch = batch.id, batch.status, batch.raw
        self._move(part, submission, "submitted")
        trigger("after_create")

    # -- another attempt

    def _ask_again(self, seen: Pass) -> None:
        """Prepare another attempt for the rows that are worth one; it is submitted in the next pass."""
        prepared = 0
        for attempt in unsettled(self._folder, part_states(self._folder), self._settings.max_attempts):
            wanted = due(self._folder, attempt)
            if self._fetch_again(wanted):
                wanted = due(self._folder, attempt)
            if wanted.height:
                forget_results(self._folder)
                prepared += prepare_retries(self._folder, attempt, wanted, self._settings.limits)
                codes = ", ".join(f"{count} {code}" for code, count in wanted.group_by("code").len().sort("len").rows())
                self._notice(f"{wanted.height} rows are asked again, attempt {attempt + 1}: {codes}")
            trigger("before_settle")
            settle(self._folder, attempt)
        seen.done = not prepared

    def _fetch_again(self, wanted: pl.DataFrame) -> bool:
        """Fetch the files once more that tell nothing of some rows, before those rows are paid for once more."""
        fetched = False
        for number in wanted.filter(wanted["code"].is_in(NOT_TOLD))["part"].unique().sort():
            for submission in self._folder.submissions(number):
                if submission.stage != "downloaded" or submission.fetched_again_at is not None:
                    continue
                for kind in ("output", "error"):
                    file_id = (submission.batch or {}).get(f"{kind}_file_id")
                    path = self._folder.result_path(number, submission.number, f"{kind}.again")
                    if file_id and not path.exists():
                        self._fetch_copy(file_id, path)
                submission.fetched_again_at = self._clock.now()
                self._folder.write_submission(number, submission)
                fetched = True
        return fetched

    def _fetch_copy(self, file_id: str, path: Path) -> None:
        try:
            with self._folder.receiving(path) as handle:
                self._client.download(file_id, handle)
        except NotVisibleError:
            pass  # what was fetched the first time is all there is

    # -- what is on disk

    def _move(self, part: PartRecord, submission: SubmissionRecord, stage: Stage) -> None:
        submission.stage = stage
        submission.times[f"{stage}_at"] = self._clock.now()
        self._write(part, submission)

    def _write(self, part: PartRecord, submission: SubmissionRecord) -> None:
        self._folder.write_submission(part.number, submission)

    def _last(self, part: PartRecord) -> SubmissionRecord | None:
        submissions = self._submissions[part.number]
        return submissions[-1] if submissions else None

    def _is_downloaded(self, part: PartRecord) -> bool:
        return any(submission.stage == "downloaded" for submission in self._submissions[part.number])

    def _is_in_flight(self, number: int) -> bool:
        return any(
            found.stage in {"submitting", "submitted"} and not found.refused for found in self._submissions[number]
        )

    def _count(self, seen: Pass, part: PartRecord) -> None:
        submissions = self._submissions[part.number]
        for submission in submissions:
            if submission.batch_id is not None:
                seen.by_status[submission.status or "unknown"] += 1
        if submissions:
            last = submissions[-1]
            counts = (last.batch or {}).get("request_counts") or {}
            counted = (counts.get("completed") or 0) + (counts.get("failed") or 0)
            seen.done_requests += part.requests if last.stage == "downloaded" else min(counted, part.requests)
            seen.in_flight += last.stage in {"submitting", "submitted"}

    def _sentence(self, seen: Pass) -> str:
        batches = ", ".join(f"{count} {status}" for status, count in sorted(seen.by_status.items()))
        waiting = f"; waiting for {seen.waiting_for[0]}" if seen.waiting_for else ""
        return f"batches: {batches or 'none yet'}{waiting}"

    def _notice(self, message: str) -> None:
        logger.info(message)
        self._listen(Event("notice", message))


def _summary(errors: list[tuple[int | None, str, str]]) -> str:
    """Return the service's words, each once, with the line they are about, or how many."""
    said: dict[tuple[str, str], list[int | None]] = {}
    for line, code, message in errors:
        said.setdefault((code, message), []).append(line)
    shown = []
    for (code, message), lines in list(said.items())[:5]:
        where = f"line {lines[0]}: " if len(lines) == 1 else f"{len(lines)} lines from line {lines[0]}: "
        shown.append(f"{where if lines[0] else ''}{code}: {message.rstrip('.')}")
    more = f"; and {len(said) - len(shown)} other reasons" if len(said) > len(shown) else ""
    return f"{'; '.join(shown) or 'it gave no reason'}{more}."


def _said(error: APICallError, at: dt.datetime) -> dict[str, Any]:
    what = {"call": error.call, "status_code": error.status_code, "code": error.code, "request_id": error.request_id}
    return {"at": at, **what, "message": str(error)}


def _codes_of(submission: SubmissionRecord) -> set[str]:
    errors = (submission.batch or {}).get("errors")
    data = errors.get("data") if isinstance(errors, dict) else errors
    return {str(error.get("code")) for error in data or [] if isinstance(error, dict)}
