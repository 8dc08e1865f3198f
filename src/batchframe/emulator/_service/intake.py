"""Checks of what comes in: uploads, and the input file of a new batch."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from batchframe.emulator import _errors as errors
from batchframe.emulator._batches.files import new_handling
from batchframe.emulator._batches.output_files import file_object

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from batchframe.emulator._batches.files import File
    from batchframe.emulator._batches.host import Host
    from batchframe.emulator._batches.validation import Validation
    from batchframe.emulator._faults.file_faults import FileFault


def add_upload(
    host: Host,
    path: Path,
    filename: str,
    purpose: str,
    *,
    life_seconds: int | None,
    owner: str,
    take_faults: Callable[[], Sequence[FileFault]],
) -> File:
    """Add an uploaded file, unless a quota is used up; its bytes are moved. `take_faults` returns its faults."""
    settings, dialect = host.settings, host.settings.profile
    if settings.storage_bytes is not None:
        _check_storage(host, path.stat().st_size, settings.storage_bytes)
    if life_seconds is None and purpose == "batch":
        life_seconds = dialect.life_seconds
    if dialect.is_azure and purpose == "batch":
        _check_quota(host, have_expiry=life_seconds is not None)
    faults = take_faults()
    for fault in faults:
        if fault.kind == "short":
            os.truncate(path, int(path.stat().st_size * fault.at))
    file = file_object(host.draw_id(dialect.file_id), path, filename, purpose, life_seconds)
    handling = new_handling(faults, owner, settings.pending_polls)
    file.status = dialect.first_file_status
    if handling.pending or handling.ends_as != "processed":
        file.status = "pending" if dialect.is_azure else "uploaded"
    return host.files.add(path, file, handling)


def present_file(host: Host, file: File) -> File:
    """Return a file object as clients see it."""
    status = host.files.status(file)
    if "null_file_status" in host.settings.effective_oddities and status == "pending":
        status = None
    return msgspec.structs.replace(file, status=status)


def _check_storage(host: Host, size_bytes: int, max_bytes: int) -> None:
    if host.files.total_bytes() + size_bytes > max_bytes:
        raise errors.storage_full(max_bytes)


def _check_quota(host: Host, *, have_expiry: bool) -> None:
    max_files = host.settings.files_with_expiry if have_expiry else host.settings.files_without_expiry
    if host.files.count_batch_inputs(have_expiry=have_expiry) >= max_files:
        raise errors.too_many_files(max_files, have_expiry=have_expiry)


async def check_upload(host: Host, path: Path) -> None:
    """Refuse an upload with invalid lines; the sentences of services that do so are not known."""
    endpoint = next(iter(host.settings.profile.endpoints))
    with path.open("rb") as source:
        invalid = (await host.validate(source, endpoint)).errors
    if invalid:
        first = invalid[0]
        where = "" if first.line is None else f"Line {first.line}: "
        message = f"{where}{first.message} ({len(invalid)} errors in the file)"
        raise errors.ApiError(message, param=first.param, code=first.code)


async def check_input(host: Host, file_id: str, endpoint: str, owner: str) -> Validation | None:
    """Check the input file of a new batch, as far as the dialect and the settings do so at once.

    Azure refuses a file that is not processed. The file is validated only if its errors, or too many tokens, are to be
    refused now; the validation is returned when it found no errors.
    """
    settings, is_azure = host.settings, host.settings.profile.is_azure
    try:
        file = host.files.get(file_id, owner)
    except errors.ApiError:
        return None
    if is_azure:
        host.files.poll(file)
        if file.status != "processed":
            raise errors.file_not_processed(file_id, file.status)
    refuses_errors = is_azure and settings.errors_at_create
    if not refuses_errors and settings.over_limit_at != "create":
        return None
    with host.files.path(file_id).open("rb") as source:
        validation = await host.validate(source, endpoint)
    if validation.errors and refuses_errors:
        raise errors.refused_file(validation.errors)
    return None if validation.errors else validation
