"""One pass over a run: collect what is finished, submit what is next, retry what is worth it. It never sleeps."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

import msgspec

from batchframe._batches.access_check import ensure_visible
from batchframe._batches.adopt import adopt, is_new, waiting_parts
from batchframe._batches.attempts import (
    NO_LINE,
    Round,
    answered_after_all,
    due,
    generation_of,
    prepare_retries,
    settle,
    settled_round,
    unsettled,
)
from batchframe._batches.collect import Collector
from batchframe._batches.match_requests import remove_requests
from batchframe._batches.pass_report import PassReport
from batchframe._batches.pass_state import LoopSettings, PassState
from batchframe._batches.stop_loss import Outcome, outcome_of, stop_after_pilot, stop_for
from batchframe._batches.submit import Submitter
from batchframe._batches.trouble import CountingClient, forget_trouble, keep_trouble, read_trouble
from batchframe._core.clock import Clock
from batchframe._core.events import Event, Listener, ignore, trigger
from batchframe._core.exceptions import (
    APICallError,
    AuthenticationError,
    LeaseLostError,
    NotVisibleError,
    RunError,
    UnreadableReplyError,
)
from batchframe._results.result_blocks import mark_results_stale
from batchframe._results.result_lines import READER
from batchframe._store.filesystem import naming
from batchframe._store.parts import part_states
from batchframe._store.stop_record import is_covered, read_stop, write_stop

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import polars as pl

    from batchframe._providers.client import BatchClient
    from batchframe._store.records import PartRecord, StopRecord, TroubleRecord
    from batchframe._store.run_folder import RunFolder


class Loop:
    """Takes a run forward, pass by pass.

    Parameters
    ----------
    folder
        The run. All that the next pass must know is written there.
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
        clock = clock or Clock()
        self._counting = CountingClient(client, clock)
        self._client = cast("BatchClient", self._counting)
        self._settings = settings
        self._state = PassState(folder, self._client, settings, listen, clock)
        self._collector = Collector(self._state)
        self._submitter = Submitter(self._state)
        self._outcomes: dict[int, Outcome] = {}
        self._has_warned = False
        self._warned = ""

    @property
    def was_ever_accepted(self) -> bool:
        """Whether the service accepted a call of this run, now or in an earlier process."""
        return bool(self._counting.answers) or any(
            submission.input_file_id for submissions in self._state.submissions.values() for submission in submissions
        )

    @property
    def min_poll_seconds(self) -> float:
        """How long the service asks to wait between two polls."""
        return self._client.min_poll_seconds

    def ensure_visible(self) -> None:
        """Make sure that this client sees what the run has at the service; errors as for `advance`."""
        ensure_visible(self._state)

    def refresh(self) -> PassReport:
        """Collect what is finished, and submit nothing; errors as for `advance`."""
        return self._pass(submit=False)

    def advance(self) -> PassReport:
        """Do what can be done now.

        Raises
        ------
        InputFileRejectedError
            The service refused an input file. The other parts were handled first.
        AuthenticationError, InvalidCallError, RunError
            Waiting does not help. The run stays resumable.
        """
        return self._pass(submit=True)

    def _pass(self, *, submit: bool) -> PassReport:
        state, report = self._state, PassReport()
        fatal: list[Exception] = []
        known, answers = read_trouble(self._folder), self._counting.answers
        self._counting.unread = {} if known is None else dict(known.unread)
        state.reload()
        state.is_held = False
        stop = read_stop(self._folder)
        if submit and is_new(state) and not all(is_covered(part, stop) for part in state.parts):
            state.is_held = True
            self._guarded(report, fatal, adopt, state, report)
        if not self._has_warned:
            self._has_warned = True
            self._collector.warn_of_expiry()
        self._guarded(report, fatal, state.list_batches)
        for part in state.parts:
            is_cancelled = stop is not None and stop.reason == "cancelled" and is_covered(part, stop)
            self._guarded(report, fatal, self._collector.collect, part, is_cancelled=is_cancelled)
        if submit:
            self._guarded(report, fatal, self._leave_out_answered)
        if state.is_stale:
            state.reload()
        if submit:
            stop = self._stop(stop)
            self._submit_all(report, fatal, stop)
        if submit and not fatal and all(self._is_settled(part, stop) for part in state.parts):
            self._guarded(report, fatal, self._ask_again, report, stop)
            if state.is_stale:
                state.reload()
                self._submit_all(report, fatal, stop)
        self._report_progress(report)
        is_answered = self._counting.answers > answers
        self._keep_trouble(fatal[0] if fatal else report.trouble, known, is_answered=is_answered, submit=submit)
        if fatal:
            raise fatal[0]
        return report

    def _keep_trouble(
        self, error: Exception | None, known: TroubleRecord | None, *, is_answered: bool, submit: bool
    ) -> None:
        """Write the error of a pass to disk, or remove the last one when it is over."""
        unread, now = self._counting.unread, self._state.clock.now()
        if error is not None and not isinstance(error, LeaseLostError):
            keep_trouble(self._folder, error, unread, known, now)
        if error is not None or known is None:
            return
        # An error that waiting does not mend is over when everything was submitted all the same.
        if (known.is_transient and is_answered) or (submit and not self._collector.refused):
            forget_trouble(self._folder, unread, known, now)

    def watch(self, waiting_for: str) -> PassReport:
        """Report what another process has written by now. Nothing is sent or written here."""
        report = PassReport(waiting_for=[waiting_for], is_brief=True)
        self._state.reload()
        self._report_progress(report)
        return report

    def _submit_all(self, report: PassReport, fatal: list[Exception], stop: StopRecord | None) -> None:
        for part in self._state.parts:
            if not fatal and not self._state.is_held and self._may_submit(part, stop, report):
                self._guarded(report, fatal, self._submitter.submit, part, report)
        if self._state.is_stale:  # a part was split: its pieces go now
            self._state.reload()
            self._submit_all(report, fatal, stop)

    def _guarded(
        self, report: PassReport, fatal: list[Exception], step: Callable[..., None], *arguments: Any, **more: Any
    ) -> None:
        """Take one step for one part, so that its error never affects another part."""
        if any(isinstance(error, (AuthenticationError, LeaseLostError)) for error in fatal):
            return
        try:
            with naming(self._folder.path):
                step(*arguments, **more)
        except APICallError as error:
            if error.is_transient:
                report.trouble = error
                self._notice(error)
            else:
                fatal.append(error)
        except RunError as error:
            fatal.append(error)

    def _notice(self, error: APICallError) -> None:
        """Log an error after which the call is tried again; a reply that cannot be read is a warning, once."""
        is_odd = isinstance(error, UnreadableReplyError) and str(error) != self._warned
        self._warned = str(error) if is_odd else self._warned
        self._state.notice(f"{error}. Trying again later", logging.WARNING if is_odd else logging.INFO)

    # -- whether to go on

    def _stop(self, stop: StopRecord | None) -> StopRecord | None:
        """Return why nothing more is submitted, judging by the answers so far."""
        generation = generation_of(self._folder)
        parts = [part for part in self._state.parts if part.generation == generation]
        left = sum(part.requests for part in parts if not self._state.submissions[part.number])
        if not left or (stop is not None and stop.generation >= generation):
            return stop
        # Once the rows of a part did not all fail with one error, no later part stops the run. A pilot comes first.
        if any(part.number in self._outcomes and self._outcomes[part.number].alike is None for part in parts):
            return stop
        for part in parts:
            if self._state.is_downloaded(part) and part.number not in self._outcomes:
                self._outcomes[part.number] = outcome_of(self._folder, part)
        now = self._state.clock.now()
        outcomes = [self._outcomes[part.number] for part in parts if part.number in self._outcomes]
        fresh = stop_for(outcomes, left, generation, now)
        pilot = self._state.pilot
        if fresh is None and self._settings.has_pilot and pilot is not None and pilot.number in self._outcomes:
            fresh = stop_after_pilot(self._outcomes[pilot.number], left, now)
        if fresh is None:
            return stop
        with self._folder.fence():
            stop = read_stop(self._folder)
            if stop is not None and stop.generation >= generation:
                return stop  # the run was cancelled during this pass, which is the better reason
            write_stop(self._folder, fresh)
        self._state.notice(fresh.message)
        return fresh

    def _may_submit(self, part: PartRecord, stop: StopRecord | None, report: PassReport) -> bool:
        if part.number in self._collector.refused or is_covered(part, stop):
            return False
        pilot = self._state.pilot
        if not self._settings.has_pilot or pilot is None or pilot is part or self._state.is_downloaded(pilot):
            return True
        report.waiting_for.append("the pilot to end")
        return False

    def _is_settled(self, part: PartRecord, stop: StopRecord | None) -> bool:
        """Whether a part will get no further answers."""
        submission = self._state.last(part)
        is_alive = submission is not None and submission.is_alive
        return self._state.is_downloaded(part) or (is_covered(part, stop) and not is_alive)

    # -- another attempt

    def _leave_out_answered(self) -> None:
        """Leave rows out of an attempt whose answers the version that prepared it could not read."""
        for part in waiting_parts(self._state):
            if part.attempt > 1 and part.reader != READER:
                fresh = msgspec.structs.replace(part, reader=READER)
                answered = answered_after_all(self._folder, part)
                if answered:
                    remove_requests(self._folder, fresh, answered)
                else:
                    self._folder.write_part(fresh)
                self._state.is_stale = True

    def _ask_again(self, report: PassReport, stop: StopRecord | None) -> None:
        """Prepare another attempt for the rows that are worth one, and for those that `Run.retry` chose."""
        settled = settled_round(self._folder)
        states = part_states(self._folder)
        for attempted in unsettled(self._folder, states, settled, self._settings.max_attempts):
            if stop is not None and stop.generation >= attempted.generation:
                continue
            wanted = due(self._folder, states, attempted)
            if self._fetch_again(wanted):
                wanted = due(self._folder, states, attempted)
            if wanted.height:
                mark_results_stale(self._folder)
                prepare_retries(self._folder, attempted, wanted, self._settings.limits)
                self._state.is_stale = True
                self._state.notice(_retry_message(attempted, wanted))
            trigger("before_settle")
            settle(self._folder, attempted)
            if self._state.is_stale:
                break  # the next round is complete when these parts have ended too
        report.done = not self._state.is_stale

    def _fetch_again(self, wanted: pl.DataFrame) -> bool:
        """Fetch once more the files that have no line for some rows, before those rows are paid for again."""
        fetched = False
        for number in wanted.filter(wanted["code"].is_in(NO_LINE))["part"].unique().sort():
            for submission in self._folder.submissions(number):
                if submission.stage != "downloaded" or submission.fetched_again_at is not None:
                    continue
                for kind in ("output", "error"):
                    file_id = (submission.batch or {}).get(f"{kind}_file_id")
                    copy = f"{kind}.again"
                    if file_id and not self._folder.has_result(number, submission.number, copy):
                        self._fetch_copy(file_id, self._folder.result_path(number, submission.number, copy))
                submission.fetched_again_at = self._state.clock.now()
                self._folder.write_submission(number, submission)
                fetched = True
        return fetched

    def _fetch_copy(self, file_id: str, path: Path) -> None:
        try:
            with self._folder.receiving(path) as handle:
                self._client.download(file_id, handle)
        except NotVisibleError:
            pass  # the first copy is all there is

    # -- progress

    def _report_progress(self, report: PassReport) -> None:
        state = self._state
        for part in state.parts:
            self._count(report, part)
        state.listen(
            Event("status", _progress_message(report), report.done_requests, sum(part.requests for part in state.parts))
        )

    def _count(self, report: PassReport, part: PartRecord) -> None:
        submissions = self._state.submissions[part.number]
        for submission in submissions:
            if submission.batch_id is not None:
                report.by_status[submission.status or "unknown"] += 1
        if submissions:
            last = submissions[-1]
            counts = (last.batch or {}).get("request_counts") or {}
            counted = (counts.get("completed") or 0) + (counts.get("failed") or 0)
            report.done_requests += part.requests if last.stage == "downloaded" else min(counted, part.requests)


def _retry_message(attempted: Round, wanted: pl.DataFrame) -> str:
    if not attempted.attempt:
        return f"retrying {wanted.height} rows, as run.retry() asked for"
    codes = ", ".join(f"{count} {code}" for code, count in wanted.group_by("code").len().sort("len").rows())
    return f"retrying {wanted.height} rows, attempt {attempted.attempt + 1}: {codes}"


def _progress_message(report: PassReport) -> str:
    batches = ", ".join(f"{count} {status}" for status, count in sorted(report.by_status.items()))
    waiting = f"; waiting for {report.waiting_for[0]}" if report.waiting_for else ""
    return f"batches: {batches or 'none yet'}{waiting}"
