"""Which call answers at which path."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import Route

from batchframe.emulator import _control as control
from batchframe.emulator import _errors as errors
from batchframe.emulator import _views as views
from batchframe.emulator._disturbance import View, disturbed
from batchframe.emulator._replying import service_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from batchframe.emulator._faults import Call

CALLS: tuple[tuple[str, str, Call, View], ...] = (
    ("POST", "/v1/files", "create_file", views.create_file),
    ("GET", "/v1/files", "list_files", views.list_files),
    ("GET", "/v1/files/{id}", "retrieve_file", views.retrieve_file),
    ("DELETE", "/v1/files/{id}", "delete_file", views.delete_file),
    ("GET", "/v1/files/{id}/content", "file_content", views.file_content),
    ("POST", "/v1/batches", "create_batch", views.create_batch),
    ("GET", "/v1/batches", "list_batches", views.list_batches),
    ("GET", "/v1/batches/{id}", "retrieve_batch", views.retrieve_batch),
    ("POST", "/v1/batches/{id}/cancel", "cancel_batch", views.cancel_batch),
)
CONTROL: tuple[tuple[str, tuple[str, ...], View], ...] = (
    ("/_emulator/health", ("GET",), control.health),
    ("/_emulator/ledger", ("GET",), control.ledger),
    ("/_emulator/calls", ("GET",), control.calls),
    ("/_emulator/reset", ("POST",), control.reset),
    ("/_emulator/settings", ("GET", "PATCH"), control.settings),
    ("/_emulator/faults", ("GET", "POST", "DELETE"), control.faults),
    ("/_emulator/row-faults", ("GET", "POST", "DELETE"), control.row_faults),
    ("/_emulator/batch-faults", ("GET", "POST", "DELETE"), control.batch_faults),
    ("/_emulator/step", ("POST",), control.step),
    ("/_emulator/expire", ("POST",), control.expire),
)
# What the service has and the emulator does not: answered with 501, other paths with the service's 404.
NOT_EMULATED = (
    "audio", "assistants", "chat", "completions", "containers", "conversations", "embeddings", "evals", "fine_tuning",
    "images", "models", "moderations", "organization", "realtime", "responses", "threads", "uploads", "vector_stores",
    "videos",
)  # fmt: skip


def routes() -> list[Route]:
    """Build the route table; the last route takes what no other did."""
    table = [_route(method, path, call, view) for method, path, call, view in CALLS]
    table += [Route(path, view, methods=list(methods)) for path, methods, view in CONTROL]
    # Methods of known paths that no route took, then all other paths.
    every = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    paths = dict.fromkeys([path for _, path, _, _ in CALLS] + [path for path, _, _ in CONTROL])
    table += [Route(path, _wrong_method, methods=every) for path in paths]
    table.append(Route("/{path:path}", _unknown, methods=every))
    return table


def _route(method: str, path: str, call: Call, view: View) -> Route:
    async def answer(request: Request) -> Response:
        service = service_of(request)
        service.calls[call] += 1
        fault = service.faults.take(call)
        # A fault stands for what happens on the way, so it comes before the key is looked at.
        if fault is None:
            _authenticate(request)
            return await view(request)
        return await disturbed(fault, request, view)

    return Route(path, answer, methods=[method])


def _authenticate(request: Request) -> None:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise errors.unauthorized()
    accepted = service_of(request).settings.api_keys
    if accepted and key not in accepted:
        raise errors.wrong_key(key)


async def _wrong_method(request: Request) -> Response:
    raise errors.wrong_method(request.method, request.url.path)


async def _unknown(request: Request) -> Response:
    path = request.url.path
    first = path.removeprefix("/v1/").split("/")[0]
    if path.startswith("/v1/") and first in NOT_EMULATED:
        _authenticate(request)
        raise errors.not_emulated(f"{request.method} {path}")
    raise errors.no_such_path(request.method, path)
