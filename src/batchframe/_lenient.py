"""What a service sends, read so that nothing odd or missing raises: what cannot be read is None."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import msgspec

# Azure writes seven digits, and no decoder promises to read more than six.
_FRACTION = re.compile(r"(\.\d{6})\d+")
_LARGEST = 2**63


def moment(value: Any) -> dt.datetime | None:
    """Return a moment in UTC: seconds since 1970, as a text too, or ISO 8601, which is UTC where it names no zone."""
    try:
        if isinstance(value, str) and value.isascii() and value.isdigit():
            value = int(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return dt.datetime.fromtimestamp(value, dt.timezone.utc)
        if not isinstance(value, str):
            return None
        found = msgspec.convert(_FRACTION.sub(r"\1", value.strip()), dt.datetime)
        return found.replace(tzinfo=dt.timezone.utc) if found.tzinfo is None else found.astimezone(dt.timezone.utc)
    except (msgspec.ValidationError, ValueError, OverflowError, OSError):
        return None


def integer(value: Any) -> int | None:
    """Return a whole number that a column can hold."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LARGEST else None


def number(value: Any) -> float | None:
    """Return a number as a float; a whole one that is beyond any column is none."""
    return float(value) if isinstance(value, float) or integer(value) is not None else None


def text(value: Any) -> str | None:
    """Return a text; the empty one, which some services send for what is not there, counts as nothing."""
    return value if isinstance(value, str) and value else None


def mapping(value: Any) -> dict[str, Any]:
    """Return an object, empty where it is none."""
    return value if isinstance(value, dict) else {}


def request_counts(batch: dict[str, Any]) -> dict[str, Any]:
    """Return what counts the requests of a batch; some services have ``total``, … on the batch itself."""
    counts = mapping(batch.get("request_counts"))
    is_told = any(count is not None for count in counts.values())
    return counts if is_told else {name: batch.get(name) for name in ("total", "completed", "failed")}


def batch_errors(errors: Any) -> list[tuple[int | None, str, str]]:
    """Return the line, code and message of each of a failed batch's ``errors``.

    Some services send the bare list, or all in one text.
    """
    if isinstance(errors, str) and errors.strip():
        return [(None, "unknown_error", errors.strip())]
    data = errors.get("data") if isinstance(errors, dict) else errors
    found = [error for error in data if isinstance(error, dict)] if isinstance(data, list) else []
    return [
        (integer(error.get("line")), str(error.get("code") or "unknown_error"), str(error.get("message") or ""))
        for error in found
    ]
