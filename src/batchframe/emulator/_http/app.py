"""The ASGI application."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.middleware import Middleware

from batchframe.emulator._config.backing import Backing
from batchframe.emulator._errors import ApiError
from batchframe.emulator._http.guard import Guard
from batchframe.emulator._http.replies import on_error
from batchframe.emulator._http.routes import routes
from batchframe.emulator._service.service import Service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from batchframe.emulator._config.settings import Settings


def build_app(settings: Settings, backing: Backing | None = None) -> Starlette:
    """Build the application; its service lives from startup to shutdown."""
    backing = backing or Backing()

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service = Service(settings, backing)
        app.state.service = service
        try:
            yield
        finally:
            await service.close()

    return Starlette(
        routes=routes(),
        lifespan=lifespan,
        middleware=[Middleware(Guard, allowed_hosts=backing.allowed_hosts)],
        exception_handlers={ApiError: on_error, Exception: on_error},
    )
