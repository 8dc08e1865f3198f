"""Log probabilities of tokens, in one shape whatever the endpoint.

They are most of a line that has them, so tokens of the usual shape are read into structs: a third of the time that
objects of any shape take.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import msgspec

from batchframe._core.lenient import integer, number, read_json
from batchframe._endpoints.base import as_text, objects_of


class _Alternative(msgspec.Struct, gc=False):
    token: str
    logprob: float


class Token(msgspec.Struct, gc=False):
    """A token as msgspec reads it where it has the usual shape."""

    token: str
    logprob: float
    bytes: list[Annotated[int, msgspec.Meta(ge=0, le=255)]] | None = None
    top_logprobs: list[_Alternative] = []


_decode_tokens = msgspec.json.Decoder(list[Token]).decode
_BYTE = range(256)


def read_tokens(told: Any) -> list[Any] | None:
    """Return the tokens of chat and responses, in one shape."""
    if isinstance(told, msgspec.Raw):
        try:
            return _decode_tokens(told)
        except (msgspec.DecodeError, UnicodeDecodeError):
            told = read_json(told)
    if not isinstance(told, list):
        return None
    return [
        {
            "token": as_text(token.get("token")),
            "logprob": number(token.get("logprob")),
            "bytes": _bytes(token.get("bytes")),
            "top_logprobs": [
                {"token": as_text(other.get("token")), "logprob": number(other.get("logprob"))}
                for other in objects_of(token.get("top_logprobs"))
            ],
        }
        for token in objects_of(told)
    ]


def _bytes(told: Any) -> list[int] | None:
    found = list(map(integer, told)) if isinstance(told, list) else [None]
    return [byte for byte in found if byte is not None] if all(byte in _BYTE for byte in found) else None


def has_not_finite(value: Any) -> bool:
    """Whether logprobs hold a NaN or an infinity, for which JSON has no word; what msgspec decoded has none."""
    if isinstance(value, list):
        return bool(value) and not isinstance(value[0], Token) and any(map(has_not_finite, value))
    return isinstance(value, dict) and (not _is_finite(value["logprob"]) or has_not_finite(value.get("top_logprobs")))


def _is_finite(value: float | None) -> bool:
    return value is None or math.isfinite(value)
