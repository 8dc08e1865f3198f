"""The exceptions. They are about a run or a call: a failed row is a value in the ``error`` column instead.

::

    BatchframeError
    ├─ OptionError(ValueError)            an invalid option or request parameter
    ├─ TemplateError(ValueError)          a prompt that does not fit the frame: unknown column, braces, dtype
    ├─ InputError(ValueError)             an invalid frame: duplicate ids, a refused null, clashing columns
    ├─ MissingExtraError(ImportError)     an optional dependency is not installed: names the install line
    ├─ APICallError                       every error of the SDK and of its transport, mapped in one place
    │  ├─ AuthenticationError             401, 403: the key is missing, wrong, or lacks a permission
    │  ├─ NotVisibleError                 404: missing, or not visible to this key and project
    │  ├─ InvalidCallError                other 4xx: the service refused the call
    │  ├─ RateLimitError                  429: wait, then call again (transient)
    │  │  └─ NoRoomError                  the enqueued-token limit is reached: wait for a batch to end (transient)
    │  ├─ FileNotReadyError               the service has not processed the input file yet (transient)
    │  ├─ ServiceError                    5xx, 408, 409: a failure of the service (transient)
    │  │  └─ UnreadableReplyError         2xx with an unexpected body (transient, up to a point)
    │  └─ ConnectionFailedError           no reply, or a partial one (transient)
    └─ RunError                           about one run, which stays resumable
       ├─ RunNotFoundError(FileNotFoundError)
       ├─ RunMismatchError                the folder belongs to another run: names the differences
       ├─ RunPendingError                 still running at the timeout; holds the run
       ├─ RunStoppedError                 the pilot or the first batches all failed with one error; holds the run
       ├─ RowsFailedError                 raised by Run.raise_for_errors when rows did not succeed; holds the run
       ├─ LeaseLostError                  another process took over the run; raised and caught internally
       ├─ InputFileRejectedError          the service refused an input file: its codes and messages
       ├─ ResultsError                    an expected result file is missing
       ├─ DamagedRunError                 a file in the run's folder is missing or unreadable: says which
       └─ StoreVersionError               written by a newer batchframe
"""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


class BatchframeError(Exception):
    """The base class of all errors that batchframe raises."""


class BatchframeWarning(UserWarning):
    """A warning about a result or a call, such as failed rows or a prompt without a field."""


class OptionError(BatchframeError, ValueError):
    """An option or a request parameter is invalid."""


class TemplateError(BatchframeError, ValueError):
    """The prompt does not fit the frame."""

    @classmethod
    def from_unknown_column(cls, field: str, columns: Iterable[str], option: str) -> TemplateError:
        """Make the error for a missing column, with the nearest name and all columns."""
        return cls(f"{option} {unknown_column(repr(field), field, columns)}")


class InputError(BatchframeError, ValueError):
    """The frame cannot be used as it is."""


class MissingExtraError(BatchframeError, ImportError):
    """An optional dependency is not installed."""

    @classmethod
    def from_extra(cls, what: str, extra: str, error: ImportError) -> MissingExtraError:
        """Make the error for a feature whose extra is not installed, with the line that installs it."""
        return cls(f'{what} needs its extra: pip install "batchframe[{extra}]" ({error})')


