"""The calls of the service, between HTTP and the modules that do the work."""

from __future__ import annotations

import functools
import gzip
import re
import shutil
from typing import TYPE_CHECKING

from batchframe.emulator import _errors as errors
from batchframe.emulator._batches.batch_object import check_expires_after
from batchframe.emulator._batches.files import PURPOSES, check_batch_file
from batchframe.emulator._http import azure_filters
from batchframe.emulator._http.connection_faults import take_effect
from batchframe.emulator._http.replies import FileReply, json_body, owner_of, page, reply, service_of
from batchframe.emulator._http.uploads import receive
from batchframe.emulator._service.intake import add_upload, check_upload, present_file

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.requests import Request
    from starlette.responses import Response

    from batchframe.emulator._config.dialects import Dialect

_FILES_PER_PAGE = 10_000
_BATCHES_PER_PAGE, _MAX_BATCHES_PER_PAGE = 20, 100
_MAX_IDS = 200
# A bound on the digits: Python refuses to parse thousands of them.
_INTEGER = re.compile(r"-?[0-9]{1,18}")


async def create_file(request: Request) -> Response:
    """``POST /v1/files``."""
    service = service_of(request)
    limit_bytes = service.settings.effective_max_file_bytes
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
        life_seconds = _life_seconds(upload.fields, service.settings.profile)
        if upload.size_bytes > limit_bytes:
            raise errors.file_too_large(limit_bytes)
        if purpose == "batch":
            await service.reading(functools.partial(check_batch_file, path, upload.filename))
            if service.settings.profile.validates_uploads:
                await check_upload(service, path)
        await take_effect(request)
        file = add_upload(
            service,
            path,
            upload.filename,
            purpose,
            life_seconds=life_seconds,
            owner=owner_of(request),
            take_faults=service.file_faults.take,
        )
    status = service.settings.profile.created_status
    headers = {"location": str(request.url.replace(path=f"{request.url.path}/{file.id}"))} if status == 201 else None  # noqa: PLR2004
    return reply(present_file(service, file), status=status, headers=headers)


def _life_seconds(fields: dict[str, str], dialect: Dialect) -> int | None:
    anchor, text = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if dialect.is_azure:
        # The documents have both spellings: brackets, as the SDK writes, and dots.
        anchor, text = fields.get("expires_after.anchor", anchor), fields.get("expires_after.seconds", text)
    if anchor is None and text is None:
        return None
    seconds = int(text) if text is not None and _INTEGER.fullmatch(text) else text
    return check_expires_after("expires_after", anchor, seconds, dialect)


async def list_files(request: Request) -> Response:
    """``GET /v1/files``."""
    query = request.query_params
    service = service_of(request)
    files = service.files.newest_first(owner_of(request))
    order = query.get("order", "desc")
    if order not in {"asc", "desc"}:
        raise errors.wrong_value("order", order, ["asc", "desc"])
    if order == "asc":
        files.reverse()
    if "purpose" in query:
        files = [file for file in files if file.purpose == query["purpose"]]
    return page(
        request,
        files,
        default=_FILES_PER_PAGE,
        max_limit=_FILES_PER_PAGE,
        not_found=errors.no_such_file,
        present=functools.partial(present_file, service),
    )


async def retrieve_file(request: Request) -> Response:
    """``GET /v1/files/{id}``."""
    service = service_of(request)
    return reply(present_file(service, service.files.retrieve(request.path_params["id"], owner_of(request))))


async def delete_file(request: Request) -> Response:
    """``DELETE /v1/files/{id}``."""
    return reply(service_of(request).files.delete(request.path_params["id"], owner_of(request)))


async def file_content(request: Request) -> Response:
    """``GET /v1/files/{id}/content``."""
    service = service_of(request)
    file = service.files.get(request.path_params["id"], owner_of(request))
    path, transfer = service.files.path(file.id), service.settings.download
    if transfer != "gzip" or "gzip" not in request.headers.get("accept-encoding", ""):
        return FileReply(service, path, file.bytes, transfer="chunked" if transfer == "chunked" else "plain")
    compressed = await service.reading(functools.partial(_compressed, path))
    return FileReply(service, compressed, compressed.stat().st_size, transfer="gzip")


def _compressed(path: Path) -> Path:
    """Compress a file next to it, once."""
    compressed = path.with_suffix(".gz")
    if not compressed.exists():
        with path.open("rb") as source, gzip.open(compressed, "wb", compresslevel=1) as target:
            shutil.copyfileobj(source, target)
    return compressed


async def create_batch(request: Request) -> Response:
    """``POST /v1/batches``."""
    body = await json_body(request)
    await take_effect(request)
    service = service_of(request)
    key = request.headers.get("idempotency-key") if service.settings.profile.takes_idempotency_key else None
    job = await service.create_batch(body, owner_of(request), key)
    return reply(job.faults.remember(service.present(job)))


async def list_batches(request: Request) -> Response:
    """``GET /v1/batches``."""
    service = service_of(request)
    batches = service.newest_first(owner_of(request))
    if service.settings.profile.is_azure:
        matches = azure_filters.batch_filter(request.query_params)
        batches = [job for job in batches if matches(job.batch)]
        if azure_filters.is_ascending(request.query_params):
            batches.reverse()
    is_by_cursor = service.settings.profile.pages_by_cursor
    ids = request.query_params.getlist("id") if is_by_cursor else []
    if len(ids) > _MAX_IDS:
        raise errors.array_length("id", len(ids), _MAX_IDS, above=True)
    if ids:
        batches = [job for job in batches if job.id in ids]
    return page(
        request,
        batches,
        default=_BATCHES_PER_PAGE,
        max_limit=_MAX_BATCHES_PER_PAGE,
        not_found=errors.no_such_batch,
        present=service.present_in_list,
        key="value" if "value_list" in service.settings.effective_oddities else "data",
        is_by_cursor=is_by_cursor,
    )


async def retrieve_batch(request: Request) -> Response:
    """``GET /v1/batches/{id}``."""
    service = service_of(request)
    job = service.job(request.path_params["id"], owner_of(request))
    job.faults.count_retrieve(job.batch)
    return reply(job.faults.remember(service.present(job)))


async def cancel_batch(request: Request) -> Response:
    """``POST /v1/batches/{id}/cancel``."""
    service = service_of(request)
    return reply(service.present(service.cancel_batch(request.path_params["id"], owner_of(request))))
