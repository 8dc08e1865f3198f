"""The table of options: the name, default, accepted type and meaning of each.

``scripts/generate_signatures.py`` writes the signatures of the public calls, and their docstrings, from this table.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from batchframe._endpoints.registry import DEFAULT, ENDPOINTS
from batchframe._providers.limits import Limits
from batchframe._requests.request_spec import RequestSpec
from batchframe._results.answer_format import AnswerFormat
from batchframe._results.extra_columns import EXTRA_COLUMNS
from batchframe._runs.run_settings import RunSettings

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import polars as pl


def _option(accepts: str, meaning: str) -> dict[str, str]:
    """Return the metadata of an option.

    Parameters
    ----------
    accepts
        The accepted type, as source. Every option but ``model`` also accepts None, which means its default.
    meaning
        The text of its docstring.
    """
    return {"accepts": accepts, "meaning": meaning}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"``{name}``" for name in names)


@dataclass(frozen=True, kw_only=True)
class Options:
    """The checked arguments of a call, without frame and prompt; `batchframe._api.options.parse` makes one.

    ``body`` holds the request parameters by name, each a value or a per-row expression. ``answer_format`` describes
    the answers.
    """

    model: str = field(metadata=_option("str", "The model id, such as ``gpt-4o-mini``, or the Azure deployment name."))
    system: Any = field(
        default=None,
        metadata=_option("str | pl.Expr", "Template or expression of a system message, which comes first."),
    )
    images: tuple[str | pl.Expr, ...] = field(
        default=(),
        metadata=_option(
            "Images",
            "Columns or expressions with images, one or a list: String (URLs) or Binary (bytes). See Notes.",
        ),
    )
    image_detail: str | None = field(
        default=None,
        metadata=_option(
            'Literal["low", "high", "auto", "original"]',
            "How closely the model looks at the images. None uses the service's default.",
        ),
    )
    endpoint: str = field(
        default=DEFAULT.path,
        metadata=_option(
            "Endpoint",
            f"One of {_listed(ENDPOINTS)}.",
        ),
    )
    response_format: Any = field(
        default=None,
        metadata=_option(
            "ResponseFormat",
            "A pydantic model, a JSON schema or a ``pl.Struct``: ``response`` becomes a Struct of that shape. See "
            "Notes. The service's own format is sent unchanged, and ``response`` stays text.",
        ),
    )
    custom_id: str | None = field(
        default=None,
        metadata=_option("str", "Column with unique ids for the requests. None numbers the rows: ``row-<index>``."),
    )
    client: Any = field(
        default=None,
        metadata=_option(
            "openai.OpenAI",
            "An ``openai.OpenAI`` or ``openai.AzureOpenAI``. None makes one from the environment variables.",
        ),
    )
    provider: Any = field(
        default=None,
        metadata=_option(
            "str | Provider",
            'The service: a name, such as ``"openai"`` or ``"azure"``, or a `Provider`. None derives it from the '
            "client.",
        ),
    )
    limits: Limits = field(
        default_factory=Limits,
        metadata=_option(
            "Limits",
            "How large input files may be, and how much may be in flight. None uses the provider's limits.",
        ),
    )
    max_attempts: int = field(
        default=3,
        metadata=_option(
            "int", "How often a row may be submitted in total, if it was not executed or got no usable answer."
        ),
    )
    pilot: int | None = field(
        default=None,
        metadata=_option("int", "Submit this many rows first, alone. If none of them succeeds, the run stops."),
    )
    run_dir: Any = field(
        default=None,
        metadata=_option(
            "str | os.PathLike[str]",
            "The folder of the run. None makes one in ``$BATCHFRAME_HOME`` or in ``.batchframe``.",
        ),
    )
    name: str | None = field(
        default=None, metadata=_option("str", "Part of the run's id. Pass another name to get fresh answers.")
    )
    dedupe: bool = field(
        default=False,
        metadata=_option("bool", "Whether to send equal requests once. Each of their rows gets the answer."),
    )
    reuse: Path | Literal["all"] | None = field(
        default=None,
        metadata=_option(
            "Run | str | os.PathLike[str]",
            'A run, its folder, or ``"all"``. Rows whose request succeeded there take that answer and are not sent.',
        ),
    )
    on_null: Literal["skip", "render", "raise"] = field(
        default="skip",
        metadata=_option(
            'Literal["skip", "render", "raise"]',
            "What to do with a row that has a null in the prompt: do not send it, render the null as empty text, or "
            "raise.",
        ),
    )
    include: tuple[str, ...] = field(
        default=(),
        metadata=_option(
            "Include | Collection[Include]",
            f"One or more extra columns: {_listed(EXTRA_COLUMNS)}. See Notes. Repeating the call with other columns "
            "sends nothing.",
        ),
    )
    prefix: str = field(default="", metadata=_option("str", "Prefix for the names of the added columns."))
    poll_seconds: float | None = field(
        default=None,
        metadata=_option(
            "float",
            "Seconds between two polls. None is adaptive: 1 second at first, then 5 growing to 60, with up to 20 % "
            "jitter.",
        ),
    )
    settle_seconds: float = field(
        default=60.0,
        metadata=_option("float", "How long to wait for a batch to appear if its create call got no reply."),
    )
    timeout_seconds: float | None = field(
        default=None,
        metadata=_option(
            "float",
            "Stop waiting after this many seconds, and raise `RunPendingError`; the batches continue. None waits until "
            "the run is finished.",
        ),
    )
    progress: bool | None = field(
        default=None,
        metadata=_option("bool", "Whether to show progress on stderr. None shows it in terminals and notebooks."),
    )
    cleanup: Literal["when_done", "never"] = field(
        default="never",
        metadata=_option(
            'Literal["when_done", "never"]',
            "Whether to delete the run's files at the service once the run is finished.",
        ),
    )
    metadata: dict[str, str] = field(
        default_factory=dict, metadata=_option("dict[str, str]", "Your own metadata for the batches.")
    )
    # Empty: the service's own default.
    completion_window: str = field(
        default="",
        metadata=_option(
            "str", 'The completion window of the batches. None is the service\'s default, nearly everywhere ``"24h"``.'
        ),
    )
    expires_after: int | None = field(
        default=None,
        metadata=_option("int", "Seconds until the service deletes the input and output files."),
    )
    extra_body: dict[str, Any] = field(
        default_factory=dict,
        metadata=_option(
            "dict[str, Any]",
            "Request parameters that batchframe does not know, or whose names are options here. Sent unchecked.",
        ),
    )
    body: dict[str, Any] = field(default_factory=dict)
    answer_format: AnswerFormat = field(default_factory=AnswerFormat)

    def request_spec(self, prompt: Any) -> RequestSpec:
        """Return the inputs of rendering."""
        return RequestSpec(
            prompt=prompt,
            unchecked=frozenset(self.extra_body),
            max_slice_rows=self.answer_format.max_rows,
            **self._members_of(RequestSpec),
        )

    def run_settings(self) -> RunSettings:
        """Return the settings of the run, apart from its requests."""
        return RunSettings(**self._members_of(RunSettings))

    def _members_of(self, kind: type[RequestSpec | RunSettings]) -> dict[str, Any]:
        names = {member.name for member in dataclasses.fields(self)} & {
            member.name for member in dataclasses.fields(kind)
        }
        return {name: getattr(self, name) for name in names}


# The options that a call accepts, in the order of the signatures.
OPTIONS = tuple(option for option in dataclasses.fields(Options) if option.metadata)
