"""Tools for tests: start and stop the local batch service in one line, and let time pass without waiting."""

from __future__ import annotations

import contextlib
import datetime as dt
import random
import threading
import time
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from batchframe._core.clock import Clock, using
from batchframe._core.exceptions import MissingExtraError
from batchframe.emulator._entry import thread_server
from batchframe.emulator._faults.batch_faults import BatchFault, BatchKind
from batchframe.emulator._faults.call_faults import CallFault
from batchframe.emulator._faults.file_faults import FileFault, FileKind
from batchframe.emulator._faults.row_faults import RowFault, RowKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import openai

    from batchframe.emulator._config.dialects import DialectName
    from batchframe.emulator._http.server import ThreadServer
    from batchframe.emulator._service.service import Service

__all__ = ["Emulator", "TestClock", "clock", "emulator"]

T = TypeVar("T")


def _converted(options: dict[str, Any], kind: type[T]) -> T:
    try:
        return msgspec.convert(options, kind)
    except msgspec.ValidationError as exc:
        raise TypeError(f"not a fault of the emulator: {exc}") from exc


class Emulator:
    """A running emulator, as :func:`emulator` yields it.

    Attributes
    ----------
    endpoint
        The address of the service, without a path: Azure's ``azure_endpoint``. The control plane is at
        ``/_emulator/``.
    """

    def __init__(self, server: ThreadServer, clients: contextlib.ExitStack) -> None:
        self._server = server
        self._clients = clients
        self.endpoint = server.endpoint

    def __repr__(self) -> str:
        return f"Emulator({self.base_url!r})"

    @property
    def base_url(self) -> str:
        """The ``base_url`` for a client."""
        return self.endpoint + self._server.dialect.prefix

    def client(self, **options: Any) -> openai.OpenAI:
        """Return a client of this service, which is closed together with the service.

        Parameters
        ----------
        **options
            Options of :class:`openai.OpenAI`, or of :class:`openai.AzureOpenAI` in the dialect ``"azure"``. The key is
            ``"sk-emulator"`` and the API version ``"2024-10-21"`` unless passed.
        """
        import openai  # noqa: PLC0415 - half a second that only users of clients pay

        if not {"base_url", "http_client"} & options.keys():
            # The service speaks plain HTTP: to read the machine's certificates would be most of a client's cost.
            options = {"http_client": openai.DefaultHttpxClient(verify=False), **options}
        if self._server.dialect.needs_api_version:
            options = {"api_key": "sk-emulator", "api_version": "2024-10-21", **options}
            return self._clients.enter_context(openai.AzureOpenAI(azure_endpoint=self.endpoint, **options))
        options = {"api_key": "sk-emulator", "base_url": self.base_url, **options}
        return self._clients.enter_context(openai.OpenAI(**options))

    def ledger(self, *, summary: bool = False) -> dict[str, Any]:
        """Return what was executed and billed: totals, by custom_id and by body. `summary` returns only totals."""

        async def count(service: Service) -> dict[str, Any]:
            return await service.reading(service.ledger.summary if summary else service.ledger.counts)

        return self._server.call(count)

    def calls(self) -> dict[str, int]:
        """Return the number of API calls by name (``create_batch``, ``file_content``, …)."""

        async def count(service: Service) -> dict[str, int]:
            return dict(service.calls)

        return self._server.call(count)

    def configure(self, **settings: Any) -> None:
        """Change settings while the service runs.

        Parameters
        ----------
        **settings
            Fields of :class:`batchframe.emulator.Settings`. ``seconds`` is merged field by field.
        """

        async def change(service: Service) -> None:
            service.configure(settings)

        try:
            self._server.call(change)
        except msgspec.ValidationError as exc:
            raise TypeError(f"not a setting of the emulator: {exc}") from exc

    def fault(
        self,
        call: str,
        kind: Literal["status", "reset_before", "reset_after", "late", "truncate", "delay", "slow"],
        **options: Any,
    ) -> None:
        """Make API calls fail.

        Parameters
        ----------
        call
            The name of the call, as in :meth:`calls`.
        kind
            ``status`` answers with `status` and does not execute the call; ``reset_before`` and ``reset_after`` drop
            the connection before or after the call is executed; ``late`` drops it and executes the call `seconds`
            later; ``truncate`` cuts the reply after the fraction `at`; ``delay`` waits `seconds`; ``slow`` limits
            request and reply to `bytes_per_second`.
        **options
            `status` (503), `retry_after`, `headers`, `bytes_per_second` (a million), `seconds` (1), `at` (0.5),
            `times` (1; None: always), `skip` (0: how many calls succeed first).
        """
        fault = _converted({"call": call, "kind": kind, **options}, CallFault)

        async def add(service: Service) -> None:
            service.faults.add(fault)

        self._server.call(add)

    def row_fault(self, kind: RowKind, **options: Any) -> None:
        """Make rows fail.

        Parameters
        ----------
        kind
            What happens to the affected rows, or to whole result files; see
            :class:`~batchframe.emulator._faults.row_faults.RowFault`.
        **options
            Which rows: `custom_ids`, `containing` (a text of the request), `share` (of the rows, chosen by their
            bodies), `every` (n-th row of a file); all rows by default. How often: `attempts` (1; None: always).
            What: `status`, `code`, `message`, `type`, `body`, `at`, `copy`, `old`, `new`.
        """
        fault = _converted({"kind": kind, **options}, RowFault)

        async def add(service: Service) -> None:
            service.row_faults.add(fault)

        self._server.call(add)

    def batch_fault(self, kind: BatchKind, **options: Any) -> None:
        """Make batches fail that are created from now on. All faults that are due apply to a batch.

        Parameters
        ----------
        kind
            What happens; see :class:`~batchframe.emulator._faults.batch_faults.BatchFault`. The name of an oddity is
            allowed too, which then changes only the affected batches.
        **options
            `times` (1; None: all batches) and `skip` (0: how many batches are unaffected first). By kind: `at`,
            `unexecuted`, `code`, `message`, `param`, `lines`, `phase`, `seconds`, `polls`, `spelling`, `status`.
        """
        fault = _converted({"kind": kind, **options}, BatchFault)

        async def add(service: Service) -> None:
            service.batch_faults.add(fault)

        self._server.call(add)

    def file_fault(self, kind: FileKind, **options: Any) -> None:
        """Make files fail that are uploaded from now on. All faults that are due apply to a file.

        Parameters
        ----------
        kind
            What happens; see :class:`~batchframe.emulator._faults.file_faults.FileFault`.
        **options
            `times` (1; None: all files), `skip` (0: how many files are unaffected first), `polls` (1), `at` (0.5).
        """
        fault = _converted({"kind": kind, **options}, FileFault)

        async def add(service: Service) -> None:
            service.file_faults.add(fault)

        self._server.call(add)

    def clear_faults(self) -> None:
        """Remove all faults that have not happened yet."""

        async def clear(service: Service) -> None:
            service.clear_faults()

        self._server.call(clear)

    def step(self, n: int = 1) -> None:
        """Advance all batches by `n` steps. Needs the setting ``progression="stepped"``."""
        self._server.call(lambda service: service.step(n))

    def expire(self, batch_id: str | None = None) -> None:
        """End the completion window of one batch, or of all running batches, now."""

        async def expire(service: Service) -> None:
            service.expire(batch_id)

        self._server.call(expire)

    def reset(self) -> None:
        """Delete everything: files, batches, ledger, calls, faults and changed settings."""
        self._server.call(lambda service: service.reset())


