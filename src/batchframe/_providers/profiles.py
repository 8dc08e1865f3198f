"""``Provider``: the limits and spellings of a batch service. Each number has its source beside it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from batchframe._core.checks import is_count
from batchframe._core.exceptions import OptionError, suggestion
from batchframe._endpoints.registry import ENDPOINTS
from batchframe._providers.limits import AZURE_MAX_BYTES, AZURE_MAX_REQUESTS, Limits
from batchframe._providers.other_forms import OTHER_FORMS

if TYPE_CHECKING:
    from collections.abc import Mapping

# 50,000 requests and 200 MB: OpenAI's API specification and SDK docstrings (S). The specification does not say whether
# its MB is 10^6 or 2^20 bytes, so the smaller value is used, here and below.
_SAFE_LIMITS = Limits(max_requests=50_000, max_bytes=200_000_000)
_CHAT, _RESPONSES, _EMBEDDINGS, _COMPLETIONS = (
    f"/v1/{path}" for path in ("chat/completions", "responses", "embeddings", "completions")
)


@dataclass(frozen=True, kw_only=True)
class Provider:
    """A service with OpenAI's batch API: its limits and spellings.

    Without ``provider=`` the client determines the provider. An `openai.AzureOpenAI` means Azure. For an
    `openai.OpenAI`, the host of its base URL decides. If the host is unknown, its path does: ``/openai/v1`` is Azure's
    v1 API, so a private host or a gateway with that path counts as Azure, with settings that OpenAI accepts too: at
    most 50,000 requests per file, and endpoints with ``/v1``. A host whose service is known to have another batch API
    is refused with the reason, unless ``provider=`` is passed. Any other host counts as OpenAI.

    Parameters
    ----------
    name
        The name, as in ``provider="openai"``.
    limits
        The limits of an input file. None means OpenAI's 50,000 requests or 200 MB.
    max_embeddings
        Maximum number of embedding inputs in an input file, whatever ``limits`` allow.
    max_enqueued_embeddings
        Maximum number of embedding requests in flight for one model.
    completion_windows
        The accepted completion windows, the default first.
    max_request_bytes
        Maximum size of one request line in bytes; None if the service has no such limit.
    served_endpoints
        The endpoints with batches, in OpenAI's spelling. Empty if they are not known; then none is refused.
    endpoints
        OpenAI's endpoint to the service's spelling, for ``endpoint`` of the batch and ``url`` of each line. Other
        endpoints are sent unchanged.
    batch_endpoints
        OpenAI's endpoint to the ``endpoint`` of the batch, if it differs from the ``url`` of the lines.
    file_expiry_seconds
        The minimum and maximum ``expires_after`` in seconds. None if they are not known; empty if the service accepts
        no ``expires_after``.
    expires_files
        The expiry of input files in seconds if no ``expires_after`` is passed. None leaves it to the service.
    min_poll_seconds
        The minimum time between two polls, in seconds.
    hosts
        The hosts of the service in base URLs. A leading dot stands for all subdomains.
    filters_batches
        Whether the list of batches accepts ``$filter`` and ``$orderby``.
    batch_parameters
        Parameters for every create call besides OpenAI's.
    idempotency_header
        The header that makes a create call safe to repeat: the same key returns the first batch. None if there is
        none, as at OpenAI; then creates are sent once.

    Examples
    --------
    >>> ours = bf.Provider(name="ours", limits=bf.Limits(max_requests=1_000, max_bytes=10_000_000))
    >>> ours.name, ours.limits.max_requests
    ('ours', 1000)
    """

    name: str
    limits: Limits = field(default_factory=Limits)
    # "restricted to a maximum of 50,000 embedding inputs across all requests in the batch": OpenAI's API specification
    # (S). "A limit of 1 million enqueued requests at a time": help.openai.com, Batch API FAQ (D); its refusal was seen
    # (W). Microsoft's how-to says that Azure accepts no embeddings; its v1 reference copies OpenAI's sentence (D). For
    # other services nothing is known (U), so the safe limits apply.
    max_embeddings: int = 50_000
    max_enqueued_embeddings: int = 1_000_000
    completion_windows: tuple[str, ...] = ("24h",)
    max_request_bytes: int | None = None
    served_endpoints: tuple[str, ...] = ()
    endpoints: Mapping[str, str] = field(default_factory=dict, hash=False)
    batch_endpoints: Mapping[str, str] = field(default_factory=dict, hash=False)
    file_expiry_seconds: tuple[int, int] | tuple[()] | None = None
    expires_files: int | None = None
    min_poll_seconds: float = 0.0
    hosts: tuple[str, ...] = ()
    filters_batches: bool = False
    batch_parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)
    idempotency_header: str | None = None

    def __post_init__(self) -> None:
        for names in ("completion_windows", "served_endpoints", "hosts"):
            if isinstance(getattr(self, names), str):
                msg = f"{names} must be a tuple of texts, got the text {getattr(self, names)!r}"
                raise OptionError(msg)
        if not self.name or not isinstance(self.name, str):
            msg = f"name must be a non-empty text, got {self.name!r}"
            raise OptionError(msg)
        if not self.completion_windows:
            msg = f"completion_windows of {self.name!r} is empty: pass the window of the service, such as '24h'"
            raise OptionError(msg)
        for name in ("max_embeddings", "max_enqueued_embeddings"):
            value = getattr(self, name)
            _check_count(name, value)
        if self.max_request_bytes is not None:
            _check_count("max_request_bytes", self.max_request_bytes)
        if self.limits.max_requests is None or self.limits.max_bytes is None:
            object.__setattr__(self, "limits", self.limits.over(_SAFE_LIMITS))

    def limits_of(self, endpoint: str, limits: Limits) -> Limits:
        """Return the limits of an endpoint's input files: the user's, otherwise the service's.

        An embeddings row is one input, so the limit of embedding inputs also applies.
        """
        limits = limits.over(self.limits)
        if not ENDPOINTS[endpoint].counts_inputs:
            return limits
        return replace(limits, max_requests=min(limits.max_requests or self.max_embeddings, self.max_embeddings))

    def most_line_bytes(self, limits: Limits) -> int:
        """Return the maximum size of a request line in bytes."""
        assert limits.max_bytes is not None
        return min(limits.max_bytes, self.max_request_bytes or limits.max_bytes)

    def most_enqueued_of(self, endpoint: str) -> int | None:
        """Return the maximum number of an endpoint's requests in flight; None for no limit."""
        return self.max_enqueued_embeddings if ENDPOINTS[endpoint].counts_inputs else None

    def serves(self, host: str) -> bool:
        """Whether a host belongs to this service."""
        return any(host == known or (known.startswith(".") and host.endswith(known)) for known in self.hosts)


