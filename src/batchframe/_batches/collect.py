"""What a pass collects: creates in doubt are settled, batches polled, result files downloaded.

The dangerous window is the create call: it spends money and is not idempotent. The intent is on disk before it, so
after a crash or a lost reply a submission that is ``submitting`` is in doubt, and only the service's own list (or the
deletion of the input file) settles it.
"""

from __future__ import annotations

import datetime as dt
import os
from typing import TYPE_CHECKING

from batchframe._batches.access_check import ensure_visible, lose_sight
from batchframe._batches.adopt import batch_of_input_file
from batchframe._batches.rejected_lines import rejected_lines, split_off, summary
from batchframe._batches.watch import is_behind, is_moved, note_news
from batchframe._core import lenient
from batchframe._core.events import trigger
from batchframe._core.exceptions import (
    InputFileRejectedError,
    InvalidCallError,
    NotVisibleError,
    ResultsError,
    ServiceError,
    warn,
)
from batchframe._core.remote import TERMINAL
from batchframe._providers.limits import is_queue_full

if TYPE_CHECKING:
    from batchframe._batches.pass_state import PassState
    from batchframe._batches.rejected_lines import Errors
    from batchframe._core.remote import RemoteBatch
    from batchframe._store.records import PartRecord, SubmissionRecord

_NOT_FOUND, _SPURIOUS_TRIES = "Cannot find file", 3
# What the services document when nothing else was asked for: result files live 30 days from the end of the batch.
_OUTPUT_DAYS, _WARN_DAYS = 30, 3


