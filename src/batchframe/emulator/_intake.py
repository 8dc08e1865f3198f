"""What comes in, and what is looked at when it does: uploads, results, the input file of a new batch."""

from __future__ import annotations

import functools
import os
import time
from typing import TYPE_CHECKING

import msgspec

from batchframe.emulator import _errors as errors
from batchframe.emulator._files import File, Handling, handling
from batchframe.emulator._validation import Validation, validate

if TYPE_CHECKING:
    from pathlib import Path

    from batchframe.emulator._service import Service


def add_upload(
    service: Service, path: Path, filename: str, purpose: str, *, life_seconds: int | None, owner: str
) -> File:
    """Take over an uploaded file, unless its quota is used up."""
    dialect, room = service.settings.speaks, service.settings.storage_bytes
    if room is not None and service.files.total_bytes() + path.stat().st_size > room:
        raise errors.storage_full(room)
    if life_seconds is None and purpose == "batch":
        life_seconds = dialect.life_seconds
    if dialect.is_azure and purpose == "batch":
        _check_quota(service, have_expiry=life_seconds is not None)
    faults = service.file_faults.take()
    for fault in faults:
        if fault.kind == "short":
            os.truncate(path, int(path.stat().st_size * fault.at))
    file = _file(service, path, filename, purpose, life_seconds, is_output=False)
    handled = handling(faults, owner, service.settings.pending_polls)
    file.status = dialect.first_file_status
    if handled.pending or handled.ends_as != "processed":
        file.status = "pending" if dialect.is_azure else "uploaded"
    return service.files.add(path, file, handled)


def add_output(service: Service, path: Path, filename: str, life_seconds: int | None, owner: str) -> File:
    """Take over a result file."""
    life_seconds = life_seconds or service.settings.speaks.life_seconds
    file = _file(service, path, filename, "batch_output", life_seconds, is_output=True)
    return service.files.add(path, file, Handling(owner))


def show_file(service: Service, file: File) -> File:
    """Return a file object as clients see it."""
    status = service.files.status(file)
    if "null_file_status" in service.settings.chosen_oddities and status == "pending":
        status = None
    return msgspec.structs.replace(file, status=status)


def _file(
    service: Service, path: Path, filename: str, purpose: str, life_seconds: int | None, *, is_output: bool
) -> File:
    now = int(time.time())
    return File(
        id=service.ids.draw(service.settings.speaks.output_id if is_output else service.settings.speaks.file_id),
        bytes=path.stat().st_size,
        created_at=now,
        expires_at=None if life_seconds is None else now + life_seconds,
        filename=filename,
        purpose=purpose,
    )


def _check_quota(service: Service, *, have_expiry: bool) -> None:
    most = service.settings.files_with_expiry if have_expiry else service.settings.files_without_expiry
    if service.files.count_batch_inputs(have_expiry=have_expiry) >= most:
        raise errors.too_many_files(most, have_expiry=have_expiry)


async def check_upload(service: Service, path: Path) -> None:
    """Refuse a file for what is wrong with its lines; the words of services that do so are not known."""
    settings = service.settings
    endpoint = next(iter(settings.speaks.endpoints))
    with path.open("rb") as source:
        is_forwarded = service.upstream is not None
        work = functools.partial(validate, source, endpoint, settings, service.abort, is_forwarded=is_forwarded)
        found = (await service.in_thread(work)).errors
    if found:
        where = "" if found[0].line is None else f"Line {found[0].line}: "
        message = f"{where}{found[0].message} ({len(found)} errors in the file)"
        raise errors.ApiError(message, param=found[0].param, code=found[0].code)


async def check_input(service: Service, file_id: str, endpoint: str, owner: str) -> Validation | None:
    """Look at a file before a batch is created of it, as far as the dialect and the settings ask for that.

    Azure refuses a file that is not processed. What validation finds in a file is of use here only when errors,
    or too many tokens, are refused at once.
    """
    settings, is_azure = service.settings, service.settings.speaks.is_azure
    try:
        file = service.files.get(file_id, owner)
    except errors.ApiError:
        return None
    if is_azure:
        service.files.poll(file)
        if file.status != "processed":
            raise errors.file_not_processed(file_id, file.status)
    if not (is_azure and settings.errors_at_create) and settings.over_limit_at != "create":
        return None
    with service.files.path(file_id).open("rb") as source:
        is_forwarded = service.upstream is not None
        work = functools.partial(validate, source, endpoint, settings, service.abort, is_forwarded=is_forwarded)
        validation = await service.in_thread(work)
    if validation.errors and is_azure and settings.errors_at_create:
        raise errors.refused_file(validation.errors)
    return None if validation.errors else validation