@contextlib.contextmanager
def emulator(dialect: DialectName = "openai", **settings: Any) -> Iterator[Emulator]:
    """Start the local batch service on a free port, and stop it at the end.

    Parameters
    ----------
    dialect
        The service to imitate: ``"openai"``; ``"azure"`` with dated API versions, for :class:`openai.AzureOpenAI`;
        ``"azure-v1"`` under ``/openai/v1``, for :class:`openai.OpenAI`.
    **settings
        Fields of :class:`batchframe.emulator.Settings`, and the `upstream`, `upstream_key`, `concurrency`,
        `state_dir` and `allowed_hosts` of :func:`batchframe.emulator.serve`. By default a small batch ends within a
        second. ``service="groq"`` imitates another service with OpenAI's batch API: its paths, limits and oddities.

    Yields
    ------
    Emulator
        With ``base_url``, ``client()`` and methods that control the service.

    Raises
    ------
    MissingExtraError
        The extra ``emulator`` is not installed.

    Examples
    --------
    >>> import batchframe.testing
    >>> with batchframe.testing.emulator() as service:
    ...     print(len(service.client().batches.list().data))
    0
    """
    try:
        server = thread_server({"dialect": dialect, **settings})
    except ImportError as error:
        raise MissingExtraError(str(error)) from error  # the emulator, which knows nothing of us, has named the extra
    server.start()
    try:
        with contextlib.ExitStack() as clients:
            yield Emulator(server, clients)
    finally:
        server.stop()


