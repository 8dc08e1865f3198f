"""The services that are spoken like, as data: where OpenAI and the two Azure surfaces differ."""

from __future__ import annotations

from typing import Literal, NamedTuple

DialectName = Literal["openai", "azure", "azure-v1"]
_THIRTY_DAYS = 2_592_000


class Dialect(NamedTuple):
    """One service."""

    name: DialectName
    prefix: str
    """What stands before ``/files`` and ``/batches``."""
    is_azure: bool = False
    needs_api_version: bool = False
    max_requests: int = 50_000
    life_seconds: int | None = _THIRTY_DAYS
    """How long a batch file is kept when nothing was said; None: for ever."""
    shortest_life_seconds: int = 3_600
    longest_life_seconds: int = _THIRTY_DAYS
    expires: bool = True
    """Whether a batch ends with its window; Azure's go on until they are done or cancelled."""
    created_status: int = 200
    """The HTTP status of an upload."""
    first_file_status: str = "processed"
    """What an upload's reply says of the file."""
    is_old_object: bool = False
    """Whether the batch object is that of 2024: its keys in alphabetical order, no ``model``, no ``usage``."""


_AZURE = Dialect(
    "azure-v1",
    "/openai/v1",
    is_azure=True,
    max_requests=100_000,
    life_seconds=None,
    shortest_life_seconds=1_209_600,
    expires=False,
)
DIALECTS: dict[DialectName, Dialect] = {
    "openai": Dialect("openai", "/v1"),
    "azure": _AZURE._replace(
        name="azure",
        prefix="/openai",
        needs_api_version=True,
        created_status=201,
        first_file_status="pending",
        is_old_object=True,
    ),
    "azure-v1": _AZURE,
}
