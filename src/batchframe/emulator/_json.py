"""Reading JSON that somebody else wrote."""

from __future__ import annotations

from typing import Any

import msgspec


class UnreadableError(ValueError):
    """What was sent is no JSON, or is nested so deeply that nobody can read it."""


_decode = msgspec.json.Decoder().decode


def decode(raw: bytes | bytearray) -> Any:
    """Read a JSON value. What strict JSON does not have is refused: ``NaN``, half a surrogate pair, broken UTF-8."""
    try:
        return _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise UnreadableError(str(exc)) from exc
