"""What can be tuned, before the start and while the service runs."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from batchframe.emulator._dialects import DIALECTS, Dialect, DialectName
from batchframe.emulator._oddities import AZURE_ODDITIES, Oddity
from batchframe.emulator._services import SERVICES, ServiceName

Progression = Literal["instant", "timed", "stepped"]


class Seconds(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How long a batch stays in each status when ``progression`` is ``"timed"``.

    The work itself may take longer; these are lower bounds, and the rows of a batch are executed evenly over
    ``in_progress``, so that its counts grow and a cancel finds part of the work done.
    """

    validating: float = 0.05
    in_progress: float = 0.1
    finalizing: float = 0.05
    cancelling: float = 0.05


class Settings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The settings of one emulator; every one of them can be changed while it runs."""

    dialect: DialectName = "openai"
    service: ServiceName | None = None
    """Another service that has OpenAI's batch API, with its paths, limits and oddities."""
    progression: Progression = "timed"
    """``timed`` by the clock, ``stepped`` by ``POST /_emulator/step``, ``instant`` as fast as the work goes."""
    seconds: Seconds = Seconds()
    execution_steps: int = 2
    """Steps that ``in_progress`` takes when stepped; each executes an equal share of the rows."""
    seed: int | None = None
    """Makes ids and the order of output lines repeatable; None draws them at random."""
    shuffle: bool = True
    models: tuple[str, ...] = ()
    """Model names to accept besides those of the table."""
    deployments: dict[str, str] = {}
    """Azure: the names of deployments and their models. Empty: each model is deployed under its own name."""
    standard_deployments: tuple[str, ...] = ()
    """Azure: deployments whose SKU is not for batches."""
    errors_at_create: bool = False
    """Azure: a file that fails validation is refused when the batch is created, as ``{"errors": {"data": […]}}``."""
    pending_polls: int = 0
    """For how many looks at an uploaded file it is not processed yet; Azure refuses to create batches of it."""
    files_without_expiry: int = 500
    """Azure: the quota of batch files that have no expiry."""
    files_with_expiry: int = 10_000
    """Azure: the quota of those that have one."""
    api_keys: tuple[str, ...] = ()
    """The accepted keys; empty accepts any."""
    isolate: Literal["project", "key"] | None = None
    """Whose files and batches a caller sees: those of its ``OpenAI-Project`` or of its key; None: all."""
    organization: str = "org-emulator"
    window_seconds: float | None = None
    """When an unfinished batch expires, counted from its creation; None: after its completion window."""
    max_requests: int | None = None
    """None takes the service's: 50,000, and 100,000 for Azure."""
    max_embedding_inputs: int = 50_000
    """How many inputs for embeddings a batch may have, over all its requests."""
    max_file_bytes: int | None = None
    """None takes the service's: "200 MB" in its words, read as 200 MiB."""
    max_errors: int = 100
    """Length at which the list of validation errors ends. The service's own cap is not documented."""
    batches_per_hour: int = 2000
    storage_bytes: int | None = None
    """The room for files; None: no end of it."""
    enqueued_token_limit: int | None = None
    """Tokens of one model that may be enqueued, counted as in the usage of the answers; None: any number."""
    enqueued_token_limits: dict[str, int] = {}
    """The same for models, or deployments, by name."""
    enqueued_request_limit: int | None = None
    """Requests for embeddings of one model that may be enqueued; None: as many as the service takes."""
    over_limit_at: Literal["validation", "create"] = "validation"
    """When a batch over the limit is refused: by failing later, or at once with 400."""
    token_release_seconds: float = 0.0
    """How long after its end a batch goes on holding its tokens."""
    refused_hold_tokens: bool = False
    """Whether a batch that fails for the limit holds its tokens too, until they are released."""
    download: Literal["plain", "chunked", "gzip"] = "plain"
    """How the content of files travels: with its length, without it, or compressed for clients that take that."""
    oddities: tuple[Oddity, ...] | Literal["all"] = ()
    """Spellings of the batch object, by name; ``"all"``: those of Azure's documents together."""

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if self.service is not None and self.dialect != "openai":
            raise ValueError(f"the service {self.service!r} speaks the dialect 'openai', not {self.dialect!r}")

    @property
    def speaks(self) -> Dialect:
        """The facts of the service that is spoken like."""
        return DIALECTS[self.dialect] if self.service is None else SERVICES[self.service]

    @property
    def most_requests(self) -> int:
        """How many requests a file may hold."""
        return self.max_requests or self.speaks.max_requests

    @property
    def most_file_bytes(self) -> int:
        """How large a file may be."""
        return self.speaks.max_file_bytes if self.max_file_bytes is None else self.max_file_bytes

    @property
    def limits_tokens(self) -> bool:
        """Whether enqueued tokens have to be counted."""
        return self.token_limit() is not None or bool(self.enqueued_token_limits)

    @property
    def request_limit(self) -> int | None:
        """How many requests for embeddings of one model may be enqueued."""
        return self.speaks.enqueued_requests if self.enqueued_request_limit is None else self.enqueued_request_limit

    def token_limit(self, model: str = "") -> int | None:
        """Return how many tokens of a model may be enqueued."""
        return self.enqueued_token_limits.get(model, self.enqueued_token_limit)

    @property
    def chosen_oddities(self) -> tuple[Oddity, ...]:
        """The oddities by name."""
        return (*self.speaks.oddities, *(AZURE_ODDITIES if self.oddities == "all" else self.oddities))


def changed(settings: Settings, changes: dict[str, Any]) -> Settings:
    """Merge `changes` into `settings`; inner objects are merged too, unknown names refused."""
    merged = msgspec.to_builtins(settings)
    for name, value in changes.items():
        inner = merged.get(name)
        merged[name] = {**inner, **value} if isinstance(inner, dict) and isinstance(value, dict) else value
    return msgspec.convert(merged, Settings)
