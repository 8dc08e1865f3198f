"""The service: its state, and what can be done with it. No HTTP.

Everything here runs on the event loop's thread, except the work on files, which runs in worker threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import random
import shutil
import tempfile
import threading
import time
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeVar

from batchframe.emulator import _errors as errors
from batchframe.emulator._batches.batch_fault_state import BatchFaultState
from batchframe.emulator._batches.batch_object import TERMINAL, Batch, check_create
from batchframe.emulator._batches.job import Job
from batchframe.emulator._batches.ledger import Ledger
from batchframe.emulator._batches.quota import Quota
from batchframe.emulator._batches.upstream import Upstream
from batchframe.emulator._batches.validation import Validation, validate
from batchframe.emulator._config.backing import Backing
from batchframe.emulator._config.dialects import DAY_SECONDS
from batchframe.emulator._config.settings import Settings, changed
from batchframe.emulator._faults.call_faults import CallFaults
from batchframe.emulator._faults.fault_queue import FaultQueue
from batchframe.emulator._faults.row_faults import RowFaults
from batchframe.emulator._service.ids import Ids
from batchframe.emulator._service.intake import check_input
from batchframe.emulator._service.storage import Storage, drop_results

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from batchframe.emulator._batches.batch_record import BatchRecord
    from batchframe.emulator._faults.batch_faults import BatchFault
    from batchframe.emulator._faults.file_faults import FileFault

T = TypeVar("T")
_HOUR = 3600.0


class Clearable(Protocol):
    """Faults of any kind."""

    def clear(self) -> None:
        """Drop them."""


class Service:
    """Files, batches, ledger, faults and settings of one emulator."""

    def __init__(self, settings: Settings, backing: Backing | None = None) -> None:
        self._first_settings = settings
        self._backing = backing or Backing()
        self._start(settings)

    def _start(self, settings: Settings) -> None:
        self.settings = settings
        self.storage = Storage(self._backing.state_dir)
        self.upstream = None if self._backing.upstream is None else Upstream(self._backing)
        # A seed would draw the ids of an earlier process again.
        self.ids = Ids(None if self.storage.is_kept else settings.seed)
        self.files = self.storage.files()
        self.jobs: dict[str, Job] = {}
        self.quota = Quota()
        self.ledger = Ledger(self.storage.root / "ledger")
        self.faults = CallFaults()
        self.row_faults = RowFaults(settings.seed)
        self.batch_faults: FaultQueue[BatchFault] = FaultQueue()
        self.file_faults: FaultQueue[FileFault] = FaultQueue()
        self.calls: Counter[str] = Counter()
        self.closed = asyncio.Event()
        self.abort = threading.Event()
        # Two readers keep polls and downloads going beside the work on batches; more threads would only compete for
        # the interpreter.
        self._work = ThreadPoolExecutor(2, "batchframe-emulator-work")
        self._reads = ThreadPoolExecutor(2, "batchframe-emulator-read")
        self._drivers: set[asyncio.Task[None]] = set()
        self._created: deque[float] = deque()
        self._jobs_by_key: dict[tuple[str, str], Job] = {}
        for record in self.storage.batches():
            self._resume(record)

    # ------------------------------------------------------------------------------------------------- housekeeping

    async def close(self, *, clear: bool = False) -> None:
        """Stop all work and remove all files; those of a state folder only if `clear`."""
        self.closed.set()
        self.abort.set()
        for driver in self._drivers:
            driver.cancel()
        await asyncio.gather(*self._drivers, return_exceptions=True)
        self._work.shutdown(cancel_futures=True)
        self._reads.shutdown(cancel_futures=True)
        for job in self.jobs.values():
            job.discard()
        if self.upstream is not None:
            await self.upstream.close()
        self.ledger.close()
        if clear:
            self.storage.clear()
        self.storage.close()

    async def reset(self) -> None:
        """Drop everything: files, batches, ledger, calls, faults, and changes to the settings."""
        await self.close(clear=True)
        self._start(self._first_settings)

    def configure(self, changes: dict[str, Any]) -> Settings:
        """Change settings; batches that wait for a step or for time read them again."""
        settings = changed(self.settings, changes)
        if settings.seed != self.settings.seed:
            self.ids.random.seed(settings.seed)
            self.row_faults.reseed(settings.seed)
        self.settings = settings
        for job in self.jobs.values():
            job.pace.wake.set()
        return settings

    def clear_faults(self) -> None:
        """Drop all faults that are still to come."""
        queues: tuple[Clearable, ...] = (self.faults, self.row_faults, self.batch_faults, self.file_faults)
        for queue in queues:
            queue.clear()

    async def in_thread(self, function: Callable[[], T]) -> T:
        """Run work on files beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._work, function)

    async def reading(self, function: Callable[[], T]) -> T:
        """Run a short read beside the event loop, and beside the work on batches."""
        return await asyncio.get_running_loop().run_in_executor(self._reads, function)

    async def validate(self, source: BinaryIO, endpoint: str) -> Validation:
        """Validate an input file."""
        is_forwarded = self.upstream is not None
        work = functools.partial(validate, source, endpoint, self.settings, self.abort, is_forwarded=is_forwarded)
        return await self.in_thread(work)

    def draw_id(self, form: str) -> str:
        """Draw an id: ``file-{hex}``."""
        return self.ids.draw(form)

    async def sleep(self, seconds: float) -> None:
        """Let a call wait; one that a reset or the end finds waiting is refused, and acts no more."""
        closed = self.closed
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(closed.wait(), seconds)
        if closed.is_set():
            raise errors.ApiError("the emulator was reset or stopped before this took effect", status=503)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Make a temporary folder on the file system of the files."""
        folder = Path(tempfile.mkdtemp(dir=self.storage.scratch))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    # ------------------------------------------------------------------------------------------------------ batches

    async def create_batch(self, body: Any, owner: str, key: str | None = None) -> Job:
        """Create a batch. Like the service, this does not check that the input file exists: the batch fails later.

        `key`: an idempotency key; one of an earlier create returns that one's batch.
        """
        dialect = self.settings.profile
        check_create(body, dialect, executes_all=self.upstream is not None)
        validation = await check_input(self, body["input_file_id"], body["endpoint"], owner)
        if key is not None and (owner, key) in self._jobs_by_key:
            return self._jobs_by_key[owner, key]
        enqueued = None
        if validation is not None and self.settings.over_limit_at == "create":
            error = self.quota.enter(owner, validation.load, self.settings)
            if error is not None:
                raise errors.ApiError(error.message, code=error.code)
            enqueued = validation.load
        now = time.time()
        ends_at = now + (self.settings.window_seconds or dialect.windows.get(body["completion_window"], DAY_SECONDS))
        while self._created and self._created[0] <= now - _HOUR:
            self._created.popleft()
        if len(self._created) >= self.settings.batches_per_hour and not dialect.is_azure:
            raise errors.too_many_batches(self.settings.batches_per_hour, self.settings.organization)
        self._created.append(now)
        batch = Batch(
            id=self.ids.draw(dialect.batch_id),
            endpoint=body["endpoint"],
            input_file_id=body["input_file_id"],
            completion_window=body["completion_window"],
            created_at=int(now),
            expires_at=int(ends_at),
            metadata=body.get("metadata"),
        )
        job = Job(
            batch,
            folder=self.storage.work_folder(batch.id),
            order=random.Random(self.ids.random.getrandbits(64)),  # noqa: S311 - an order, not a secret
            deadline=ends_at if dialect.expires else math.inf,
            life_seconds=(body.get("output_expires_after") or {}).get("seconds"),
            faults=BatchFaultState(self.batch_faults.take()),
            owner=owner,
            deletes_input=body.get("auto_delete_input_file", dialect.deletes_input),
        )
        job.enqueued = enqueued
        if key is not None:
            self._jobs_by_key[owner, key] = job
        self._run(job)
        self.storage.keep(job.record())
        return job

    def _resume(self, record: BatchRecord) -> None:
        """Add a batch of an earlier process, and go on with its work."""
        batch = record.batch
        job = Job(
            batch,
            folder=self.storage.work_folder(batch.id),
            order=random.Random(self.ids.random.getrandbits(64)),  # noqa: S311 - an order, not a secret
            deadline=math.inf if record.deadline is None else record.deadline,
            life_seconds=record.life_seconds,
            faults=BatchFaultState(),
            owner=record.owner,
            deletes_input=record.deletes_input,
        )
        job.pace.stop = record.stop
        if batch.status in TERMINAL:
            job.clean()
            self.jobs[batch.id] = job
        else:
            drop_results(self.files, batch, record.owner)
            self._run(job)

    def _run(self, job: Job) -> None:
        self.jobs[job.id] = job
        driver = asyncio.get_running_loop().create_task(job.drive(self))
        self._drivers.add(driver)
        driver.add_done_callback(self._drivers.discard)

    def job(self, batch_id: str, owner: str) -> Job:
        """Return a batch and the work on it, or refuse with 404."""
        if batch_id not in self.jobs or self.jobs[batch_id].owner != owner:
            raise errors.no_such_batch(batch_id)
        return self.jobs[batch_id]

    def newest_first(self, owner: str) -> list[Job]:
        """List an owner's batches."""
        return [job for job in reversed(self.jobs.values()) if job.owner == owner and job.faults.is_listed()]

    def present(self, job: Job) -> dict[str, Any]:
        """Return a batch object as clients see it."""
        view = job.faults.present(job.batch, self.settings.effective_oddities)
        if self.settings.profile.is_old_object:
            return {name: view[name] for name in sorted(view) if name not in {"model", "usage"}}
        return view

    def present_in_list(self, job: Job) -> dict[str, Any]:
        """Return a batch object as the list shows it."""
        return job.faults.in_list(self.present(job))

    def cancel_batch(self, batch_id: str, owner: str) -> Job:
        """Cancel a batch."""
        job = self.job(batch_id, owner)
        batch = job.batch
        if batch.status in TERMINAL - {"cancelled"}:
            raise errors.not_cancellable(batch.status)
        if batch.status not in {"cancelling", "cancelled"}:
            batch.status, batch.cancelling_at = "cancelling", int(time.time())
            job.pace.stop_for("cancel")
            self.storage.keep(job.record())
        return job

    def expire(self, batch_id: str | None = None) -> int:
        """End the window of one batch, or of all unfinished ones, now; return how many ended."""
        if batch_id is not None and batch_id not in self.jobs:
            raise errors.no_such_batch(batch_id)
        jobs = list(self.jobs.values()) if batch_id is None else [self.jobs[batch_id]]
        unfinished = [job for job in jobs if job.batch.status not in TERMINAL and job.pace.stop is None]
        for job in unfinished:
            job.pace.stop_for("expire")
            self.storage.keep(job.record())
        return len(unfinished)

    async def step(self, steps: int = 1) -> None:
        """Advance every batch by `steps`, and return once clients can see the effects."""
        if self.settings.progression != "stepped":
            raise errors.ApiError(f"steps need progression 'stepped', but it is '{self.settings.progression}'")
        for _ in range(steps):
            unfinished = [job for job in self.jobs.values() if job.batch.status not in TERMINAL]
            if not unfinished:
                return
            for job in unfinished:
                job.pace.grant_step()
            for job in unfinished:
                await job.pace.idle.wait()
