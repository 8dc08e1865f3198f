"""Per endpoint: how a body begins, and how an answer is read from a result line."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import msgspec

from batchframe._lenient import integer


class Answer(NamedTuple):
    """What one result line says; `code` is None exactly when the row succeeded, `again` whether a failure may pass."""

    response: str | None = None
    finish_reason: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    code: str | None = None
    message: str | None = None
    model: str | None = None
    request_id: str | None = None
    again: bool = False


# The shape of a good chat line, and no more: msgspec skips the rest without making objects of it. `gc=False`, since
# nothing here can refer to itself, and the collector would walk every one of millions.


# What an Int64 column can hold; a count beyond it sends the line the careful way.
_Count = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class _Message(msgspec.Struct, gc=False):
    content: str | None = None
    refusal: str | None = None
    tool_calls: msgspec.Raw | None = None


class _Choice(msgspec.Struct, gc=False):
    message: _Message
    finish_reason: str | None = None


class _InputDetails(msgspec.Struct, gc=False):
    cached_tokens: _Count | None = None


class _OutputDetails(msgspec.Struct, gc=False):
    reasoning_tokens: _Count | None = None


class _Usage(msgspec.Struct, gc=False, frozen=True):
    prompt_tokens: _Count | None = None
    completion_tokens: _Count | None = None
    total_tokens: _Count | None = None
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None


_NO_USAGE = _Usage()


class _Body(msgspec.Struct, gc=False):
    choices: list[_Choice]
    usage: _Usage = _NO_USAGE
    model: str | None = None


class _Response(msgspec.Struct, gc=False):
    status_code: int
    body: _Body
    request_id: str | None = None


class ChatLine(msgspec.Struct, gc=False):
    """A good line of an output file of ``/v1/chat/completions``."""

    custom_id: str
    response: _Response


def read_chat_body(body: dict[str, Any]) -> Answer:  # noqa: PLR0911  (a case a line is the clearest)
    """Return the answer of a 2xx body of any shape; whatever can be read of it is kept."""
    answer = _usage(body.get("usage"))._replace(model=_text(body.get("model")))
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        said = "no choices" if not choices else "a choice without a message"
        return answer._replace(code="invalid_response", message=f"the body has {said}")
    answer = answer._replace(finish_reason=_text(choice.get("finish_reason")))
    content = message.get("content")
    if isinstance(content, str):
        return answer._replace(response=content)
    if content is not None:
        return answer._replace(code="invalid_response", message=f"the content is {type(content).__name__}, not text")
    if isinstance(message.get("refusal"), str):
        return answer._replace(code="refusal", message=message["refusal"])
    if message.get("tool_calls"):
        return answer
    if answer.finish_reason == "content_filter":
        return answer._replace(code="content_filter", message="the answer was withheld by the content filter")
    return answer._replace(code="empty_response", message="the body has neither content nor tool calls", again=True)


def _usage(usage: Any) -> Answer:
    """Return an answer that says nothing but what it used."""
    if not isinstance(usage, dict):
        return Answer()
    inputs, outputs = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    return Answer(
        input_tokens=integer(usage.get("prompt_tokens")),
        output_tokens=integer(usage.get("completion_tokens")),
        total_tokens=integer(usage.get("total_tokens")),
        cached_tokens=integer(inputs.get("cached_tokens")) if isinstance(inputs, dict) else None,
        reasoning_tokens=integer(outputs.get("reasoning_tokens")) if isinstance(outputs, dict) else None,
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
