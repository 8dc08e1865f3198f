"""The columns that are made of a whole result line, where they are asked for: they cost a second look at it.

What is in them goes through JSON that is written here, in one shape whatever the service sent, so that Polars reads it
without a Python object for each token.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec
import polars as pl

from batchframe._endpoints import CHAT, COMPLETIONS, RESPONSES, choices_of, messages_of
from batchframe._lenient import integer, mapping, number, read_json
from batchframe._results import SUCCESS, body_of_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from batchframe._forms import Form

# ``arguments`` as the model wrote them, which need not be JSON; of a custom tool its input.
_CALLS = pl.List(pl.Struct({"id": pl.String(), "name": pl.String(), "arguments": pl.String()}))
_LOGPROBS = pl.List(
    pl.Struct(
        {
            "token": pl.String(),
            "logprob": pl.Float64(),
            "bytes": pl.List(pl.UInt8()),
            "top_logprobs": pl.List(pl.Struct({"token": pl.String(), "logprob": pl.Float64()})),
        }
    )
)
INCLUDED: dict[str, pl.DataType] = {
    "logprobs": _LOGPROBS,
    "tool_calls": _CALLS,
    "content_filter": pl.String(),
    "raw": pl.String(),
}
# Of which each choice has its own.
_OF_CHOICES = ("logprobs", "tool_calls")
_BYTE = range(256)
# How a body of the responses endpoint is asked for them.
RESPONSE_LOGPROBS = "message.output_text.logprobs"


def included_dtype(name: str, form: Form) -> pl.DataType:
    """Return the dtype of one of these columns."""
    return pl.List(INCLUDED[name]) if form.is_many and name in _OF_CHOICES else INCLUDED[name]


def included_columns(lines: Sequence[bytes | None], names: Iterable[str], form: Form) -> list[pl.Series]:
    """Return columns made of result lines.

    Parameters
    ----------
    lines
        The lines, null where a row has none.
    names
        The columns.
    form
        What was asked.
    """
    wanted = [name for name in names if name != "raw"]
    texts: dict[str, list[str | None]] = {name: [] for name in wanted}
    not_finite: dict[str, dict[int, Any]] = {name: {} for name in wanted}
    for row, line in enumerate(lines if wanted else ()):
        body, is_answer = (None, False) if line is None else _opened_line(line)
        for name, found in texts.items():
            value: Any = None
            if body is not None and name == "content_filter":
                value = _content_filter(body)
            elif body is not None and is_answer:
                value = _of_pieces(name, body, form)
                if name == "logprobs" and _has_not_finite(value):
                    not_finite[name][row] = value
            found.append(None if value is None else msgspec.json.encode(value).decode())
    made = []
    for name in names:
        told = list(map(_shown, lines)) if name == "raw" else texts[name]
        column, dtype = pl.Series(values=told, dtype=pl.String), included_dtype(name, form)
        column = column if isinstance(dtype, pl.String) else column.str.json_decode(dtype)
        made.append(_replaced(column, not_finite.get(name, {})).alias(name))
    return made


def _has_not_finite(value: Any) -> bool:
    """Whether logprobs hold a NaN or an infinity, for which JSON has no word; what msgspec decoded has none."""
    if isinstance(value, list):
        return bool(value) and not isinstance(value[0], _Token) and any(map(_has_not_finite, value))
    return isinstance(value, dict) and (not _is_finite(value["logprob"]) or _has_not_finite(value.get("top_logprobs")))


def _is_finite(value: float | None) -> bool:
    return value is None or math.isfinite(value)


def _replaced(column: pl.Series, values: dict[int, Any]) -> pl.Series:
    """Return a column with other values in some rows."""
    if not values:
        return column
    places = list(range(len(column)))
    for place, row in enumerate(values, len(column)):
        places[row] = place
    return pl.concat([column, pl.Series(column.name, list(values.values()), column.dtype)]).gather(places)


def _shown(line: bytes | None) -> str | None:
    return None if line is None else line.rstrip(b"\r\n").decode(errors="replace")


def _of_pieces(name: str, body: dict[str, Any], form: Form) -> list[Any] | None:
    """Return what each choice of an answer has, or the only one."""
    readers = _READERS.get(form.endpoint)
    if readers is None:
        return None
    read = readers.logprobs if name == "logprobs" else readers.calls
    pieces = readers.pieces(body)
    if read is None or not pieces:
        return None
    return [read(piece) for piece in pieces] if form.is_many else read(pieces[0])


# Tokens are most of a line that has them: these are read into structs, a third of the time that objects of any shape
# take. So they are left as they are until then, wherever they stand in a body.


class _Alternative(msgspec.Struct, gc=False):
    token: str
    logprob: float


class _Token(msgspec.Struct, gc=False):
    token: str
    logprob: float
    bytes: list[Annotated[int, msgspec.Meta(ge=0, le=255)]] | None = None
    top_logprobs: list[_Alternative] = []


class _Response(msgspec.Struct):
    status_code: int
    body: dict[str, msgspec.Raw]


class _Line(msgspec.Struct):
    response: _Response


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_objects = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode
_decode_tokens = msgspec.json.Decoder(list[_Token]).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_AROUND_TOKENS = ("choices", "output", "content")


def _opened_line(line: bytes) -> tuple[dict[str, Any] | None, bool]:
    """Return what `body_of_line` does, with logprobs as they are in the line."""
    try:
        response = _decode_line(line).response
        body = {name: _opened(name, told) for name, told in response.body.items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body_of_line(line)
    return body, response.status_code in SUCCESS


def _opened(name: str, told: msgspec.Raw) -> Any:
    if name == "logprobs":
        return told
    if name in _AROUND_TOKENS:
        try:
            return [{key: _opened(key, value) for key, value in found.items()} for found in _decode_objects(told)]
        except msgspec.ValidationError:
            pass
    return msgspec.json.decode(told)


def _content_filter(body: dict[str, Any]) -> dict[str, Any] | None:
    """Return what the content filter said of the prompt and of the answer; None where it said nothing."""
    inner = mapping(mapping(body.get("error")).get("innererror"))
    choices = body.get("choices")
    first = mapping(choices[0]) if isinstance(choices, list) and choices else {}
    said = {
        "prompt": body.get("prompt_filter_results") or inner.get("content_filter_result"),
        "response": first.get("content_filter_results"),
    }
    return {name: value for name, value in said.items() if value} or None


def _chat_calls(choice: dict[str, Any]) -> list[dict[str, Any]] | None:
    message = choice.get("message")
    if not isinstance(message, dict):
        return None
    made = [_chat_call(call) for call in _objects(message.get("tool_calls"))]
    legacy = message.get("function_call")
    return [*made, _call(None, legacy)] if isinstance(legacy, dict) and not made else made


def _chat_call(call: dict[str, Any]) -> dict[str, Any]:
    return _call(call.get("id"), mapping(call.get("function") or call.get("custom")))


def _response_calls(body: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        _call(item.get("call_id"), item)
        for item in _objects(body["output"])
        if item.get("type") in ("function_call", "custom_tool_call")
    ]


def _call(call_id: Any, called: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": _text(call_id),
        "name": _text(called.get("name")),
        "arguments": _text(called.get("arguments", called.get("input"))),
    }


def _chat_logprobs(choice: dict[str, Any]) -> list[Any] | None:
    told: Any = choice.get("logprobs")
    if isinstance(told, msgspec.Raw):
        try:
            told = _decode_members(told)
        except (msgspec.DecodeError, UnicodeDecodeError):
            told = read_json(told)
    return _tokens(mapping(told).get("content"))


def _response_logprobs(body: dict[str, Any]) -> list[Any] | None:
    """Return the tokens of all texts of a response, as its text joins them."""
    found = [_tokens(part.get("logprobs")) for part in messages_of(body["output"]) if isinstance(part.get("text"), str)]
    told = [tokens for tokens in found if tokens]
    return [token for tokens in told for token in tokens] if told else None


def _completion_logprobs(choice: dict[str, Any]) -> list[dict[str, Any]] | None:
    told = choice.get("logprobs")
    told = mapping(read_json(told) if isinstance(told, msgspec.Raw) else told)
    names, likely, others = (told.get(name) for name in ("tokens", "token_logprobs", "top_logprobs"))
    if not isinstance(names, list):
        return None
    likely, others = (column if isinstance(column, list) else [] for column in (likely, others))
    return [
        {
            "token": _text(name),
            "logprob": number(likely[index]) if index < len(likely) else None,
            "top_logprobs": [
                {"token": token, "logprob": number(found)}
                for token, found in mapping(others[index] if index < len(others) else None).items()
            ],
        }
        for index, name in enumerate(names)
    ]


def _tokens(told: Any) -> list[Any] | None:
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
            "token": _text(token.get("token")),
            "logprob": number(token.get("logprob")),
            "bytes": _bytes(token.get("bytes")),
            "top_logprobs": [
                {"token": _text(other.get("token")), "logprob": number(other.get("logprob"))}
                for other in _objects(token.get("top_logprobs"))
            ],
        }
        for token in _objects(told)
    ]


def _objects(told: Any) -> list[dict[str, Any]]:
    return [found for found in told if isinstance(found, dict)] if isinstance(told, list) else []


def _bytes(told: Any) -> list[int] | None:
    found = list(map(integer, told)) if isinstance(told, list) else [None]
    return [byte for byte in found if byte is not None] if all(byte in _BYTE for byte in found) else None


def _text(value: Any) -> str | None:
    """Return a text; what should be one and is something else, as its JSON."""
    return value if value is None or isinstance(value, str) else msgspec.json.encode(value).decode()


class _Readers(NamedTuple):
    """How the bodies of one endpoint are looked at."""

    pieces: Callable[[dict[str, Any]], list[dict[str, Any]]]
    """Its choices; where there are none, it is the only one itself."""
    calls: Callable[[dict[str, Any]], list[dict[str, Any]] | None] | None
    logprobs: Callable[[dict[str, Any]], list[Any] | None]


_READERS = {
    CHAT: _Readers(choices_of, _chat_calls, _chat_logprobs),
    RESPONSES: _Readers(lambda body: [body] if isinstance(body.get("output"), list) else [], _response_calls,
                        _response_logprobs),
    COMPLETIONS: _Readers(choices_of, None, _completion_logprobs),
}  # fmt: skip
WITH_CALLS = tuple(path for path, readers in _READERS.items() if readers.calls is not None)
WITH_LOGPROBS = tuple(_READERS)
