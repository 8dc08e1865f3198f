"""Lenient readers of what a service sends. Odd or missing values become None; nothing raises."""

from __future__ import annotations

import datetime as dt
import json
import re
from typing import Any

import msgspec

# Azure writes seven fractional digits, and no decoder promises to read more than six.
_FRACTION = re.compile(r"(\.\d{6})\d+")
_LARGEST = 2**63
_WHOLE_NUMBERS = range(-_LARGEST, _LARGEST)
# An escape in a JSON text. The first group matches a lone half of a surrogate pair.
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
_STRING_OR_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[{]|[\]}]', re.DOTALL)
# Nothing that we read is nested this deeply, and the parsers cannot go much deeper.
_MAX_DEPTH = 200


def read_json(text: str | bytes, *, whole: bool = False) -> Any:
    """Return the value of a JSON text, accepting what Python's lenient parser accepts.

    Lone surrogates and bytes that are not UTF-8 become U+FFFD. NaN and the infinities become floats. Values that are
    nested too deeply become None.

    Parameters
    ----------
    text
        The text.
    whole
        Whether to raise for a value that is nested too deeply, instead of dropping it.

    Raises
    ------
    msgspec.DecodeError
        The text is not JSON.
    RecursionError
        The text is nested too deeply, and `whole` is set.
    """
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _read_leniently(text, error, whole=whole)


def _read_leniently(text: str | bytes, error: Exception, *, whole: bool) -> Any:
    decoded = text if isinstance(text, str) else bytes(text).decode(errors="replace")
    decoded = _ESCAPE.sub(lambda escape: r"\ufffd" if escape[1] else escape[0], decoded.lstrip("\ufeff"))
    try:
        try:
            return _loads(decoded)
        except RecursionError:
            if whole:
                raise
            return _loads(_flattened(decoded))
    except ValueError:
        raise msgspec.DecodeError(str(error)) from error


def _loads(text: str) -> Any:
    return json.loads(text, strict=False, parse_int=_whole_number)


def _whole_number(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:  # Python refuses integers of thousands of digits
        return float(digits)


def _flattened(text: str) -> str:
    """Return a JSON text with null for each value that is nested too deeply. Raise ValueError for unclosed brackets."""
    pieces, depth, start = [], 0, 0
    for match in _STRING_OR_BRACKET.finditer(text):
        char = match[0]
        if char in "[{":
            depth += 1
            if depth == _MAX_DEPTH:
                pieces += [text[start : match.start()], "null"]
        elif char in "]}":
            depth -= 1
            if depth == _MAX_DEPTH - 1:
                start = match.end()
    if depth:
        msg = "a bracket is not closed"
        raise ValueError(msg)
    return "".join([*pieces, text[start:]])


def moment(value: Any) -> dt.datetime | None:
    """Return a point in time in UTC, from seconds since 1970 (a number or text) or ISO 8601 (UTC without a zone)."""
    try:
        if isinstance(value, str) and value.isascii() and value.isdigit():
            value = int(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return dt.datetime.fromtimestamp(value, dt.timezone.utc)
        if not isinstance(value, str):
            return None
        time = msgspec.convert(_FRACTION.sub(r"\1", value.strip()), dt.datetime)
        return time.replace(tzinfo=dt.timezone.utc) if time.tzinfo is None else time.astimezone(dt.timezone.utc)
    except (msgspec.ValidationError, ValueError, OverflowError, OSError):
        return None


def integer(value: Any) -> int | None:
    """Return a whole number that fits in 64 bits, else None. Some services write 3 as 3.0."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value in _WHOLE_NUMBERS else None


def number(value: Any) -> float | None:
    """Return a number as a float. None for an integer that does not fit in 64 bits."""
    return float(value) if isinstance(value, float) or integer(value) is not None else None


def text(value: Any) -> str | None:
    """Return a text, and None for an empty one, which some services send for a missing value."""
    return value if isinstance(value, str) and value else None


def mapping(value: Any) -> dict[str, Any]:
    """Return a JSON object, and an empty dict for anything else."""
    return value if isinstance(value, dict) else {}


def request_counts(batch: dict[str, Any]) -> dict[str, Any]:
    """Return the request counts of a batch. Some services put ``total``, … on the batch itself."""
    counts = mapping(batch.get("request_counts"))
    has_counts = any(count is not None for count in counts.values())
    return counts if has_counts else {name: batch.get(name) for name in ("total", "completed", "failed")}


def batch_errors(errors: Any) -> list[tuple[int | None, str, str]]:
    """Return the line, code and message of each error of a failed batch.

    Some services send a bare list, or one text.
    """
    if isinstance(errors, str) and errors.strip():
        return [(None, "unknown_error", errors.strip())]
    data = errors.get("data") if isinstance(errors, dict) else errors
    objects = [error for error in data if isinstance(error, dict)] if isinstance(data, list) else []
    return [
        (integer(error.get("line")), str(error.get("code") or "unknown_error"), str(error.get("message") or ""))
        for error in objects
    ]
