"""Read answers from result files: bytes are read in slices, and each line is decoded once into columns."""

from __future__ import annotations

from functools import partial
from typing import IO, TYPE_CHECKING, Any

import msgspec
import polars as pl

from batchframe._core import wire_format
from batchframe._core.lenient import integer, read_json
from batchframe._endpoints.base import Answer
from batchframe._endpoints.foreign import foreign_endpoint
from batchframe._endpoints.registry import DEFAULT, endpoint_of, is_answer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchframe._core.wire_format import Result
    from batchframe._endpoints.base import Endpoint

SLICE_BYTES = 8_000_000
# Bytes per read: few, so that memory is reused, since fresh memory costs more than reading.
READ_BYTES = 250_000

ANSWER_SCHEMA = {
    "custom_id": pl.String(),
    "response": pl.String(),
    "finish_reason": pl.String(),
    "input_tokens": pl.Int64(),
    "output_tokens": pl.Int64(),
    "total_tokens": pl.Int64(),
    "cached_tokens": pl.Int64(),
    "cache_write_tokens": pl.Int64(),
    "reasoning_tokens": pl.Int64(),
    "code": pl.String(),
    "message": pl.String(),
    "again": pl.Boolean(),
    "model": pl.String(),
    "request_id": pl.String(),
    "pieces": pl.String(),
}
# The version of this reader: whatever another version made of result lines is rebuilt from them.
READER = 1

# The place of a line in its file. Columns read from whole lines are read a few lines at a time, and only on request.
PLACES = {"line_at": pl.Int64(), "line_bytes": pl.Int64()}
# Worth another attempt: the request was not executed, or gave no result.
_RETRYABLE_STATUS = frozenset({0, 408, 409, 429})
_RETRYABLE_CODES = frozenset({"batch_expired"})

SUCCESS = range(200, 300)


def read_answers(
    handle: IO[bytes], endpoint: Endpoint = DEFAULT, *, many: bool = False, places: bool = False
) -> Iterator[pl.DataFrame]:
    """Yield the answers in an output or error file, in the order of its lines.

    Parameters
    ----------
    handle
        The file, open for reading bytes.
    endpoint
        The endpoint of the requests.
    many
        Whether each request asked for several choices.
    places
        Whether to add the columns of `PLACES`.

    Yields
    ------
    pl.DataFrame
        One row for each line with a ``custom_id``, with `ANSWER_SCHEMA`; ``code`` is null for a success. Lines
        without a ``custom_id`` cannot belong to a row and are skipped.
    """
    schema = ANSWER_SCHEMA | (PLACES if places else {})
    columns: list[list[Any]] = [[] for _ in schema]
    answers, places_of = columns[: len(ANSWER_SCHEMA)], columns[len(ANSWER_SCHEMA) :]
    start = held = 0
    # Only ``\\n`` ends a line of a binary file: U+2028 and similar may occur inside a JSON string.
    while lines := handle.readlines(min(READ_BYTES, SLICE_BYTES)):
        used: list[bytes] | None = [] if places else None
        if endpoint.read_lines is not None and not many:
            endpoint.read_lines(lines, answers, used, partial(read_any, endpoint=endpoint))
        else:
            _read_each(lines, answers, used, endpoint, many=many)
        size = sum(map(len, lines))
        if used is not None:
            for values, numbers in zip(places_of, _places(lines, used, start), strict=True):
                values.extend(numbers)
            start += size
        held += size
        if held >= SLICE_BYTES:
            yield _frame(schema, columns)
            held = 0
    if held:
        yield _frame(schema, columns)


def _frame(schema: dict[str, pl.DataType], columns: list[list[Any]]) -> pl.DataFrame:
    """Return the columns as a frame, and clear them."""
    frame = pl.DataFrame(
        [pl.Series(name, values, dtype) for (name, dtype), values in zip(schema.items(), columns, strict=True)]
    )
    for values in columns:
        values.clear()
    return frame


def _places(lines: list[bytes], used: list[bytes], start: int) -> list[list[int]]:
    """Return the offsets and the lengths of the used lines."""
    remaining, offset, offsets = iter(used), start, []
    next_used = next(remaining, None)
    for line in lines:
        if line is next_used:
            offsets.append(offset)
            next_used = next(remaining, None)
        offset += len(line)
    return [offsets, [len(line) for line in used]]


