"""The dialects, as data: how OpenAI and the two surfaces of Azure differ. ``services`` has the other services."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchframe.emulator._config.oddities import Oddity

DialectName = Literal["openai", "azure", "azure-v1"]
# Source: the `endpoint` of openai.types.batch_create_params (3.57.0), without "/v1/videos": that API was shut down on
# 24 September 2026, says the page of sora-2, and the guide to batches no longer lists it (read 2026-11-28).
OPENAI_ENDPOINTS = (
    "/v1/responses",
    "/v1/chat/completions",
    "/v1/embeddings",
    "/v1/completions",
    "/v1/moderations",
    "/v1/images/generations",
    "/v1/images/edits",
)
# Azure's v1 reference still lists it (read 2026-11-28).
AZURE_ENDPOINTS = (*OPENAI_ENDPOINTS, "/v1/videos")
_CANONICAL = {path: path for path in OPENAI_ENDPOINTS}
DAY_SECONDS = 86_400
_THIRTY_DAYS = 30 * DAY_SECONDS


class Trial(NamedTuple):
    """An endpoint for trials, with a model of its own and small files."""

    endpoint: str
    model: str
    max_requests: int
    max_bytes: int


class Dialect(NamedTuple):
    """The facts of one service."""

    name: str
    prefix: str
    """The path before ``/files`` and ``/batches``."""
    is_azure: bool = False
    needs_api_version: bool = False
    endpoints: Mapping[str, str] = _CANONICAL
    """The spellings of endpoints, in batches and lines, and the endpoint that each stands for."""
    windows: Mapping[str, float] = {"24h": DAY_SECONDS}
    """The completion windows, in seconds."""
    parameters: tuple[str, ...] = ()
    """Parameters of a create besides OpenAI's."""
    models: tuple[str, ...] = ()
    """The only models of the service; empty: those of the model table."""
    trial: Trial | None = None
    max_requests: int = 50_000
    # "200 MB", read as 200 MiB, the larger meaning, so that nothing is refused too early.
    max_file_bytes: int = 200 << 20
    max_line_bytes: int | None = None
    """The longest line; None: as long as the file."""
    enqueued_requests: int | None = None
    """The most enqueued requests for embeddings per model; None: no limit."""
    life_seconds: int | None = _THIRTY_DAYS
    """How long a batch file is kept by default; None: for ever."""
    shortest_life_seconds: int = 3_600
    longest_life_seconds: int = _THIRTY_DAYS
    takes_expiry: bool = True
    """Whether an upload or a create may set how long files are kept."""
    expires: bool = True
    """Whether a batch expires; Azure's run until they are done or cancelled."""
    created_status: int = 200
    """The HTTP status of an upload."""
    first_file_status: str = "processed"
    """The file's status in the reply to an upload."""
    is_old_object: bool = False
    """Whether the batch object is that of 2024: its keys in alphabetical order, no ``model``, no ``usage``."""
    file_id: str = "file-{base62}"
    output_id: str = "file-{base62}"
    batch_id: str = "batch_{hex}"
    oddities: tuple[Oddity, ...] = ()
    """The oddities that are always on."""
    codes: Mapping[str, str] = {}
    """Validation codes that differ from OpenAI's, by reason."""
    skips_bad_lines: bool = False
    """Whether the batch goes on without the lines that fail validation."""
    fails_into_output: bool = False
    """Whether failed requests go to the output file, counted as completed."""
    ends_with_user: bool = False
    """Whether the last message of each request must be the user's."""
    deletes_input: bool = False
    """Whether the input file is deleted at the end of its batch, unless the create says otherwise."""
    validates_uploads: bool = False
    """Whether a file is validated at upload, and refused if it is invalid."""
    takes_idempotency_key: bool = False
    """Whether a create that repeats an ``Idempotency-Key`` returns the earlier batch."""
    pages_by_cursor: bool = False
    """Whether the list of batches is paged by ``cursor`` and ``paging.next_cursor``, and takes ``id``."""


_AZURE = Dialect(
    "azure-v1",
    "/openai/v1",
    is_azure=True,
    # The documents have both spellings: with and without the version.
    endpoints={spelling: path for path in AZURE_ENDPOINTS for spelling in (path, path.removeprefix("/v1"))},
    max_requests=100_000,
    life_seconds=None,
    shortest_life_seconds=1_209_600,
    expires=False,
    file_id="file-{hex}",
    output_id="file-{uuid}",
    batch_id="batch_{uuid}",
)
DIALECTS: dict[DialectName, Dialect] = {
    # "Embeddings APIs have a limit of 1 million enqueued requests at a time": help.openai.com, Batch API FAQ.
    "openai": Dialect("openai", "/v1", enqueued_requests=1_000_000),
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
