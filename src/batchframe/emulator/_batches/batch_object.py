"""The batch object, and the checks of the call that creates one. No HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from batchframe.emulator import _errors as errors
from batchframe.emulator._config.dialects import AZURE_ENDPOINTS
from batchframe.emulator._endpoints.registry import ENDPOINTS

if TYPE_CHECKING:
    from batchframe.emulator._config.dialects import Dialect

TERMINAL = frozenset({"failed", "completed", "expired", "cancelled"})
_PARAMETERS = ("input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after")
_METADATA_PAIRS, _METADATA_KEY, _METADATA_VALUE = 16, 64, 512


class LineError(msgspec.Struct, frozen=True):
    """One error of a failed batch, about a line or the whole input file."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


class Errors(msgspec.Struct, kw_only=True):
    """The ``errors`` of a failed batch."""

    object: Literal["list"] = "list"
    data: list[LineError]


class RequestCounts(msgspec.Struct):
    """The progress of a batch."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class Batch(msgspec.Struct, kw_only=True):
    """A batch object; the order of the fields is the service's."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None = None
    errors: Errors | None = None
    input_file_id: str
    completion_window: str
    status: str = "validating"
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: int
    in_progress_at: int | None = None
    expires_at: int | None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: RequestCounts = msgspec.field(default_factory=RequestCounts)
    usage: dict[str, Any] | None = None
    metadata: dict[str, str] | None = None


def check_create(body: Any, dialect: Dialect, *, executes_all: bool = False) -> None:  # noqa: C901, PLR0912 - one branch per rule
    """Refuse a create that the service refuses at once. An unknown file id is not a reason: the batch fails later.

    `executes_all`: every endpoint of the service is executed, by an upstream.
    """
    if not isinstance(body, dict):
        raise errors.unreadable_body()
    if dialect.is_azure and ("input_blob" in body or "output_folder" in body):
        raise errors.not_emulated("batches in Blob storage")
    for name in body:
        if name not in _PARAMETERS and name not in dialect.parameters:
            raise errors.unknown(name)
    for name in _PARAMETERS[:3]:
        if name not in body:
            raise errors.missing(name)
        if not isinstance(body[name], str):
            raise errors.wrong_type(name, "a string", body[name])
    endpoint = dialect.endpoints.get(body["endpoint"])
    if endpoint is None:
        supported = AZURE_ENDPOINTS if dialect.is_azure else dialect.endpoints
        raise errors.wrong_value("endpoint", body["endpoint"], supported)
    if body["completion_window"] not in dialect.windows and not dialect.is_azure:
        raise errors.wrong_value("completion_window", body["completion_window"], dialect.windows)
    for name in dialect.parameters:
        if not isinstance(body.get(name, True), bool):
            raise errors.wrong_type(name, "a boolean", body[name])
    check_metadata(body.get("metadata"))
    expires_after = body.get("output_expires_after")
    if expires_after is not None:
        if not isinstance(expires_after, dict):
            raise errors.wrong_type("output_expires_after", "an object", expires_after)
        check_expires_after("output_expires_after", expires_after.get("anchor"), expires_after.get("seconds"), dialect)
    if endpoint not in ENDPOINTS and not executes_all:
        raise errors.not_emulated(endpoint)


def check_metadata(metadata: Any) -> None:
    """Refuse metadata that is not at most 16 short strings."""
    if metadata is None:
        return
    if not isinstance(metadata, dict):
        raise errors.wrong_type("metadata", "an object", metadata)
    if len(metadata) > _METADATA_PAIRS:
        raise errors.too_many_keys("metadata", len(metadata), _METADATA_PAIRS)
    for key, value in metadata.items():
        if len(key) > _METADATA_KEY:
            raise errors.too_long("metadata", key, _METADATA_KEY)
        if not isinstance(value, str):
            raise errors.wrong_type(f"metadata.{key}", "a string", value)
        if len(value) > _METADATA_VALUE:
            raise errors.too_long(f"metadata.{key}", value, _METADATA_VALUE)


def check_expires_after(param: str, anchor: Any, seconds: Any, dialect: Dialect) -> int:
    """Check an expiry; return its seconds."""
    if not dialect.takes_expiry:
        raise errors.unsupported(param)
    if anchor is None:
        raise errors.missing(f"{param}.anchor")
    if anchor != "created_at":
        raise errors.wrong_value(f"{param}.anchor", anchor, ["created_at"])
    if seconds is None:
        raise errors.missing(f"{param}.seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, int):
        raise errors.wrong_type(f"{param}.seconds", "an integer", seconds)
    if seconds < dialect.shortest_life_seconds:
        raise errors.out_of_range(f"{param}.seconds", seconds, dialect.shortest_life_seconds, above=False)
    if seconds > dialect.longest_life_seconds:
        raise errors.out_of_range(f"{param}.seconds", seconds, dialect.longest_life_seconds, above=True)
    return seconds
