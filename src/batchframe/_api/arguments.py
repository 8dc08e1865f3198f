"""The types of the public calls' arguments. Only type checkers and editors import this module.

``scripts/generate_signatures.py`` writes ``EndpointParameters`` from the table of request parameters, and ``Endpoint``
and ``Include`` from their registries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias, TypedDict

import polars as pl
from pydantic import BaseModel


class ArrowStream(Protocol):
    """An object that exports the Arrow C stream, such as a frame of pyarrow, pandas or DuckDB."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Return the stream in a capsule."""


Message: TypeAlias = Mapping[str, object]
Prompt: TypeAlias = str | pl.Expr | Sequence[Message]
Images: TypeAlias = str | pl.Expr | Sequence[str | pl.Expr]
Endpoint: TypeAlias = Literal[
    "/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/completions", "/v1/moderations"
]
ResponseFormat: TypeAlias = type[BaseModel] | Mapping[str, Any] | pl.Struct
Include: TypeAlias = Literal[
    "model", "request_id", "batch_id", "logprobs", "tool_calls", "content_filter", "reused", "raw"
]


class EndpointParameters(TypedDict, total=False):
    """The request parameters of all endpoints, except names that are options and parameters batches do not support."""

    access_programs: Mapping[Any, object] | pl.Expr | None
    audio: Mapping[Any, object] | pl.Expr | None
    background_options: Mapping[Any, object] | pl.Expr | None
    best_of: int | pl.Expr | None
    context_management: Sequence[Mapping[Any, object]] | pl.Expr | None
    conversation: str | Mapping[Any, object] | pl.Expr | None
    dimensions: int | None
    echo: bool | pl.Expr | None
    encoding_format: Literal["float", "base64"] | pl.Expr | None
    frequency_penalty: float | pl.Expr | None
    function_call: Literal["none", "auto"] | Mapping[Any, object] | pl.Expr | None
    functions: Sequence[Mapping[Any, object]] | pl.Expr | None
    image: Mapping[Any, object] | pl.Expr | None
    instructions: str | pl.Expr | None
    logit_bias: Mapping[Any, object] | pl.Expr | None
    logprobs: bool | int | pl.Expr | None
    max_completion_tokens: int | pl.Expr | None
    max_output_tokens: int | pl.Expr | None
    max_tokens: int | pl.Expr | None
    max_tool_calls: int | pl.Expr | None
    modalities: Sequence[Literal["text", "audio"]] | pl.Expr | None
    moderation: Mapping[Any, object] | pl.Expr | None
    n: int | None
    parallel_tool_calls: bool | pl.Expr | None
    prediction: Mapping[Any, object] | pl.Expr | None
    presence_penalty: float | pl.Expr | None
    previous_response_id: str | pl.Expr | None
    prompt_cache_key: str | pl.Expr | None
    prompt_cache_options: Mapping[Any, object] | pl.Expr | None
    prompt_cache_retention: Literal["in_memory", "24h"] | pl.Expr | None
    reasoning: Mapping[Any, object] | pl.Expr | None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | pl.Expr | None
    safety_identifier: str | pl.Expr | None
    seed: int | pl.Expr | None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"] | pl.Expr | None
    stop: str | Sequence[str] | pl.Expr | None
    store: bool | pl.Expr | None
    suffix: str | pl.Expr | None
    temperature: float | pl.Expr | None
    text: Mapping[Any, object] | pl.Expr | None
    tool_choice: Literal["none", "auto", "required"] | Mapping[Any, object] | pl.Expr | None
    tools: Sequence[Mapping[Any, object]] | pl.Expr | None
    top_logprobs: int | pl.Expr | None
    top_p: float | pl.Expr | None
    truncation: Literal["auto", "disabled"] | pl.Expr | None
    user: str | pl.Expr | None
    verbosity: Literal["low", "medium", "high"] | pl.Expr | None
    web_search_options: Mapping[Any, object] | pl.Expr | None
