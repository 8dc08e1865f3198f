"""Reads the result lines of an unfinished batch, for another process to go on with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# The error codes of requests that were never executed.
ABANDONED = frozenset({"batch_expired", "batch_cancelled"})
_decode = msgspec.json.Decoder().decode


class Tokens(NamedTuple):
    """The tokens of an answer."""

    input: int = 0
    output: int = 0
    reasoning: int = 0


class Line(NamedTuple):
    """The facts of a result line."""

    custom_id: str
    body: Any
    was_abandoned: bool


def read(lines: Iterable[bytes]) -> Iterator[Line]:
    """Read result lines; unreadable ones, which faults write, are skipped."""
    for raw in lines:
        try:
            line = _decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        if isinstance(line, dict) and isinstance(line.get("custom_id"), str):
            response, error = line.get("response") or {}, line.get("error") or {}
            yield Line(line["custom_id"], response.get("body"), error.get("code") in ABANDONED)


def tokens_of(body: Any) -> Tokens:
    """Read the usage of an answer under the names of any endpoint; absent counts are zero."""
    usage = _inner(body, "usage")
    details = _inner(usage, "completion_tokens_details") or _inner(usage, "output_tokens_details")
    return Tokens(
        _number(usage, "prompt_tokens") or _number(usage, "input_tokens"),
        _number(usage, "completion_tokens") or _number(usage, "output_tokens"),
        _number(details, "reasoning_tokens"),
    )


def _inner(value: Any, name: str) -> dict[str, Any]:
    inner = value.get(name) if isinstance(value, dict) else None
    return inner if isinstance(inner, dict) else {}


def _number(value: dict[str, Any], name: str) -> int:
    number = value.get(name)
    return number if isinstance(number, int) else 0
