"""The routes: which call answers at which path."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route

from batchframe.emulator import _errors as errors
from batchframe.emulator._config.dialects import DIALECTS
from batchframe.emulator._config.services import SERVICES
from batchframe.emulator._http import control, views
from batchframe.emulator._http.access import admit
from batchframe.emulator._http.connection_faults import View, with_fault
from batchframe.emulator._http.replies import service_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from batchframe.emulator._faults.call_faults import Call

CALLS: tuple[tuple[str, str, Call, View], ...] = (
    ("POST", "/files", "create_file", views.create_file),
    ("GET", "/files", "list_files", views.list_files),
    ("GET", "/files/{id}", "retrieve_file", views.retrieve_file),
    ("DELETE", "/files/{id}", "delete_file", views.delete_file),
    ("GET", "/files/{id}/content", "file_content", views.file_content),
    ("POST", "/batches", "create_batch", views.create_batch),
    ("GET", "/batches", "list_batches", views.list_batches),
    ("GET", "/batches/{id}", "retrieve_batch", views.retrieve_batch),
    ("POST", "/batches/{id}/cancel", "cancel_batch", views.cancel_batch),
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
    ("/_emulator/file-faults", ("GET", "POST", "DELETE"), control.file_faults),
    ("/_emulator/step", ("POST",), control.step),
    ("/_emulator/expire", ("POST",), control.expire),
)
# Paths that the service has and the emulator does not: they get 501, unknown ones the service's 404.
NOT_EMULATED = (
    "audio", "assistants", "chat", "completions", "containers", "conversations", "deployments", "embeddings", "evals",
    "fine_tuning", "images", "models", "moderations", "organization", "realtime", "responses", "threads", "uploads",
    "vector_stores", "videos",
)  # fmt: skip


def routes() -> list[Route]:
    """Build the route table; the last route takes every path that no other took."""
    table, paths = [], []
    prefixes = dict.fromkeys(dialect.prefix for dialect in (*DIALECTS.values(), *SERVICES.values()))
    for prefix in prefixes:
        for method, path, call, view in CALLS:
            table.append(_route(method, path, prefix, (call, view)))
            paths.append(prefix + path)
    table += [Route(path, view, methods=list(methods)) for path, methods, view in CONTROL]
    paths += [path for path, _, _ in CONTROL]
    # Other methods of known paths, then all other paths.
    every = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    table += [Route(path, _wrong_method, methods=every) for path in dict.fromkeys(paths)]
    table.append(Route("/{path:path}", _unknown, methods=every))
    return table


def _route(method: str, path: str, prefix: str, target: tuple[Call, View]) -> Route:
    call, view = target

    async def answer(request: Request) -> Response:
        service = service_of(request)
        if service.settings.profile.prefix != prefix:
            return await _unknown(request)
        service.calls[call] += 1
        fault = service.faults.take(call)
        # A fault happens on the way, so it comes before the check of the key.
        if fault is None:
            return await admitted(request)
        return await with_fault(fault, request, admitted)

    async def admitted(request: Request) -> Response:
        admit(request, service_of(request).settings)
        try:
            return await view(request)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it: the caller has hung up

    return Route(prefix + path, answer, methods=[method])


async def _wrong_method(request: Request) -> Response:
    if not _is_spoken(request):
        return await _unknown(request)
    raise errors.wrong_method(request.method, request.url.path)


def _is_spoken(request: Request) -> bool:
    path = request.url.path
    return path.startswith(("/_emulator/", f"{service_of(request).settings.profile.prefix}/"))


async def _unknown(request: Request) -> Response:
    path, dialect = request.url.path, service_of(request).settings.profile
    rest = path.removeprefix(f"{dialect.prefix}/").split("/")
    # Files and batches do not belong to a deployment, although the SDK can be made to look for them there.
    is_misplaced = rest[0] == "deployments" and rest[2:3] in (["files"], ["batches"])
    if path.startswith(f"{dialect.prefix}/") and rest[0] in NOT_EMULATED and not is_misplaced:
        admit(request, service_of(request).settings)
        raise errors.not_emulated(f"{request.method} {path}")
    if dialect.is_azure and not path.startswith("/_emulator/"):
        raise errors.azure_not_found()
    raise errors.no_such_path(request.method, path)
