"""Who works on a run: one process at a time, for as long as it renews a small file in the run's folder.

A lease is no proof: a process can be stopped between reading the file and what it does next. It keeps processes apart
in the usual case. For the rest, local writes are made under the lock of the file, and a create that slipped through is
found by its input file (see `Collector`).
"""

from __future__ import annotations

import datetime as dt
import errno
import functools
import os
import secrets
import socket
import threading
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from batchframe._core.exceptions import LeaseLostError, RunNotFoundError
from batchframe._store.filesystem import acquire, writing
from batchframe._store.processes import is_dead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


# A process that has not renewed its lease for so long counts as gone, wherever it runs.
LEASE_SECONDS = 600.0
_RENEWALS = 10
# The holder of the lock writes a small file; one that takes longer was stopped in the middle. A process that only asks
# who works on the run gives up sooner than one that has something to write.
_LOCK_SECONDS, _WRITE_SECONDS = 5.0, 60.0
_FILE, _LOCK = "lease.json", ".lease.lock"
# The errors of a file system without locks.
_NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK})
# The leases that this process holds.
_tokens: set[str] = set()


class LeaseRecord(msgspec.Struct, frozen=True):
    """``lease.json``: who works on the run, since when, and when that was last confirmed."""

    host: str
    pid: int
    token: str
    since: dt.datetime
    renewed_at: dt.datetime
    pids: str = ""

    def __str__(self) -> str:
        if not self.pid:
            return f"another process, which was stopped while it held {_LOCK}"
        return f"process {self.pid} on {self.host}, which works on this run since {self.since:%Y-%m-%d %H:%M:%S} UTC"


_BEGINNING = dt.datetime.fromtimestamp(0, dt.timezone.utc)
_UNKNOWN = LeaseRecord("", 0, "", _BEGINNING, _BEGINNING)


def may_take(*, age: float, is_dead: bool) -> bool:
    """Whether a lease may be taken over.

    Parameters
    ----------
    age
        Seconds since it was renewed, as far as the one who asks can tell.
    is_dead
        Whether its process is known to be gone.
    """
    return is_dead or age >= LEASE_SECONDS


