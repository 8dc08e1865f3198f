"""Tools for tests: start and stop the local batch service in one line."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from batchframe._core.exceptions import MissingExtraError
from batchframe.emulator._batch_faults import BatchFault, BatchKind
from batchframe.emulator._faults import Fault
from batchframe.emulator._file_faults import FileFault, FileKind
from batchframe.emulator._public import thread_server
from batchframe.emulator._row_faults import RowFault, RowKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    import openai

    from batchframe.emulator._dialects import DialectName
    from batchframe.emulator._server import ThreadServer
    from batchframe.emulator._service import Service

__all__ = ["Emulator", "emulator"]

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
        fault = _converted({"call": call, "kind": kind, **options}, Fault)

        async def add(service: Service) -> None:
            service.faults.add(fault)

        self._server.call(add)

    def row_fault(self, kind: RowKind, **options: Any) -> None:
        """Make rows fail.

        Parameters
        ----------
        kind
            What happens to the affected rows, or to whole result files; see
            :class:`~batchframe.emulator._row_faults.RowFault`.
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
            What happens; see :class:`~batchframe.emulator._batch_faults.BatchFault`. The name of an oddity is also
            allowed, which then changes only the affected batches.
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
            What happens; see :class:`~batchframe.emulator._file_faults.FileFault`.
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
