"""The settings, which can be changed while the service runs."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from batchframe.emulator._config.dialects import DIALECTS, Dialect, DialectName
from batchframe.emulator._config.oddities import AZURE_ODDITIES, Oddity
from batchframe.emulator._config.services import SERVICES, ServiceName

Progression = Literal["instant", "timed", "stepped"]


class Seconds(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How long a batch stays in each status when ``progression`` is ``"timed"``.

    These are lower bounds, as the work itself may take longer. The rows of a batch are executed evenly over
    ``in_progress``, so that its counts grow, and a cancel finds part of the work done.
    """

    validating: float = 0.05
    in_progress: float = 0.1
    finalizing: float = 0.05
    cancelling: float = 0.05


class Settings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The settings of one emulator; all of them can be changed while it runs."""

    dialect: DialectName = "openai"
    service: ServiceName | None = None
    """Another service with OpenAI's batch API, with its paths, limits and oddities."""
    progression: Progression = "timed"
    """``timed``: by the clock; ``stepped``: by ``POST /_emulator/step``; ``instant``: as fast as possible."""
    seconds: Seconds = Seconds()
    execution_steps: int = 2
    """The steps of ``in_progress`` when stepped; each executes an equal share of the rows."""
    seed: int | None = None
    """Makes ids and the order of output lines repeatable; None: they are random."""
    shuffle: bool = True
    models: tuple[str, ...] = ()
    """Model names to accept besides those of the model table."""
    deployments: dict[str, str] = {}
    """Azure: the models by deployment. Empty: each model is deployed under its own name."""
    standard_deployments: tuple[str, ...] = ()
    """Azure: deployments whose SKU is not for batches."""
    errors_at_create: bool = False
    """Azure: an invalid file is refused at the create, as ``{"errors": {"data": […]}}``."""
    pending_polls: int = 0
    """The polls for which an uploaded file is still pending; Azure refuses batches of pending files."""
    files_without_expiry: int = 500
    """Azure: the most batch files without an expiry."""
    files_with_expiry: int = 10_000
    """Azure: the most batch files with an expiry."""
    api_keys: tuple[str, ...] = ()
    """The accepted keys; empty accepts any."""
    isolate: Literal["project", "key"] | None = None
    """Callers see only the files and batches of their ``OpenAI-Project``, or of their key; None: all."""
    organization: str = "org-emulator"
    window_seconds: float | None = None
    """Seconds from the creation of a batch to its expiry; None: its completion window."""
    max_requests: int | None = None
    """The most requests of a file; None: the service's limit, 50,000 for OpenAI and 100,000 for Azure."""
    max_embedding_inputs: int = 50_000
    """The most inputs for embeddings in a batch, over all its requests."""
    max_file_bytes: int | None = None
    """The largest file; None: the service's limit, 200 MiB for OpenAI and Azure."""
    max_errors: int = 100
    """The most validation errors that are listed. The service's own cap is not documented."""
    batches_per_hour: int = 2000
    storage_bytes: int | None = None
    """The most bytes of all files together; None: no limit."""
    enqueued_token_limit: int | None = None
    """The most enqueued tokens per model, counted as in the usage of the answers; None: no limit."""
    enqueued_token_limits: dict[str, int] = {}
    """The same by model, or by deployment; these take precedence."""
    enqueued_request_limit: int | None = None
    """The most enqueued requests for embeddings per model; None: the service's limit."""
    over_limit_at: Literal["validation", "create"] = "validation"
    """How a batch over the limit is refused: it fails at validation, or the create gets 400."""
    token_release_seconds: float = 0.0
    """How long a batch holds its tokens after its end."""
    refused_hold_tokens: bool = False
    """Whether a batch that fails for the limit holds its tokens too, until they are released."""
    download: Literal["plain", "chunked", "gzip"] = "plain"
    """How file contents are sent: with a length, without one, or compressed for clients that accept it."""
    oddities: tuple[Oddity, ...] | Literal["all"] = ()
    """The oddities to show, by name; ``"all"``: all of Azure's."""

    def __post_init__(self) -> None:
        """Refuse contradictions."""
        if self.service is not None and self.dialect != "openai":
            raise ValueError(f"the service {self.service!r} speaks the dialect 'openai', not {self.dialect!r}")

    @property
    def profile(self) -> Dialect:
        """The dialect of the service."""
        return DIALECTS[self.dialect] if self.service is None else SERVICES[self.service]

    @property
    def effective_max_requests(self) -> int:
        """The most requests of a file."""
        return self.max_requests or self.profile.max_requests

    @property
    def effective_max_file_bytes(self) -> int:
        """The largest file."""
        return self.profile.max_file_bytes if self.max_file_bytes is None else self.max_file_bytes

    @property
    def limits_tokens(self) -> bool:
        """Whether enqueued tokens have to be counted."""
        return self.token_limit() is not None or bool(self.enqueued_token_limits)

    @property
    def request_limit(self) -> int | None:
        """The most enqueued requests for embeddings per model."""
        return self.profile.enqueued_requests if self.enqueued_request_limit is None else self.enqueued_request_limit

    def token_limit(self, model: str = "") -> int | None:
        """Return the most enqueued tokens of a model."""
        return self.enqueued_token_limits.get(model, self.enqueued_token_limit)

    @property
    def effective_oddities(self) -> tuple[Oddity, ...]:
        """The names of all oddities to show."""
        return (*self.profile.oddities, *(AZURE_ODDITIES if self.oddities == "all" else self.oddities))


def changed(settings: Settings, changes: dict[str, Any]) -> Settings:
    """Merge `changes` into `settings`, inner objects too; unknown names are refused."""
    merged = msgspec.to_builtins(settings)
    for name, value in changes.items():
        inner = merged.get(name)
        merged[name] = {**inner, **value} if isinstance(inner, dict) and isinstance(value, dict) else value
    return msgspec.convert(merged, Settings)
