"""What can be spoken like, as data: where OpenAI and the two Azure surfaces differ; others are in ``_services``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchframe.emulator._oddities import Oddity

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
_AS_THEY_ARE = {path: path for path in OPENAI_ENDPOINTS}
DAY_SECONDS = 86_400
_THIRTY_DAYS = 30 * DAY_SECONDS


class Trial(NamedTuple):
    """An endpoint for trying out, with a model of its own and small files."""

    endpoint: str
    model: str
    max_requests: int
    max_bytes: int


class Dialect(NamedTuple):
    """One service."""

    name: str
    prefix: str
    """What stands before ``/files`` and ``/batches``."""
    is_azure: bool = False
    needs_api_version: bool = False
    endpoints: Mapping[str, str] = _AS_THEY_ARE
    """How an endpoint may be spelt, in a batch and in its lines, and which one is meant."""
    windows: Mapping[str, float] = {"24h": DAY_SECONDS}
    """The completion windows, and their seconds."""
    parameters: tuple[str, ...] = ()
    """What a create takes besides OpenAI's parameters."""
    models: tuple[str, ...] = ()
    """The only models that can be asked; empty: those of the table."""
    trial: Trial | None = None
    max_requests: int = 50_000
    # "200 MB" in the service's words; read as 200 MiB, the larger meaning, so that nothing is refused too early.
    max_file_bytes: int = 200 << 20
    max_line_bytes: int | None = None
    """How long a line may be; None: as long as the file."""
    enqueued_requests: int | None = None
    """Requests for embeddings of one model that may be enqueued; None: any number."""
    life_seconds: int | None = _THIRTY_DAYS
    """How long a batch file is kept when nothing was said; None: for ever."""
    shortest_life_seconds: int = 3_600
    longest_life_seconds: int = _THIRTY_DAYS
    takes_expiry: bool = True
    """Whether an upload or a create may say how long files are kept."""
    expires: bool = True
    """Whether a batch ends with its window; Azure's go on until they are done or cancelled."""
    created_status: int = 200
    """The HTTP status of an upload."""
    first_file_status: str = "processed"
    """What an upload's reply says of the file."""
    is_old_object: bool = False
    """Whether the batch object is that of 2024: its keys in alphabetical order, no ``model``, no ``usage``."""
    file_id: str = "file-{base62}"
    output_id: str = "file-{base62}"
    batch_id: str = "batch_{hex}"
    oddities: tuple[Oddity, ...] = ()
    """Those that are always on."""
    codes: Mapping[str, str] = {}
    """Codes of validation that are not OpenAI's, by what is wrong."""
    skips_bad_lines: bool = False
    """Whether lines that fail validation are left out, and the batch goes on without them."""
    fails_into_output: bool = False
    """Whether requests that failed stand in the output file, counted as completed."""
    ends_with_user: bool = False
    """Whether the last message of each request must be the user's."""
    deletes_input: bool = False
    """Whether the input file goes with the end of its batch, unless the create says otherwise."""
    validates_uploads: bool = False
    """Whether a file is validated, and perhaps refused, when it is uploaded."""
    takes_idempotency_key: bool = False
    """Whether a create with the ``Idempotency-Key`` of an earlier one returns that one's batch."""
    pages_by_cursor: bool = False
    """Whether the list of batches is paged by ``cursor`` and ``paging.next_cursor``, and takes ``id``."""


_AZURE = Dialect(
    "azure-v1",
    "/openai/v1",
    is_azure=True,
    # Both spellings are in the documents: with and without the version.
    endpoints={spelt: path for path in AZURE_ENDPOINTS for spelt in (path, path.removeprefix("/v1"))},
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
