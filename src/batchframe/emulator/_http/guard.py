"""Keeps web pages out: a browser on this machine can reach the emulator on behalf of any page."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect, Request

from batchframe.emulator import _errors as errors
from batchframe.emulator._config.host_names import HostNames, without_port
from batchframe.emulator._http.replies import on_error

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Receive, Scope, Send


class Guard:
    """Refuses calls under a foreign host name, and calls made by web pages, to the control plane too.

    No reply allows a page of another origin to read it, but a page can do harm without reading replies.
    """

    def __init__(self, app: ASGIApp, allowed_hosts: Iterable[str]) -> None:
        self._app = app
        self._hosts = HostNames(allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a call on, or refuse it."""
        request = Request(scope, receive) if scope["type"] == "http" else None
        refusal = None if request is None else self._refusal(request)
        if request is None or refusal is None:
            await self._app(scope, receive, send)
            return
        # Read to the end first: an early reply would reach clients as a broken connection.
        with contextlib.suppress(ClientDisconnect):
            async for _ in request.stream():
                pass
        await (await on_error(request, refusal))(scope, receive, send)

    def _refusal(self, request: Request) -> errors.ApiError | None:
        # A call without a Host is HTTP/1.0, which no browser speaks.
        host = request.headers.get("host")
        server = request.scope.get("server")
        if host is not None and not self._hosts.include(host, server and server[0]):
            return errors.foreign_host(without_port(host))
        origin = request.headers.get("origin")
        if origin is not None:
            # After its scheme, an origin is written like a Host: the name, and the port unless it is the default.
            return None if origin.partition("://")[2] == host else errors.foreign_page(origin)
        # Browsers send no Origin with links, images and scripts, but they say how far away the page is.
        site = request.headers.get("sec-fetch-site", "none")
        return None if site in {"none", "same-origin"} else errors.foreign_page(site)
