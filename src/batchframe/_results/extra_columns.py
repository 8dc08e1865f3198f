"""The registry of extra columns: the name, dtype and source of each.

Some are stored beside the answers. The others are read from whole result lines on request, which means a second read of
the line. Their values pass through JSON written here, in one shape whatever the service sent, so that Polars decodes
them without a Python object for each token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from batchframe._core import wire_format
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
    """A column that ``include`` can add.

    Parameters
    ----------
    name
        The name in ``include``.
    dtype
        The dtype. It becomes a List if a row has several choices with a value each.
    of_line
        Returns the text from the bytes of a result line.
    of_body
        Returns the value from the body of a result line, if that is an object.
    of_choice
        Returns an endpoint's reader of one choice; None if its answers have no such value. A column without any of
        these three is stored beside the answers.
    has_not_finite
        Whether a value holds a NaN or an infinity; None if it cannot.
    of_runs_only
        Whether only a run knows the value: it is not in the result files.
    default
        The value of a row without an answer.
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
        """Whether the column is read from whole result lines."""
        return self.of_line is not None or self.of_body is not None or self.of_choice is not None

    def fits(self, endpoint: Endpoint) -> bool:
        """Whether answers of an endpoint can have the column."""
        return self.of_choice is None or self.of_choice(endpoint) is not None

    def dtype_for(self, form: AnswerFormat) -> pl.DataType:
        """Return the dtype for a format of answers."""
        return pl.List(self.dtype) if form.has_choices and self.of_choice is not None else self.dtype

    def value(self, body: dict[str, Any], form: AnswerFormat, *, is_answer: bool) -> Any:
        """Return the value of a row from the body of its result line."""
        if self.of_body is not None:
            return self.of_body(body)
        endpoint = ENDPOINTS[form.endpoint]
        read = self.of_choice(endpoint) if self.of_choice is not None and is_answer else None
        choices = endpoint.choices(body) if endpoint.choices is not None else []
        if read is None or not choices:
            return None
        return [read(choice) for choice in choices] if form.has_choices else read(choices[0])


def _text_of_line(line: bytes) -> str:
    return line.rstrip(b"\r\n").decode(errors="replace")


def _content_filter(body: dict[str, Any]) -> str | None:
    """Return the content filter's verdicts on prompt and answer as JSON; None if there are none."""
    inner = mapping(mapping(body.get("error")).get("innererror"))
    choices = body.get("choices")
    first = mapping(choices[0]) if isinstance(choices, list) and choices else {}
    verdicts = {
        "prompt": body.get("prompt_filter_results") or inner.get("content_filter_result"),
        "response": first.get("content_filter_results"),
    }
    present = {name: verdict for name, verdict in verdicts.items() if verdict}
    return msgspec.json.encode(present).decode() if present else None


# ``arguments`` verbatim, since a model may write broken JSON; for a custom tool, its input.
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
# By source: stored beside the answers, or read from result lines.
BESIDE_ANSWERS = {name: column.dtype for name, column in EXTRA_COLUMNS.items() if not column.is_of_lines}
OF_LINES = tuple(name for name, column in EXTRA_COLUMNS.items() if column.is_of_lines)


def columns_of_lines(lines: Sequence[bytes | None], names: Iterable[str], form: AnswerFormat) -> list[pl.Series]:
    """Read extra columns from result lines.

    Parameters
    ----------
    lines
        The lines; None for a row without one.
    names
        The names of the columns.
    form
        The format of the answers.
    """
    columns = [EXTRA_COLUMNS[name] for name in names]
    of_bodies = [column for column in columns if column.of_line is None]
    values: dict[str, list[Any]] = {column.name: [] for column in of_bodies}
    for line in lines if of_bodies else ():
        body, is_answer = (None, False) if line is None else _shallow_body_of_line(line)
        for column in of_bodies:
            values[column.name].append(None if body is None else column.value(body, form, is_answer=is_answer))
    return [
        pl.Series(column.name, [None if line is None else column.of_line(line) for line in lines], pl.String)
        if column.of_line is not None
        else _series(column, values[column.name], column.dtype_for(form))
        for column in columns
    ]


def _series(kind: ExtraColumn, values: list[Any], dtype: pl.DataType) -> pl.Series:
    """Return values as a column, through JSON; those with a NaN or an infinity, which JSON lacks, directly."""
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


# Logprobs make up most of a line that has them, so they stay undecoded until they are read.


_decode_line = msgspec.json.Decoder(wire_format.ResultLine[dict[str, msgspec.Raw]]).decode
_decode_objects = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode
_AROUND_TOKENS = ("choices", "output", "content")


def _shallow_body_of_line(line: bytes) -> tuple[dict[str, Any] | None, bool]:
    """Return the result of `body_of_line`, with the logprobs undecoded."""
    try:
        response = _decode_line(line).response
        body = {name: _shallow(name, raw) for name, raw in response.body.items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body_of_line(line)
    return body, response.status_code in SUCCESS


def _shallow(name: str, raw: msgspec.Raw) -> Any:
    if name == "logprobs":
        return raw
    if name in _AROUND_TOKENS:
        try:
            return [{key: _shallow(key, value) for key, value in item.items()} for item in _decode_objects(raw)]
        except msgspec.ValidationError:
            pass
    return msgspec.json.decode(raw)
