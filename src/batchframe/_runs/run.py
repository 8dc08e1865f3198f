"""``Run``: advance, wait, cancel, retry, clean up. `run_reader.py` holds its reading half."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, cast

from batchframe._batches.attempts import generation_of
from batchframe._batches.cleanup import clean_up, has_files_left
from batchframe._batches.loop import Loop
from batchframe._batches.pass_report import PassReport
from batchframe._batches.pass_state import LoopSettings
from batchframe._batches.trouble import read_trouble
from batchframe._core.clock import current_clock
from batchframe._core.events import Event, Listener, ignore, logger, trigger
from batchframe._core.exceptions import (
    APICallError,
    LeaseLostError,
    RunError,
    RunMismatchError,
    RunPendingError,
    RunStoppedError,
)
from batchframe._providers.guarded_client import GuardedClient
from batchframe._providers.profiles import PROVIDERS, Provider, provider_named
from batchframe._providers.service import Service
from batchframe._results.result_blocks import mark_results_stale, request_ids
from batchframe._runs.identity import account_differences
from batchframe._runs.retry_selection import check_changes, check_codes, chosen, condition_of, key_of, without_known
from batchframe._runs.run_reader import RunResults, RunStatus
from batchframe._runs.run_settings import RunSettings
from batchframe._store.lease import Lease, LeaseRecord
from batchframe._store.records import RetryRecord, StopRecord
from batchframe._store.run_folder import RunFolder
from batchframe._store.stop_record import write_stop

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import polars as pl
    import tenacity

    from batchframe._providers.client import BatchClient
    from batchframe._store.block_folder import BlockFolder
    from batchframe._store.records import RunRecord

_UNREACHABLE_SECONDS = 60.0
_CANCEL_SECONDS = 600.0
# A list that shows a batch unchanged for as long as so many polls take may not be what the batch is.
_UNMOVED_POLLS = 5
_BRIEF_SECONDS, _MIN_POLL_SECONDS, _MAX_POLL_SECONDS = 1.0, 5.0, 60.0


class Run(RunResults):
    """A resumable run, whose state is in a folder.

    `submit`, `open_run` and `run_parquet` return one. Reading downloaded answers needs neither a key nor the service. A
    copy or a pickle is another handle of the same folder. If it calls the service, its client is made from the
    environment variables.
    """

    def __init__(
        self,
        folder: RunFolder,
        record: RunRecord,
        settings: RunSettings,
        service: Service,
        *,
        view: BlockFolder | None = None,
        news: str = "",
    ) -> None:
        self._clock = current_clock()
        super().__init__(folder, record, settings, view, Lease(folder.path, self._clock.now, self._clock.monotonic))
        # Reading needs no lease, even where it writes result blocks; taking the run forward does.
        self._leased_folder = folder.fenced(self._lease.fence)
        self._announced: LeaseRecord | None = None
        self._service = service
        self._news = news
        # Threads may share a handle. They take turns: work that one has half done would look like a crash to another.
        self._turn = threading.RLock()
        self._loop: Loop | None = None
        self._begun = 0.0
        self.listen: Listener = ignore

    def __reduce__(self) -> tuple[Callable[..., Run], tuple[object, ...]]:
        """Copy and pickle the run by its folder: a client cannot be pickled."""
        view = None if self._view is None else self._view.path.name
        return _reopened, (self.path, view, self._settings.saved())

    # -- going on

    def status(self, refresh: bool = True) -> RunStatus:  # noqa: FBT001, FBT002  (the public signature)
        """Return where the run stands.

        Parameters
        ----------
        refresh
            Whether to poll the service first. Nothing is submitted. If another process works on the run, its state on
            disk is returned.

        Raises
        ------
        APICallError
            The call to the service failed.
        """
        if not refresh or self.is_finished:
            return self._status(PassReport())
        with self._lease:
            report = self._leased(self._connected().refresh)
            if report.trouble is not None:
                raise report.trouble
            return self._status(report)

    def advance(self) -> RunStatus:
        """Make one pass: collect finished batches, submit the next. It never sleeps, which suits cron and webhooks.

        If another process works on the run, this does nothing, and ``waiting_for`` names that process.

        Raises
        ------
        APICallError, RunError
            An error that waiting does not resolve. The run stays resumable.
        """
        with self._lease:
            return self._status(self._pass())

    def wait(self, timeout_seconds: float | None = None) -> RunStatus:
        """Make passes until the run is finished.

        If another process works on the run, this reports that process and waits for it, and takes over once it is
        gone. With ``poll_seconds=None`` the first wait is 1 second, and later ones grow from 5 to 60 seconds, with up
        to 20 % jitter.

        Parameters
        ----------
        timeout_seconds
            How long to wait. None uses the ``timeout_seconds`` of the call, or waits until the run is finished.

        Raises
        ------
        RunPendingError
            The time is up. Nothing was cancelled. The error holds the run.
        RunStoppedError
            No row of the pilot succeeded, or every row of the first batches failed with the same error, so the rest was
            not submitted. The error holds the run. `retry` continues it all the same.
        APICallError, RunError
            An error that waiting does not resolve. The run stays resumable.
        """
        timeout = self._settings.timeout_seconds if timeout_seconds is None else timeout_seconds
        stop = self._stop
        if self.is_finished and stop is not None and stop.reason == "cancelled":
            self._say(f"{stop.message}. What was answered by then is returned; run.retry() asks for the rest")
        elif self.is_finished and self._record.identity.requests and not self._news:
            at, service = self._record.created_at, self._record.identity.account.base_url
            when = f"this run was made on {at:%Y-%m-%d %H:%M} UTC at {service} and is finished"
            self._say(f"{when}: its answers are returned. For fresh ones pass another name=")
        with self._lease:
            status = self._status(self._passes(lambda report: report.done, timeout))
            stop = self._stop
            if stop is not None and stop.reason != "cancelled":
                raise RunStoppedError(stop.message, self)
            if self._settings.cleanup == "when_done":
                self._clean_when_done()
        return status

    def _clean_when_done(self) -> None:
        """Delete what is left at the service; a failure must not keep the answers back."""
        if not has_files_left(self._folder) or self._lease.take() is not None:  # else the other process does it
            return
        try:
            self.cleanup()
        except (APICallError, RunError) as error:
            self._say(f"the run's files at the service are not all deleted: {error}. run.cleanup() goes on")

    def start(self) -> None:
        """Make passes until the first batches are created."""
        with self._lease:
            self._passes(lambda report: report.done or bool(report.by_status), None)

    def cancel(self) -> RunStatus:
        """Cancel running batches, submit no more, and collect the answers so far.

        The service takes up to ten minutes to end a batch, and this waits that long. Answered rows keep their answers
        and are billed. Rows that were not executed have the service's code (``batch_cancelled``; ``missing`` if it
        wrote no line because the batch had not started). Rows that were not submitted have the code
        ``not_submitted``. `retry` submits them later. On a finished run this does nothing.

        Returns
        -------
        RunStatus
            Its ``state`` is ``"stopped"``, or still ``"running"`` if the service did not end its batches in time. Then
            repeat the call, or call `wait`.

        Raises
        ------
        APICallError, RunError
            An error that waiting does not resolve. The run stays cancelled and resumable.
        """
        if self.is_finished:
            return self._status(PassReport())
        at = self._clock.now()
        message = f"the run was cancelled on {at:%Y-%m-%d %H:%M} UTC"
        with self._lease.lock():  # only records the request; the lease holder acts on it
            write_stop(self._folder, StopRecord(generation_of(self._folder), "cancelled", message, at))
        trigger("after_stop")
        with self._lease:
            try:
                return self._status(self._passes(lambda report: report.done, _CANCEL_SECONDS))
            except RunPendingError:
                holder = self._lease.holder() or "the service to end the batches that were cancelled"
                return self._status(PassReport(waiting_for=[str(holder)]))

    def retry(self, where: pl.Expr | None = None, *, codes: Any = None, name: str | None = None, **changes: Any) -> Run:
        """Retry rows of a finished run, and return once they are submitted.

        The selection is on disk before anything is sent. Repeating the call retries no row twice, whatever the outcome;
        pass another ``name`` to retry again. A new success replaces an older answer; a new failure does not replace a
        success. Each retried row is billed.

        Parameters
        ----------
        where
            A Boolean expression over `result`. None selects all rows that did not succeed.
        codes
            An error code, or a list of them. Together with ``where``, both must match.
        name
            Part of the identity of this call.
        **changes
            ``model``, ``response_format``, and request parameters, each a value or an expression over `result`. None
            leaves a parameter out. `result` still reads answers with the run's own response format; use `reparse` for
            answers to another one.

        Returns
        -------
        Run
            This run: ``run.retry(...).wait()``.

        Raises
        ------
        RunPendingError
            The run is not finished yet.
        OptionError
            ``where`` does not fit the result, or a change is not a request parameter of the endpoint.
        APICallError, RunError
            An error that waiting does not resolve. The selection stays recorded, and the run resumable.

        Notes
        -----
        Rows without a request (``null_input``, ``invalid_input``, ``request_too_large``) are skipped.

        Examples
        --------
        >>> terms = pl.DataFrame({"term": ["foo", "spam and eggs and ham"]})
        >>> run = bf.submit(terms, "Repeat: {term}", model="gpt-4o-mini", client=client, poll_seconds=0.1, max_tokens=5)
        >>> run.wait().succeeded
        2
        >>> cut = run.retry(pl.col("finish_reason") == "length", max_tokens=50)
        >>> cut.wait().succeeded
        2
        >>> cut.result().select("term", "response", "finish_reason")
        shape: (2, 3)
        ┌───────────────────────┬─────────────────────────────────┬───────────────┐
        │ term                  ┆ response                        ┆ finish_reason │
        │ ---                   ┆ ---                             ┆ ---           │
        │ str                   ┆ str                             ┆ str           │
        ╞═══════════════════════╪═════════════════════════════════╪═══════════════╡
        │ foo                   ┆ In short: foo.                  ┆ stop          │
        │ spam and eggs and ham ┆ In short: spam and eggs and ha… ┆ stop          │
        └───────────────────────┴─────────────────────────────────┴───────────────┘
        """
        with self._lease, self._turn:
            self._take("ask again for rows of it")
            self._retry(where, codes, name, changes)
        return self

    def _retry(self, where: pl.Expr | None, codes: Any, name: str | None, changes: dict[str, Any]) -> None:
        if not self.is_finished:
            msg = f"the run is not finished, and only a finished run can be retried. {self._resume_hint()}"
            raise RunPendingError(msg, self)
        results = self.scan()
        wanted = check_codes(codes)
        changed = check_changes(changes, self._record.identity.endpoint, results)
        key = key_of(wanted, name)
        condition = condition_of(results, self._settings.prefix + "error", where, wanted)
        picked = chosen(results, request_ids(self._folder, self._view), condition, changed)
        fresh = without_known(self._folder, key, picked)
        if picked.height and not fresh.height:
            self._say(
                f"all {picked.height} rows were already retried by an identical call; pass another name= to retry them "
                "again"
            )
        elif not picked.height:
            self._say("nothing to retry: no row that has a request was chosen")
        if fresh.height:
            generation = generation_of(self._folder) + 1
            shown = {parameter: str(value) for parameter, value in changes.items()}
            record = RetryRecord(generation, key, str(where), wanted, shown, fresh.height, self._clock.now())
            self._leased_folder.write_retry(record, fresh)
            trigger("after_retry_record")
            mark_results_stale(self._leased_folder)
            self._pass()

    def cleanup(self) -> int:
        """Delete this run's input, output and error files at the service, and no other files.

        Downloaded files and the run itself stay. Files of running batches are kept.

        Returns
        -------
        int
            The number of deleted files, including files that were already gone.

        Raises
        ------
        APICallError
            A call to the service failed. Deletions so far are recorded; repeat the call to delete the rest.
        RunPendingError
            Another process works on the run.
        RunError
            This client can see nothing of the run: its key belongs to another project.
        """
        with self._lease, self._turn:
            loop = self._connected()
            self._take("clean up")
            loop.ensure_visible()  # what another key does not see would count as gone
            return clean_up(self._leased_folder, self._guarded(self._service.client), self._clock.now)

    def delete(self) -> None:
        """Delete the run's folder on this machine, and nothing at the service.

        If the call that made the run is repeated, it looks for the run's batches in the account, which keeps them for
        some weeks.

        Raises
        ------
        RunError
            A batch of the run may still be running, and its answers would be lost: call `cancel` or `wait` first. Or
            another process works on the run.
        """
        with self._lease, self._turn:
            self._take("delete it")
            self._delete()

    def _delete(self) -> None:
        alive = self._alive()
        if alive:
            msg = (
                f"{len(alive)} batches of the run in {self.path} may still be running, such as {alive[0]}: they are "
                "paid for. Call wait() or cancel() first"
            )
            raise RunError(msg)
        self.close()
        self._folder.remove()

    def _alive(self) -> list[str | None]:
        """Return the ids of the batches that may still be running, as far as is known here."""
        return [submission.batch_id for submission in self._submissions() if submission.is_in_flight]

    def _batches_message(self) -> str:
        count = len(self._alive())
        if not count:
            return "none of its batches is running"
        return f"{count} batches are still running" if count > 1 else "1 batch is still running"

    def _passes(self, is_enough: Callable[[PassReport], bool], timeout: float | None) -> PassReport:
        begun, begun_at = self._clock.monotonic(), self._clock.now()
        if self._news:
            self._say(self._news)
            self._news = ""

        def left() -> float:
            if timeout is None:
                return float("inf")
            # On a machine that slept, the first may have stood still.
            passed = (self._clock.monotonic() - begun, (self._clock.now() - begun_at).total_seconds())
            return timeout - max(passed)

        import tenacity  # noqa: PLC0415 - takes a while to import

        polling = tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda report: not is_enough(report)),
            wait=self._interval,
            stop=lambda _: left() <= 0,
            sleep=lambda seconds: self._clock.sleep(max(0.0, min(seconds, left()))),
        )
        try:
            report: PassReport = polling(self._pass)
        except tenacity.RetryError as error:
            holder, waiting_for = self._lease.holder(), error.last_attempt.result().waiting_for
            state = self._batches_message() if holder is None else f"so far it is {holder}"
            if holder is None and waiting_for:
                state += f", and it waits for {waiting_for[0]}"
            trouble = read_trouble(self._folder)
            if trouble is not None:
                state += f". Its last trouble: {trouble.message.rstrip('.')}"
            msg = f"the run was not finished after {timeout:g} seconds; {state}. {self._resume_hint()}"
            raise RunPendingError(msg, self) from None
        except KeyboardInterrupt as error:
            msg = f"interrupted, and nothing was cancelled; {self._batches_message()}. {self._resume_hint()}"
            raise KeyboardInterrupt(msg) from error
        return report

    def _pass(self) -> PassReport:
        if self.is_finished:
            return PassReport(done=True)
        loop = self._connected()
        report = self._leased(loop.advance)
        # A service that is not reached, or whose replies cannot be read, is a mistake in the set-up before the first
        # accepted call, and an outage after it.
        if (
            report.trouble is not None
            and not loop.was_ever_accepted
            and self._clock.monotonic() - self._begun >= _UNREACHABLE_SECONDS
        ):
            raise report.trouble
        return report

    def _take(self, what: str) -> None:
        """Take the lease for something that does not wait for it.

        Raises
        ------
        RunPendingError
            Another process holds it.
        """
        holder = self._lease.take()
        if holder is not None:
            msg = f"the run is worked on by {holder}: {what} when that is done"
            raise RunPendingError(msg, self)

    def _leased(self, step: Callable[[], PassReport]) -> PassReport:
        """Take a step of the loop, unless another process works on the run."""
        with self._turn:
            return self._step(step)

    def _step(self, step: Callable[[], PassReport]) -> PassReport:
        try:
            holder = self._lease.take()
            if holder is None:
                gone, self._lease.replaced, self._announced = self._lease.replaced, None, None
                if gone is not None:
                    self._say(f"process {gone.pid} on {gone.host} is gone or stopped: going on in its place")
                return step()
        except LeaseLostError as error:
            self._say(str(error))
            holder = self._announced = self._lease.holder()
        if holder is not None and (self._announced is None or holder.token != self._announced.token):
            self._announced = holder
            self._say(f"waiting for {holder}")
        return self._connected().watch("a process that took this run over" if holder is None else str(holder))

    def _guarded(self, client: BatchClient) -> BatchClient:
        return cast("BatchClient", GuardedClient(client, self._lease.check))

    def _connected(self) -> Loop:
        """Return the loop; the client is made when it is first needed, and must be of the run's account."""
        with self._turn:
            return self._loop or self._connect_loop()

    def _connect_loop(self) -> Loop:
        client = self._service.client
        if client.account != self._record.identity.account:
            differs = account_differences(self._record.identity.account, client.account)
            msg = f"the run in {self.path} belongs to another account: {differs}. Pass the client it was begun with"
            raise RunMismatchError(msg)
        endpoint, poll_seconds = self._record.identity.endpoint, self._settings.poll_seconds
        settings = LoopSettings(
            run_id=self.id,
            endpoint=self._batch_endpoint,
            completion_window=self._settings.completion_window,
            metadata=self._settings.metadata,
            expires_after=self._settings.expires_after,
            settle_seconds=self._settings.settle_seconds,
            unmoved_seconds=_UNMOVED_POLLS * (_MAX_POLL_SECONDS if poll_seconds is None else poll_seconds),
            model=self._settings.model,
            max_attempts=self._settings.max_attempts,
            has_pilot=self._record.options.get("pilot") is not None,
            limits=client.provider.limits_of(endpoint, self._settings.limits),
            max_enqueued_requests=client.provider.most_enqueued_of(endpoint),
        )
        self._loop = Loop(self._leased_folder, self._guarded(client), settings, listen=self._tell, clock=self._clock)
        self._begun = self._clock.monotonic()
        return self._loop

    @property
    def _batch_endpoint(self) -> str:
        """The endpoint of the run's batches, as the service spells it."""
        options = self._record.options
        return str(options.get("batch_endpoint") or options.get("url") or self._record.identity.endpoint)

    def close(self) -> None:
        """Close the connections that this handle opened. It reconnects when needed."""
        with self._turn:
            self._service.close()
            self._loop = None

    def _interval(self, state: tenacity.RetryCallState) -> float:
        """Return how long to wait before the next pass: a second at first, since bad files fail at once, then more."""
        assert state.outcome is not None
        report = state.outcome.result()
        trouble, seconds = report.trouble, self._settings.poll_seconds
        if seconds is None and (state.attempt_number == 1 or report.is_brief):
            seconds = _BRIEF_SECONDS
        elif seconds is None:
            least = self._connected().min_poll_seconds
            grown = max(least, min(_MAX_POLL_SECONDS, _MIN_POLL_SECONDS * 1.3 ** (state.attempt_number - 2)))
            seconds = grown * (1 + 0.2 * self._clock.chance())
        if trouble is not None and not self._connected().was_ever_accepted:  # so that it is given up in time
            seconds = min(seconds, max(0.0, self._begun + _UNREACHABLE_SECONDS - self._clock.monotonic()))
        return max(seconds, 0.0 if trouble is None else trouble.retry_after_seconds or 0.0)

    def _resume_hint(self) -> str:
        return f"Resume by repeating the call, or with bf.open_run({os.fspath(self.path)!r}).wait()"

    def _say(self, message: str) -> None:
        logger.info(message)
        self._tell(Event("notice", message))

    def _tell(self, event: Event) -> None:
        self.listen(event)


def open_folder(folder: RunFolder, client: Any = None) -> Run:
    """Return the run of a folder, with the settings that ``run.json`` keeps."""
    record = folder.record()
    return _opened(folder, record, record.options, client)


def _reopened(path: Path, view: str | None, saved: dict[str, Any]) -> Run:
    """Return a run as a copy or another process has it: by its folder, with the client of the environment."""
    folder = RunFolder(path)
    return _opened(folder, folder.record(), saved, None, view=None if view is None else folder.view(view))


def _opened(
    folder: RunFolder, record: RunRecord, saved: dict[str, Any], client: Any, *, view: BlockFolder | None = None
) -> Run:
    settings = RunSettings.restored(saved, record.identity.endpoint)
    name = record.identity.account.provider
    provider = provider_named(name) if name in PROVIDERS else Provider(name=name)
    return Run(folder, record, settings, Service(client, provider), view=view)