class Collector:
    """Takes submissions from the create call to result files on disk."""

    def __init__(self, state: PassState) -> None:
        self._state = state
        self._folder = state.folder
        self._client = state.client
        # Parts whose input file was refused for good. Another process, or another call, submits it again.
        self.refused: set[int] = set()
        self._just_ended: set[tuple[int, int]] = set()

    def collect(self, part: PartRecord, *, is_cancelled: bool) -> None:
        """Take the latest submission of a part as far as it goes now.

        Parameters
        ----------
        part
            The part.
        is_cancelled
            Whether its batch is to be cancelled, if it is still running.
        """
        submission = self._state.last(part)
        if submission is None:
            return
        if submission.stage == "submitting" and not submission.refused:
            self._settle(part, submission)
        if submission.stage == "submitted":
            self._poll(part, submission)
        if submission.stage == "submitted" and is_cancelled and submission.cancel_asked_at is None:
            self._cancel(part, submission)
        if submission.stage == "ended" and submission.status == "failed":
            self._judge(part, submission)
        if submission.stage == "ended" and submission.has_files:
            self._download(part, submission)

    # -- the dangerous window

    def _settle(self, part: PartRecord, submission: SubmissionRecord) -> None:
        """Find out what became of a create that got no answer."""
        assert submission.input_file_id is not None
        doubt_at = self._state.first_noted(submission.doubt_at)
        if doubt_at != submission.doubt_at:
            submission.doubt_at = doubt_at
            self._state.write(part, submission)
        is_shown = submission.input_deleted_at is not None or self._shows_file(submission.input_file_id)
        if self._adopt(part, submission):
            return
        if not is_shown:
            ensure_visible(self._state)
        if submission.input_deleted_at is None:
            if self._state.is_within_settling(doubt_at):
                return
            self._client.delete_file(submission.input_file_id)
            submission.input_deleted_at = self._state.clock.now()
            self._state.write(part, submission)
            trigger("after_input_deleted")
            if self._adopt(part, submission):
                return
        submission.reason = (
            "the create had no answer and made no batch; its input file was deleted, so none can come of it"
        )
        self._state.move(part, submission, "ended")

    def _shows_file(self, file_id: str) -> bool:
        try:
            self._client.retrieve_file(file_id)
        except NotVisibleError:
            return False
        self._state.shown.add(file_id)
        return True

    def _adopt(self, part: PartRecord, submission: SubmissionRecord) -> bool:
        assert submission.input_file_id is not None
        batch = batch_of_input_file(self._client.list(), submission.input_file_id, submission.input_file_created_at)
        if batch is None:
            return False
        self._state.notice(f"part {part.number}: found its batch {batch.id}, whose create had no answer")
        submission.batch_id, submission.status, submission.batch = batch.id, batch.status, batch.raw
        self._state.move(part, submission, "submitted")
        trigger("after_create")
        return True

    # -- the batch

    def _poll(self, part: PartRecord, submission: SubmissionRecord) -> None:
        assert submission.batch_id is not None
        batch = self._state.listed.get(submission.batch_id)
        if submission.batch_id in self._state.to_ask:
            note_news(submission, self._state.clock.now())
            self._state.write(part, submission)  # before the call: where it fails, it is another's turn all the same
            batch = None
        # A batch that ended is asked for by id: a list may show less of it.
        if batch is None or batch.is_terminal or submission.status in TERMINAL:
            try:
                batch = self._client.retrieve(submission.batch_id)
            except NotVisibleError as error:
                lose_sight(self._state, part, submission, error)
        elif is_behind(batch, submission):
            return
        self._state.shown.add(batch.id)
        if submission.times.pop("hidden_at", None) is not None:
            self._state.write(part, submission)
        has_moved = is_moved(batch, submission)
        submission.status, submission.batch = batch.status, batch.raw
        if not batch.is_terminal:
            if has_moved:
                note_news(submission, self._state.clock.now())
                self._state.write(part, submission)
            return
        if self._output_is_late(batch, submission):
            self._state.write(part, submission)
            return
        self._just_ended.add((part.number, submission.number))
        self._state.move(part, submission, "ended")
        trigger("after_ended")
        if submission.has_files:
            self._state.admission.ended()
            self._calibrate(part, batch)

    def _calibrate(self, part: PartRecord, batch: RemoteBatch) -> None:
        """Correct the estimate of tokens by the service's own count, where it executed the whole batch."""
        counted = lenient.integer(lenient.mapping(batch.raw.get("usage")).get("input_tokens"))
        if counted and part.tokens and batch.completed_requests == part.requests:
            self._state.admission.scale = counted / part.tokens

    def _output_is_late(self, batch: RemoteBatch, submission: SubmissionRecord) -> bool:
        """Whether a completed batch shows no output file yet, and may show one soon."""
        if batch.status != "completed" or batch.output_file_id is not None:
            return False
        if batch.error_file_id is not None and not batch.completed_requests:
            return False  # all requests failed: there will be no output
        seen_at = self._state.first_noted(submission.times.get("completed_at"))
        submission.times["completed_at"] = seen_at
        return self._state.is_within_settling(seen_at)

    def _cancel(self, part: PartRecord, submission: SubmissionRecord) -> None:
        assert submission.batch_id is not None
        trigger("before_cancel")
        try:
            self._client.cancel(submission.batch_id)
        except (InvalidCallError, NotVisibleError):
            return  # it ended in the meantime, as the next poll will show
        trigger("after_cancel_call")
        submission.cancel_asked_at = self._state.clock.now()
        self._state.write(part, submission)

    def _judge(self, part: PartRecord, submission: SubmissionRecord) -> None:
        """Leave out the lines that the service refused; where that does not mend the file, raise its errors.

        The same file is submitted again where the reason passes by itself: no room in the queue, or a file that the
        service did not find although it shows it. It is so too by another process, or at another call.
        """
        if part.adopted and submission.adopted_at is not None:
            # The service counts the lines of another file. A further attempt has its rows in other batches too.
            if part.attempt > 1:
                self._download(part, submission)
            return
        errors = lenient.batch_errors((submission.batch or {}).get("errors"))
        lines = rejected_lines(errors, part.requests)
        if lines and split_off(self._folder, part, lines, self._state.settings.limits):
            self._state.is_stale = True
            self._state.notice(
                f"part {part.number}: the service refused {len(lines)} of its {part.requests} requests: "
                f"{summary(errors)} The others are sent without them"
            )
            return
        if (part.number, submission.number) not in self._just_ended:
            return
        self._just_ended.remove((part.number, submission.number))
        if errors and all(is_queue_full(f"{code} {message}") for _, code, message in errors):
            self._state.refused(part, errors[0][2])
            self._state.notice(f"part {part.number}: {errors[0][2]} It is submitted again when there is room")
            return
        if submission.input_deleted_at is not None:
            return  # a create that acted late and found its file deleted, as intended
        if self._is_spurious(part, submission, errors):
            self._state.notice(f"part {part.number}: {errors[0][2]} It is there all the same, and is submitted again")
            return
        self.refused.add(part.number)
        msg = (
            f"the service refused the input file of part {part.number} ({part.requests} requests, batch "
            f"{submission.batch_id}): {summary(errors)} Nothing of it was executed or charged. The file is "
            f"{self._folder.input_path(part.number)}; correct the call, or make it again to submit the same file anew"
        )
        raise InputFileRejectedError(msg, errors)

    def _is_spurious(self, part: PartRecord, submission: SubmissionRecord, errors: Errors) -> bool:
        """Whether the service did not find an input file although it shows it: a known fault of its own."""
        if not errors or not all(_NOT_FOUND in message for _, _, message in errors):
            return False
        # A create that failed because we deleted its file is no sign that the service lost one.
        failed = [submission for submission in self._state.submissions[part.number] if submission.status == "failed"]
        if sum(submission.input_deleted_at is None for submission in failed) > _SPURIOUS_TRIES:
            return False
        return self._shows_file(submission.input_file_id or "")

    # -- the result files

    def _download(self, part: PartRecord, submission: SubmissionRecord) -> None:
        batch = submission.batch or {}
        kinds = ("output", "error")
        for kind in kinds:
            file_id = lenient.text(batch.get(f"{kind}_file_id"))
            if not file_id or self._folder.has_result(part.number, submission.number, kind):
                continue
            try:
                with self._folder.receiving(self._folder.result_path(part.number, submission.number, kind)) as handle:
                    self._client.download(file_id, handle)
            except NotVisibleError as error:
                if kind == "output":  # an error file that is not there holds nothing
                    self._miss(part, submission, file_id, error)
        has_results = any(self._folder.has_result(part.number, submission.number, kind) for kind in kinds)
        if submission.output_expired_at is None and not has_results:
            with self._folder.receiving(self._folder.result_path(part.number, submission.number, "output")):
                pass  # a batch that ended with neither file answered nothing
        trigger("after_download")
        self._state.move(part, submission, "downloaded")

    def _miss(self, part: PartRecord, submission: SubmissionRecord, file_id: str, error: NotVisibleError) -> None:
        """Note that an output file has expired. Raise for one that must be there: first to try again, then for good."""
        ends_at = self._output_ends_at(submission)
        if (ends_at is not None and self._state.clock.now() >= ends_at) or "expired" in str(error).casefold():
            self._state.notice(
                f"part {part.number}: the output file {file_id} of batch {submission.batch_id} has expired. Its rows "
                "are not sent again by themselves: run.retry(codes='output_expired') does, and is charged"
            )
            submission.output_expired_at = self._state.clock.now()
            return
        if self._state.is_within_settling(submission.times["ended_at"]):
            raise ServiceError(str(error), call="download", status_code=404) from error
        msg = (
            f"part {part.number}: batch {submission.batch_id} has an output file {file_id} that the service does not "
            f"show ({error}). It may have been deleted, or belong to another key or project; nothing was submitted "
            f"again. The same call looks for it anew; with another name= and reuse={os.fspath(self._folder.path)!r} it "
            "pays once more for the rows that have no answer"
        )
        raise ResultsError(msg) from error

    def _output_ends_at(self, submission: SubmissionRecord) -> dt.datetime | None:
        """Return when a batch's result files expire; None where the service did not say when it ended."""
        batch = submission.batch or {}
        ended = [lenient.moment(batch.get(name)) for name in ("completed_at", "expired_at", "cancelled_at")]
        known = max((at for at in ended if at is not None), default=None)
        if known is None:
            known = lenient.moment(batch.get("created_at"))
        seconds = self._state.settings.expires_after
        life = dt.timedelta(days=_OUTPUT_DAYS) if seconds is None else dt.timedelta(seconds=seconds)
        return None if known is None else known + life

    def warn_of_expiry(self) -> None:
        """Warn of results that are not downloaded yet and will soon be gone."""
        ends = [
            at
            for part in self._state.parts
            for submission in [self._state.last(part)]
            if submission is not None and (submission.is_in_flight or submission.stage == "ended")
            for at in [self._output_ends_at(submission)]
            if at is not None and submission.batch_id is not None
        ]
        soon = [at for at in ends if at - self._state.clock.now() <= dt.timedelta(days=_WARN_DAYS)]
        if soon:
            warn(
                f"the results of {len(soon)} batches are not fetched yet, and the service deletes them, the first at "
                f"{min(soon):%Y-%m-%d %H:%M} UTC: go on with this run until it is finished"
            )
