"""The layout of request lines and result lines: everything around a body.

A request line is ``{"custom_id":…,"method":"POST","url":…,"body":…}``. A result line is
``{"custom_id":…,"response":{"status_code":…,"request_id":…,"body":…},"error":…}``. A newline ends both. The
endpoints define the bodies.
"""

from __future__ import annotations

import json
import re
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
import polars as pl

from batchframe._core.json_values import json_text
from batchframe._core.lenient import mapping, read_json

T = TypeVar("T")

_BODY = b'"body":'
_CUSTOM_ID = re.compile(rb'"custom_id"\s*:\s*("(?:[^"\\]|\\.)*")')
# The errors of msgspec for texts that Python's parser may still read.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Id(msgspec.Struct, gc=False):
    custom_id: str


_decode_id = msgspec.json.Decoder(_Id).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


# -- request lines


class Request(msgspec.Struct, gc=False):
    """A request line of any origin."""

    custom_id: str
    body: msgspec.Raw


_decode_request = msgspec.json.Decoder(Request).decode


def request_lines(custom_id: pl.Expr, url: str, body: pl.Expr) -> pl.Expr:
    """Return the request lines of a slice of rows; null if the body is null.

    Parameters
    ----------
    custom_id, body
        Their JSON texts.
    url
        The endpoint in the spelling of the service.
    """
    head, tail = '{"custom_id":', f',"method":"POST","url":{json_text(url, "endpoint")},"body":'
    return pl.concat_str(pl.lit(head), custom_id, pl.lit(tail), body, pl.lit("}\n"))


def read_request(line: bytes) -> Request | None:
    """Read a request line of any origin; None if it is not one."""
    try:
        return _decode_request(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def custom_id_of_request(line: bytes) -> str:
    """Return the custom_id of a line of ours."""
    return _decode_id(line).custom_id


def body_of_request(line: bytes) -> bytes:
    """Return the body of a line of ours, byte for byte."""
    start, end = _body_span(line)
    return line[start:end]


def replace_body(line: bytes, body: bytes) -> bytes:
    """Return a line of ours with another body."""
    start, end = _body_span(line)
    return line[:start] + body + line[end:]


def rename_request(line: bytes, custom_id: str) -> bytes:
    """Rewrite a request line of any origin as one of ours, with another custom_id and the same body."""
    members = _decode_members(line)
    # The body comes last, where `_body_span` expects it.
    members |= {"custom_id": msgspec.Raw(msgspec.json.encode(custom_id)), "body": members.pop("body")}
    return msgspec.json.encode(members) + b"\n"


def _body_span(line: bytes) -> tuple[int, int]:
    """Return the start and the end of the body in a line of ours.

    The body is the last member. Quotation marks in the custom_id before it are escaped, so its text cannot look like
    the name of a member.
    """
    return line.index(_BODY) + len(_BODY), line.rindex(b"}")


# -- result lines


class Response(msgspec.Struct, Generic[T], gc=False):
    """The ``response`` of a result line, with a body of a known shape."""

    status_code: int
    body: T
    request_id: str | None = None


class ResultLine(msgspec.Struct, Generic[T], gc=False):
    """A result line of a known shape, for fast decoders of good lines: msgspec skips all other members.

    ``gc=False``, since it cannot refer to itself, and the garbage collector would visit millions of them.
    """

    custom_id: str
    response: Response[T]


class Result(NamedTuple):
    """A result line of any shape. ``custom_id`` is None if it has none; ``response`` is None unless it is an object."""

    custom_id: str | None
    response: dict[str, Any] | None
    error: Any

    @property
    def has_envelope(self) -> bool:
        """Whether the response has a status or a body; some services write the body itself instead."""
        return not {"status_code", "body"}.isdisjoint(self.response or ())

    @property
    def status_code(self) -> Any:
        """The status, unchecked."""
        return mapping(self.response).get("status_code")

    @property
    def body(self) -> Any:
        """The body, unchecked."""
        return mapping(self.response).get("body")

    @property
    def request_id(self) -> str | None:
        """The service's id of the request."""
        request_id = mapping(self.response).get("request_id")
        return request_id if isinstance(request_id, str) else None

    @property
    def response_error(self) -> Any:
        """The error that some services write in the response instead of status and body."""
        return mapping(self.response).get("error")


def read_result(line: bytes) -> Result:
    """Read a result line of any shape.

    Raises
    ------
    msgspec.DecodeError
        It is not JSON, even for a lenient parser.
    """
    members = mapping(read_json(line))
    custom_id, response = members.get("custom_id"), members.get("response")
    return Result(
        custom_id if isinstance(custom_id, str) else None,
        response if isinstance(response, dict) else None,
        members.get("error"),
    )


def custom_id_of_result(line: bytes) -> str | None:
    """Return the custom_id of a result line of any shape, even a broken one; None if it has none."""
    try:
        return _decode_id(line).custom_id
    except _UNREADABLE:
        pass
    try:
        return read_result(line).custom_id
    except msgspec.DecodeError:
        return custom_id_of_broken(line)


def custom_id_of_broken(line: bytes) -> str | None:
    """Return the custom_id of a line that is not valid JSON; None if none can be found."""
    match = _CUSTOM_ID.search(line)
    try:
        return msgspec.json.decode(match[1], type=str) if match else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def rename_result(line: bytes, custom_id: str) -> bytes:
    """Return a result line with another custom_id; its other values do not change."""
    try:
        return msgspec.json.encode(_decode_members(line) | {"custom_id": custom_id}) + b"\n"
    except _UNREADABLE:
        return json.dumps(read_json(line) | {"custom_id": custom_id}).encode() + b"\n"  # it may hold a NaN


# -- lines of unknown kind


def is_request(line: bytes) -> bool:
    """Whether a line is a request rather than a result."""
    try:
        members = mapping(read_json(line))
    except msgspec.DecodeError:
        return False
    return "body" in members and "url" in members and not {"response", "error"} & members.keys()


def not_a_result_message(line: bytes) -> str:
    """Return a message that says why a line is not a result line."""
    try:
        value = read_json(line)
    except msgspec.DecodeError as error:
        return f"not JSON ({error})"
    if not isinstance(value, dict):
        return f"a JSON {type(value).__name__}, not an object"
    if "custom_id" not in value:
        return f"an object without custom_id (it has {', '.join(map(repr, list(value)[:8])) or 'no keys'})"
    return f"its custom_id is not a string: {str(value['custom_id'])[:40]!r}"
