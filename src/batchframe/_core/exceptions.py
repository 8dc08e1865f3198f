"""What can go wrong with a run; a row that failed is a value in the ``error`` column, never an exception.

::

    BatchframeError
    ├─ OptionError(ValueError)            an option or parameter we cannot accept: what was got, what is expected
    ├─ TemplateError(ValueError)          a prompt that does not fit the frame: unknown column, braces, dtype
    ├─ InputError(ValueError)             a frame we cannot take: duplicate ids, null where refused, clashing columns
    ├─ MissingExtraError(ImportError)     an optional dependency is not installed: names the install line
    ├─ APICallError                       every error of the SDK and of its transport, mapped in one place
    │  ├─ AuthenticationError             401, 403: the key is missing, wrong, or lacks a permission
    │  ├─ NotVisibleError                 404: not there, or not visible to this key and project
    │  ├─ InvalidCallError                other 4xx: the service refused the call
    │  ├─ RateLimitError                  429: wait, then call again (transient)
    │  │  └─ NoRoomError                  the queue of enqueued tokens is full: wait for a batch to end (transient)
    │  ├─ FileNotReadyError               the service has not looked at the input file yet (transient)
    │  ├─ ServiceError                    5xx, 408, 409: the service's trouble (transient)
    │  │  └─ UnreadableReplyError         2xx, and the body is not what the call returns (transient, up to a point)
    │  └─ ConnectionFailedError           no answer, or half of one (transient)
    └─ RunError                           about one run; it stays resumable
       ├─ RunNotFoundError(FileNotFoundError)
       ├─ RunMismatchError                the folder belongs to another run: says what differs
       ├─ RunPendingError                 still running when the time was up; holds the run
       ├─ RunStoppedError                 the pilot or the first batches failed alike; holds the run
       ├─ RowsFailedError                 rows did not succeed, and Run.raise_for_errors was asked for; holds the run
       ├─ LeaseLostError                  another process took the run over; raised and caught inside
       ├─ InputFileRejectedError          the service refused an input file: its codes and words
       ├─ ResultsError                    a result file that must be there is not
       ├─ DamagedRunError                 a file of the run's folder is gone or cannot be read: says which
       └─ StoreVersionError               written by a newer batchframe
"""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


class BatchframeError(Exception):
    """The base of every error that batchframe raises on purpose."""


class BatchframeWarning(UserWarning):
    """The result is there, and something about it should be known (rows that failed, a prompt without a field)."""


class OptionError(BatchframeError, ValueError):
    """An option or a request parameter that cannot be accepted."""


class TemplateError(BatchframeError, ValueError):
    """A prompt that does not fit the frame."""

    @classmethod
    def from_unknown_column(cls, field: str, columns: Iterable[str], option: str) -> TemplateError:
        """Name the option, the column that was not found, the nearest and all there are."""
        return cls(f"{option} {unknown_column(repr(field), field, columns)}")


class InputError(BatchframeError, ValueError):
    """A frame that cannot be taken as it is."""


class MissingExtraError(BatchframeError, ImportError):
    """An optional dependency is not installed."""

    @classmethod
    def from_extra(cls, what: str, extra: str, error: ImportError) -> MissingExtraError:
        """Name what needs the extra, the line that installs it, and what is missing."""
        return cls(f'{what} needs its extra: pip install "batchframe[{extra}]" ({error})')


class APICallError(BatchframeError):
    """A call to the service that did not end as it should.

    Attributes
    ----------
    call
        The call: ``"upload"``, ``"create_batch"``, ``"retrieve_batch"``, …
    status_code
        The HTTP status, or None where no answer came.
    code
        The service's own code, where it gave one.
    request_id
        The service's id of the call, for its support.
    retry_after_seconds
        How long the service asked to be left alone, or None.
    is_transient
        Whether the same call may go through later.
    was_sent
        False only where it is certain that the service never saw the call.
    """

    is_transient = False

    def __init__(
        self,
        message: str,
        *,
        call: str = "",
        status_code: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
        retry_after_seconds: float | None = None,
        was_sent: bool = True,
    ) -> None:
        super().__init__(message)
        self.call = call
        self.status_code = status_code
        self.code = code
        self.request_id = request_id
        self.retry_after_seconds = retry_after_seconds
        self.was_sent = was_sent

    @property
    def is_in_doubt(self) -> bool:
        """Whether the service may have acted although no (good) answer came."""
        return False


class AuthenticationError(APICallError):
    """401 or 403: the key is missing or wrong, or it lacks a permission."""


class NotVisibleError(APICallError):
    """404: the object is not there, or not visible to this key and project."""


class InvalidCallError(APICallError):
    """Another 4xx: the service refused the call."""


