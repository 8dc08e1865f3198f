"""A batch on its way: validating, in_progress, finalizing, and the five ways to end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import shutil
import time
from typing import TYPE_CHECKING, BinaryIO, Literal

from batchframe.emulator._batches import TERMINAL, Batch, Errors, LineError
from batchframe.emulator._errors import ApiError
from batchframe.emulator._execution import Execution, usage_object
from batchframe.emulator._forwarding import Forwarding
from batchframe.emulator._intake import add_output
from batchframe.emulator._model_table import described
from batchframe.emulator._refusals import refusal
from batchframe.emulator._validation import Validation, model_behind, validate

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from batchframe.emulator._batch_faults import BatchFault
    from batchframe.emulator._quota import Load
    from batchframe.emulator._service import Service
    from batchframe.emulator._troubles import Troubles

_logger = logging.getLogger(__name__)

# A slice of execution ends after this long, so that counts grow and a cancel is noticed.
_SLICE_SECONDS = 0.05
# How long the services keep result files.
_FILE_DAYS = 30
_EXPIRED = ("batch_expired", "This request could not be executed before the completion window expired.")
# Seen only in other projects' fixtures; what the service writes for a cancelled line is not documented.
_CANCELLED = ("batch_cancelled", "Batch cancelled.")


class Job:
    """A batch, and the work that is behind it."""

    def __init__(
        self,
        batch: Batch,
        *,
        folder: Path,
        order: random.Random,
        deadline: float,
        life_seconds: int | None,
        troubles: Troubles,
        owner: str,
        deletes_input: bool,
    ) -> None:
        self.owner = owner
        self.deletes_input = deletes_input
        self.enqueued: Load | None = None
        self.batch = batch
        self.troubles = troubles
        self.stop: Literal["cancel", "expire"] | None = None
        self.wake = asyncio.Event()
        self.idle = asyncio.Event()
        self._folder = folder
        self._order = order
        self.deadline = deadline
        self.life_seconds = life_seconds
        self._steps = 0
        self._execution: Execution | None = None

    @property
    def id(self) -> str:
        """The batch's id, by which lists are paged."""
        return self.batch.id

    def stop_for(self, reason: Literal["cancel", "expire"]) -> None:
        """End the batch before its work is done."""
        self.stop = reason
        self.wake.set()

    def grant_step(self) -> None:
        """Allow one more step; ``idle`` is set again when it has been taken."""
        self._steps += 1
        self.idle.clear()
        self.wake.set()

    def discard(self) -> None:
        """Drop what the work left open."""
        if self._execution is not None:
            self._execution.close()

    def clean(self) -> None:
        """Remove what the work needed."""
        shutil.rmtree(self._folder, ignore_errors=True)

    async def drive(self, service: Service) -> None:
        """Take the batch from its creation to its end."""
        try:
            await self._drive(service)
        except Exception as exc:
            # A batch that hung for ever would hide the emulator's own mistake.
            _logger.exception("the emulator failed on %s", self.batch.id)
            self._fail([LineError("emulator_error", f"{type(exc).__name__}: {exc}")])
        finally:
            if self.batch.status in TERMINAL:
                if self.deletes_input:
                    with contextlib.suppress(ApiError):
                        service.files.delete(self.batch.input_file_id, self.owner)
                service.state.keep(self)
                self.clean()
            service.dequeue(self)
            self.idle.set()

    async def _drive(self, service: Service) -> None:
        batch = self.batch
        if batch.in_progress_at is not None:
            # Another process began; what it wrote is not executed again.
            source = service.state.own_input(batch.id, service.files.path(batch.input_file_id)).open("rb")
            self._make_execution(service, source, batch.model or "", batch.request_counts.total)
            self._check_deadline()
        elif not await self._validate(service):
            return
        if self._execution is not None and self.stop is None:
            await self._execute(service, self._execution)
        if self.stop is None:
            batch.status, batch.finalizing_at = "finalizing", batch.finalizing_at or int(time.time())
            service.state.keep(self)
            await self._gate(service, service.settings.seconds.finalizing)
            await self._hold(self.troubles.hold("finalizing"))
        if self.stop == "cancel":
            await self._gate(service, service.settings.seconds.cancelling, stoppable=False)
        await self._finish(service)

    async def _validate(self, service: Service) -> bool:
        """Take the batch to its execution; False: it ended before."""
        batch = self.batch
        await self._gate(service, service.settings.seconds.validating)
        await self._hold(self.troubles.hold("validating"))
        failure = self.troubles.failure(batch, service.settings.organization)
        if self.stop is None and failure is not None:
            self._fail(failure.data)
            return False
        if self.stop is None:
            source = self._open(service)
            if isinstance(source, LineError):
                self._fail([source])
                return False
            # Open until it is the execution's: whatever happens meanwhile, a reset of the service among it.
            with contextlib.ExitStack() as opened:
                opened.callback(source.close)
                validation = await self._looked_through(service, source)
                if not validation.errors:
                    opened.pop_all()
                    self._accept(service, source, validation)
                # Cancelled meanwhile: that word stands, whatever was found.
                elif self.stop is None:
                    self._fail(validation.errors)
                    return False
        return True

    async def _looked_through(self, service: Service, source: BinaryIO) -> Validation:
        """Validate the input file, and hold its tokens when it is good."""
        batch, settings = self.batch, service.settings
        is_forwarded = service.upstream is not None
        work = functools.partial(validate, source, batch.endpoint, settings, service.abort, is_forwarded=is_forwarded)
        validation = await service.in_thread(work)
        # Beyond the length of the list nobody knows what else is bad.
        if settings.speaks.skips_bad_lines and 0 < len(validation.errors) < settings.max_errors:
            batch.errors, validation = Errors(data=validation.errors), validation.without_bad_lines()
        refused = None if validation.errors else service.enqueue(self, validation)
        if refused is not None:
            validation.errors.append(refused)
        return validation

    def _open(self, service: Service) -> BinaryIO | LineError:
        file_id, window = self.batch.input_file_id, self.batch.completion_window
        if window not in service.settings.speaks.windows:
            return refusal("window", is_azure=True, value=window)
        try:
            file = service.files.get(file_id, self.owner)
        except ApiError:
            file = None
        if file is None or service.files.is_lost(file):
            organization = service.settings.organization
            return refusal("file", is_azure=False, value=file_id, organization=organization)
        if file.purpose != "batch":
            return refusal("purpose", is_azure=False, value=file.purpose)
        return service.state.own_input(self.id, service.files.path(file_id)).open("rb")

    def _accept(self, service: Service, source: BinaryIO, validation: Validation) -> None:
        source.seek(0)
        self._make_execution(service, source, validation.model or "", validation.requests)
        self.batch.request_counts.total = validation.requests
        if self.stop is None:
            self.batch.status, self.batch.in_progress_at = "in_progress", int(time.time())
        service.state.keep(self)

    def _make_execution(self, service: Service, source: BinaryIO, name: str, requests: int) -> None:
        model = described(model_behind(name, service.settings) or name)
        upstream = service.upstream
        make = Execution if upstream is None else functools.partial(Forwarding, upstream)
        self._execution = make(
            source,
            self._folder,
            requests=requests,
            ledger=service.ledger,
            order=self._order,
            faults=service.row_faults,
            model=model,
            dialect=service.settings.speaks,
            bad_lines=[] if self.batch.errors is None else [error.line for error in self.batch.errors.data],
        )
        self.batch.model = model.snapshot if upstream is None else name or None
        self._count(self._execution)

    async def _forward(self, execution: Forwarding) -> None:
        work = asyncio.ensure_future(execution.forward())
        try:
            while not work.done():
                await asyncio.wait({work}, timeout=_SLICE_SECONDS)
                self._count(execution)
                self._check_deadline()
                if self.stop is not None:
                    execution.stop()
        finally:
            work.cancel()
            await asyncio.wait({work})
        work.result()

    async def _execute(self, service: Service, execution: Execution) -> None:
        if isinstance(execution, Forwarding):
            await self._forward(execution)
            return
        started = time.monotonic()
        while execution.done < execution.requests and self.stop is None:
            settings = service.settings
            until = self.troubles.next_interruption(execution.requests)
            if until is not None and execution.done >= until:
                await self._interrupt(self.troubles.interrupt())
                continue
            target = execution.requests
            if settings.progression == "stepped":
                await self._gate(service, 0.0)
                target = execution.done + math.ceil(execution.requests / settings.execution_steps)
            elif settings.progression == "timed" and settings.seconds.in_progress > 0:
                share = min(1.0, (time.monotonic() - started) / settings.seconds.in_progress)
                target = math.floor(execution.requests * share)
                if target <= execution.done:
                    await self._pause(min(_SLICE_SECONDS, settings.seconds.in_progress / 10))
                    continue
            target = min(target, execution.requests if until is None else until)
            while execution.done < target and self.stop is None:
                requests = target - execution.done
                await service.in_thread(functools.partial(execution.run, requests, _SLICE_SECONDS))
                self._count(execution)
                self._check_deadline()

    def _count(self, execution: Execution) -> None:
        self.batch.request_counts.completed = execution.completed
        self.batch.request_counts.failed = execution.failed

    async def _interrupt(self, fault: BatchFault) -> None:
        if fault.kind == "cancel":
            self.batch.status, self.batch.cancelling_at = "cancelling", int(time.time())
            self.stop_for("cancel")
        elif fault.kind == "expire":
            self.stop_for("expire")
        else:
            await self._hold(fault)

    async def _finish(self, service: Service) -> None:
        batch, execution, stop = self.batch, self._execution, self.stop
        batch.usage = usage_object()
        if execution is not None:
            if stop is not None and not self._leaves_no_trace():
                code, message = _EXPIRED if stop == "expire" else _CANCELLED
                await service.in_thread(functools.partial(execution.abandon, code, message))
            finish = functools.partial(execution.finish, shuffle=service.settings.shuffle)
            output, error = await service.in_thread(finish)
            batch.usage = execution.usage()
            batch.output_file_id = self._add(service, output, "output")
            batch.error_file_id = self._add(service, error, "error")
            self._spoil_files(service)
        now = int(time.time())
        # A cancel that came while the files were written finds all requests executed; it is honoured by the word.
        if self.stop == "cancel":
            batch.status, batch.cancelled_at = "cancelled", now
        elif stop == "expire":
            batch.status, batch.expired_at = "expired", now
        else:
            batch.status, batch.completed_at = "completed", now
        if self.troubles.of("outputs_expired") is not None:
            _make_older(batch, _FILE_DAYS)

    def _add(self, service: Service, path: Path | None, what: str) -> str | None:
        if path is None:
            return None
        filename = f"{self.batch.id}_{what}.jsonl"
        path = service.state.handed_over(path)
        return add_output(service, path, filename, self.life_seconds, self.owner).id

    def _leaves_no_trace(self) -> bool:
        """Say whether rows that were not executed stand in neither file."""
        fault = self.troubles.of("expire" if self.stop == "expire" else "cancel")
        return fault is not None and fault.unexecuted == "nowhere"

    def _spoil_files(self, service: Service) -> None:
        """Do what the batch's faults do to its files at the end."""
        batch = self.batch
        if self.troubles.of("outputs_expired") is not None:
            for file_id in (batch.output_file_id, batch.error_file_id):
                if file_id is not None:
                    service.files.delete(file_id, self.owner)
        absent = self.troubles.of("absent_id")
        # Azure's error file is always there.
        spelling = absent.spelling if absent else "zero_bytes" if service.settings.speaks.is_azure else "null"
        if spelling == "empty":
            batch.output_file_id, batch.error_file_id = batch.output_file_id or "", batch.error_file_id or ""
        elif spelling == "zero_bytes" and batch.error_file_id is None:
            empty = self._folder / "empty"
            empty.touch()
            batch.error_file_id = self._add(service, empty, "error")

    def _fail(self, errors: list[LineError]) -> None:
        self.batch.errors = Errors(data=errors)
        self.batch.status, self.batch.failed_at = "failed", int(time.time())

    # ------------------------------------------------------------------------------------------------------- waiting

    async def _gate(self, service: Service, seconds: float, *, stoppable: bool = True) -> None:
        """Wait as the progression says: not at all, `seconds`, or for a step; and no longer than for a stop."""
        started = time.monotonic()
        while not (stoppable and self.stop is not None):
            progression = service.settings.progression
            if progression == "instant":
                return
            if progression == "stepped":
                if self._steps:
                    self._steps -= 1
                    return
                self.idle.set()
                await self._pause(None)
            else:
                left = started + seconds - time.monotonic()
                if left <= 0:
                    return
                await self._pause(left)

    async def _hold(self, fault: BatchFault | None) -> None:
        """Stay where the batch is: for ever or for some time, but no longer than for a stop."""
        if fault is None:
            return
        seconds = 1.0 if fault.seconds is None else fault.seconds
        end = math.inf if fault.kind == "stuck" else time.monotonic() + seconds
        while self.stop is None and (left := end - time.monotonic()) > 0:
            self.idle.set()
            await self._pause(None if left == math.inf else left)

    async def _pause(self, seconds: float | None) -> None:
        """Sleep until something changes, `seconds` have passed or the window has ended."""
        limits = [self.deadline - time.time()] if self.stop is None else []
        if seconds is not None:
            limits.append(seconds)
        self.wake.clear()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.wake.wait(), max(0.0, min(limits)) if limits else None)
        self._check_deadline()

    def _check_deadline(self) -> None:
        if self.stop is None and time.time() >= self.deadline:
            self.stop = "expire"


def _make_older(batch: Batch, days: int) -> None:
    """Have everything of a batch happen so long ago."""
    for name in type(batch).__struct_fields__:
        moment = getattr(batch, name)
        if name.endswith("_at") and moment is not None:
            setattr(batch, name, moment - days * 86_400)
