"""Receives multipart uploads straight to disk, never the whole file in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from batchframe.emulator import _errors as errors

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    from starlette.requests import Request

# Room for the form's other fields and the boundaries, so that a file of exactly the limit passes.
_FORM_BYTES = 1 << 20


class Upload(NamedTuple):
    """The content of a form; `filename` is None if it has no file."""

    fields: dict[str, str]
    filename: str | None
    size_bytes: int


async def receive(request: Request, path: Path, limit_bytes: int) -> Upload:
    """Parse the form of `request`, writing its part ``file`` to `path`.

    A form over the limit is read to its end, but not written: an early reply would reach clients as a broken
    connection instead of a 413.
    """
    content_type, options = parse_options_header(request.headers.get("content-type", ""))
    if content_type != b"multipart/form-data" or b"boundary" not in options:
        raise errors.ApiError("Invalid Content-Type. Expected multipart/form-data.")
    received = 0
    with path.open("wb") as file:
        form = _Form(file)
        parser = MultipartParser(
            options[b"boundary"],
            {
                "on_part_begin": form.begin,
                "on_header_field": form.header_field,
                "on_header_value": form.header_value,
                "on_header_end": form.header_end,
                "on_part_data": form.data,
                "on_part_end": form.end,
            },
        )
        try:
            async for chunk in request.stream():
                received += len(chunk)
                if received <= limit_bytes + _FORM_BYTES:
                    parser.write(chunk)
        except FormParserError as exc:
            raise errors.ApiError(f"Could not parse multipart form: {exc}") from exc
    if received > limit_bytes + _FORM_BYTES:
        raise errors.file_too_large(limit_bytes)
    return Upload(form.fields, form.filename, form.size_bytes)


class _Form:
    """Handles the parser's callbacks: the part named ``file`` goes to disk, the others are kept."""

    def __init__(self, file: BinaryIO) -> None:
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.size_bytes = 0
        self._file = file
        self._header = self._value = self._disposition = b""
        self._field: list[bytes] | None = None

    def begin(self) -> None:
        self._header = self._value = self._disposition = b""
        self._field = None

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
            if self._name() == "file":
                self.filename = self._option(b"filename")
            else:
                self._field = []
        self._header = self._value = b""

    def data(self, data: bytes, start: int, end: int) -> None:
        if self._field is None:
            self.size_bytes += self._file.write(memoryview(data)[start:end])
        else:
            self._field.append(data[start:end])

    def end(self) -> None:
        if self._field is not None:
            self.fields[self._name()] = b"".join(self._field).decode(errors="replace")

    def _name(self) -> str:
        return self._option(b"name")

    def _option(self, name: bytes) -> str:
        return parse_options_header(self._disposition)[1].get(name, b"").decode(errors="replace")
