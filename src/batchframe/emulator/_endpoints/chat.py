"""``/v1/chat/completions``: the answer to a body. Pure, so that a test can compute what each row must get."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from batchframe.emulator._endpoints import chat_checks, chat_messages, content_filters
from batchframe.emulator._endpoints.base import Endpoint
from batchframe.emulator._endpoints.generation import logprobs, reasoning_tokens, until_stop, writer
from batchframe.emulator._errors import ApiError
from batchframe.emulator._faults.row_effects import REFUSAL, SEPARATORS
from batchframe.emulator._model import tokens
from batchframe.emulator._model.shapes import Choice, Completion, CompletionDetails, Message, PromptDetails, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from batchframe.emulator._faults.row_faults import RowFault
    from batchframe.emulator._model.model_table import Model

_NO_PROMPT_DETAILS = PromptDetails()
_NO_DETAILS = CompletionDetails()
_ALTERING = frozenset({"content_filter", "refusal", "length", "separators"})
_BETWEEN_WORDS = re.compile(r"(?<=\w) (?=\w)")


def respond(body: dict[str, Any], digest: bytes, prompt_tokens: int, created: int, model: Model) -> Completion:
    """Answer a body."""
    number = int.from_bytes(digest[:6], "big")
    cap = body.get("max_completion_tokens") or body.get("max_tokens") or model.output_tokens
    reasoning = min(cap, reasoning_tokens(body, number, model))
    write = writer(body, number)
    output_tokens = 0
    choices = []
    for index in range(body.get("n") or 1):
        choice, used = _choice(body, index, write, cap - reasoning)
        choices.append(choice)
        output_tokens += used + reasoning
    return Completion(
        id=f"chatcmpl-{digest.hex()[:32]}",
        created=created,
        model=model.snapshot,
        choices=choices,
        usage=Usage(
            prompt_tokens,
            output_tokens,
            prompt_tokens + output_tokens,
            _NO_PROMPT_DETAILS,
            CompletionDetails(reasoning * len(choices)) if reasoning else _NO_DETAILS,
        ),
    )


def _choice(
    body: dict[str, Any], index: int, write: Callable[[int], str | dict[str, Any]], cap: int
) -> tuple[Choice, int]:
    content = write(index)
    if isinstance(content, dict):
        # As the service does: a call of a named tool ends with "stop", one of a tool it chose with "tool_calls".
        reason = "tool_calls" if body["tool_choice"] == "required" else "stop"
        used = tokens.of_text(content["function"]["name"]) + tokens.of_text(content["function"]["arguments"])
        return Choice(index=index, message=Message(tool_calls=[content]), finish_reason=reason), used
    content = until_stop(content, body.get("stop"))
    choice = Choice(index=index, message=Message())
    used = tokens.of_text(content)
    if used > cap:
        content = tokens.cut(content, cap)
        used = cap
        choice.finish_reason = "length"
    choice.message.content = content
    if body.get("logprobs"):
        choice.logprobs = {"content": logprobs(content, body.get("top_logprobs") or 0), "refusal": None}
    return choice, used


def used_tokens(answer: Completion) -> tuple[int, int, int]:
    """Return the input, output and reasoning tokens of an answer."""
    usage = answer.usage
    return usage.prompt_tokens, usage.completion_tokens, usage.completion_tokens_details.reasoning_tokens


def alter(answer: Completion, hits: Iterable[RowFault]) -> None:
    """Apply faults to an answer, which is billed all the same."""
    altering = [fault for fault in hits if fault.kind in _ALTERING]
    if not altering:
        return
    for fault in altering:
        for choice in answer.choices:
            message, text = choice.message, choice.message.content
            if fault.kind == "content_filter":
                message.content, choice.finish_reason = "", "content_filter"
            elif fault.kind == "refusal":
                message.content, message.refusal = None, REFUSAL
            elif fault.kind == "length":
                message.content, choice.finish_reason = (text or "")[: len(text or "") // 2], "length"
            elif text is not None:
                # A JSON answer must stay JSON: there the separator replaces a space between words.
                message.content = _BETWEEN_WORDS.sub("\u2028", text) if text.startswith("{") else SEPARATORS + text
    if all(choice.message.tool_calls is UNSET for choice in answer.choices):
        usage = answer.usage
        written = sum(tokens.of_text(each.message.content or each.message.refusal or "") for each in answer.choices)
        usage.completion_tokens = written + usage.completion_tokens_details.reasoning_tokens
        usage.total_tokens = usage.prompt_tokens + usage.completion_tokens


def _wrong_model(model: Model) -> ApiError:
    message = (
        "This model is only supported in v1/responses and not in v1/chat/completions."
        if model.kind == "responses"
        else "This is not a chat model and thus not supported in the v1/chat/completions endpoint. Did you mean to use "
        "v1/completions?"
    )
    return ApiError(message, status=404, param="model")


ENDPOINT = Endpoint(
    path="/v1/chat/completions",
    required="messages",
    model_kinds=("chat",),
    azure_operation="chatCompletion",
    count=chat_messages.count,
    check=chat_checks.check,
    respond=respond,
    used_tokens=used_tokens,
    streams="Chat Completions",
    alter=alter,
    add_azure_fields=content_filters.annotate_choices,
    wrong_model=_wrong_model,
)
