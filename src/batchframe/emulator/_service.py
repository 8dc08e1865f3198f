"""The service's state and what can be done with it. No HTTP.

Everything here runs on the event loop's thread, except the work on files, which is handed to worker threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import os
import random
import shutil
import tempfile
import threading
import time
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from batchframe.emulator import _errors as errors
from batchframe.emulator._backing import Backing
from batchframe.emulator._batches import TERMINAL, Batch, check_create
from batchframe.emulator._dues import Dues
from batchframe.emulator._faults import Faults
from batchframe.emulator._files import File, Handling, handling
from batchframe.emulator._ids import Ids
from batchframe.emulator._ledger import Ledger
from batchframe.emulator._lifecycle import Job
from batchframe.emulator._quota import Quota
from batchframe.emulator._row_faults import RowFaults
from batchframe.emulator._settings import Settings, changed
from batchframe.emulator._state import State, drop_results
from batchframe.emulator._troubles import Troubles
from batchframe.emulator._upstream import Upstream
from batchframe.emulator._validation import Validation, validate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from batchframe.emulator._batch_faults import BatchFault
    from batchframe.emulator._batches import LineError
    from batchframe.emulator._file_faults import FileFault
    from batchframe.emulator._state import BatchRecord

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

    async def sleep(self, seconds: float) -> bool:
        """Wait; False when the service was closed meanwhile."""
        closed = self.closed
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(closed.wait(), seconds)
        return not closed.is_set()

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Lend a folder on the file system of the files, and remove it afterwards."""
        folder = Path(tempfile.mkdtemp(dir=self.state.scratch))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    # -------------------------------------------------------------------------------------------------------- files

    def add_upload(self, path: Path, filename: str, purpose: str, life_seconds: int | None, owner: str) -> File:
        """Take over an uploaded file, unless its quota is used up."""
        dialect, room = self.settings.speaks, self.settings.storage_bytes
        if room is not None and self.files.total_bytes() + path.stat().st_size > room:
            raise errors.storage_full(room)
        if life_seconds is None and purpose == "batch":
            life_seconds = dialect.life_seconds
        if dialect.is_azure and purpose == "batch":
            self._check_quota(have_expiry=life_seconds is not None)
        faults = self.file_faults.take()
        for fault in faults:
            if fault.kind == "short":
                os.truncate(path, int(path.stat().st_size * fault.at))
        file = self._file(path, filename, purpose, life_seconds, is_output=False)
        handled = handling(faults, owner, self.settings.pending_polls)
        file.status = dialect.first_file_status
        if handled.pending or handled.ends_as != "processed":
            file.status = "pending" if dialect.is_azure else "uploaded"
        return self.files.add(path, file, handled)

    def add_output(self, path: Path, filename: str, life_seconds: int | None, owner: str) -> File:
        """Take over a result file."""
        life_seconds = life_seconds or self.settings.speaks.life_seconds
        file = self._file(path, filename, "batch_output", life_seconds, is_output=True)
        return self.files.add(path, file, Handling(owner))

    def show_file(self, file: File) -> File | dict[str, Any]:
        """Return a file object as clients see it."""
        status = self.files.status(file)
        if "null_file_status" in self.settings.chosen_oddities and status == "pending":
            status = None
        return msgspec.structs.replace(file, status=status)

    def _file(self, path: Path, filename: str, purpose: str, life_seconds: int | None, *, is_output: bool) -> File:
        now = int(time.time())
        return File(
            id=self.ids.file(is_azure=self.settings.speaks.is_azure, is_output=is_output),
            bytes=path.stat().st_size,
            created_at=now,
            expires_at=None if life_seconds is None else now + life_seconds,
            filename=filename,
            purpose=purpose,
        )

    def _check_quota(self, *, have_expiry: bool) -> None:
        most = self.settings.files_with_expiry if have_expiry else self.settings.files_without_expiry
        if self.files.count_batch_inputs(have_expiry=have_expiry) >= most:
            raise errors.too_many_files(most, have_expiry=have_expiry)

    # ------------------------------------------------------------------------------------------------------ batches

    async def create_batch(self, body: Any, owner: str) -> Job:
        """Create a batch; that its input file exists is found out later, as with the service."""
        dialect = self.settings.speaks
        check_create(body, dialect, executes_all=self.upstream is not None)
        validation = await self._check_input(body["input_file_id"], body["endpoint"], owner)
        enqueued = None
        if validation is not None and self.settings.limits_tokens and self.settings.over_limit_at == "create":
            refused = self.quota.enter(owner, validation.model or "", validation.tokens, self.settings)
            if refused is not None:
                raise errors.ApiError(refused.message, code=refused.code)
            enqueued = validation.model or "", validation.tokens
        now = time.time()
        while self._created and self._created[0] <= now - _HOUR:
            self._created.popleft()
        if len(self._created) >= self.settings.batches_per_hour and not dialect.is_azure:
            raise errors.too_many_batches(self.settings.batches_per_hour, self.settings.organization)
        self._created.append(now)
        batch = Batch(
            id=self.ids.batch(is_azure=dialect.is_azure),
            endpoint=body["endpoint"],
            input_file_id=body["input_file_id"],
            completion_window=body["completion_window"],
            created_at=int(now),
            expires_at=int(now + self.settings.window_seconds),
            metadata=body.get("metadata"),
        )
        expires_after = body.get("output_expires_after")
        job = Job(
            batch,
            folder=self.state.work_folder(batch.id),
            order=random.Random(self.ids.random.getrandbits(64)),  # noqa: S311 - an order, not a secret
            deadline=now + self.settings.window_seconds if dialect.expires else math.inf,
            life_seconds=expires_after["seconds"] if expires_after else None,
            troubles=Troubles(self.batch_faults.take()),
            owner=owner,
        )
        job.enqueued = enqueued
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

    async def _check_input(self, file_id: str, endpoint: str, owner: str) -> Validation | None:
        """Look at a file before a batch is created of it, as far as the dialect and the settings ask for that.

        Azure refuses a file that is not processed. What validation finds in a file is of use here only when errors,
        or too many tokens, are refused at once.
        """
        settings, is_azure = self.settings, self.settings.speaks.is_azure
        try:
            file = self.files.get(file_id, owner)
        except errors.ApiError:
            return None
        if is_azure:
            self.files.poll(file)
            if file.status != "processed":
                raise errors.file_not_processed(file_id, file.status)
        if not (is_azure and settings.errors_at_create) and settings.over_limit_at != "create":
            return None
        with self.files.path(file_id).open("rb") as source:
            is_forwarded = self.upstream is not None
            work = functools.partial(validate, source, endpoint, settings, self.abort, is_forwarded=is_forwarded)
            validation = await self.in_thread(work)
        if validation.errors and is_azure and settings.errors_at_create:
            raise errors.refused_file(validation.errors)
        return None if validation.errors else validation

    def enqueue(self, job: Job, validation: Validation) -> LineError | None:
        """Hold the tokens of a validated batch, or say why not."""
        if job.enqueued is not None or not self.settings.limits_tokens:
            return None
        model = validation.model or ""
        refused = self.quota.enter(job.owner, model, validation.tokens, self.settings)
        if refused is not None and self.settings.refused_hold_tokens:
            self.quota.hold(job.owner, model, validation.tokens)
        if refused is None or self.settings.refused_hold_tokens:
            job.enqueued = model, validation.tokens
        return refused

    def dequeue(self, job: Job) -> None:
        """Let go, now or later, what a batch that has ended held."""
        if job.enqueued is not None:
            model, tokens = job.enqueued
            delay = self.settings.token_release_seconds
            asyncio.get_running_loop().call_later(delay, self.quota.hold, job.owner, model, -tokens)

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
        jobs = [self.jobs[batch_id]] if batch_id in self.jobs else [] if batch_id else list(self.jobs.values())
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
            for job in alive:
                job.grant_step()
            for job in alive:
                await job.idle.wait()
