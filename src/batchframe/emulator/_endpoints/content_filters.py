"""What Azure's content filters add to an answer."""

from __future__ import annotations

from typing import Any

SAFE = {name: {"filtered": False, "severity": "safe"} for name in ("hate", "self_harm", "sexual", "violence")}
_VIOLENT = {**SAFE, "violence": {"filtered": True, "severity": "high"}}


def verdict(*, is_filtered: bool) -> dict[str, Any]:
    """Return the verdict on one text."""
    return _VIOLENT if is_filtered else SAFE


def annotate_choices(body: dict[str, Any], *, has_details: bool) -> None:
    """Add the verdicts to an answer with choices, and drop what Azure leaves out.

    `has_details`: whether the usage has its inner objects, as it did not in 2024.
    """
    if "choices" not in body:
        return
    body["prompt_filter_results"] = [{"prompt_index": 0, "content_filter_results": SAFE}]
    for choice in body["choices"]:
        choice["content_filter_results"] = verdict(is_filtered=choice["finish_reason"] == "content_filter")
    body.pop("service_tier", None)
    if not has_details:
        for name in ("prompt_tokens_details", "completion_tokens_details"):
            body["usage"].pop(name, None)
