"""The token counts of an answer: our names for them, and the spellings of the services."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from batchframe._core.lenient import integer, mapping

# Where a count may be in ``usage``: a member, or a member of a nested object. The first that is present counts.
#
# Sources, 2026-11: openai.types.CompletionUsage and ResponseUsage (3.57.0); DeepSeek's API reference
# (``prompt_cache_hit_tokens``); Moonshot (``cached_tokens`` beside the totals); Anthropic through gateways
# (``cache_read_input_tokens``, ``cache_creation_input_tokens``); LiteLLM's Gemini batches (camelCase).
SPELLINGS: dict[str, tuple[tuple[str, ...], ...]] = {
    "input_tokens": (("prompt_tokens",), ("input_tokens",), ("promptTokens",), ("inputTokens",)),
    "output_tokens": (("completion_tokens",), ("output_tokens",), ("completionTokens",), ("outputTokens",)),
    "total_tokens": (("total_tokens",), ("totalTokens",)),
    "cached_tokens": (
        ("prompt_tokens_details", "cached_tokens"), ("input_tokens_details", "cached_tokens"),
        ("prompt_cache_hit_tokens",), ("cached_tokens",), ("cache_read_input_tokens",),
        ("cacheReadInputTokens",), ("cachedTokens",),
    ),
    "cache_write_tokens": (
        ("prompt_tokens_details", "cache_write_tokens"), ("input_tokens_details", "cache_write_tokens"),
        ("prompt_tokens_details", "cache_creation_tokens"), ("input_tokens_details", "cache_creation_tokens"),
        ("cache_write_tokens",), ("cache_creation_input_tokens",),
        ("cacheWriteInputTokens",), ("cacheCreationInputTokens",),
    ),
    "reasoning_tokens": (
        ("completion_tokens_details", "reasoning_tokens"), ("output_tokens_details", "reasoning_tokens"),
        ("reasoning_tokens",), ("reasoningTokens",),
    ),
}  # fmt: skip
TOKENS = tuple(SPELLINGS)

# The range of an Int64 column.
_Count = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | None


def tokens_of(usage: Any) -> dict[str, int | None]:
    """Return the counts of a ``usage`` of any shape by our names, with None for a missing count."""
    members = mapping(usage)
    return {name: _first(members, spellings) for name, spellings in SPELLINGS.items()}


def _first(usage: dict[str, Any], spellings: tuple[tuple[str, ...], ...]) -> int | None:
    for *outer, name in spellings:
        count = integer((mapping(usage.get(outer[0])) if outer else usage).get(name))
        if count is not None:
            return count
    return None


class Details(msgspec.Struct, gc=False, frozen=True):
    """The objects ``<name>_details`` of a usage, for the input and for the output."""

    cached_tokens: _Count = None
    cache_write_tokens: _Count = None
    reasoning_tokens: _Count = None
    cache_creation_tokens: None = None  # if it is present, `tokens_of` reads the usage


NO_DETAILS = Details()


def usage_struct(inputs: str, outputs: str) -> Any:
    """Return the struct into which msgspec decodes the common spelling of an endpoint's ``usage``.

    msgspec refuses a usage with a count under another name of `SPELLINGS`, or one that is not a whole number. Such a
    usage is left to `tokens_of`.

    Parameters
    ----------
    inputs, outputs
        The names of the two counts. The struct also has ``total_tokens`` and, as `Details`, ``<name>_details``.
    """
    counts = dict.fromkeys((inputs, outputs, "total_tokens"), _Count)
    details = dict.fromkeys((f"{inputs}_details", f"{outputs}_details"), Details | None)
    known: dict[str, Any] = counts | details
    others = {path[0] for spellings in SPELLINGS.values() for path in spellings} - known.keys()
    fields = [(name, kind, None) for name, kind in (known | dict.fromkeys(sorted(others))).items()]
    # `gc=False`: a usage cannot refer to itself, and the garbage collector would walk millions of them.
    return msgspec.defstruct("Usage", fields, gc=False, frozen=True)
