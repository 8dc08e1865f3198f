"""``/v1/responses``: the answer to a body, which is what the chat endpoint would answer, as items."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchframe.emulator._endpoints import content_filters, responses_checks, responses_items
from batchframe.emulator._endpoints.base import Endpoint
from batchframe.emulator._endpoints.generation import logprobs, reasoning_tokens, writer
from batchframe.emulator._faults.row_effects import REFUSAL, alter_text
from batchframe.emulator._model import tokens

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchframe.emulator._faults.row_faults import RowFault
    from batchframe.emulator._model.model_table import Model

# The parameters that a response repeats, and their values where the request leaves them out.
_REPEATED: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "store": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
_LOGPROBS = "message.output_text.logprobs"
_PLAIN = {"type": "text"}


def respond(body: dict[str, Any], digest: bytes, prompt_tokens: int, created: int, model: Model) -> dict[str, Any]:
    """Answer a body."""
    number, name = int.from_bytes(digest[:6], "big"), digest.hex()
    chat = _as_chat(body)
    cap = body.get("max_output_tokens") or model.output_tokens
    reasoning = min(cap, reasoning_tokens(chat, number, model))
    content = writer(chat, number)(0)
    output: list[dict[str, Any]] = []
    if reasoning:
        output.append({"id": f"rs_{name[:48]}", "type": "reasoning", "summary": _summary(body, reasoning)})
    if isinstance(content, dict):
        function = content["function"]
        used = tokens.of_text(function["name"]) + tokens.of_text(function["arguments"])
        is_cut = used > cap - reasoning
        if not is_cut:
            output.append(_call(f"fc_{name[:48]}", content["id"], function))
    else:
        used = tokens.of_text(content)
        is_cut = used > cap - reasoning
        # A model that spends all its tokens on reasoning writes no message.
        if cap > reasoning:
            output.append(_message(f"msg_{name[:48]}", tokens.cut(content, cap - reasoning), body, is_cut=is_cut))
    used = reasoning + min(used, cap - reasoning)
    repeated = {key: usual if body.get(key) is None else body[key] for key, usual in _REPEATED.items()}
    return {
        "id": f"resp_{name[:48]}",
        "object": "response",
        "created_at": created,
        "status": "incomplete" if is_cut else "completed",
        "background": False,
        "completed_at": None if is_cut else created,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
        "model": model.snapshot,
        "output": output,
        "reasoning": _reasoning(body, model),
        "service_tier": "default",
        "text": _text(body),
        **repeated,
        "usage": {
            "input_tokens": prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": used,
            "output_tokens_details": {"reasoning_tokens": reasoning},
            "total_tokens": prompt_tokens + used,
        },
    }


def used_tokens(answer: dict[str, Any]) -> tuple[int, int, int]:
    """Return the input, output and reasoning tokens of an answer."""
    usage = answer["usage"]
    return usage["input_tokens"], usage["output_tokens"], usage["output_tokens_details"]["reasoning_tokens"]


def alter(answer: dict[str, Any], hits: Iterable[RowFault]) -> None:
    """Apply faults to an answer, and count its tokens again."""
    parts = [part for item in answer["output"] if item["type"] == "message" for part in item["content"]]
    for fault in hits:
        if fault.kind in {"content_filter", "length"}:
            reason = "content_filter" if fault.kind == "content_filter" else "max_output_tokens"
            answer["status"], answer["incomplete_details"] = "incomplete", {"reason": reason}
            answer["completed_at"] = None
        for part in parts:
            _alter_part(part, fault)
    if parts:
        usage = answer["usage"]
        written = sum(tokens.of_text(part.get("text") or part.get("refusal") or "") for part in parts)
        usage["output_tokens"] = written + usage["output_tokens_details"]["reasoning_tokens"]
        usage["total_tokens"] = usage["input_tokens"] + usage["output_tokens"]


def _alter_part(part: dict[str, Any], fault: RowFault) -> None:
    text = part.get("text")
    if text is None:
        return
    if fault.kind == "refusal":
        part.clear()
        part.update(type="refusal", refusal=REFUSAL)
    else:
        part["text"] = alter_text(text, fault)


def add_azure_fields(body: dict[str, Any], *, has_details: bool) -> None:  # noqa: ARG001 - the protocol's signature
    """Add the verdicts of the content filters; Azure writes times as decimals."""
    if body.get("object") != "response":
        return
    is_filtered = body["status"] == "incomplete" and body["incomplete_details"]["reason"] == "content_filter"
    verdict = content_filters.verdict(is_filtered=is_filtered)
    body["content_filters"] = [
        {"blocked": False, "source_type": "prompt", "content_filter_results": content_filters.SAFE},
        {"blocked": is_filtered, "source_type": "completion", "content_filter_results": verdict},
    ]
    for name in ("created_at", "completed_at"):
        body[name] = None if body[name] is None else float(body[name])


def _as_chat(body: dict[str, Any]) -> dict[str, Any]:
    """Return the chat body that gets the same answer."""
    chat: dict[str, Any] = {"messages": responses_items.messages(body)}
    response_format = (body.get("text") or {}).get("format") or _PLAIN
    chat["response_format"] = {"type": response_format["type"], "json_schema": response_format}
    chat["reasoning_effort"] = (body.get("reasoning") or {}).get("effort")
    chat["tools"] = [
        {"type": "function", "function": tool} for tool in body.get("tools") or () if tool["type"] == "function"
    ]
    choice = body.get("tool_choice")
    chat["tool_choice"] = {"function": choice} if isinstance(choice, dict) else choice
    return chat


def _message(item_id: str, text: str, body: dict[str, Any], *, is_cut: bool) -> dict[str, Any]:
    part: dict[str, Any] = {"type": "output_text", "annotations": [], "logprobs": [], "text": text}
    if _LOGPROBS in (body.get("include") or ()):
        part["logprobs"] = logprobs(text, body.get("top_logprobs") or 0)
        for entry in part["logprobs"]:
            for alternative in entry["top_logprobs"]:
                alternative["bytes"] = list(alternative["token"].encode())
    status = "incomplete" if is_cut else "completed"
    return {"id": item_id, "type": "message", "status": status, "content": [part], "role": "assistant"}


def _call(item_id: str, call_id: str, function: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": item_id,
        "type": "function_call",
        "status": "completed",
        "arguments": function["arguments"],
        "call_id": call_id,
        "name": function["name"],
    }


def _summary(body: dict[str, Any], reasoning: int) -> list[dict[str, str]]:
    """Summarize the reasoning, if the request wants a summary."""
    options = body.get("reasoning") or {}
    if not (options.get("summary") or options.get("generate_summary")):
        return []
    return [{"type": "summary_text", "text": f"Thought about the request for {reasoning} tokens."}]


def _reasoning(body: dict[str, Any], model: Model) -> dict[str, Any]:
    options = body.get("reasoning") or {}
    return {
        "effort": options.get("effort") or model.usual_effort,
        "summary": options.get("summary"),
    }


def _text(body: dict[str, Any]) -> dict[str, Any]:
    options = body.get("text") or {}
    return {"format": options.get("format") or _PLAIN, "verbosity": options.get("verbosity") or "medium"}


ENDPOINT = Endpoint(
    path="/v1/responses",
    required="input",
    model_kinds=("responses", "chat"),
    azure_operation="responses",
    count=responses_items.count,
    check=responses_checks.check,
    respond=respond,
    used_tokens=used_tokens,
    streams="Responses",
    alter=alter,
    add_azure_fields=add_azure_fields,
    names_deployment=True,
)