class RateLimitError(APICallError):
    """429: the service did not act and asks to wait."""

    is_transient = True


class NoRoomError(RateLimitError):
    """The queue of enqueued tokens is full: the same batch goes in when others have ended."""


class FileNotReadyError(APICallError):
    """The service has not looked at the input file yet, and refuses to make a batch of it until then."""

    is_transient = True


class ServiceError(APICallError):
    """5xx, 408 or 409: the service's trouble; whether it acted is not known."""

    is_transient = True

    @property
    def is_in_doubt(self) -> bool:
        """Whether the service may have acted: always possible here."""
        return True


class UnreadableReplyError(ServiceError):
    """2xx, and the body is not what the call returns; whether the service acted is not known.

    Attributes
    ----------
    is_json
        Whether the body is JSON of another shape: no waiting mends that for long. What is not JSON is often the page
        of a proxy, which goes away.
    """

    def __init__(self, message: str, *, call: str = "", status_code: int | None = None, is_json: bool = False) -> None:
        super().__init__(message, call=call, status_code=status_code)
        self.is_json = is_json


class ConnectionFailedError(APICallError):
    """No answer, or half of one."""

    is_transient = True

    @property
    def is_in_doubt(self) -> bool:
        """Whether the service may have acted: unless the connection was never made."""
        return self.was_sent


class RunError(BatchframeError):
    """About one run; the run stays resumable."""


class RunNotFoundError(RunError, FileNotFoundError):
    """There is no run in that folder."""


class RunMismatchError(RunError):
    """The folder, or the client, belongs to another run."""


class RunPendingError(RunError):
    """The run was still going when the time was up; nothing was cancelled.

    Attributes
    ----------
    run
        The run: ``run.wait()`` or the same call goes on with it.
    """

    def __init__(self, message: str, run: Any = None) -> None:
        super().__init__(message)
        self.run = run


class RunStoppedError(RunError):
    """The pilot, or all of the first batches, failed with one error: the rest was not submitted.

    Attributes
    ----------
    run
        The run: ``run.result()`` has what was answered, and ``not_submitted`` elsewhere.
    """

    def __init__(self, message: str, run: Any = None) -> None:
        super().__init__(message)
        self.run = run


class RowsFailedError(RunError):
    """Rows did not succeed, and `Run.raise_for_errors` was asked for.

    Attributes
    ----------
    run
        The run: ``run.errors()`` has the rows.
    """

    def __init__(self, message: str, run: Any = None) -> None:
        super().__init__(message)
        self.run = run


class LeaseLostError(RunError):
    """Another process took the run over in the meantime: nothing more is written or submitted here."""


class InputFileRejectedError(RunError):
    """The service refused an input file when it validated it: nothing of it was executed or charged.

    Attributes
    ----------
    errors
        The service's ``(line, code, message)``, as it sent them; the line is 1-based, or None.
    """

    def __init__(self, message: str, errors: list[tuple[int | None, str, str]] | None = None) -> None:
        super().__init__(message)
        self.errors = errors or []


class ResultsError(RunError):
    """A result file that must be there is not."""


class DamagedRunError(RunError):
    """A file of the run's folder is gone, was cut off, or was changed."""

    @classmethod
    def from_file(cls, path: object, what: str, folder: object) -> DamagedRunError:
        """Name the file, what is wrong with it, and both ways out."""
        return cls(
            f"{path} {what}. Bring it back from a copy of the run; or move the folder {folder} away and make the same "
            "call: it takes the run's batches from the account, and pays for none of them again"
        )


class StoreVersionError(RunError):
    """The run was written by a newer batchframe."""


def warn(message: str) -> None:
    """Warn at the line of the user's that called us."""
    level, frame = 1, sys._getframe()  # noqa: SLF001
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "batchframe":
        level, frame = level + 1, frame.f_back  # type: ignore[assignment]
    warnings.warn(message, BatchframeWarning, stacklevel=level)


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return a ``Did you mean …?`` sentence with a leading space, or nothing where no name is near."""
    import difflib  # noqa: PLC0415 - only errors need it, and it takes a while to import

    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""


def unknown_column(shown: str, name: str, columns: Iterable[str]) -> str:
    """Return what is said of that which names a column, as `shown`, that is not there."""
    columns = list(columns)
    listed = ", ".join(repr(column) for column in columns[:30]) + (", …" if len(columns) > 30 else "")  # noqa: PLR2004
    near = suggestion(name, columns)
    return f"names {shown}, and the frame has no such column.{near} Columns: {listed or 'none'}"


def first_paragraph(error: BaseException) -> str:
    """Return what an error of Polars says, without the plan and the hints that it may add."""
    return str(error).split("\n\n", 1)[0]
