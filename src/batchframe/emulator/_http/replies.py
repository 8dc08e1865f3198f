"""Replies: JSON, pages of a list, files from disk. Also reads what a request carries."""

from __future__ import annotations

import functools
import uuid
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec
from starlette.responses import Response

from batchframe.emulator import _errors as errors
from batchframe.emulator._json import UnreadableError, decode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from batchframe.emulator._service.service import Service

_PIECE_BYTES = 1 << 18


class HasId(Protocol):
    """An object in a list."""

    @property
    def id(self) -> str:
        """The id that ``after`` refers to."""


T = TypeVar("T", bound=HasId)


def service_of(request: Request) -> Service:
    """Return the service behind a request."""
    service: Service = request.app.state.service
    return service


def owner_of(request: Request) -> str:
    """Return the owner whose files and batches a request sees."""
    owner: str = request.state.owner
    return owner


def reply(value: object, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Reply with JSON."""
    all_headers = {"x-request-id": f"req_{uuid.uuid4().hex}", **(headers or {})}
    return Response(msgspec.json.encode(value), status, all_headers, "application/json")


async def on_error(request: Request, exc: Exception) -> Response:
    """Reply with an error."""
    if not isinstance(exc, errors.ApiError):
        # Starlette raises the cause again after this reply, and the server logs it.
        exc = errors.ApiError(f"the emulator failed: {exc!r}", status=500, kind="emulator_error")
    is_azure = service_of(request).settings.profile.is_azure and not request.url.path.startswith("/_emulator/")
    return reply(exc.azure_body() if is_azure else exc.body(), status=exc.status, headers=exc.headers)


async def json_body(request: Request) -> Any:
    """Read a JSON body."""
    try:
        return decode(await request.body())
    except UnreadableError as exc:
        raise errors.unreadable_body() from exc


def page(
    request: Request,
    items: Sequence[T],
    *,
    default: int,
    max_limit: int,
    not_found: Any,
    present: Callable[[T], Any] = lambda item: item,
    key: str = "data",
    is_by_cursor: bool = False,
) -> Response:
    """Reply with one page of `items`.

    `not_found` makes the error for an unknown ``after``, `present` the object of an item; `key` names the list in the
    reply. `is_by_cursor`: the query has ``cursor`` instead of ``after``, which each page gives for the next one.
    """
    limit = _limit(request, default, max_limit)
    after = request.query_params.get("cursor" if is_by_cursor else "after")
    start = 0
    if after:
        start = next((position + 1 for position, item in enumerate(items) if item.id == after), 0)
        if not start:
            raise not_found(after)
    data = items[start : start + limit]
    has_more = start + limit < len(items)
    if is_by_cursor:
        cursor = data[-1].id if has_more else None
        return reply({"object": "list", key: [present(item) for item in data], "paging": {"next_cursor": cursor}})
    return reply(
        {
            "object": "list",
            key: [present(item) for item in data],
            "first_id": data[0].id if data else None,
            "last_id": data[-1].id if data else None,
            "has_more": has_more,
        }
    )


def _limit(request: Request, default: int, max_limit: int) -> int:
    text = request.query_params.get("limit", str(default))
    try:
        limit = int(text)
    except ValueError as exc:
        raise errors.wrong_type("limit", "an integer", text) from exc
    if not 1 <= limit <= max_limit:
        raise errors.out_of_range("limit", limit, max_limit if limit > max_limit else 1, above=limit > max_limit)
    return limit


class FileReply(Response):
    """The bytes of a file. A ``Range`` is ignored: the service does not document ranges."""

    media_type = "application/octet-stream"

    def __init__(self, service: Service, path: Path, size_bytes: int, *, transfer: str = "plain") -> None:
        super().__init__(headers={"content-length": str(size_bytes), "x-request-id": f"req_{uuid.uuid4().hex}"})
        if transfer != "plain":
            del self.headers["content-length"]
        if transfer == "gzip":
            self.headers["content-encoding"] = "gzip"
        self.size_bytes = size_bytes
        self._service = service
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Send the file in pieces, read beside the event loop."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        with self._path.open("rb") as file:
            read = functools.partial(file.read, _PIECE_BYTES)
            remaining = self.size_bytes
            # The last piece is marked as the last: a client that has it may be gone before one more read is done.
            while remaining > 0 and (piece := await self._service.reading(read)):
                remaining -= len(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": remaining > 0})
        if remaining > 0 or not self.size_bytes:
            await send({"type": "http.response.body"})
