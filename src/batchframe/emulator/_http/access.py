"""Access: keys, the API versions of Azure, and the owner whose files and batches a caller sees."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from batchframe.emulator import _errors as errors

if TYPE_CHECKING:
    from starlette.requests import Request

    from batchframe.emulator._config.settings import Settings

_DATED = re.compile(r"\d{4}-\d{2}-\d{2}(-preview)?")
# The first version with batches.
_FIRST_VERSION = "2024-07-01"


def admit(request: Request, settings: Settings) -> None:
    """Refuse a call with a wrong key or API version; set its owner."""
    dialect = settings.profile
    if dialect.needs_api_version:
        version = request.query_params.get("api-version", "")
        if not _DATED.fullmatch(version) or version[: len(_FIRST_VERSION)] < _FIRST_VERSION:
            raise errors.azure_not_found()
    elif dialect.is_azure and _DATED.fullmatch(request.query_params.get("api-version", "")):
        raise errors.azure_version(request.query_params["api-version"])
    key = _key(request, is_azure=dialect.is_azure)
    if settings.api_keys and key not in settings.api_keys:
        raise errors.azure_unauthorized() if dialect.is_azure else errors.wrong_key(key)
    owners = {"project": request.headers.get("openai-project", ""), "key": key, None: ""}
    request.state.owner = owners[settings.isolate]


def _key(request: Request, *, is_azure: bool) -> str:
    if is_azure and request.headers.get("api-key"):
        return request.headers["api-key"]
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise errors.azure_unauthorized() if is_azure else errors.unauthorized()
    return key
