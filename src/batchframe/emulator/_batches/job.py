"""The life of a batch: validating, in_progress, finalizing, and the five ways to end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import shutil
import time
from typing import TYPE_CHECKING, BinaryIO

from batchframe.emulator._batches.batch_object import TERMINAL, Batch, Errors, LineError
from batchframe.emulator._batches.batch_record import BatchRecord
from batchframe.emulator._batches.execution import Execution, usage_object
from batchframe.emulator._batches.forwarding import Forwarding
from batchframe.emulator._batches.output_files import add_output
from batchframe.emulator._batches.pace import Pace
from batchframe.emulator._batches.refusals import refusal
from batchframe.emulator._batches.validation import Validation, model_behind
from batchframe.emulator._errors import ApiError
from batchframe.emulator._model.model_table import model_named

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from batchframe.emulator._batches.batch_fault_state import BatchFaultState
    from batchframe.emulator._batches.host import Host
    from batchframe.emulator._batches.quota import Load
    from batchframe.emulator._faults.batch_faults import BatchFault

_logger = logging.getLogger(__name__)

# A slice of execution ends after this long, so that counts grow and a cancel is noticed.
_SLICE_SECONDS = 0.05
# How long the services keep result files.
_FILE_DAYS = 30
_EXPIRED = ("batch_expired", "This request could not be executed before the completion window expired.")
# Seen only in other projects' fixtures; what the service writes for a cancelled line is not documented.
_CANCELLED = ("batch_cancelled", "Batch cancelled.")


class Job:
    """A batch, and the work on it."""

    def __init__(
        self,
        batch: Batch,
        *,
        folder: Path,
        order: random.Random,
        deadline: float,
        life_seconds: int | None,
        faults: BatchFaultState,
        owner: str,
        deletes_input: bool,
    ) -> None:
        self.batch = batch
        self.owner = owner
        self.faults = faults
        self.enqueued: Load | None = None
        self.pace = Pace(deadline)
        self._folder = folder
        self._order = order
        self._life_seconds = life_seconds
        self._deletes_input = deletes_input
        self._execution: Execution | None = None

    @property
    def id(self) -> str:
        """The batch's id."""
        return self.batch.id

    def record(self) -> BatchRecord:
        """Return what another process needs to go on with the batch."""
        return BatchRecord(
            batch=self.batch,
            owner=self.owner,
            deadline=None if self.pace.deadline == math.inf else self.pace.deadline,
            life_seconds=self._life_seconds,
            stop=self.pace.stop,
            deletes_input=self._deletes_input,
        )

    def discard(self) -> None:
        """Close the files of unfinished work."""
        if self._execution is not None:
            self._execution.close()

    def clean(self) -> None:
        """Remove the folder of the work."""
        shutil.rmtree(self._folder, ignore_errors=True)

    async def drive(self, host: Host) -> None:
        """Take the batch from its creation to its end."""
        try:
            await self._drive(host)
        except Exception as exc:
            # A batch that hung for ever would hide the emulator's own mistake.
            _logger.exception("the emulator failed on %s", self.batch.id)
            self._fail([LineError("emulator_error", f"{type(exc).__name__}: {exc}")])
        finally:
            if self.batch.status in TERMINAL:
                if self._deletes_input:
                    with contextlib.suppress(ApiError):
                        host.files.delete(self.batch.input_file_id, self.owner)
                self._keep(host)
                self.clean()
            self._dequeue(host)
            self.pace.idle.set()

    async def _drive(self, host: Host) -> None:
        batch = self.batch
        if batch.in_progress_at is not None:
            # Another process began; what it wrote is not executed again.
            source = self._open_input(host)
            self._make_execution(host, source, batch.model or "", batch.request_counts.total)
            self.pace.check_deadline()
        elif not await self._validate(host):
            return
        if self._execution is not None and self.pace.stop is None:
            await self._execute(host, self._execution)
        if self.pace.stop is None:
            batch.status, batch.finalizing_at = "finalizing", batch.finalizing_at or int(time.time())
            self._keep(host)
            await self.pace.gate(host, host.settings.seconds.finalizing)
            await self.pace.hold(self.faults.hold("finalizing"))
        if self.pace.stop == "cancel":
            await self.pace.gate(host, host.settings.seconds.cancelling, stoppable=False)
        await self._finish(host)

    def _keep(self, host: Host) -> None:
        host.storage.keep(self.record())

    def _open_input(self, host: Host) -> BinaryIO:
        return host.storage.own_input(self.id, host.files.path(self.batch.input_file_id)).open("rb")

    # ---------------------------------------------------------------------------------------------------- validation

    async def _validate(self, host: Host) -> bool:
        """Prepare the execution; False: the batch has failed."""
        batch = self.batch
        await self.pace.gate(host, host.settings.seconds.validating)
        await self.pace.hold(self.faults.hold("validating"))
        failure = self.faults.failure(batch, host.settings.organization)
        if self.pace.stop is None and failure is not None:
            self._fail(failure.data)
            return False
        if self.pace.stop is None:
            error = self._input_error(host)
            if error is not None:
                self._fail([error])
                return False
            # The execution takes the open file over; until then, whatever happens, a reset included, it is closed here.
            with contextlib.ExitStack() as opened:
                source = opened.enter_context(self._open_input(host))
                validation = await self._validated(host, source)
                if not validation.errors:
                    opened.pop_all()
                    self._accept(host, source, validation)
                # A batch cancelled meanwhile ends as cancelled, whatever validation found.
                elif self.pace.stop is None:
                    self._fail(validation.errors)
                    return False
        return True

    def _input_error(self, host: Host) -> LineError | None:
        file_id, window = self.batch.input_file_id, self.batch.completion_window
        if window not in host.settings.profile.windows:
            return refusal("window", is_azure=True, value=window)
        try:
            file = host.files.get(file_id, self.owner)
        except ApiError:
            file = None
        if file is None or host.files.is_lost(file):
            return refusal("file", is_azure=False, value=file_id, organization=host.settings.organization)
        if file.purpose != "batch":
            return refusal("purpose", is_azure=False, value=file.purpose)
        return None

    async def _validated(self, host: Host, source: BinaryIO) -> Validation:
        """Validate the input file, and enqueue its tokens if it is valid."""
        batch, settings = self.batch, host.settings
        validation = await host.validate(source, batch.endpoint)
        # A list of errors that is full says nothing about the lines after it.
        if settings.profile.skips_bad_lines and 0 < len(validation.errors) < settings.max_errors:
            batch.errors, validation = Errors(data=validation.errors), validation.without_bad_lines()
        error = None if validation.errors else self._enqueue(host, validation.load)
        if error is not None:
            validation.errors.append(error)
        return validation

    def _enqueue(self, host: Host, load: Load) -> LineError | None:
        """Enter the queue, or return why the batch cannot."""
        if self.enqueued is not None:
            return None
        error = host.quota.enter(self.owner, load, host.settings)
        if error is not None and not host.settings.refused_hold_tokens:
            return error
        if error is not None:
            host.quota.hold(self.owner, load)
        self.enqueued = load
        return error

    def _dequeue(self, host: Host) -> None:
        """Leave the queue, now or after the delay of the settings."""
        if self.enqueued is None:
            return
        delay = host.settings.token_release_seconds
        if delay > 0:
            asyncio.get_running_loop().call_later(delay, host.quota.release, self.owner, self.enqueued)
        else:
            host.quota.release(self.owner, self.enqueued)

    def _accept(self, host: Host, source: BinaryIO, validation: Validation) -> None:
        source.seek(0)
        self._make_execution(host, source, validation.model or "", validation.requests)
        self.batch.request_counts.total = validation.requests
        if self.pace.stop is None:
            self.batch.status, self.batch.in_progress_at = "in_progress", int(time.time())
        self._keep(host)

    # ----------------------------------------------------------------------------------------------------- execution

    def _make_execution(self, host: Host, source: BinaryIO, name: str, requests: int) -> None:
        model = model_named(model_behind(name, host.settings) or name)
        upstream = host.upstream
        make = Execution if upstream is None else functools.partial(Forwarding, upstream)
        self._execution = make(
            source,
            self._folder,
            requests=requests,
            ledger=host.ledger,
            order=self._order,
            faults=host.row_faults,
            model=model,
            dialect=host.settings.profile,
            bad_lines=[] if self.batch.errors is None else [error.line for error in self.batch.errors.data],
        )
        self.batch.model = model.snapshot if upstream is None else name or None
        self._update_counts(self._execution)

    async def _forward(self, execution: Forwarding) -> None:
        work = asyncio.ensure_future(execution.forward())
        try:
            while not work.done():
                await asyncio.wait({work}, timeout=_SLICE_SECONDS)
                self._update_counts(execution)
                self.pace.check_deadline()
                if self.pace.stop is not None:
                    execution.stop()
        finally:
            work.cancel()
            await asyncio.wait({work})
        work.result()

    async def _execute(self, host: Host, execution: Execution) -> None:
        if isinstance(execution, Forwarding):
            await self._forward(execution)
            return
        started = time.monotonic()
        while execution.done < execution.requests and self.pace.stop is None:
            settings = host.settings
            until = self.faults.next_interruption(execution.requests)
            if until is not None and execution.done >= until:
                await self._interrupt(self.faults.interrupt())
                continue
            target = execution.requests
            if settings.progression == "stepped":
                await self.pace.gate(host, 0.0)
                target = execution.done + math.ceil(execution.requests / settings.execution_steps)
            elif settings.progression == "timed" and settings.seconds.in_progress > 0:
                share = min(1.0, (time.monotonic() - started) / settings.seconds.in_progress)
                target = math.floor(execution.requests * share)
                if target <= execution.done:
                    await self.pace.pause(min(_SLICE_SECONDS, settings.seconds.in_progress / 10))
                    continue
            target = min(target, execution.requests if until is None else until)
            while execution.done < target and self.pace.stop is None:
                requests = target - execution.done
                await host.in_thread(functools.partial(execution.run, requests, _SLICE_SECONDS))
                self._update_counts(execution)
                self.pace.check_deadline()

    def _update_counts(self, execution: Execution) -> None:
        self.batch.request_counts.completed = execution.completed
        self.batch.request_counts.failed = execution.failed

    async def _interrupt(self, fault: BatchFault) -> None:
        if fault.kind == "cancel":
            self.batch.status, self.batch.cancelling_at = "cancelling", int(time.time())
            self.pace.stop_for("cancel")
        elif fault.kind == "expire":
            self.pace.stop_for("expire")
        else:
            await self.pace.hold(fault)

    # ----------------------------------------------------------------------------------------------------------- end

    async def _finish(self, host: Host) -> None:
        batch, execution, stop = self.batch, self._execution, self.pace.stop
        batch.usage = usage_object()
        if execution is not None:
            if stop is not None and not self._leaves_no_trace():
                code, message = _EXPIRED if stop == "expire" else _CANCELLED
                await host.in_thread(functools.partial(execution.abandon, code, message))
            finish = functools.partial(execution.finish, shuffle=host.settings.shuffle)
            output, error = await host.in_thread(finish)
            batch.usage = execution.usage()
            batch.output_file_id = self._add_file(host, output, "output")
            batch.error_file_id = self._add_file(host, error, "error")
            self._apply_file_faults(host)
        now = int(time.time())
        # A cancel that comes while the files are written finds all requests executed; the status honours it.
        if self.pace.stop == "cancel":
            batch.status, batch.cancelled_at = "cancelled", now
        elif stop == "expire":
            batch.status, batch.expired_at = "expired", now
        else:
            batch.status, batch.completed_at = "completed", now
        if self.faults.of("outputs_expired") is not None:
            _backdate(batch, _FILE_DAYS)

    def _add_file(self, host: Host, path: Path | None, name: str) -> str | None:
        if path is None:
            return None
        path = host.storage.movable_copy(path)
        return add_output(host, path, f"{self.batch.id}_{name}.jsonl", self._life_seconds, self.owner).id

    def _leaves_no_trace(self) -> bool:
        """Say whether rows that were not executed are in neither file."""
        fault = self.faults.of("expire" if self.pace.stop == "expire" else "cancel")
        return fault is not None and fault.unexecuted == "nowhere"

    def _apply_file_faults(self, host: Host) -> None:
        batch = self.batch
        if self.faults.of("outputs_expired") is not None:
            for file_id in (batch.output_file_id, batch.error_file_id):
                if file_id is not None:
                    host.files.delete(file_id, self.owner)
        absent = self.faults.of("absent_id")
        # Azure always has an error file, if an empty one.
        spelling = absent.spelling if absent else "zero_bytes" if host.settings.profile.is_azure else "null"
        if spelling == "empty":
            batch.output_file_id, batch.error_file_id = batch.output_file_id or "", batch.error_file_id or ""
        elif spelling == "zero_bytes" and batch.error_file_id is None:
            empty = self._folder / "empty"
            empty.touch()
            batch.error_file_id = self._add_file(host, empty, "error")

    def _fail(self, errors: list[LineError]) -> None:
        self.batch.errors = Errors(data=errors)
        self.batch.status, self.batch.failed_at = "failed", int(time.time())


def _backdate(batch: Batch, days: int) -> None:
    """Move every timestamp of a batch back by `days`."""
    for name in type(batch).__struct_fields__:
        timestamp = getattr(batch, name)
        if name.endswith("_at") and timestamp is not None:
            setattr(batch, name, timestamp - days * 86_400)
