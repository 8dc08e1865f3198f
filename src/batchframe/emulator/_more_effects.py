"""What the faults of rows do to the answers of the other endpoints than chat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchframe.emulator import _tokens as tokens
from batchframe.emulator._row_effects import SEPARATORS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchframe.emulator._row_faults import RowFault

_REFUSAL = "I'm sorry, I can't assist with that."


def alter_response(answer: dict[str, Any], hits: Iterable[RowFault]) -> None:
    """Change an answer of ``/v1/responses``; the tokens are those of what it says then."""
    parts = [part for item in answer["output"] if item["type"] == "message" for part in item["content"]]
    for fault in hits:
        if fault.kind in {"content_filter", "length"}:
            reason = "content_filter" if fault.kind == "content_filter" else "max_output_tokens"
            answer["status"], answer["incomplete_details"] = "incomplete", {"reason": reason}
            answer["completed_at"] = None
        for part in parts:
            _alter(part, fault)
    said = sum(tokens.of_text(part.get("text") or part.get("refusal") or "") for part in parts)
    if parts:
        usage = answer["usage"]
        usage["output_tokens"] = said + usage["output_tokens_details"]["reasoning_tokens"]
        usage["total_tokens"] = usage["input_tokens"] + usage["output_tokens"]


def _alter(part: dict[str, Any], fault: RowFault) -> None:
    text = part.get("text")
    if text is None:
        return
    if fault.kind == "refusal":
        part.clear()
        part.update(type="refusal", refusal=_REFUSAL)
    else:
        part["text"] = _altered(text, fault)


def alter_text(answer: dict[str, Any], hits: Iterable[RowFault]) -> None:
    """Change an answer of ``/v1/completions``, which has no refusals."""
    for fault in hits:
        for choice in answer["choices"]:
            choice["text"] = _altered(choice["text"], fault)
            if fault.kind in {"content_filter", "length"}:
                choice["finish_reason"] = fault.kind
    usage = answer["usage"]
    usage["completion_tokens"] = sum(tokens.of_text(choice["text"]) for choice in answer["choices"])
    usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]


def _altered(text: str, fault: RowFault) -> str:
    if fault.kind == "content_filter":
        return ""
    if fault.kind == "length":
        return text[: len(text) // 2]
    return SEPARATORS + text if fault.kind == "separators" and not text.startswith("{") else text


def alter_nothing(_answer: dict[str, Any], _hits: Iterable[RowFault]) -> None:
    """Leave an answer alone that has no text: vectors and judgements."""
