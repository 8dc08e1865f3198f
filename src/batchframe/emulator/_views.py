"""The calls of the service: HTTP in, HTTP out; what they do is in the modules they call."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from batchframe.emulator import _errors as errors
from batchframe.emulator._batches import check_expires_after
from batchframe.emulator._disturbance import take_effect
from batchframe.emulator._files import PURPOSES, check_batch_file
from batchframe.emulator._replying import FileReply, json_body, page, reply, service_of
from batchframe.emulator._uploads import receive

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

_FILES_PER_PAGE = 10_000
_BATCHES_PER_PAGE, _MOST_BATCHES_PER_PAGE = 20, 100


async def create_file(request: Request) -> Response:
    """``POST /v1/files``."""
    service = service_of(request)
    limit_bytes = service.settings.max_file_bytes
    with service.scratch() as folder:
        path = folder / "upload"
        upload = await receive(request, path, limit_bytes)
        purpose = upload.fields.get("purpose")
        if upload.filename is None:
            raise errors.missing("file")
        if purpose is None:
            raise errors.missing("purpose")
        if purpose not in PURPOSES:
            raise errors.wrong_value("purpose", purpose, PURPOSES)
        life_seconds = _life_seconds(upload.fields)
        if upload.size_bytes > limit_bytes:
            raise errors.file_too_large(limit_bytes)
        if purpose == "batch":
            await service.reading(functools.partial(check_batch_file, path, upload.filename))
        await take_effect(request)
        file = service.files.add(path, filename=upload.filename, purpose=purpose, life_seconds=life_seconds)
    return reply(file)


def _life_seconds(fields: dict[str, str]) -> int | None:
    anchor, text = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if anchor is None and text is None:
        return None
    seconds = int(text) if text is not None and text.lstrip("-").isdecimal() else text
    return check_expires_after("expires_after", anchor, seconds)


async def list_files(request: Request) -> Response:
    """``GET /v1/files``."""
    query = request.query_params
    files = service_of(request).files.newest_first()
    order = query.get("order", "desc")
    if order not in {"asc", "desc"}:
        raise errors.wrong_value("order", order, ["asc", "desc"])
    if order == "asc":
        files.reverse()
    if "purpose" in query:
        files = [file for file in files if file.purpose == query["purpose"]]
    return page(request, files, default=_FILES_PER_PAGE, most=_FILES_PER_PAGE, absent=errors.no_such_file)


async def retrieve_file(request: Request) -> Response:
    """``GET /v1/files/{id}``."""
    return reply(service_of(request).files.get(request.path_params["id"]))


async def delete_file(request: Request) -> Response:
    """``DELETE /v1/files/{id}``."""
    return reply(service_of(request).files.delete(request.path_params["id"]))


async def file_content(request: Request) -> Response:
    """``GET /v1/files/{id}/content``."""
    service = service_of(request)
    file = service.files.get(request.path_params["id"])
    return FileReply(service, service.files.path(file.id), file.bytes)


async def create_batch(request: Request) -> Response:
    """``POST /v1/batches``."""
    body = await json_body(request)
    await take_effect(request)
    service = service_of(request)
    return reply(service.show(service.create_batch(body)))


async def list_batches(request: Request) -> Response:
    """``GET /v1/batches``."""
    service = service_of(request)
    return page(
        request,
        service.listed(),
        default=_BATCHES_PER_PAGE,
        most=_MOST_BATCHES_PER_PAGE,
        absent=errors.no_such_batch,
        show=service.show,
        key="value" if "value_list" in service.settings.chosen_oddities else "data",
    )


async def retrieve_batch(request: Request) -> Response:
    """``GET /v1/batches/{id}``."""
    service = service_of(request)
    job = service.job(request.path_params["id"])
    job.troubles.retrieved(job.batch)
    return reply(service.show(job))


async def cancel_batch(request: Request) -> Response:
    """``POST /v1/batches/{id}/cancel``."""
    service = service_of(request)
    return reply(service.show(service.cancel_batch(request.path_params["id"])))
