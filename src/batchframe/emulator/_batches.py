"""The batch object as the service shows it, and the checks of the call that creates one. No HTTP."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from batchframe.emulator import _errors as errors
from batchframe.emulator._files import DEFAULT_LIFE_SECONDS, SHORTEST_LIFE_SECONDS

# Source: the `endpoint` of openai.types.batch_create_params (3.54.0).
ENDPOINTS = (
    "/v1/responses",
    "/v1/chat/completions",
    "/v1/embeddings",
    "/v1/completions",
    "/v1/moderations",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/videos",
)
EXECUTED_ENDPOINTS = ("/v1/chat/completions",)
TERMINAL = frozenset({"failed", "completed", "expired", "cancelled"})
_PARAMETERS = ("input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after")
_METADATA_PAIRS, _METADATA_KEY, _METADATA_VALUE = 16, 64, 512


class LineError(msgspec.Struct, frozen=True):
    """Why the input file was refused."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


class Errors(msgspec.Struct, kw_only=True):
    """The ``errors`` of a failed batch."""

    object: Literal["list"] = "list"
    data: list[LineError]


class RequestCounts(msgspec.Struct):
    """How far a batch is."""

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


def check_create(body: Any) -> None:  # noqa: C901 - one branch a rule
    """Refuse a create that the service refuses at once. A file id that does not exist is not among the reasons."""
    if not isinstance(body, dict):
        raise errors.unreadable_body()
    for name in body:
        if name not in _PARAMETERS:
            raise errors.unknown(name)
    for name in _PARAMETERS[:3]:
        if name not in body:
            raise errors.missing(name)
        if not isinstance(body[name], str):
            raise errors.wrong_type(name, "a string", body[name])
    if body["endpoint"] not in ENDPOINTS:
        raise errors.wrong_value("endpoint", body["endpoint"], ENDPOINTS)
    if body["completion_window"] != "24h":
        raise errors.wrong_value("completion_window", body["completion_window"], ["24h"])
    check_metadata(body.get("metadata"))
    expires_after = body.get("output_expires_after")
    if expires_after is not None:
        if not isinstance(expires_after, dict):
            raise errors.wrong_type("output_expires_after", "an object", expires_after)
        check_expires_after("output_expires_after", expires_after.get("anchor"), expires_after.get("seconds"))
    if body["endpoint"] not in EXECUTED_ENDPOINTS:
        raise errors.not_emulated(body["endpoint"])


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


def check_expires_after(param: str, anchor: Any, seconds: Any) -> int:
    """Check the two halves of an expiry and return its seconds."""
    if anchor is None:
        raise errors.missing(f"{param}.anchor")
    if anchor != "created_at":
        raise errors.wrong_value(f"{param}.anchor", anchor, ["created_at"])
    if seconds is None:
        raise errors.missing(f"{param}.seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, int):
        raise errors.wrong_type(f"{param}.seconds", "an integer", seconds)
    if seconds < SHORTEST_LIFE_SECONDS:
        raise errors.out_of_range(f"{param}.seconds", seconds, SHORTEST_LIFE_SECONDS, above=False)
    if seconds > DEFAULT_LIFE_SECONDS:
        raise errors.out_of_range(f"{param}.seconds", seconds, DEFAULT_LIFE_SECONDS, above=True)
    return seconds
