"""The entry points. They need the extra; importing the package does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from batchframe.emulator._config.backing import DEFAULT_CONCURRENCY, Backing, split
from batchframe.emulator._config.settings import Settings, changed

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from starlette.applications import Starlette

    from batchframe.emulator._http.server import ThreadServer


def create_app(
    settings: Settings | None = None,
    *,
    upstream: str | None = None,
    upstream_key: str | None = None,
    concurrency: int = DEFAULT_CONCURRENCY,
    state_dir: str | os.PathLike[str] | None = None,
    allowed_hosts: Sequence[str] = (),
) -> Starlette:
    """Build the emulator as an ASGI application, for a server of your own.

    Parameters
    ----------
    settings
        None: the defaults.
    upstream, upstream_key, concurrency, state_dir, allowed_hosts
        As for :func:`serve`.

    Notes
    -----
    Faults that drop or cut connections need the connection itself, which only :func:`serve` and
    :func:`batchframe.testing.emulator` provide; under another server they answer 501.
    """
    _need_extra()
    from batchframe.emulator._http.app import build_app  # noqa: PLC0415 - only with the extra

    backing = Backing(
        upstream=upstream,
        upstream_key=upstream_key,
        concurrency=concurrency,
        state_dir=state_dir,
        allowed_hosts=allowed_hosts,
    )
    return build_app(settings or Settings(), backing)


def serve(
    host: str = "127.0.0.1",
    port: int = 8080,
    settings: Settings | None = None,
    *,
    upstream: str | None = None,
    upstream_key: str | None = None,
    concurrency: int = DEFAULT_CONCURRENCY,
    state_dir: str | os.PathLike[str] | None = None,
    allowed_hosts: Sequence[str] = (),
) -> None:
    """Run the emulator until it is interrupted. A line on stderr gives its base URL when it is ready.

    Parameters
    ----------
    host, port
        The address to listen on; port 0 picks a free port.
    settings
        None: the defaults.
    upstream
        The base URL of an OpenAI-compatible server (``http://127.0.0.1:8000/v1``) that answers the requests. Its
        replies become the result lines; 429, 5xx and broken connections are retried for about a minute. None: the
        emulator answers.
    upstream_key
        The key of that server. It is sent there, and never shown or written anywhere.
    concurrency
        The most requests that server gets at a time, over all batches.
    state_dir
        A folder for files, batches, results and the ledger, from which the next process goes on, however this one
        ended. At most the requests that were under way are executed twice. Only you can read its contents. None:
        nothing is kept.
    allowed_hosts
        Host names without a port, besides ``localhost`` and the address it listens on, under which the service may be
        called: ``["batches.example"]``. Calls under other names are refused, and so are calls by web pages.
    """
    _need_extra()
    from batchframe.emulator._http.server import run  # noqa: PLC0415 - only with the extra

    backing = Backing(
        upstream=upstream,
        upstream_key=upstream_key,
        concurrency=concurrency,
        state_dir=state_dir,
        allowed_hosts=allowed_hosts,
    )
    run(host, port, settings or Settings(), backing)


def thread_server(settings: dict[str, Any]) -> ThreadServer:
    """Make a server that runs in a thread, for :func:`batchframe.testing.emulator`.

    `settings` may include the other options of :func:`serve`.
    """
    _need_extra()
    from batchframe.emulator._http.server import ThreadServer  # noqa: PLC0415 - only with the extra

    backing, settings = split(settings)
    try:
        return ThreadServer(changed(Settings(), settings), backing)
    except msgspec.ValidationError as exc:
        raise TypeError(f"not a setting of the emulator: {exc}") from exc


def _need_extra() -> None:
    try:
        import python_multipart  # noqa: F401, PLC0415 - only with the extra
        import starlette  # noqa: F401, PLC0415
        import uvicorn  # noqa: F401, PLC0415
    except ImportError as exc:
        raise ImportError(f'the emulator needs its extra: pip install "batchframe[emulator]" ({exc})') from exc