def _check_count(name: str, value: Any) -> None:
    if not is_count(value):
        msg = f"{name} must be a whole number of at least 1, got {value!r}"
        raise OptionError(msg)


# Confidence: S specification or SDK types; D the vendor's documentation; W seen on the wire; T a third party; U not
# known: nothing is claimed, and the safe limits apply. Read on 2026-11-28.
_PROFILES = (
    Provider(
        name="openai",
        limits=_SAFE_LIMITS,
        # "24h" only; 3600 to 2592000 seconds: OpenAI's API specification (S).
        completion_windows=("24h",),
        file_expiry_seconds=(3_600, 2_592_000),
        hosts=("api.openai.com", ".api.openai.com"),  # regional hosts, as eu.api.openai.com, are below it (T)
    ),
    Provider(
        name="azure",
        # 100,000 requests and 200 MB: limits.py (D). The v1 REST reference says 50,000, in a sentence copied from
        # OpenAI.
        limits=Limits(max_requests=AZURE_MAX_REQUESTS, max_bytes=AZURE_MAX_BYTES),
        # "If you set any other value than 24h your job will fail": Microsoft's how-to (D).
        completion_windows=("24h",),
        # Both seed documents spell it so in lines and batches (W). The v1 how-to has it for the batch, and accepts
        # /v1/chat/completions in lines (D). A line that differs from the batch is a url_mismatch (D).
        endpoints={_CHAT: "/chat/completions"},
        # "the system will read your input file to determine if chat completions or responses is needed": the how-to's
        # Python example for lines of /v1/responses (D).
        batch_endpoints={"/v1/responses": "/chat/completions"},
        # 14 to 30 days: the how-to (D); the v1 reference copies OpenAI's hour. A resource holds 500 input files
        # without an expiry, and 10,000 with one (D), so an expiry is always set.
        file_expiry_seconds=(1_209_600, 2_592_000),
        expires_files=2_592_000,
        # "we recommend waiting at least 60 seconds in between each status call": the how-to (D).
        min_poll_seconds=60.0,
        # Azure, Azure Government and Azure operated by 21Vianet (China): Microsoft's lists of endpoints (D).
        hosts=(
            *(f".openai.azure.{region}" for region in ("com", "us", "cn")),
            *(f".cognitiveservices.azure.{region}" for region in ("com", "us", "cn")),
            ".services.ai.azure.com",
        ),
        # $filter and $orderby: the how-to, for api-version 2025-04-01-preview, and the second seed document (D).
        filters_batches=True,
    ),
    Provider(
        name="groq",
        # 50,000 lines, "24h" to "7d": console.groq.com/docs/batch (D). Windows in between: U. 100 MB: the
        # docstrings of groq 1.7.0, files.create (S); the guide says 200 MB; the smaller number satisfies both.
        limits=Limits(max_requests=50_000, max_bytes=100_000_000),
        completion_windows=("24h", "7d"),
        # Only chat: types/batch_create_params.py of groq 1.7.0 (S).
        served_endpoints=(_CHAT,),
        hosts=("api.groq.com",),
    ),
    Provider(
        name="dashscope",
        # 50,000 requests, 500 MB, 6 MB a line: alibabacloud.com/help/en/model-studio/batch-inference of 2025-12-04 (D);
        # older pages say 100 MB. 24h: all of them.
        limits=Limits(max_requests=50_000, max_bytes=500_000_000),
        max_request_bytes=6_000_000,
        hosts=(
            *(f"dashscope{region}.aliyuncs.com" for region in ("", "-intl", "-us")),
            ".maas.aliyuncs.com",
        ),
    ),
    Provider(
        name="siliconflow",
        # 5,000 lines, 1 GB, windows of 24 to 336 hours: docs.siliconflow.cn/cn/userguide/guides/batch (D).
        limits=Limits(max_requests=5_000, max_bytes=1_000_000_000),
        completion_windows=tuple(f"{24 * days}h" for days in range(1, 15)),
        hosts=("api.siliconflow.cn", "api.siliconflow.com"),
    ),
    Provider(
        name="moonshot",
        # 100 MB: platform.kimi.ai/docs/api/batch-create (D), which names no number of requests (U). Windows from 12h
        # to 7d, 24h in the examples: a copy of the same page (T).
        limits=Limits(max_bytes=100_000_000),
        completion_windows=("24h", "12h", "1d", "3d", "7d"),
        hosts=("api.moonshot.cn", "api.moonshot.ai"),
    ),
    Provider(
        name="zhipu",
        # 50,000 requests, 100 MB: docs.bigmodel.cn, guide "Batch" (D). 10,000 for embeddings: its questions and
        # answers, cn/faq/batch-api-issues (D). /v4/chat/completions in batch and lines: the guide and its API
        # reference (D), and seen (W); /v4/embeddings: third-party clients (T).
        limits=Limits(max_requests=50_000, max_bytes=100_000_000),
        max_embeddings=10_000,
        served_endpoints=(_CHAT, _EMBEDDINGS),
        endpoints={_CHAT: "/v4/chat/completions", _EMBEDDINGS: "/v4/embeddings"},
        # Input files are deleted by default: API reference (D). They are needed to settle a create in doubt.
        batch_parameters={"auto_delete_input_file": False},
        hosts=("open.bigmodel.cn", "api.z.ai"),
    ),
    Provider(
        name="nebius",
        # 5,000,000 requests, 10 GB, only 24h: docs.tokenfactory.nebius.com/ai-models-inference/batch-inference (D). Its
        # limit of 500 batches does not matter here.
        limits=Limits(max_requests=5_000_000, max_bytes=10_000_000_000),
        hosts=("api.tokenfactory.nebius.com", "api.studio.nebius.com", "api.studio.nebius.ai"),
    ),
    Provider(
        name="doubleword",
        # Windows of 24 hours and of one: docs.doubleword.ai (D); autobatcher 0.12.0 uses only the first (T).
        # Limits: U.
        completion_windows=("24h", "1h"),
        hosts=("api.doubleword.ai",),
    ),
    Provider(
        name="parasail",
        # 50,000 requests, 500 MB: providers.py of its own package openai-batch 0.3.4 (S). Windows: U.
        limits=Limits(max_requests=50_000, max_bytes=500_000_000),
        hosts=("api.parasail.io",),
    ),
    Provider(
        name="perplexity",
        # 50,000 lines, 200 MB; files are kept 30 days, and expires_after and output_expires_after are refused:
        # docs.perplexity.ai, api-reference/files-create-post and batches-create-post (D).
        limits=_SAFE_LIMITS,
        file_expiry_seconds=(),
        # endpoint "/v1/responses" alone, and the header: generated/api.py of perplexityai 0.46.1 (S). "A repeat with
        # the same key returns the original batch": batches-create-post (D).
        served_endpoints=(_RESPONSES,),
        idempotency_header="Idempotency-Key",
        hosts=("api.perplexity.ai",),
    ),
    Provider(
        name="deepinfra",
        # Three endpoints, "24h", 3600 to 2592000 seconds: docs.deepinfra.com, batch/introduction and batch-endpoints
        # (D). 50,000 requests, 200 MB: batchlane 0.2.0, capabilities.py (T).
        limits=_SAFE_LIMITS,
        served_endpoints=(_CHAT, _COMPLETIONS, _EMBEDDINGS),
        file_expiry_seconds=(3_600, 2_592_000),
        hosts=("api.deepinfra.com",),
    ),
    Provider(
        name="novita",
        # Two endpoints; "48h", which "cannot be modified"; input files are kept 15 days: novita.ai/docs, guides/
        # llm-batch-api and api-reference/model-apis-llm-create-batch (D). Limits, and whether it keeps metadata: U.
        completion_windows=("48h",),
        served_endpoints=(_CHAT, _COMPLETIONS),
        hosts=("api.novita.ai",),
    ),
)

