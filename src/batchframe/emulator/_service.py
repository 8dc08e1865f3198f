"""The service's state and what can be done with it. No HTTP.

Everything here runs on the event loop's thread, except the work on files, which is handed to worker threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import shutil
import tempfile
import threading
import time
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from batchframe.emulator import _errors as errors
from batchframe.emulator._backing import Backing
from batchframe.emulator._batches import TERMINAL, Batch, check_create
from batchframe.emulator._dialects import DAY_SECONDS
from batchframe.emulator._dues import Dues
from batchframe.emulator._faults import Faults
from batchframe.emulator._ids import Ids
from batchframe.emulator._intake import check_input
from batchframe.emulator._ledger import Ledger
from batchframe.emulator._lifecycle import Job
from batchframe.emulator._quota import Quota
from batchframe.emulator._row_faults import RowFaults
from batchframe.emulator._settings import Settings, changed
from batchframe.emulator._state import State, drop_results
from batchframe.emulator._troubles import Troubles
from batchframe.emulator._upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from batchframe.emulator._batch_faults import BatchFault
    from batchframe.emulator._batches import LineError
    from batchframe.emulator._file_faults import FileFault
    from batchframe.emulator._state import BatchRecord
    from batchframe.emulator._validation import Validation

T = TypeVar("T")
_HOUR = 3600.0


class Clearable(Protocol):
    """Faults of some kind."""

    def clear(self) -> None:
        """Forget them."""


class Service:
    """Files, batches, ledger, faults and settings of one emulator."""

    def __init__(self, settings: Settings, backing: Backing | None = None) -> None:
        self._first_settings = settings
        self._backing = backing or Backing()
        self._start(settings)

    def _start(self, settings: Settings) -> None:
        self.settings = settings
        self.state = State(self._backing.state_dir)
        self.upstream = None if self._backing.upstream is None else Upstream(self._backing)
        # The ids of an earlier process must not be drawn again.
        self.ids = Ids(None if self.state.is_kept else settings.seed)
        self.files = self.state.files()
        self.jobs: dict[str, Job] = {}
        self.quota = Quota()
        self.ledger = Ledger(self.state.root / "ledger")
        self.faults = Faults()
        self.row_faults = RowFaults(settings.seed)
        self.batch_faults: Dues[BatchFault] = Dues()
        self.file_faults: Dues[FileFault] = Dues()
        self.calls: Counter[str] = Counter()
        self.closed = asyncio.Event()
        self.abort = threading.Event()
        # Two are enough for polls and downloads to find a free one beside the work on batches; more would only
        # compete for the interpreter.
        self._work = ThreadPoolExecutor(2, "batchframe-emulator-work")
        self._reads = ThreadPoolExecutor(2, "batchframe-emulator-read")
        self._drivers: set[asyncio.Task[None]] = set()
        self._created: deque[float] = deque()
        self._by_key: dict[tuple[str, str], Job] = {}
        for record in self.state.batches():
            self._take_up(record)

    # ------------------------------------------------------------------------------------------------- housekeeping

    async def close(self, *, clear: bool = False) -> None:
        """Stop all work and remove all files, but not, unless `clear` says so, those of a folder that is kept."""
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
            self.state.clear()
        self.state.close()

    async def reset(self) -> None:
        """Drop everything: files, batches, ledger, calls, faults, and changes to the settings."""
        await self.close(clear=True)
        self._start(self._first_settings)

    def configure(self, changes: dict[str, Any]) -> Settings:
        """Change settings; what waits for a step or for time looks at them anew."""
        settings = changed(self.settings, changes)
        if settings.seed != self.settings.seed:
            self.ids.random.seed(settings.seed)
            self.row_faults.reseed(settings.seed)
        self.settings = settings
        for job in self.jobs.values():
            job.wake.set()
        return settings

    def clear_faults(self) -> None:
        """Forget all faults that are still to come."""
        registries: tuple[Clearable, ...] = (self.faults, self.row_faults, self.batch_faults, self.file_faults)
        for registry in registries:
            registry.clear()

    async def in_thread(self, function: Callable[[], T]) -> T:
        """Run work on files beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._work, function)

    async def reading(self, function: Callable[[], T]) -> T:
        """Run a short read beside the event loop, and beside the work on batches."""
        return await asyncio.get_running_loop().run_in_executor(self._reads, function)

    async def sleep(self, seconds: float) -> None:
        """Let a call wait; one that a reset or the end finds waiting is refused, and acts no more."""
        closed = self.closed
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(closed.wait(), seconds)
        if closed.is_set():
            raise errors.ApiError("the emulator was reset or stopped before this took effect", status=503)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Lend a folder on the file system of the files, and remove it afterwards."""
        folder = Path(tempfile.mkdtemp(dir=self.state.scratch))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    # ------------------------------------------------------------------------------------------------------ batches

    async def create_batch(self, body: Any, owner: str, key: str | None = None) -> Job:
        """Create a batch; that its input file exists is found out later, as with the service.

        Where `key` is that of an earlier create, its batch is returned.
        """
        dialect = self.settings.speaks
        check_create(body, dialect, executes_all=self.upstream is not None)
        validation = await check_input(self, body["input_file_id"], body["endpoint"], owner)
        if key is not None and (owner, key) in self._by_key:
            return self._by_key[owner, key]
        enqueued = None
        if validation is not None and self.settings.over_limit_at == "create":
            refused = self.quota.enter(owner, validation.load, self.settings)
            if refused is not None:
                raise errors.ApiError(refused.message, code=refused.code)
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
            folder=self.state.work_folder(batch.id),
            order=random.Random(self.ids.random.getrandbits(64)),  # noqa: S311 - an order, not a secret
            deadline=ends_at if dialect.expires else math.inf,
            life_seconds=(body.get("output_expires_after") or {}).get("seconds"),
            troubles=Troubles(self.batch_faults.take()),
            owner=owner,
            deletes_input=body.get("auto_delete_input_file", dialect.deletes_input),
        )
        job.enqueued = enqueued
        if key is not None:
            self._by_key[owner, key] = job
        self._run(job)
        self.state.keep(job)
        return job

    def _take_up(self, record: BatchRecord) -> None:
        """Know a batch of an earlier process, and go on with its work."""
        batch = record.batch
        job = Job(
            batch,
            folder=self.state.work_folder(batch.id),
            order=random.Random(self.ids.random.getrandbits(64)),  # noqa: S311 - an order, not a secret
            deadline=math.inf if record.deadline is None else record.deadline,
            life_seconds=record.life_seconds,
            troubles=Troubles(),
            owner=record.owner,
            deletes_input=record.deletes_input,
        )
        job.stop = record.stop
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

    def enqueue(self, job: Job, validation: Validation) -> LineError | None:
        """Hold what a validated batch enqueues, or say why not."""
        if job.enqueued is not None:
            return None
        refused = self.quota.enter(job.owner, validation.load, self.settings)
        if refused is not None and self.settings.refused_hold_tokens:
            self.quota.hold(job.owner, validation.load)
        if refused is None or self.settings.refused_hold_tokens:
            job.enqueued = validation.load
        return refused

    def dequeue(self, job: Job) -> None:
        """Let go, now or later, what a batch that has ended held."""
        if job.enqueued is not None:
            delay = self.settings.token_release_seconds
            if delay > 0:
                asyncio.get_running_loop().call_later(delay, self.quota.let_go, job.owner, job.enqueued)
            else:
                self.quota.let_go(job.owner, job.enqueued)

    def job(self, batch_id: str, owner: str) -> Job:
        """Return a batch with its work, or refuse with 404."""
        if batch_id not in self.jobs or self.jobs[batch_id].owner != owner:
            raise errors.no_such_batch(batch_id)
        return self.jobs[batch_id]

    def listed(self, owner: str) -> list[Job]:
        """List an owner's batches, the newest first."""
        return [job for job in reversed(self.jobs.values()) if job.owner == owner and job.troubles.is_listed()]

    def show(self, job: Job) -> dict[str, Any]:
        """Return a batch object as clients see it."""
        view = job.troubles.show(job.batch, self.settings.chosen_oddities)
        if self.settings.speaks.is_old_object:
            return {name: view[name] for name in sorted(view) if name not in {"model", "usage"}}
        return view

    def show_listed(self, job: Job) -> dict[str, Any]:
        """Return a batch object as the list shows it."""
        return job.troubles.listed(self.show(job))

    def cancel_batch(self, batch_id: str, owner: str) -> Job:
        """Ask a batch to stop."""
        job = self.job(batch_id, owner)
        batch = job.batch
        if batch.status in TERMINAL - {"cancelled"}:
            raise errors.not_cancellable(batch.status)
        if batch.status not in {"cancelling", "cancelled"}:
            batch.status, batch.cancelling_at = "cancelling", int(time.time())
            job.stop_for("cancel")
            self.state.keep(job)
        return job

    def expire(self, batch_id: str | None = None) -> int:
        """Let the window of one batch, or of all that are alive, end now; returns how many."""
        if batch_id is not None and batch_id not in self.jobs:
            raise errors.no_such_batch(batch_id)
        jobs = list(self.jobs.values()) if batch_id is None else [self.jobs[batch_id]]
        alive = [job for job in jobs if job.batch.status not in TERMINAL and job.stop is None]
        for job in alive:
            job.stop_for("expire")
            self.state.keep(job)
        return len(alive)

    async def step(self, steps: int = 1) -> None:
        """Advance every batch by so many steps, and return once the effects can be seen."""
        if self.settings.progression != "stepped":
            raise errors.ApiError(f"steps need progression 'stepped', but it is '{self.settings.progression}'")
        for _ in range(steps):
            alive = [job for job in self.jobs.values() if job.batch.status not in TERMINAL]
            if not alive:
                return
            for job in alive:
                job.grant_step()
            for job in alive:
                await job.idle.wait()
