"""The models of the service: the snapshot that answers, the limits, and the endpoints they serve."""

from __future__ import annotations

import functools
import re
from typing import Literal, NamedTuple

Kind = Literal["chat", "responses", "embedding", "completion", "moderation"]


class Model(NamedTuple):
    """The facts of a model; all numbers are tokens."""

    snapshot: str
    context_tokens: int
    output_tokens: int
    kind: Kind | None = "chat"
    """The endpoints it serves; ``responses`` means that endpoint alone. None: all endpoints."""
    usual_effort: str | None = None
    """Its default reasoning effort; None: it does not reason."""

    @property
    def is_reasoning(self) -> bool:
        """Whether it can reason."""
        return self.usual_effort is not None

    def samples(self, effort: str | None) -> bool:
        """Say whether it takes temperature, top_p and logprobs at an effort; None is the default effort."""
        return self.usual_effort is None or (self.usual_effort == "none" and (effort or "none") == "none")


# Undated names answer as their dated snapshot. Source: the deprecations and models pages as listed in the SDK's
# ChatModel type (3.54.0); names without a dated form there answer as themselves.
SNAPSHOTS = {
    "gpt-3.5-turbo": "gpt-3.5-turbo-0125",
    "gpt-4": "gpt-4-0613",
    "gpt-4-turbo": "gpt-4-turbo-2024-04-09",
    "gpt-4o": "gpt-4o-2024-08-06",
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
    "gpt-4.1": "gpt-4.1-2025-04-14",
    "gpt-4.1-mini": "gpt-4.1-mini-2025-04-14",
    "gpt-4.1-nano": "gpt-4.1-nano-2025-04-14",
    "gpt-5": "gpt-5-2025-08-07",
    "gpt-5-mini": "gpt-5-mini-2025-08-07",
    "gpt-5-nano": "gpt-5-nano-2025-08-07",
    "gpt-5.1": "gpt-5.1-2025-11-13",
    "gpt-5.2": "gpt-5.2-2025-12-11",
    "gpt-5.4-mini": "gpt-5.4-mini-2026-03-17",
    "gpt-5.4-nano": "gpt-5.4-nano-2026-03-17",
    "gpt-5.4-pro": "gpt-5.4-pro-2026-03-05",
    "gpt-5.5": "gpt-5.5-2026-04-23",
    "o1": "o1-2024-12-17",
    "o3": "o3-2025-04-16",
    "o3-mini": "o3-mini-2025-01-31",
    "o4-mini": "o4-mini-2025-04-16",
    "text-embedding-ada-002": "text-embedding-ada-002-v2",
    "text-moderation-latest": "text-moderation-007",
    "text-moderation-stable": "text-moderation-007",
}

# The first pattern that matches decides. Chat variants of the gpt-5 family take the parameters of ordinary models.
_FAMILIES: tuple[tuple[str, int, int, bool], ...] = (
    (r"gpt-3\.?5-turbo(-.+)?", 16_385, 4_096, False),
    (r"gpt-4-32k(-.+)?", 32_768, 4_096, False),
    (r"gpt-4(-\d{4})?", 8_192, 8_192, False),
    (r"gpt-4-(turbo|\d{4}-preview|vision)(-.+)?", 128_000, 4_096, False),
    (r"(chatgpt-4o|gpt-4o)(-.+)?", 128_000, 16_384, False),
    (r"gpt-4\.1(-.+)?", 1_047_576, 32_768, False),
    (r"gpt-4\.5(-.+)?", 128_000, 16_384, False),
    (r"gpt-5(\.\d+)?-chat(-.+)?", 128_000, 16_384, False),
    (r"gpt-5(\.\d+)?(-.+)?", 400_000, 128_000, True),
    (r"gpt-6(\.\d+)?(-.+)?", 1_050_000, 128_000, True),
    (r"o1-mini(-.+)?", 128_000, 65_536, True),
    (r"(o1|o3|o4-mini)(-.+)?", 200_000, 100_000, True),
    # A fine-tuned model answers as itself, and has the limits of a middle-sized one.
    (r"ft:gpt-.+", 128_000, 16_384, False),
)

# The models of the endpoints without conversations.
_OTHERS: tuple[tuple[str, int, int, Kind], ...] = (
    (r"text-embedding-(3-small|3-large|ada-002)", 8_192, 0, "embedding"),
    (r"(omni|text)-moderation-.+", 32_768, 0, "moderation"),
    (r"(ft:)?(davinci|babbage)-002(:.+)?", 16_384, 16_384, "completion"),
    (r"gpt-3\.5-turbo-instruct(-.+)?", 4_096, 4_096, "completion"),
)
# Source: the SDK's ResponsesModel type (3.57.0), for the families of this table; gpt-5.4-pro: litellm 1.109.1.
_RESPONSES_ONLY = re.compile(
    r"(o1-pro|o3-pro|o3-deep-research|o4-mini-deep-research|gpt-5-pro|gpt-5\.[45]-pro)(-.+)?"
    r"|gpt-5-codex|gpt-5\.1-codex-max|gpt-5\.6-cyber|gpt-6-cyber"
)


# Models that reason only on request, and otherwise take sampling parameters. Source: developers.openai.com, guides to
# gpt-5.1, gpt-5.2 and gpt-5.4, "parameter compatibility" and "reasoning effort" (read 2026-11-28).
_ON_DEMAND = re.compile(r"gpt-5\.[124](-\d{4}-\d\d-\d\d)?")


@functools.lru_cache(maxsize=256)
def known_model(name: str) -> Model | None:
    """Look up a model; None: the service does not know it."""
    snapshot = SNAPSHOTS.get(name, name)
    for pattern, context_tokens, output_tokens, kind in _OTHERS:
        if re.fullmatch(pattern, name):
            return Model(snapshot, context_tokens, output_tokens, kind)
    for pattern, context_tokens, output_tokens, is_reasoning in _FAMILIES:
        if re.fullmatch(pattern, name):
            kind = "responses" if _RESPONSES_ONLY.fullmatch(name) else "chat"
            effort = "none" if _ON_DEMAND.fullmatch(name) else "medium" if is_reasoning else None
            return Model(snapshot, context_tokens, output_tokens, kind, effort)
    return None


def model_named(name: str) -> Model:
    """Look up a model; for a name that only the settings know, return a middle-sized one."""
    return known_model(name) or Model(name, 128_000, 16_384, kind=None)
