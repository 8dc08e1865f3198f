"""Carrying out the faults of API calls, on the call and on its connection."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, cast

from starlette.requests import Request
from starlette.responses import Response

from batchframe.emulator import _errors as errors
from batchframe.emulator._http.replies import service_of

if TYPE_CHECKING:
    import asyncio

    from starlette.types import Message, Receive, Scope, Send

    from batchframe.emulator._faults.call_faults import CallFault
    from batchframe.emulator._service.service import Service

View = Callable[[Request], Awaitable[Response]]


class NoReply(Response):
    """A reply that is never sent: it waits until the server notices that the connection is gone."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Wait for the end of the connection."""
        await _disconnected(receive)


class _TruncatedError(Exception):
    """The reply has been sent as far as it goes."""


class TruncatedReply(Response):
    """A reply that ends after a fraction of its bytes."""

    def __init__(self, whole: Response, fraction: float) -> None:
        super().__init__()
        self._whole = whole
        self._fraction = fraction

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the beginning of the reply and close the connection."""
        remaining_bytes = 0

        async def send_some(message: Message) -> None:
            nonlocal remaining_bytes
            if message["type"] == "http.response.start":
                header = dict(message["headers"]).get(b"content-length")
                size_bytes = int(header) if header else getattr(self._whole, "size_bytes", 0)
                remaining_bytes = int(size_bytes * self._fraction)
            else:
                piece = message.get("body", b"")[:remaining_bytes]
                remaining_bytes -= len(piece)
                message = {**message, "body": piece, "more_body": True}
            await send(message)
            if message["type"] == "http.response.body" and not remaining_bytes:
                raise _TruncatedError

        with contextlib.suppress(_TruncatedError):
            await self._whole(scope, receive, send_some)
        # Closed, not aborted, so that the bytes sent so far arrive.
        _transport(scope).close()
        await _disconnected(receive)


class SlowConnection:
    """A connection that carries so many bytes per second."""

    def __init__(self, service: Service, bytes_per_second: float) -> None:
        self._service = service
        self._bytes_per_second = bytes_per_second

    def request(self, request: Request) -> Request:
        """Make a request arrive slowly."""

        async def receive() -> Message:
            message = await request.receive()
            await self._take_time(message)
            return message

        return Request(request.scope, receive)

    def reply(self, whole: Response) -> Response:
        """Make a reply leave slowly."""

        async def send_slowly(scope: Scope, receive: Receive, send: Send) -> None:
            async def send_piece(message: Message) -> None:
                await self._take_time(message)
                await send(message)

            await whole(scope, receive, send_piece)

        return cast("Response", send_slowly)

    async def _take_time(self, message: Message) -> None:
        await self._service.sleep(len(message.get("body", b"")) / self._bytes_per_second)


async def with_fault(fault: CallFault, request: Request, view: View) -> Response:
    """Run `view` under a fault."""
    if fault.kind == "status":
        retry = {} if fault.retry_after is None else {"retry-after": f"{fault.retry_after:g}"}
        headers = {**retry, **fault.headers}
        # Read to the end first: an early reply would reach clients as a broken connection.
        async for _ in request.stream():
            pass
        raise errors.by_status(fault.status, headers)
    if fault.kind == "delay":
        await service_of(request).sleep(fault.seconds)
        return await view(request)
    if fault.kind == "slow":
        slow = SlowConnection(service_of(request), fault.bytes_per_second)
        return slow.reply(await view(slow.request(request)))
    _transport(request.scope)
    if fault.kind == "reset_before":
        reset(request)
        return NoReply()
    if fault.kind == "truncate":
        return TruncatedReply(await view(request), fault.at)
    if fault.kind == "late":
        request.state.late = fault
    with contextlib.suppress(errors.ApiError):
        await view(request)
    # A late call was reset already, unless it was refused before it took effect.
    reset(request)
    return NoReply()


async def take_effect(request: Request) -> None:
    """Mark the point where a view starts to act: a ``late`` fault drops the connection here, and waits."""
    fault: CallFault | None = getattr(request.state, "late", None)
    if fault is not None:
        reset(request)
        await service_of(request).sleep(fault.seconds)


def reset(request: Request) -> None:
    """Drop the connection as a crashed host does: with a reset, and nothing flushed."""
    transport = _transport(request.scope)
    if transport.is_closing():
        return
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _transport(scope: Scope) -> asyncio.Transport:
    transport: asyncio.Transport | None = scope.get("state", {}).get("transport")
    if transport is None:
        message = "this fault needs the connection itself: run the emulator with serve(), not under another server"
        raise errors.ApiError(message, status=501, kind="emulator_error")
    return transport
