"""The lease of a run: one process at a time works on it, as long as it renews a small file in the run's folder.

A lease is no guarantee, since a process can be suspended between reading the file and its next action. It separates
processes in the usual case. Beyond that, local writes are made under a file lock, and a create that slipped through
is found by its input file (see `Collector`).
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


# A process that has not renewed its lease for this long counts as dead, on any host.
LEASE_SECONDS = 600.0
_RENEWALS = 10
# The lock is held while a small file is written; a process that takes longer was suspended. A process that only wants
# the name of the holder gives up sooner than one that has something to write.
_LOCK_SECONDS, _WRITE_SECONDS = 5.0, 60.0
_FILE, _LOCK = "lease.json", ".lease.lock"
# Errors of a file system without locks.
_NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK})
# The tokens of the leases that this process holds.
_tokens: set[str] = set()


class LeaseRecord(msgspec.Struct, frozen=True):
    """``lease.json``: the process that works on the run, since when, and the last renewal."""

    host: str
    pid: int
    token: str
    since: dt.datetime
    renewed_at: dt.datetime
    pids: str = ""

    def __str__(self) -> str:
        if not self.pid:
            return f"another process, which was suspended while it held {_LOCK}"
        since = f"{self.since:%Y-%m-%d %H:%M:%S} UTC"
        return f"process {self.pid} on {self.host}, which has been working on this run since {since}"


_BEGINNING = dt.datetime.fromtimestamp(0, dt.timezone.utc)
_UNKNOWN = LeaseRecord("", 0, "", _BEGINNING, _BEGINNING)


def may_take(*, age: float, is_dead: bool) -> bool:
    """Whether a lease may be taken over.

    Parameters
    ----------
    age
        Seconds since its last renewal, as far as this process can tell.
    is_dead
        Whether its process is known to be dead.
    """
    return is_dead or age >= LEASE_SECONDS


class Lease:
    """The lease of a run's folder, for one handle. It may be taken inside ``with lease:`` and is released at the end.

    Parameters
    ----------
    folder
        The run's folder.
    now, monotonic
        The wall clock, and a clock that is never adjusted.

    Attributes
    ----------
    replaced
        The lease that the last take replaced: its process is dead, suspended, or cut off.
    """

    def __init__(self, folder: Path, now: Callable[[], dt.datetime], monotonic: Callable[[], float]) -> None:
        self._folder = folder
        self._now = now
        self._monotonic = monotonic
        self._own: LeaseRecord | None = None
        self.replaced: LeaseRecord | None = None
        self._depth = 0
        # One of the threads that share the handle enters, takes or leaves at a time.
        self._turn = threading.RLock()
        self._stop = threading.Event()
        self._last: LeaseRecord | None = None
        self._last_at = self._last_age = 0.0

    def __enter__(self) -> None:
        with self._turn:
            self._depth += 1

    def __exit__(self, *_: object) -> None:
        with self._turn:
            self._depth -= 1
            if not self._depth:
                self._release()

    def holder(self) -> LeaseRecord | None:
        """Return the lease of another process or handle that works on the run, or None; does not take the lease."""
        current = self._read()
        return None if current is None or self._is_own(current) or self._is_free(current) else current

    def take(self) -> LeaseRecord | None:
        """Take or renew the lease; if another process holds it, return its lease.

        Raises
        ------
        LeaseLostError
            It was held here, and another process has taken it since.
        """
        with self._turn:
            return self._take()

    def _take(self) -> LeaseRecord | None:
        if self._own is None and (holder := self.holder()) is not None:
            return holder  # a process that waits need not take the lock
        try:
            with self.lock(_LOCK_SECONDS):
                if self._own is not None:
                    self._renew()
                    return None
                current = self._read()
                if current is not None and not self._is_free(current):
                    return current
                self.replaced, now = current, self._now()
                token = secrets.token_hex(16)
                _tokens.add(token)
                self._own = LeaseRecord(socket.gethostname(), os.getpid(), token, now, now, _pid_namespace())
                self._write(self._own)
        except _Busy:
            current = self._read()
            return _UNKNOWN if current is None or self._is_own(current) else current
        self._stop = threading.Event()
        threading.Thread(target=self._keep_renewed, args=(self._stop,), name="batchframe-lease", daemon=True).start()
        return None

    def check(self) -> None:
        """Check that the lease is held here; called before each call that changes something at the service.

        Raises
        ------
        LeaseLostError
            It is not held here.
        """
        current = self._read()
        if current is None or not self._is_own(current):
            self._lose(current)

    @contextmanager
    def fence(self) -> Iterator[None]:
        """Guard a short local write: the lease is held here, and nobody can take it over meanwhile.

        Raises
        ------
        LeaseLostError
            It is not held here.
        """
        with self.lock():
            self.check()
            yield

    @contextmanager
    def lock(self, seconds: float | None = None) -> Iterator[None]:
        """Lock the lease file, so that nobody else takes, renews, or writes under the lease, whoever holds it.

        Raises
        ------
        LeaseLostError
            Another process held the lock for a minute. The lease may still be held here, but nothing can be written.
        """
        import filelock  # noqa: PLC0415 - takes a tenth of a second, which a process that only reads need not spend

        try:
            acquired = acquire(self._file_lock, _WRITE_SECONDS if seconds is None else seconds)
        except FileNotFoundError as error:  # moved or deleted
            msg = f"there is no run in {self._folder} any more: it was deleted or moved"
            raise RunNotFoundError(msg) from error
        except filelock.Timeout as error:
            if seconds is not None:
                raise _Busy from error
            msg = (
                f"a process was suspended while it held {self._folder / _LOCK}, and nothing can be written there until "
                "it continues or is killed"
            )
            raise LeaseLostError(msg) from error
        except (NotImplementedError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
                raise
            acquired = nullcontext()  # without locks only the lease separates processes
        with acquired:
            yield

    @functools.cached_property
    def _file_lock(self) -> Any:
        # From a library, since each system has its own call with its own traps. The system releases the lock when its
        # process dies, in whatever way.
        import filelock  # noqa: PLC0415

        return filelock.FileLock(self._folder / _LOCK)

    # -- the file

    def _read(self) -> LeaseRecord | None:
        try:
            return msgspec.json.decode((self._folder / _FILE).read_bytes(), type=LeaseRecord)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except msgspec.DecodeError:
            return None  # truncated by a crash of the machine, so its writer is dead

    def _write(self, record: LeaseRecord) -> None:
        """Replace the file. It is not synced, since it need not survive a crash of the machine."""
        path, temporary = self._folder / _FILE, self._folder / f".{_FILE}.{record.token}.tmp"
        try:
            with writing(temporary, path):
                temporary.write_bytes(msgspec.json.encode(record) + b"\n")
                temporary.replace(path)
        except FileNotFoundError as error:
            msg = f"there is no run in {self._folder} any more: it was deleted or moved"
            raise RunNotFoundError(msg) from error

    def _is_own(self, current: LeaseRecord) -> bool:
        # A fork inherits the token, but is another process.
        return self._own is not None and current.token == self._own.token and current.pid == os.getpid()

    def _is_free(self, current: LeaseRecord) -> bool:
        is_here = current.host == socket.gethostname() and current.pids == _pid_namespace()
        return may_take(age=self._age(current), is_dead=is_here and _is_gone(current))

    def _age(self, current: LeaseRecord) -> float:
        """Return the seconds since a lease was renewed.

        Clocks differ between hosts and are adjusted. A lease that was observed to change is as old as that change,
        whatever its timestamps. Only a lease read for the first time is judged by its timestamps, past or future.
        """
        if current != self._last:
            age = abs((self._now() - current.renewed_at).total_seconds())
            self._last_age = age if self._last is None else 0.0
            self._last, self._last_at = current, self._monotonic()
        return self._last_age + self._monotonic() - self._last_at

    # -- while it is held

    def _keep_renewed(self, stop: threading.Event) -> None:
        """Renew the lease until it is released or lost, since uploads and polls of many batches take long."""
        while not stop.wait(LEASE_SECONDS / _RENEWALS):
            # A full disk, or a folder that is being moved: try again next time.
            with suppress(OSError, _Busy), self.lock(_LOCK_SECONDS):
                own, current = self._own, self._read()
                if stop.is_set() or own is None or current is None or current.token != own.token:
                    return  # the next check reports the new holder
                self._write(msgspec.structs.replace(own, renewed_at=self._now()))

    def _renew(self) -> None:
        self.check()
        assert self._own is not None
        self._write(msgspec.structs.replace(self._own, renewed_at=self._now()))

    def _lose(self, current: LeaseRecord | None) -> None:
        self._own = None
        self._stop.set()
        if current is None:
            msg = "another process took this run over, and has released it since"
        else:
            # It was observed right now, so its process is alive whatever its timestamps.
            self._last, self._last_at, self._last_age = current, self._monotonic(), 0.0
            msg = f"process {current.pid} on {current.host} took this run over at {current.since:%Y-%m-%d %H:%M:%S} UTC"
        raise LeaseLostError(f"{msg}. Nothing more was submitted here")

    def _release(self) -> None:
        self._stop.set()
        if self._own is None:
            return
        # If the file stays (the folder was moved, the disk is full), nobody waits for a token that is not held.
        _tokens.discard(self._own.token)
        with suppress(OSError, _Busy), self.lock(_LOCK_SECONDS):
            current = self._read()
            if current is not None and self._is_own(current):
                (self._folder / _FILE).unlink()
        self._own = None


class _Busy(Exception):  # noqa: N818 - never leaves this module
    """Another process held the lock for longer than a small write takes."""


def _is_gone(current: LeaseRecord) -> bool:
    # A restarted container has the same host name and often the same process id: the lease may be from its former life.
    return current.token not in _tokens if current.pid == os.getpid() else is_dead(current.pid)


def _pid_namespace() -> str:
    """Return the namespace of process ids, which differs between containers of one host name; empty if unknown."""
    with suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return ""