class APICallError(BatchframeError):
    """A call to the service failed.

    Attributes
    ----------
    call
        The call: ``"upload"``, ``"create_batch"``, ``"retrieve_batch"``, …
    status_code
        The HTTP status, or None without a reply.
    code
        The service's error code, or None.
    request_id
        The service's id of the call, for its support.
    retry_after_seconds
        How long the service asked to wait, or None.
    is_transient
        Whether the same call may succeed later.
    was_sent
        False only when the service certainly never received the call.
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
        """Whether the service may have acted although no usable reply came."""
        return False


class AuthenticationError(APICallError):
    """401 or 403: the key is missing or wrong, or it lacks a permission."""


class NotVisibleError(APICallError):
    """404: the object does not exist, or is not visible to this key and project."""


class InvalidCallError(APICallError):
    """Another 4xx: the service refused the call."""


class RateLimitError(APICallError):
    """429: the service did not act, and asked to wait."""

    is_transient = True


class NoRoomError(RateLimitError):
    """The enqueued-token limit is reached. The same batch is accepted once others have ended."""


class FileNotReadyError(APICallError):
    """The service has not processed the input file yet, and refuses to create a batch until it has."""

    is_transient = True


class ServiceError(APICallError):
    """5xx, 408 or 409: a failure of the service. Whether it acted is unknown."""

    is_transient = True

    @property
    def is_in_doubt(self) -> bool:
        """Whether the service may have acted. Always true here."""
        return True


class UnreadableReplyError(ServiceError):
    """2xx with an unexpected body. Whether the service acted is unknown.

    Attributes
    ----------
    is_json
        Whether the body is JSON of another shape, which waiting seldom fixes. A body that is not JSON is often the
        error page of a proxy, which is temporary.
    """

    def __init__(self, message: str, *, call: str = "", status_code: int | None = None, is_json: bool = False) -> None:
        super().__init__(message, call=call, status_code=status_code)
        self.is_json = is_json


class ConnectionFailedError(APICallError):
    """No reply, or a partial one."""

    is_transient = True

    @property
    def is_in_doubt(self) -> bool:
        """Whether the service may have acted. False when the call was never sent."""
        return self.was_sent


class RunError(BatchframeError):
    """An error about one run. The run stays resumable."""


class RunNotFoundError(RunError, FileNotFoundError):
    """The folder contains no run."""


class RunMismatchError(RunError):
    """The folder, or the client, belongs to another run."""


class RunPendingError(RunError):
    """The run was still running at the timeout. Nothing was cancelled.

    Attributes
    ----------
    run
        The run. ``run.wait()`` or the same call resumes it.
    """

    def __init__(self, message: str, run: Any = None) -> None:
        super().__init__(message)
        self.run = run


class RunStoppedError(RunError):
    """All rows of the pilot, or of the first batches, failed with one error. The rest was not submitted.

    Attributes
    ----------
    run
        The run. ``run.result()`` has the answers so far, and ``not_submitted`` for the other rows.
    """

    def __init__(self, message: str, run: Any = None) -> None:
        super().__init__(message)
        self.run = run


class RowsFailedError(RunError):
    """Rows did not succeed. Raised by `Run.raise_for_errors`.

    Attributes
    ----------
    run
        The run. ``run.errors()`` has the rows.
    """

    def __init__(self, message: str, run: Any = None) -> None:
        super().__init__(message)
        self.run = run


class LeaseLostError(RunError):
    """Another process took over the run. This one writes and submits nothing more."""


class InputFileRejectedError(RunError):
    """The service refused an input file during validation. Nothing in it was executed or billed.

    Attributes
    ----------
    errors
        The service's errors as ``(line, code, message)``. The line is 1-based, or None.
    """

    def __init__(self, message: str, errors: list[tuple[int | None, str, str]] | None = None) -> None:
        super().__init__(message)
        self.errors = errors or []


class ResultsError(RunError):
    """An expected result file is missing."""


class DamagedRunError(RunError):
    """A file in the run's folder is missing, truncated or changed."""

    @classmethod
    def from_file(cls, path: object, what: str, folder: object) -> DamagedRunError:
        """Make the error for a damaged file, with both ways to recover."""
        return cls(
            f"{path} {what}. Restore it from a copy of the run; or move the folder {folder} away and repeat the same "
            "call, which adopts the run's batches from the account without paying for them again"
        )


class StoreVersionError(RunError):
    """The run was written by a newer batchframe."""


def warn(message: str) -> None:
    """Warn, pointing at the user's line that called us."""
    level, frame = 1, sys._getframe()  # noqa: SLF001
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "batchframe":
        level, frame = level + 1, frame.f_back  # type: ignore[assignment]
    warnings.warn(message, BatchframeWarning, stacklevel=level)


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return a ``Did you mean …?`` sentence with a leading space, or an empty text without a similar name."""
    import difflib  # noqa: PLC0415 - only errors need it, and it takes a while to import

    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""


def unknown_column(shown: str, name: str, columns: Iterable[str]) -> str:
    """Return the error text for a reference to a missing column, which is displayed as `shown`."""
    columns = list(columns)
    listed = ", ".join(repr(column) for column in columns[:30]) + (", …" if len(columns) > 30 else "")  # noqa: PLR2004
    near = suggestion(name, columns)
    return f"names {shown}, but the frame has no such column.{near} Columns: {listed or 'none'}"


def first_paragraph(error: BaseException) -> str:
    """Return the message of a Polars error, without the query plan and the hints that may follow."""
    return str(error).split("\n\n", 1)[0]
