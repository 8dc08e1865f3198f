"""How a run is carried on and how its answers are returned: what a handle needs beside the run's folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, cast

import msgspec

from batchframe._providers.limits import Limits
from batchframe._results.answer_format import AnswerFormat
from batchframe._schemas.response_format import AnswerType  # noqa: TC001  (msgspec reads the annotation)


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """The options of a call that concern a run after its requests are rendered.

    Parameters
    ----------
    model
        The model id or deployment name.
    answer_format
        The dtypes of the answers.
    include, prefix
        The extra columns, and what is put before the names of all added columns.
    limits
        The limits that the call gave; what is None there is the provider's.
    max_attempts, pilot
        How often a row may be submitted, and how many rows go first.
    poll_seconds, settle_seconds, timeout_seconds
        Between two looks; for a create in doubt; and for the whole of a wait.
    cleanup
        Whether the files at the service are deleted once the run is finished.
    metadata, completion_window, expires_after
        What is sent along with each batch and file. An empty window stands for the provider's default.
    """

    model: str
    answer_format: AnswerFormat = field(default_factory=AnswerFormat)
    include: tuple[str, ...] = ()
    prefix: str = ""
    limits: Limits = field(default_factory=Limits)
    max_attempts: int = 3
    pilot: int | None = None
    poll_seconds: float | None = None
    settle_seconds: float = 60.0
    timeout_seconds: float | None = None
    cleanup: Literal["when_done", "never"] = "never"
    metadata: dict[str, str] = field(default_factory=dict)
    completion_window: str = ""
    expires_after: int | None = None

    def saved(self) -> dict[str, Any]:
        """Return, in built-in types, what another process needs to carry the run on."""
        saved = {name: getattr(self, name) for name in _Saved.__struct_fields__ if hasattr(self, name)}
        saved |= {
            "answer_type": self.answer_format.answer_type,
            "choices": self.answer_format.choices,
            "dimensions": self.answer_format.dimensions,
            "max_in_flight": self.limits.max_in_flight,
            "max_enqueued_tokens": self.limits.max_enqueued_tokens,
        }
        return cast("dict[str, Any]", msgspec.to_builtins(saved))

    @classmethod
    def restored(cls, saved: dict[str, Any], endpoint: str) -> RunSettings:
        """Return the settings that `saved` wrote, here or in an earlier version."""
        members = msgspec.structs.asdict(msgspec.convert(saved, _Saved))
        choices, dimensions, answer_type = (members.pop(name) for name in ("choices", "dimensions", "answer_type"))
        limits = Limits(
            max_in_flight=members.pop("max_in_flight"), max_enqueued_tokens=members.pop("max_enqueued_tokens")
        )
        return cls(**members, limits=limits, answer_format=AnswerFormat(endpoint, choices, dimensions, answer_type))


class _Saved(msgspec.Struct):
    """The settings as ``run.json`` keeps them; it holds more options, for people to read."""

    model: str
    include: tuple[str, ...] = ()
    prefix: str = ""
    metadata: dict[str, str] = {}
    completion_window: str = "24h"
    expires_after: int | None = None
    settle_seconds: float = 60.0
    poll_seconds: float | None = None
    max_in_flight: int | None = None
    max_enqueued_tokens: int | None = None
    max_attempts: int = 3
    pilot: int | None = None
    cleanup: Literal["when_done", "never"] = "never"
    answer_type: AnswerType | None = None
    choices: int = 1
    dimensions: int | None = None