class TestClock:
    """A time in which waiting takes none, as :func:`clock` yields it.

    Attributes
    ----------
    waits
        The seconds of each wait, in the order in which they began.
    """

    __test__ = False  # no test, whatever pytest makes of its name

    def __init__(self, on_wait: Callable[[], object] | None = None) -> None:
        self._on_wait = on_wait
        self._started_at = dt.datetime.now(dt.timezone.utc)
        self._left: float | None = None
        self._passed = 0.0
        self._turn = threading.Lock()
        self.waits: list[float] = []
        # Seeded, so that equal tests take equally long.
        chance = random.Random(0)  # noqa: S311 - jitter, not a secret
        self._clock = Clock(
            now=lambda: self._started_at + dt.timedelta(seconds=self._elapsed()),
            monotonic=self._elapsed,
            sleep=self._wait,
            chance=chance.random,
        )

    def __repr__(self) -> str:
        return f"<TestClock: {self.passed:g} seconds have passed>"

    @property
    def passed(self) -> float:
        """How many seconds have passed; at the end it stays as it is."""
        return self._passed

    def advance(self, seconds: float) -> None:
        """Let time pass in which batchframe does nothing, as between two passes of a scheduled job."""
        if seconds < 0:
            raise ValueError(f"time only goes forward: expected 0 seconds or more, got {seconds}")
        with self._turn:
            self._passed += seconds

    def _elapsed(self) -> float:
        # For a run that outlives the test clock, time goes on from there.
        return self._passed + (0.0 if self._left is None else time.monotonic() - self._left)

    def _wait(self, seconds: float) -> None:
        if self._left is not None:
            time.sleep(seconds)
            return
        self.waits.append(seconds)
        self.advance(seconds)
        if self._on_wait is not None:
            self._on_wait()

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        try:
            with using(self._clock):
                yield
        finally:
            self._left = time.monotonic()


@contextlib.contextmanager
def clock(on_wait: Callable[[], object] | None = None) -> Iterator[TestClock]:
    """Let batchframe's own waits pass without waiting, so that hours of them can be tested in no time.

    It holds for every run that is made or opened inside, in whatever thread: its polls, ``settle_seconds``, patience
    with a service in trouble and ``timeout_seconds``. Time stands still but for these waits. At the end the machine's
    time is back; a handle that was made inside and is used later goes on from there, and really waits.

    Parameters
    ----------
    on_wait
        Called after each wait, in the thread that waited: ``service.step`` advances an emulator's batches by one step
        per poll.

    Yields
    ------
    TestClock
        With ``passed``, ``waits`` and ``advance()``.

    Notes
    -----
    Only batchframe lives in this time. The emulator's ``seconds`` are real, and so are the pauses of the OpenAI client
    between its own attempts: choose ``progression="stepped"`` (with `on_wait`) or ``"instant"``, and
    ``client(max_retries=0)``. With ``"timed"`` hours of polling may pass before a batch has ended. Other processes live
    in real time too: a run that two of them work on is no matter for a test clock.

    Examples
    --------
    A service that is down for an hour:

    >>> from batchframe import testing
    >>> terms = pl.DataFrame({"term": ["foo", "spam"]})
    >>> with testing.emulator(progression="instant") as service, testing.clock() as clock:
    ...     client = service.client(max_retries=0)
    ...     run = bf.submit(terms, "Explain: {term}", model="gpt-4o-mini", client=client)
    ...     service.fault("file_content", "status", status=503, times=90)
    ...     succeeded = run.wait().succeeded
    >>> succeeded, clock.passed > 3600
    (2, True)

    A batch that takes longer than the caller is willing to wait:

    >>> with testing.emulator(progression="stepped") as service, testing.clock() as clock:
    ...     run = bf.submit(terms, "Explain: {term}", model="gpt-4o-mini", client=service.client())
    ...     try:
    ...         run.wait(timeout_seconds=3600)
    ...     except bf.RunPendingError:
    ...         print(f"given up after {clock.passed:.0f} seconds")
    given up after 3600 seconds
    """
    test_clock = TestClock(on_wait)
    with test_clock._running():  # noqa: SLF001 - of this module
        yield test_clock
