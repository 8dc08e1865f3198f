"""Requests that OpenAI's models are known to refuse. They are reported before sending, or every row fails hours later.

The table holds certain facts only. What may work is allowed: a parameter that some rows leave out, a model without a
rule. Read on 2026-11-28. The letters of confidence are those of `batchframe._providers.profiles`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from batchframe._endpoints.chat import CHAT
from batchframe._endpoints.completions import COMPLETIONS
from batchframe._endpoints.embeddings import EMBEDDINGS
from batchframe._endpoints.moderations import MODERATIONS
from batchframe._endpoints.responses import RESPONSES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Rule(NamedTuple):
    """The known restrictions of some models."""

    models: str
    """A pattern of the models' names, without the date of a snapshot."""
    endpoints: tuple[str, ...]
    """The endpoints that serve the models in batches. Empty if none of ours does."""
    takes_max_tokens: bool = True
    """Whether their chat completions accept ``max_tokens``, the older name of ``max_completion_tokens``."""
    refuses: Mapping[str, Any] = {}
    """The refused parameters, each with its one accepted value."""
    refuses_unless_none: Mapping[str, Any] = {}
    """The parameters refused with a reasoning effort other than none, each with its one accepted value."""
    reasons: bool = True
    """Whether the models accept a reasoning effort."""


_SAMPLING = {"temperature": 1, "top_p": 1, "logprobs": False, "top_logprobs": 0}
_ALL_SAMPLING = {**_SAMPLING, "presence_penalty": 0, "frequency_penalty": 0, "logit_bias": {}}
_CONVERSATION_PATHS = (CHAT.path, RESPONSES.path)

# The first rule that matches a model applies.
_RULES = (
    # No "/v1/batch" among their endpoints, and no price for batches: litellm 1.109.1 (T).
    Rule(r"gpt-5(\.[123])?-(chat-latest|codex(-max|-mini)?)|computer-use-preview", ()),
    # Models of other endpoints: the same table (T).
    Rule(r"gpt-(4o-)?(mini-)?(realtime|transcribe|tts|image)(-.+)?|tts-1(-.+)?|whisper-1|sora-2(-.+)?", ()),
    # In ResponsesModel of openai 3.57.0, and not in ChatModel (S); gpt-5.4-pro: litellm 1.109.1 (T).
    Rule(r"(o3|o4-mini)-deep-research|gpt-5\.[45]-pro", (RESPONSES.path,)),
    Rule(r"(o1|o3|gpt-5)-pro", (RESPONSES.path,), refuses=_ALL_SAMPLING),
    # max_tokens, sampling, penalties and logit_bias: community.openai.com/t/1110750 for o1 and o3-mini, and of gpt-5
    # the texts of its refusals (W); temperature, top_p, logprobs of gpt-5: "will raise an error" (D, as below). Text
    # completions of o3 are in litellm's table (T), so they are allowed.
    Rule(
        r"o1|o3|o3-mini|o4-mini",
        (*_CONVERSATION_PATHS, COMPLETIONS.path),
        takes_max_tokens=False,
        refuses=_ALL_SAMPLING,
    ),
    Rule(r"gpt-5(-mini|-nano)?", _CONVERSATION_PATHS, takes_max_tokens=False, refuses=_ALL_SAMPLING),
    # "Only supported … with reasoning effort set to none": developers.openai.com, the guides to gpt-5.1, gpt-5.2 and
    # gpt-5.4, "parameter compatibility" (D). max_tokens: refusals of each (W).
    Rule(r"gpt-5\.[124]", _CONVERSATION_PATHS, takes_max_tokens=False, refuses_unless_none=_SAMPLING),
    Rule(r"gpt-5\.5|gpt-5\.4-(mini|nano)", _CONVERSATION_PATHS, takes_max_tokens=False),
    Rule(r"gpt-5\.6(-sol|-terra|-luna)?|gpt-6-(astra|sol|luna)|gpt-6\.1-(sol|terra)", _CONVERSATION_PATHS),
    # community.openai.com/t/1110750: no reasoning_effort (W).
    Rule(r"gpt-4o(-mini)?|gpt-4\.1(-mini|-nano)?|gpt-4-turbo|gpt-4|gpt-3\.5-turbo", _CONVERSATION_PATHS, reasons=False),
    # "completion" is their mode: litellm 1.109.1 (T).
    Rule(r"gpt-3\.5-turbo-instruct|davinci-002|babbage-002", (COMPLETIONS.path,)),
    Rule(r"text-embedding-(3-small|3-large|ada-002(-v2)?)", (EMBEDDINGS.path,)),
    Rule(r"(omni|text)-moderation-.+", (MODERATIONS.path,)),
)
_DATE = re.compile(r"-\d{4}(-\d\d-\d\d)?$")


def refusals(model: str, endpoint: str, body: Mapping[str, Any]) -> Iterator[str]:
    """Yield a message for each part of a call that the model is known to refuse, with the remedy.

    Parameters
    ----------
    model
        The name of a model of OpenAI's or of a snapshot. Nothing is known of other names.
    endpoint
        The path of the endpoint, as we spell it.
    body
        The parameters: values, or expressions, whose values are unknown.
    """
    rule = _rule(model)
    if rule is None:
        return
    if endpoint not in rule.endpoints:
        if rule.endpoints:
            yield f"{model} is not served at {endpoint}: pass endpoint={rule.endpoints[0]!r}, or another model"
        else:
            yield f"{model} is not listed as a model with batches for {endpoint}: pass another model"
        return
    yield from _refused_parameters(rule, endpoint, body)


def _refused_parameters(rule: Rule, endpoint: str, body: Mapping[str, Any]) -> Iterator[str]:
    if endpoint == CHAT.path and not rule.takes_max_tokens and body.get("max_tokens") is not None:
        yield "max_tokens is refused: pass max_completion_tokens, which includes the reasoning tokens"
    for name in _refused_names(body, rule.refuses):
        yield f"{name} is refused{_except(rule.refuses[name])}: leave it out"
    effort = _effort(endpoint, body)
    spelling = 'reasoning={{"effort": "{}"}}' if endpoint == RESPONSES.path else 'reasoning_effort="{}"'
    if effort is not None and not rule.reasons:
        yield f"{spelling.partition('=')[0]} is refused, since the model does not reason: leave it out"
    if isinstance(effort, str) and effort != "none":
        for name in _refused_names(body, rule.refuses_unless_none):
            yield f"{name} is refused with {spelling.format(effort)}: leave it out, or pass {spelling.format('none')}"


def _rule(model: str) -> Rule | None:
    names = (model, _DATE.sub("", model))
    return next((rule for rule in _RULES if any(re.fullmatch(rule.models, name) for name in names)), None)


def _effort(endpoint: str, body: Mapping[str, Any]) -> Any:
    """Return the requested reasoning effort, or an expression if it may differ from row to row."""
    if endpoint != RESPONSES.path:
        return body.get("reasoning_effort")
    reasoning = body.get("reasoning")
    return reasoning.get("effort") if isinstance(reasoning, dict) else reasoning


def _refused_names(body: Mapping[str, Any], refused: Mapping[str, Any]) -> list[str]:
    """Return the refused parameters of a body. Expressions are ignored, since their values are unknown."""
    values = {name: body.get(name) for name in refused}
    return [
        name
        for name, value in values.items()
        if value is not None and not isinstance(value, pl.Expr) and value != refused[name]
    ]


def _except(accepted: Any) -> str:
    return f" at any value but {accepted}" if accepted else ""
