"""Log probabilities of tokens, in the same shape for all endpoints.

Logprobs make up most of a line. Tokens of the usual shape are therefore decoded into structs, in a third of the time
that generic objects take.
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
    """A token of the usual shape, as msgspec decodes it."""

    token: str
    logprob: float
    bytes: list[Annotated[int, msgspec.Meta(ge=0, le=255)]] | None = None
    top_logprobs: list[_Alternative] = []


_decode_tokens = msgspec.json.Decoder(list[Token]).decode
_BYTE = range(256)


def read_tokens(tokens: Any) -> list[Any] | None:
    """Return the tokens of a chat completion or a response, in our shape."""
    if isinstance(tokens, msgspec.Raw):
        try:
            return _decode_tokens(tokens)
        except (msgspec.DecodeError, UnicodeDecodeError):
            tokens = read_json(tokens)
    if not isinstance(tokens, list):
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
        for token in objects_of(tokens)
    ]


def _bytes(value: Any) -> list[int] | None:
    numbers = list(map(integer, value)) if isinstance(value, list) else [None]
    return [byte for byte in numbers if byte is not None] if all(byte in _BYTE for byte in numbers) else None


def has_not_finite(value: Any) -> bool:
    """Return whether logprobs contain NaN or infinity, which JSON cannot represent. A decoded `Token` never does."""
    if isinstance(value, list):
        return bool(value) and not isinstance(value[0], Token) and any(map(has_not_finite, value))
    return isinstance(value, dict) and (not _is_finite(value["logprob"]) or has_not_finite(value.get("top_logprobs")))


def _is_finite(value: float | None) -> bool:
    return value is None or math.isfinite(value)
