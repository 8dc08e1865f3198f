"""The entry points, which need the extra; importing the package does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from batchframe.emulator._settings import Settings, changed

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from batchframe.emulator._server import ThreadServer


def create_app(settings: Settings | None = None) -> Starlette:
    """Build the emulator as an ASGI application, for a server of your own.

    Parameters
    ----------
    settings
        None takes the defaults.

    Notes
    -----
    Faults that drop or cut connections need the connection itself, which only :func:`serve` and
    :func:`batchframe.testing.emulator` provide; under another server they answer 501.
    """
    _need_extra()
    from batchframe.emulator._app import build_app  # noqa: PLC0415 - only with the extra

    return build_app(settings or Settings())


def serve(host: str = "127.0.0.1", port: int = 8080, settings: Settings | None = None) -> None:
    """Run the emulator until it is interrupted; one line on stderr says its base URL when it is ready.

    Parameters
    ----------
    host, port
        Where to listen; port 0 takes a free one.
    settings
        None takes the defaults.
    """
    _need_extra()
    from batchframe.emulator._server import run  # noqa: PLC0415 - only with the extra

    run(host, port, settings or Settings())


def thread_server(settings: dict[str, Any]) -> ThreadServer:
    """Make a server that runs in a thread, as :func:`batchframe.testing.emulator` uses it."""
    _need_extra()
    from batchframe.emulator._server import ThreadServer  # noqa: PLC0415 - only with the extra

    try:
        return ThreadServer(changed(Settings(), settings))
    except msgspec.ValidationError as exc:
        raise TypeError(f"not a setting of the emulator: {exc}") from exc


def _need_extra() -> None:
    try:
        import python_multipart  # noqa: F401, PLC0415 - only with the extra
        import starlette  # noqa: F401, PLC0415
        import uvicorn  # noqa: F401, PLC0415
    except ImportError as exc:
        raise ImportError(f'the emulator needs its extra: pip install "batchframe[emulator]" ({exc})') from exc
