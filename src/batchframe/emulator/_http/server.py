"""Servers of the application: in the foreground, or in a thread of a test."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from batchframe.emulator._http.app import build_app
from batchframe.emulator._service.storage import check_usable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from batchframe.emulator._config.backing import Backing
    from batchframe.emulator._config.dialects import Dialect
    from batchframe.emulator._config.settings import Settings
    from batchframe.emulator._service.service import Service

T = TypeVar("T")
_READY_SECONDS = 30.0
_TICK_SECONDS = 0.1
# How long calls under way may take when the server stops, and how often they are checked.
_GRACE_SECONDS, _PAUSE_SECONDS = 3.0, 0.001


class _Protocol(H11Protocol):
    """Gives the application its connection, so that faults can drop it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


class _Server(uvicorn.Server):
    """A server that reports when it listens, and that stops at once.

    uvicorn checks ten times a second whether it should stop, and then pauses for a tenth of a second. That would be
    most of the time of a test with an emulator of its own.
    """

    def __init__(self, app: Any, on_ready: Callable[[], None]) -> None:
        # Keep-alive outlasts the pauses of a polling client, so that its calls do not meet a closing connection.
        config = uvicorn.Config(
            app,
            http=_Protocol,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            timeout_keep_alive=120,
        )
        super().__init__(config)
        self._on_ready = on_ready
        self._stopping = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    def stop(self) -> None:
        """End the main loop; call it on the event loop's thread."""
        self.should_exit = True
        self._stopping.set()

    async def main_loop(self) -> None:
        """Tick as uvicorn does, until stopped; a signal is noticed at the next tick."""
        ticks = 0
        while not await self.on_tick(ticks):
            ticks += 1
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _TICK_SECONDS)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close everything as uvicorn does, but wait no longer than the calls under way."""
        for server in self.servers:
            server.close()
        for sock in sockets or ():
            sock.close()
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        end = time.monotonic() + _GRACE_SECONDS
        # uvicorn keeps sets of them, without an event for when they are empty.
        while (state.connections or state.tasks) and not self.force_exit and time.monotonic() < end:  # noqa: ASYNC110
            await asyncio.sleep(_PAUSE_SECONDS)
        for task in list(state.tasks):
            task.cancel()
        if not self.force_exit:
            await self.lifespan.shutdown()


def listen(host: str, port: int) -> socket.socket:
    """Open the socket to serve on; port 0 picks a free port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio turns off Nagle's delays, 40 ms per reply, only for explicit TCP sockets.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(2048)
    except OSError:
        sock.close()
        raise
    return sock


def endpoint(sock: socket.socket) -> str:
    """Return the URL of the service, without a path."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(host: str, port: int, settings: Settings, backing: Backing) -> None:
    """Serve until interrupted."""
    # The host that the user gave must work, be it a name or "every address".
    if host:
        backing = msgspec.structs.replace(backing, allowed_hosts=(*backing.allowed_hosts, host))
    check_usable(backing.state_dir)
    sock = listen(host, port)
    url = endpoint(sock) + settings.profile.prefix

    def announce() -> None:
        sys.stderr.write(f"batchframe emulator: {url}\n")
        sys.stderr.flush()

    # uvicorn shuts down at the first signal, and then raises it again.
    with contextlib.suppress(KeyboardInterrupt):
        _Server(build_app(settings, backing), announce).run(sockets=[sock])


class ThreadServer:
    """A server in a thread of its own; gives access to its event loop."""

    def __init__(self, settings: Settings, backing: Backing) -> None:
        check_usable(backing.state_dir)
        self._app = build_app(settings, backing)
        self._ready = threading.Event()
        self._server = _Server(self._app, self._on_ready)
        self._socket = listen("127.0.0.1", 0)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="batchframe-emulator", daemon=True)
        self.endpoint = endpoint(self._socket)

    def start(self) -> None:
        """Start, and return once the server answers."""
        self._thread.start()
        if not self._ready.wait(_READY_SECONDS) or not self._thread.is_alive():
            raise RuntimeError(f"the emulator did not start within {_READY_SECONDS:g} s")

    def stop(self) -> None:
        """Stop, and return once everything is cleaned up."""
        if self._loop is not None:
            # The loop may have ended by itself.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._server.stop)
        self._thread.join()

    @property
    def dialect(self) -> Dialect:
        """The dialect that the service speaks now."""
        service: Service = self._app.state.service
        return service.settings.profile

    def call(self, function: Callable[[Service], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine function on the service, in its event loop; return the result."""
        assert self._loop is not None, "start() comes first"
        return asyncio.run_coroutine_threadsafe(function(self._app.state.service), self._loop).result()

    def _run(self) -> None:
        try:
            asyncio.run(self._server.serve(sockets=[self._socket]))
        finally:
            self._ready.set()

    def _on_ready(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ready.set()
