"""The registry of extra columns: name, dtype, and where each comes from.

Some are kept beside the answers. The others are made of a whole result line where they are asked for, which costs a
second look at it; what is in them goes through JSON that is written here, in one shape whatever the service sent, so
that Polars reads it without a Python object for each token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from batchframe._core.lenient import mapping
from batchframe._endpoints.logprobs import has_not_finite
from batchframe._endpoints.registry import ENDPOINTS
from batchframe._results.result_lines import SUCCESS, body_of_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from batchframe._endpoints.base import Endpoint
    from batchframe._results.answer_format import AnswerFormat


@dataclass(frozen=True)
class ExtraColumn:
    """A column that is added where ``include`` names it.

    Parameters
    ----------
    name
        As in ``include``.
    dtype
        Its dtype; a List of it where a row has several choices of which each has its own.
    of_line
        Makes its text of the bytes of a result line.
    of_body
        Makes its value of the body of a result line, where that is an object. Where neither is given, the column is
        kept beside the answers.
    of_choice
        Returns what makes its value of one choice of an endpoint's answer; None where its answers have none.
    has_not_finite
        Whether a value holds a NaN or an infinity; None where it cannot.
    of_runs_only
        Whether only a run knows it, and not the result files alone.
    default
        What stands where there is no answer.
    """

    name: str
    dtype: pl.DataType
    of_line: Callable[[bytes], str] | None = None
    of_body: Callable[[dict[str, Any]], Any] | None = None
    of_choice: Callable[[Endpoint], Callable[[dict[str, Any]], list[Any] | None] | None] | None = None
    has_not_finite: Callable[[Any], bool] | None = None
    of_runs_only: bool = False
    default: bool | None = None

    @property
    def is_of_lines(self) -> bool:
        """Whether it is made of whole result lines."""
        return self.of_line is not None or self.of_body is not None or self.of_choice is not None

    def fits(self, endpoint: Endpoint) -> bool:
        """Whether answers of an endpoint have it."""
        return self.of_choice is None or self.of_choice(endpoint) is not None

    def dtype_for(self, form: AnswerFormat) -> pl.DataType:
        """Return its dtype for some answers."""
        return pl.List(self.dtype) if form.is_many and self.of_choice is not None else self.dtype

    def value(self, body: dict[str, Any], form: AnswerFormat, *, is_answer: bool) -> Any:
        """Return what a row holds, by the body of its result line."""
        if self.of_body is not None:
            return self.of_body(body)
        endpoint = ENDPOINTS[form.endpoint]
        read = self.of_choice(endpoint) if self.of_choice is not None and is_answer else None
        choices = endpoint.choices(body) if endpoint.choices is not None else []
        if read is None or not choices:
            return None
        return [read(choice) for choice in choices] if form.is_many else read(choices[0])


def _text_of_line(line: bytes) -> str:
    return line.rstrip(b"\r\n").decode(errors="replace")


def _content_filter(body: dict[str, Any]) -> str | None:
    """Return what the content filter said of the prompt and of the answer, as JSON; None where it said nothing."""
    inner = mapping(mapping(body.get("error")).get("innererror"))
    choices = body.get("choices")
    first = mapping(choices[0]) if isinstance(choices, list) and choices else {}
    verdicts = {
        "prompt": body.get("prompt_filter_results") or inner.get("content_filter_result"),
        "response": first.get("content_filter_results"),
    }
    given = {name: verdict for name, verdict in verdicts.items() if verdict}
    return msgspec.json.encode(given).decode() if given else None


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
# In the order in which they are added.
EXTRA_COLUMNS = {
    column.name: column
    for column in (
        ExtraColumn("model", pl.String()),
        ExtraColumn("request_id", pl.String()),
        ExtraColumn("batch_id", pl.String(), of_runs_only=True),
        ExtraColumn("logprobs", _LOGPROBS, of_choice=lambda endpoint: endpoint.logprobs, has_not_finite=has_not_finite),
        ExtraColumn("tool_calls", _CALLS, of_choice=lambda endpoint: endpoint.tool_calls),
        ExtraColumn("content_filter", pl.String(), of_body=_content_filter),
        ExtraColumn("reused", pl.Boolean(), of_runs_only=True, default=False),
        ExtraColumn("raw", pl.String(), of_line=_text_of_line),
    )
}
# By where they come from: as they stand beside the answers, and as they are made of lines.
BESIDE_ANSWERS = {name: column.dtype for name, column in EXTRA_COLUMNS.items() if not column.is_of_lines}
OF_LINES = tuple(name for name, column in EXTRA_COLUMNS.items() if column.is_of_lines)


def columns_of_lines(lines: Sequence[bytes | None], names: Iterable[str], form: AnswerFormat) -> list[pl.Series]:
    """Return columns made of result lines.

    Parameters
    ----------
    lines
        The lines, null where a row has none.
    names
        The columns.
    form
        What the answers are.
    """
    columns = [EXTRA_COLUMNS[name] for name in names]
    of_bodies = [column for column in columns if column.of_line is None]
    values: dict[str, list[Any]] = {column.name: [] for column in of_bodies}
    for line in lines if of_bodies else ():
        body, is_answer = (None, False) if line is None else _opened_line(line)
        for column in of_bodies:
            values[column.name].append(None if body is None else column.value(body, form, is_answer=is_answer))
    return [
        pl.Series(column.name, [None if line is None else column.of_line(line) for line in lines], pl.String)
        if column.of_line is not None
        else _series(column, values[column.name], column.dtype_for(form))
        for column in columns
    ]


def _series(kind: ExtraColumn, values: list[Any], dtype: pl.DataType) -> pl.Series:
    """Return values as a column, by way of JSON; those with a NaN or an infinity, which JSON has not, one by one."""
    name, is_not_finite = kind.name, kind.has_not_finite
    if isinstance(dtype, pl.String):
        return pl.Series(name, values, dtype)
    not_finite = (
        {} if is_not_finite is None else {row: value for row, value in enumerate(values) if is_not_finite(value)}
    )
    texts = [
        None if value is None or row in not_finite else msgspec.json.encode(value).decode()
        for row, value in enumerate(values)
    ]
    column = pl.Series(name, texts, pl.String).str.json_decode(dtype)
    if not not_finite:
        return column
    places = list(range(len(column)))
    for place, row in enumerate(not_finite, len(column)):
        places[row] = place
    return pl.concat([column, pl.Series(name, list(not_finite.values()), dtype)]).gather(places)


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
