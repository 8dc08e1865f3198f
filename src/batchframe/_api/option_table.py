"""The table of options: name, default and meaning of each, and what a call may pass for it.

``scripts/generate_signatures.py`` writes the signatures of the public calls, and their docstrings, from this table.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from batchframe._endpoints.registry import DEFAULT
from batchframe._providers.limits import Limits
from batchframe._requests.request_spec import RequestSpec
from batchframe._results.answer_format import AnswerFormat
from batchframe._runs.run_settings import RunSettings

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl


def _option(accepts: str, meaning: str) -> dict[str, str]:
    """Return the metadata of an option: the type of what a call may pass, as source, and what it means.

    None stands for the default of every option but ``model``, and is not spelled out.
    """
    return {"accepts": accepts, "meaning": meaning}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Everything a call may say beside frame and prompt; `batchframe._api.options.parse` makes one of the arguments.

    ``body`` holds the request parameters by name, each a value or a per-row expression; ``answer_format`` says what
    the answers will be.
    """

    model: str = field(metadata=_option("str", "The model id, such as ``gpt-4o-mini``, or the Azure deployment name."))
    system: Any = field(
        default=None,
        metadata=_option("str | pl.Expr", "Template or expression of a system message, which is put first."),
    )
    images: tuple[str | pl.Expr, ...] = field(
        default=(),
        metadata=_option(
            "Images", "Column, expression, or a list of these: URLs (String) or bytes (Binary) of images; see Notes."
        ),
    )
    image_detail: str | None = field(
        default=None,
        metadata=_option(
            'Literal["low", "high", "auto", "original"]',
            "How closely the model looks at the images; None for the service's own default.",
        ),
    )
    endpoint: str = field(
        default=DEFAULT.path,
        metadata=_option(
            "Endpoint", "Or ``/v1/responses``, ``/v1/embeddings``, ``/v1/completions`` or ``/v1/moderations``."
        ),
    )
    response_format: Any = field(
        default=None,
        metadata=_option(
            "ResponseFormat",
            "A pydantic model, a JSON schema or a ``pl.Struct``: ``response`` becomes a Struct of that shape; see "
            "Notes. The service's own form is sent as it is, and ``response`` stays text.",
        ),
    )
    custom_id: str | None = field(
        default=None,
        metadata=_option("str", "Column with unique ids of the requests; None for ``row-<index>``."),
    )
    client: Any = field(
        default=None,
        metadata=_option(
            "openai.OpenAI", "An ``openai.OpenAI`` or ``openai.AzureOpenAI``; None makes one from the environment."
        ),
    )
    provider: Any = field(
        default=None,
        metadata=_option(
            "str | Provider",
            'The service: a name, such as ``"openai"`` or ``"azure"``, or a `Provider`. None recognises it by the '
            "client.",
        ),
    )
    limits: Limits = field(
        default_factory=Limits,
        metadata=_option(
            "Limits", "How large input files may be and how much may be in flight; None is the provider's."
        ),
    )
    max_attempts: int = field(
        default=3,
        metadata=_option("int", "How often a row may be submitted that was not executed or came to nothing."),
    )
    pilot: int | None = field(
        default=None,
        metadata=_option("int", "So many rows are submitted first, alone; when all of them fail, the run stops."),
    )
    run_dir: Any = field(
        default=None,
        metadata=_option(
            "str | os.PathLike[str]",
            "The folder of the run; None for one in ``$BATCHFRAME_HOME``, or in ``.batchframe``.",
        ),
    )
    name: str | None = field(
        default=None, metadata=_option("str", "Part of the run's id: another name asks for fresh answers.")
    )
    dedupe: bool = field(
        default=False,
        metadata=_option("bool", "Whether equal requests are sent once, and each of their rows gets the answer."),
    )
    reuse: Path | Literal["all"] | None = field(
        default=None,
        metadata=_option(
            "Run | str | os.PathLike[str]",
            'A run, its folder, or ``"all"``: rows whose request succeeded there take that answer, and are not sent.',
        ),
    )
    on_null: Literal["skip", "render", "raise"] = field(
        default="skip",
        metadata=_option(
            'Literal["skip", "render", "raise"]',
            "What becomes of a row with a null in the prompt: it is not sent, the null is rendered as empty text, or "
            "the call raises.",
        ),
    )
    include: tuple[str, ...] = field(
        default=(),
        metadata=_option(
            "Include | Collection[Include]",
            "One or more extra columns: ``model``, ``request_id``, ``batch_id``, ``logprobs``, ``tool_calls``, "
            "``content_filter``, ``reused``, ``raw``; see Notes. The same call with other ones sends nothing.",
        ),
    )
    prefix: str = field(default="", metadata=_option("str", "Put before the name of every added column."))
    poll_seconds: float | None = field(
        default=None,
        metadata=_option("float", "Seconds between two looks at the service; None is adaptive, 5 to 60."),
    )
    settle_seconds: float = field(
        default=60.0,
        metadata=_option("float", "Seconds that a batch has to appear whose creation got no answer."),
    )
    timeout_seconds: float | None = field(
        default=None,
        metadata=_option(
            "float",
            "Stop waiting after so many seconds with `RunPendingError`; the batches go on. None waits to the end.",
        ),
    )
    progress: bool | None = field(
        default=None,
        metadata=_option("bool", "Whether to show progress on stderr; None shows it in terminals and notebooks."),
    )
    cleanup: Literal["when_done", "never"] = field(
        default="never",
        metadata=_option(
            'Literal["when_done", "never"]',
            "Whether the run's files at the service are deleted once it is finished.",
        ),
    )
    metadata: dict[str, str] = field(
        default_factory=dict, metadata=_option("dict[str, str]", "Metadata of yours, put on the batches.")
    )
    # Empty: the service's own default.
    completion_window: str = field(
        default="",
        metadata=_option("str", 'The window of the batches; None is the service\'s, nearly everywhere ``"24h"``.'),
    )
    expires_after: int | None = field(
        default=None,
        metadata=_option("int", "Seconds after which the service deletes input and output files."),
    )
    extra_body: dict[str, Any] = field(
        default_factory=dict,
        metadata=_option(
            "dict[str, Any]",
            "Request parameters that batchframe does not know, or whose names are options here; sent unchecked.",
        ),
    )
    body: dict[str, Any] = field(default_factory=dict)
    answer_format: AnswerFormat = field(default_factory=AnswerFormat)

    def request_spec(self, prompt: Any) -> RequestSpec:
        """Return what the requests of this call are made of."""
        return RequestSpec(
            prompt=prompt,
            unchecked=frozenset(self.extra_body),
            max_slice_rows=self.answer_format.max_rows,
            **self._members_of(RequestSpec),
        )

    def run_settings(self) -> RunSettings:
        """Return what concerns the run once its requests are rendered."""
        return RunSettings(**self._members_of(RunSettings))

    def _members_of(self, kind: type[RequestSpec | RunSettings]) -> dict[str, Any]:
        names = {member.name for member in dataclasses.fields(self)} & {one.name for one in dataclasses.fields(kind)}
        return {name: getattr(self, name) for name in names}


# Those that a call may pass, in the order of their signatures.
OPTIONS = tuple(option for option in dataclasses.fields(Options) if option.metadata)