class Lease:
    """The lease of a run's folder, for one handle; inside ``with lease:`` it may be taken, at the end it is let go of.

    Parameters
    ----------
    folder
        The run's folder.
    now, monotonic
        The time of the day, and a clock that is never set.

    Attributes
    ----------
    replaced
        Whose lease was taken over, when it was last taken: a process that is dead, stopped, or cut off.
    """

    def __init__(self, folder: Path, now: Callable[[], dt.datetime], monotonic: Callable[[], float]) -> None:
        self._folder = folder
        self._now = now
        self._monotonic = monotonic
        self._mine: LeaseRecord | None = None
        self.replaced: LeaseRecord | None = None
        self._depth = 0
        # Of the threads that share the handle, one enters, takes or leaves at a time.
        self._turn = threading.RLock()
        self._stop = threading.Event()
        self._seen: LeaseRecord | None = None
        self._seen_at = self._seen_age = 0.0

    def __enter__(self) -> None:
        with self._turn:
            self._depth += 1

    def __exit__(self, *_: object) -> None:
        with self._turn:
            self._depth -= 1
            if not self._depth:
                self._release()

    def holder(self) -> LeaseRecord | None:
        """Return who else works on the run, without taking the lease; None for nobody, or this handle."""
        found = self._read()
        return None if found is None or self._is_mine(found) or self._is_free(found) else found

    def take(self) -> LeaseRecord | None:
        """Take the lease, or renew it; where another holds it, return who.

        Raises
        ------
        LeaseLostError
            It was held here, and another has it, or had it, since.
        """
        with self._turn:
            return self._take()

    def _take(self) -> LeaseRecord | None:
        if self._mine is None and (holder := self.holder()) is not None:
            return holder  # so that a process that waits seldom takes the lock
        try:
            with self.lock(_LOCK_SECONDS):
                if self._mine is not None:
                    self._renew()
                    return None
                found = self._read()
                if found is not None and not self._is_free(found):
                    return found
                self.replaced, now = found, self._now()
                token = secrets.token_hex(16)
                _tokens.add(token)
                self._mine = LeaseRecord(socket.gethostname(), os.getpid(), token, now, now, _pid_namespace())
                self._write(self._mine)
        except _Busy:
            found = self._read()
            return _UNKNOWN if found is None or self._is_mine(found) else found
        self._stop = threading.Event()
        threading.Thread(target=self._keep, args=(self._stop,), name="batchframe-lease", daemon=True).start()
        return None

    def check(self) -> None:
        """Make sure that the lease is held here, before each call that changes something at the service.

        Raises
        ------
        LeaseLostError
            It is not.
        """
        found = self._read()
        if found is None or not self._is_mine(found):
            self._lose(found)

    @contextmanager
    def fence(self) -> Iterator[None]:
        """Let a short local write through while the lease is held here; nobody takes it over in the middle of that.

        Raises
        ------
        LeaseLostError
            It is not.
        """
        with self.lock():
            self.check()
            yield

    @contextmanager
    def lock(self, seconds: float | None = None) -> Iterator[None]:
        """Keep everybody else from taking, renewing, or writing under the lease for a moment, whoever has it.

        Raises
        ------
        LeaseLostError
            Somebody else did that for a minute: it may still be held here, and is of no use.
        """
        import filelock  # noqa: PLC0415 - a tenth of a second that a process which only reads does not pay

        try:
            acquired = acquire(self._file_lock, _WRITE_SECONDS if seconds is None else seconds)
        except FileNotFoundError as error:  # moved or deleted
            msg = f"there is no run in {self._folder} any more"
            raise RunNotFoundError(msg) from error
        except filelock.Timeout as error:
            if seconds is not None:
                raise _Busy from error
            msg = (
                f"a process was stopped while it held {self._folder / _LOCK}, and nothing can be written there until "
                "it goes on or is killed"
            )
            raise LeaseLostError(msg) from error
        except (NotImplementedError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
                raise
            acquired = nullcontext()  # then there is the lease alone, and what catches its failures
        with acquired:
            yield

    @functools.cached_property
    def _file_lock(self) -> Any:
        # A library's, since each system has its own call for it, and each call its own traps. The system releases the
        # lock when its process dies, however that happens.
        import filelock  # noqa: PLC0415

        return filelock.FileLock(self._folder / _LOCK)

    # -- the file

    def _read(self) -> LeaseRecord | None:
        try:
            return msgspec.json.decode((self._folder / _FILE).read_bytes(), type=LeaseRecord)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except msgspec.DecodeError:
            return None  # cut off by a crash of the whole machine: its writer is gone

    def _write(self, record: LeaseRecord) -> None:
        """Replace the file. It need not survive a crash of the machine, so it is not synced."""
        path, temporary = self._folder / _FILE, self._folder / f".{_FILE}.{record.token}.tmp"
        try:
            with writing(temporary, path):
                temporary.write_bytes(msgspec.json.encode(record) + b"\n")
                temporary.replace(path)
        except FileNotFoundError as error:
            msg = f"there is no run in {self._folder} any more"
            raise RunNotFoundError(msg) from error

    def _is_mine(self, found: LeaseRecord) -> bool:
        # A fork inherits the token, and is another process.
        return self._mine is not None and found.token == self._mine.token and found.pid == os.getpid()

    def _is_free(self, found: LeaseRecord) -> bool:
        is_here = found.host == socket.gethostname() and found.pids == _pid_namespace()
        return may_take(age=self._age(found), is_dead=is_here and _is_gone(found))

    def _age(self, found: LeaseRecord) -> float:
        """Return how long a lease was not renewed.

        Hosts' clocks differ, and are set. A lease that was seen to change is as old as that change, whatever its times
        say; only one that is seen for the first time is judged by them, in both directions.
        """
        if found != self._seen:
            age = abs((self._now() - found.renewed_at).total_seconds())
            self._seen_age = age if self._seen is None else 0.0
            self._seen, self._seen_at = found, self._monotonic()
        return self._seen_age + self._monotonic() - self._seen_at

    # -- while it is held

    def _keep(self, stop: threading.Event) -> None:
        """Renew until it is released or lost: uploads take long, and so does a poll of a thousand batches."""
        while not stop.wait(LEASE_SECONDS / _RENEWALS):
            # A full disk, or a folder that is being moved: the next time.
            with suppress(OSError, _Busy), self.lock(_LOCK_SECONDS):
                mine, found = self._mine, self._read()
                if stop.is_set() or mine is None or found is None or found.token != mine.token:
                    return  # the next check finds who holds it now
                self._write(msgspec.structs.replace(mine, renewed_at=self._now()))

    def _renew(self) -> None:
        self.check()
        assert self._mine is not None
        self._write(msgspec.structs.replace(self._mine, renewed_at=self._now()))

    def _lose(self, found: LeaseRecord | None) -> None:
        self._mine = None
        self._stop.set()
        if found is None:
            msg = "another process took this run over, and has let go of it again"
        else:
            # It was seen right now, and is alive whatever its times say.
            self._seen, self._seen_at, self._seen_age = found, self._monotonic(), 0.0
            msg = f"process {found.pid} on {found.host} took this run over at {found.since:%Y-%m-%d %H:%M:%S} UTC"
        raise LeaseLostError(f"{msg}. Nothing more was submitted here")

    def _release(self) -> None:
        self._stop.set()
        if self._mine is None:
            return
        # Where the file stays (the folder was moved, the disk is full), nobody waits for a token that is not held.
        _tokens.discard(self._mine.token)
        with suppress(OSError, _Busy), self.lock(_LOCK_SECONDS):
            found = self._read()
            if found is not None and self._is_mine(found):
                (self._folder / _FILE).unlink()
        self._mine = None


class _Busy(Exception):  # noqa: N818 - never leaves this module
    """The lock is held for longer than a small write takes."""


def _is_gone(found: LeaseRecord) -> bool:
    # A restarted container has its old name and often the same process id: then it is its own ghost.
    return found.token not in _tokens if found.pid == os.getpid() else is_dead(found.pid)


def _pid_namespace() -> str:
    """Return what tells one container's process ids from another's under the same host name; empty where unknown."""
    with suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return ""