PROVIDERS: dict[str, Provider] = {profile.name: profile for profile in _PROFILES}
OPENAI = PROVIDERS["openai"]
# Azure's v1 API behind an unknown host: learn.microsoft.com, Foundry REST reference, "Create batch" (D). If it counted
# as OpenAI, its input files would have no expiry and fill the resource's quota. But a gateway may lead to OpenAI itself
# or to another service, so the settings must be valid for all of them. The reference lists the endpoints with /v1.
_BEHIND_A_GATEWAY = replace(PROVIDERS["azure"], limits=_SAFE_LIMITS, endpoints={}, batch_endpoints={}, hosts=())
_AZURE_PATH = "/openai/v1"


def provider_named(name: str) -> Provider:
    """Return the profile with a name.

    Raises
    ------
    OptionError
        The name is unknown.
    """
    if name not in PROVIDERS:
        msg = f"unknown provider {name!r}.{suggestion(name, PROVIDERS)} Known: {', '.join(sorted(PROVIDERS))}"
        raise OptionError(f"{msg}; for another service pass a bf.Provider(...)")
    return PROVIDERS[name]


def provider_of(base_url: str) -> Provider:
    """Return the profile of the service behind a base URL, by its host, otherwise by its path.

    ``/openai/v1`` at an unknown host is Azure's v1 API behind a private host or a gateway. (Groq and Novita have the
    same path, but known hosts.) Any other unknown host gets OpenAI's profile, whose limits are safe.

    Raises
    ------
    OptionError
        The host belongs to a service with another batch API.
    """
    try:
        parts = urlsplit(base_url)
        host = (parts.hostname or "").rstrip(".")
    except ValueError:  # brackets without a valid IPv6 address
        return OPENAI
    for other in OTHER_FORMS:
        if other.has(host):
            raise OptionError(other.refusal(host))
    has_azure_path = parts.path.rstrip("/").casefold().endswith(_AZURE_PATH)
    unknown = _BEHIND_A_GATEWAY if has_azure_path else OPENAI
    return next((profile for profile in _PROFILES if profile.serves(host)), unknown)
