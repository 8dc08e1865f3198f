"""The control plane under ``/_emulator/``, for tests. It needs no key, but refuses web pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from batchframe.emulator import _errors as errors
from batchframe.emulator._faults.batch_faults import BatchFault
from batchframe.emulator._faults.call_faults import CallFault
from batchframe.emulator._faults.file_faults import FileFault
from batchframe.emulator._faults.row_faults import RowFault
from batchframe.emulator._http.replies import json_body, reply, service_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


T = TypeVar("T")


class Queue(Protocol[T]):
    """The faults of one kind that are still to come."""

    waiting: list[T]

    def add(self, fault: T) -> None:
        """Add a fault at the end."""

    def clear(self) -> None:
        """Drop all faults."""


async def health(_: Request) -> Response:
    """Reply that the emulator is up."""
    return reply({"status": "ok"})


async def ledger(request: Request) -> Response:
    """Show how often each request was executed; ``?summary=1`` shows only totals."""
    service = service_of(request)
    is_summary = request.query_params.get("summary", "0") not in {"", "0", "false"}
    count = service.ledger.summary if is_summary else service.ledger.counts
    return reply(await service.reading(count))


async def calls(request: Request) -> Response:
    """Count the API calls by name."""
    return reply(service_of(request).calls)


async def reset(request: Request) -> Response:
    """Drop everything."""
    await service_of(request).reset()
    return reply({"status": "ok"})


async def settings(request: Request) -> Response:
    """Show the settings; ``PATCH`` changes some of them."""
    service = service_of(request)
    if request.method == "PATCH":
        _configure(request, await _object(request))
    return reply(service.settings)


def _configure(request: Request, changes: dict[str, Any]) -> None:
    try:
        service_of(request).configure(changes)
    except msgspec.ValidationError as exc:
        raise errors.ApiError(str(exc)) from exc


async def faults(request: Request) -> Response:
    """Show the faults of calls; ``POST`` adds one or a list of them, ``DELETE`` drops them."""
    return await _faults(request, service_of(request).faults, CallFault)


async def row_faults(request: Request) -> Response:
    """Show, add or drop the faults of rows, in the same way."""
    return await _faults(request, service_of(request).row_faults, RowFault)


async def batch_faults(request: Request) -> Response:
    """Show, add or drop the faults of batches, in the same way."""
    return await _faults(request, service_of(request).batch_faults, BatchFault)


async def file_faults(request: Request) -> Response:
    """Show, add or drop the faults of uploads, in the same way."""
    return await _faults(request, service_of(request).file_faults, FileFault)


async def _faults(request: Request, queue: Queue[T], kind: type[T]) -> Response:
    if request.method == "DELETE":
        queue.clear()
    if request.method == "POST":
        body = await json_body(request)
        try:
            faults = [msgspec.convert(each, kind) for each in (body if isinstance(body, list) else [body])]
        except msgspec.ValidationError as exc:
            raise errors.ApiError(str(exc)) from exc
        for fault in faults:
            queue.add(fault)
    return reply(queue.waiting)


async def step(request: Request) -> Response:
    """Advance all batches by one step, or by ``{"steps": n}``."""
    steps = (await _object(request)).get("steps", 1)
    if not isinstance(steps, int):
        raise errors.wrong_type("steps", "an integer", steps)
    await service_of(request).step(steps)
    return reply({"status": "ok"})


async def expire(request: Request) -> Response:
    """End the window of all batches, or of ``{"batch_id": …}``, now."""
    batch_id = (await _object(request)).get("batch_id")
    if batch_id is not None and not isinstance(batch_id, str):
        raise errors.wrong_type("batch_id", "a string", batch_id)
    return reply({"expired": service_of(request).expire(batch_id)})


async def _object(request: Request) -> dict[str, Any]:
    if not await request.body():
        return {}
    body = await json_body(request)
    if not isinstance(body, dict):
        raise errors.wrong_type("body", "an object", body)
    return body
