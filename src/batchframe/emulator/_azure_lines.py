"""Result lines as Azure writes them: no id, sorted keys, what the content filters found."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from batchframe.emulator._completions import ResultLine

_SAFE = {name: {"filtered": False, "severity": "safe"} for name in ("hate", "self_harm", "sexual", "violence")}
_sorted = msgspec.json.Encoder(order="sorted")


def encode(line: ResultLine, *, has_details: bool) -> bytes:
    """Encode a line; `has_details` says whether the usage has its inner objects, as it did not in 2024."""
    response: dict[str, Any] | None = msgspec.to_builtins(line.response)
    if response is not None:
        response["request_id"] = str(uuid.UUID(response["request_id"]))
        if isinstance(response.get("body"), dict) and "choices" in response["body"]:
            _filter(response["body"], has_details=has_details)
        elif isinstance(response.get("body"), dict) and response["body"].get("object") == "response":
            _filter_response(response["body"])
    raw = msgspec.Raw(_sorted.encode(response))
    return msgspec.json.encode({"custom_id": line.custom_id, "response": raw, "error": line.error})


def _filter(body: dict[str, Any], *, has_details: bool) -> None:
    body["prompt_filter_results"] = [{"prompt_index": 0, "content_filter_results": _SAFE}]
    for choice in body["choices"]:
        found = _SAFE
        if choice["finish_reason"] == "content_filter":
            found = {**_SAFE, "violence": {"filtered": True, "severity": "high"}}
        choice["content_filter_results"] = found
    body.pop("service_tier", None)
    if not has_details:
        for name in ("prompt_tokens_details", "completion_tokens_details"):
            body["usage"].pop(name, None)


def _filter_response(body: dict[str, Any]) -> None:
    """Do the same to a response; its times are decimals."""
    is_filtered = body["status"] == "incomplete" and body["incomplete_details"]["reason"] == "content_filter"
    found = {**_SAFE, "violence": {"filtered": True, "severity": "high"}} if is_filtered else _SAFE
    body["content_filters"] = [
        {"blocked": False, "source_type": "prompt", "content_filter_results": _SAFE},
        {"blocked": is_filtered, "source_type": "completion", "content_filter_results": found},
    ]
    for name in ("created_at", "completed_at"):
        body[name] = None if body[name] is None else float(body[name])
