"""The columns that are made of a whole result line, where they are asked for: they cost a second look at it.

What is in them goes through JSON that is written here, in one shape whatever the service sent, so that Polars reads it
without a Python object for each token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from batchframe._core.lenient import mapping
from batchframe._endpoints.logprobs import has_not_finite
from batchframe._endpoints.registry import ENDPOINTS
from batchframe._results.result_lines import SUCCESS, body_of_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from batchframe._results.answer_format import AnswerFormat

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


def included_dtype(name: str, form: AnswerFormat) -> pl.DataType:
    """Return the dtype of one of these columns."""
    return pl.List(INCLUDED[name]) if form.is_many and name in _OF_CHOICES else INCLUDED[name]


def included_columns(lines: Sequence[bytes | None], names: Iterable[str], form: AnswerFormat) -> list[pl.Series]:
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
                if name == "logprobs" and has_not_finite(value):
                    not_finite[name][row] = value
            found.append(None if value is None else msgspec.json.encode(value).decode())
    made = []
    for name in names:
        told = list(map(_shown, lines)) if name == "raw" else texts[name]
        column, dtype = pl.Series(values=told, dtype=pl.String), included_dtype(name, form)
        column = column if isinstance(dtype, pl.String) else column.str.json_decode(dtype)
        made.append(_replaced(column, not_finite.get(name, {})).alias(name))
    return made


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


def _of_pieces(name: str, body: dict[str, Any], form: AnswerFormat) -> list[Any] | None:
    """Return what each choice of an answer has, or the only one."""
    endpoint = ENDPOINTS[form.endpoint]
    read = endpoint.logprobs if name == "logprobs" else endpoint.tool_calls
    pieces = endpoint.choices(body) if endpoint.choices is not None else []
    if read is None or not pieces:
        return None
    return [read(piece) for piece in pieces] if form.is_many else read(pieces[0])


# Logprobs are most of a line that has them: they are left as they are until they are read, wherever in a body.


class _Response(msgspec.Struct):
    status_code: int
    body: dict[str, msgspec.Raw]


class _Line(msgspec.Struct):
    response: _Response


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_objects = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode
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
