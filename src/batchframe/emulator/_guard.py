"""Turns web pages away: a browser on this machine reaches the emulator for whatever page is open in it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect, Request

from batchframe.emulator import _errors as errors
from batchframe.emulator._hosts import Hosts, without_port
from batchframe.emulator._replying import on_error

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Receive, Scope, Send


class Guard:
    """Refuses calls under a foreign name and calls of foreign pages, the control plane's, which needs no key, included.

    No reply permits a page of another origin to read it; but a page may do harm without reading a reply.
    """

    def __init__(self, app: ASGIApp, allowed_hosts: Iterable[str]) -> None:
        self._app = app
        self._hosts = Hosts(allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a call on, or refuse it."""
        request = Request(scope, receive) if scope["type"] == "http" else None
        refused = None if request is None else self._refusal(request)
        if request is None or refused is None:
            await self._app(scope, receive, send)
            return
        # Read first: a reply before the end of the request would reach clients as a broken connection.
        with contextlib.suppress(ClientDisconnect):
            async for _ in request.stream():
                pass
        await (await on_error(request, refused))(scope, receive, send)

    def _refusal(self, request: Request) -> errors.ApiError | None:
        # Without a Host it is HTTP/1.0, and no browser.
        host = request.headers.get("host")
        server = request.scope.get("server")
        if host is not None and not self._hosts.are_called(host, server and server[0]):
            return errors.foreign_host(without_port(host))
        origin = request.headers.get("origin")
        if origin is not None:
            return None if urlsplit(origin).netloc == host else errors.foreign_page(origin)
        # Browsers send no Origin with links, images and scripts; they say where the page that has them is from.
        site = request.headers.get("sec-fetch-site", "none")
        return None if site in {"none", "same-origin"} else errors.foreign_page(site)
