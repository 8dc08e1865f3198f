"""Reading JSON that somebody else wrote."""

from __future__ import annotations

from typing import Any

import msgspec

# Whatever is nested deeper counts as no JSON, so that no walk over it ends in a RecursionError, on any Python. The
# services' own bound is not documented; no parameter of theirs needs half of it.
MOST_LEVELS = 200


class UnreadableError(ValueError):
    """What was sent is no JSON, or is nested too deeply."""


_decode = msgspec.json.Decoder().decode


def decode(raw: bytes | bytearray) -> Any:
    """Read a JSON value. What strict JSON does not have is refused: ``NaN``, half a surrogate pair, broken UTF-8."""
    try:
        value = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise UnreadableError(str(exc)) from exc
    # With fewer brackets it cannot be too deep, and that is nearly always so.
    if raw.count(b"[") + raw.count(b"{") > MOST_LEVELS and _is_too_deep(value):
        raise UnreadableError(f"nested more than {MOST_LEVELS} levels deep")
    return value


def _is_too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MOST_LEVELS):
        inner = [each.values() if isinstance(each, dict) else each for each in level]
        level = [value for values in inner for value in values if isinstance(value, (dict, list))]
        if not level:
            return False
    return True
