"""The shapes of a chat answer and of a result line. Structs, because one is made and encoded per row."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType


class Message(msgspec.Struct, gc=False, kw_only=True):
    """The model's message; ``tool_calls`` is present only if tools are called."""

    role: Literal["assistant"] = "assistant"
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[dict[str, Any]] | UnsetType = UNSET
    annotations: tuple[()] = ()


class Choice(msgspec.Struct, gc=False, kw_only=True):
    """One of ``n`` answers."""

    index: int
    message: Message
    logprobs: dict[str, Any] | None = None
    finish_reason: str = "stop"


class PromptDetails(msgspec.Struct, gc=False, frozen=True):
    """Details of the prompt tokens; always zero here."""

    cached_tokens: int = 0
    audio_tokens: int = 0


class CompletionDetails(msgspec.Struct, gc=False, frozen=True):
    """Details of the completion tokens."""

    reasoning_tokens: int = 0
    audio_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class Usage(msgspec.Struct, gc=False):
    """The tokens of one answer, under the chat endpoint's names."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class Completion(msgspec.Struct, gc=False, kw_only=True):
    """A ``chat.completion``."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    service_tier: str = "default"
    system_fingerprint: str = "fp_emulator00"


class Response(msgspec.Struct, gc=False):
    """The ``response`` of a result line."""

    status_code: int
    request_id: str
    body: Completion | dict[str, Any] | str | UnsetType | None


class ResultLine(msgspec.Struct, gc=False):
    """A line of an output or error file."""

    id: str
    custom_id: str
    response: Response | None
    error: dict[str, str] | None
