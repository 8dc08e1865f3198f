"""JSON: strict reading of untrusted bytes, the canonical form, and the digest of a request body."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

# Anything nested deeper counts as invalid JSON, so that no recursive walk over it can hit Python's recursion limit. The
# services do not document their own bound; none of their parameters needs half of it.
MAX_LEVELS = 200


class UnreadableError(ValueError):
    """The bytes are not JSON, or nested too deeply."""


_decode = msgspec.json.Decoder().decode
_encode_canonical = msgspec.json.Encoder(order="sorted").encode


def decode(raw: bytes | bytearray) -> Any:
    """Read a JSON value. ``NaN``, lone surrogates and broken UTF-8 are refused, as strict JSON requires."""
    try:
        value = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise UnreadableError(str(exc)) from exc
    # Counting brackets is cheap, and nearly always enough to rule out deep nesting.
    if raw.count(b"[") + raw.count(b"{") > MAX_LEVELS and _is_too_deep(value):
        raise UnreadableError(f"nested more than {MAX_LEVELS} levels deep")
    return value


def canonical(value: object) -> bytes:
    """Write `value` as JSON with sorted keys and no spaces."""
    return _encode_canonical(value)


def canonical_digest(body: object) -> bytes:
    """Return the SHA-256 of the canonical JSON of a request body."""
    return hashlib.sha256(canonical(body)).digest()


def body_digest(body: object) -> str:
    """Return the key of a request body in the ledger: the SHA-256 of its canonical JSON, in hex."""
    return canonical_digest(body).hex()


def _is_too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_LEVELS):
        inner = [each.values() if isinstance(each, dict) else each for each in level]
        level = [value for values in inner for value in values if isinstance(value, (dict, list))]
        if not level:
            return False
    return True