def _read_each(
    lines: list[bytes], columns: list[list[Any]], used: list[bytes] | None, endpoint: Endpoint, *, many: bool
) -> None:
    """Append the answer of each line to the columns."""
    read_line = None if many else endpoint.read_line
    rows: list[tuple[Any, ...]] = []
    for line in lines:
        fast = None if read_line is None else read_line(line)
        if fast is None and line.isspace():
            continue
        custom_id, answer = fast or read_any(line, endpoint, many=many)
        if custom_id is None:
            continue
        rows.append((custom_id, *answer))
        if used is not None:
            used.append(line)
    for column, values in zip(columns, zip(*rows, strict=True), strict=False):
        column.extend(values)


def read_any(line: bytes, endpoint: Endpoint = DEFAULT, *, many: bool = False) -> tuple[str | None, Answer]:
    """Return the custom_id and the answer of a line of any shape; no line raises."""
    try:
        result = wire_format.read_result(line)
    except msgspec.DecodeError as error:
        message = f"the result line is not JSON: {error}"
        return wire_format.custom_id_of_broken(line), Answer(code="malformed_line", message=message, again=True)
    if result.custom_id is None:
        return None, Answer()
    return result.custom_id, _answer(result, endpoint, many=many)


def endpoint_of_line(line: bytes) -> Endpoint | None:
    """Return the endpoint that a result line comes from; None if it has no answer to tell it by."""
    body, may_answer = body_of_line(line)
    return endpoint_of(body) if body and may_answer and foreign_endpoint(body) is None else None


def body_of_line(line: bytes) -> tuple[dict[str, Any] | None, bool]:
    """Return the body of a line of any shape, or None, and whether it may be an answer."""
    try:
        status, body = _reply(wire_format.read_result(line))
    except msgspec.DecodeError:
        return None, False
    return (body, status in SUCCESS) if isinstance(body, dict) else (None, False)


def _answer(result: Result, endpoint: Endpoint, *, many: bool) -> Answer:
    if result.response is None:
        if result.error:
            return _failure(result.error, None)
        return Answer(code="empty_response", message="the line has neither a response nor an error", again=True)
    status, body = _reply(result)
    if status is None and result.response_error:
        answer = _failure(result.response_error, None)
    elif status is None:
        message = f"the line has no status_code, got {result.status_code!r}"
        answer = Answer(code="invalid_response", message=message)
    elif status not in SUCCESS:
        error = body.get("error", body) if isinstance(body, dict) else body
        answer = _failure(error or result.error, status)
    elif body is None or body in ({}, ""):
        answer = Answer(code="empty_response", message=f"status {status} without a body", again=True)
    elif not isinstance(body, dict):
        answer = Answer(code="invalid_response", message=f"the body is {type(body).__name__}, not an object")
    elif body.get("error") and endpoint.answer_member not in body:
        answer = _failure(body["error"], status)
    else:
        answer = endpoint.answer(body, many=many)
    return answer._replace(request_id=result.request_id)


def _reply(result: Result) -> tuple[int | None, Any]:
    """Return the status and the body of a result; some services write the body of a 200 instead of both."""
    if result.response is not None and not result.has_envelope and is_answer(result.response):
        return 200, result.response
    return integer(result.status_code), _body(result.body)


def _body(body: Any) -> Any:
    """Return a body; a JSON text of an object or of null is decoded."""
    if isinstance(body, str):
        try:
            value = read_json(body)
        except msgspec.DecodeError:
            return body
        return value if value is None or isinstance(value, dict) else body
    return body


def _failure(error: Any, status: int | None) -> Answer:
    """Return an error as an answer: its ``code``, else its ``type``, else ``http_<status>``; and its message."""
    fallback = "unknown_error" if status is None else f"http_{status}"
    again = status is not None and (status in _RETRYABLE_STATUS or status >= 500)  # noqa: PLR2004
    if not isinstance(error, dict):
        text = error if isinstance(error, str) else ""
        return Answer(code=fallback, message=text or f"the service gave no reason ({fallback})", again=again)
    candidates = (error.get("code"), error.get("type"))
    code = next((str(value) for value in candidates if value and isinstance(value, (str, int))), fallback)
    again = again or code in _RETRYABLE_CODES
    message = error.get("message")
    if not isinstance(message, str) or not message:
        message = msgspec.json.encode(error).decode() if error else f"the service gave no reason ({fallback})"
    return Answer(code=code, message=message, again=again)
