"""What a service sends, read so that nothing odd or missing raises: what cannot be read is None."""

from __future__ import annotations

import datetime as dt
import json
import re
from typing import Any

import msgspec

# Azure writes seven digits, and no decoder promises to read more than six.
_FRACTION = re.compile(r"(\.\d{6})\d+")
_LARGEST = 2**63
_WHOLE_NUMBERS = range(-_LARGEST, _LARGEST)
# An escape in a JSON text; the first group is a half of a surrogate pair that stands alone.
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
_STRING_OR_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[{]|[\]}]', re.DOTALL)
# Nothing that we read is nested this deep, and no parser here can follow much deeper.
_MAX_DEPTH = 200


def read_json(text: str | bytes, *, whole: bool = False) -> Any:
    """Return the value of a JSON text; what only a lenient parser such as Python's reads is read too.

    Half of a surrogate pair, and bytes that are not UTF-8, become U+FFFD; NaN and the infinities are floats; what is
    nested too deeply to be followed becomes None.

    Parameters
    ----------
    text
        The text.
    whole
        Whether it is refused rather than read without what is nested too deeply.

    Raises
    ------
    msgspec.DecodeError
        It is no JSON all the same.
    RecursionError
        It is nested too deeply, and wanted whole.
    """
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _second_look(text, error, whole=whole)


def _second_look(text: str | bytes, error: Exception, *, whole: bool) -> Any:
    written = text if isinstance(text, str) else bytes(text).decode(errors="replace")
    written = _ESCAPE.sub(lambda found: r"\ufffd" if found[1] else found[0], written.lstrip("\ufeff"))
    try:
        try:
            return _loads(written)
        except RecursionError:
            if whole:
                raise
            return _loads(_flattened(written))
    except ValueError:
        raise msgspec.DecodeError(str(error)) from error


def _loads(text: str) -> Any:
    return json.loads(text, strict=False, parse_int=_whole_number)


def _whole_number(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:  # Python refuses thousands of digits
        return float(digits)


def _flattened(text: str) -> str:
    """Return a JSON text with null for each value that is nested too deeply; a ValueError where it is none."""
    kept, depth, at = [], 0, 0
    for found in _STRING_OR_BRACKET.finditer(text):
        bracket = found[0]
        if bracket in "[{":
            depth += 1
            if depth == _MAX_DEPTH:
                kept += [text[at : found.start()], "null"]
        elif bracket in "]}":
            depth -= 1
            if depth == _MAX_DEPTH - 1:
                at = found.end()
    if depth:
        msg = "a bracket is not closed"
        raise ValueError(msg)
    return "".join([*kept, text[at:]])


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
    """Return a whole number that a column can hold; some services write 3 as 3.0."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value in _WHOLE_NUMBERS else None


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
