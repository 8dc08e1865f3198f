"""The recognition of bodies from endpoints that we do not support."""

from __future__ import annotations

from typing import Any

from batchframe._core.lenient import mapping

LOOKS_LIKE = "it looks like an answer of "
# Each endpoint by a telltale member of the body, or of the first item of a list in it.
# Sources: openai.types (3.57.0) for images, audio and videos; vLLM's ``run-batch`` for scores and rankings; Anthropic's
# Messages API.
_FOREIGN = (
    ("/v1/images/generations", "data", "b64_json"),
    ("/v1/images/generations", "data", "url"),
    ("/v1/score", "data", "score"),
    ("/v1/rerank", "results", "relevance_score"),
    ("/v1/audio/transcriptions", "", "text"),
    ("/v1/messages", "", "stop_reason"),
    ("/v1/videos", "", "seconds"),
)


def foreign_endpoint(body: dict[str, Any]) -> str | None:
    """Return the unsupported endpoint that a body seems to come from, or None."""
    if "choices" in body or "output" in body:
        return None
    for path, member, mark in _FOREIGN:
        items = body.get(member) if member else [body]
        if isinstance(items, list) and items and mark in mapping(items[0]):
            return path
    return None
