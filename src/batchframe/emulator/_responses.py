"""The answers of ``/v1/responses``: what the chat endpoint would say, as items."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchframe.emulator import _items as items
from batchframe.emulator import _tokens as tokens
from batchframe.emulator._answers import logprobs, reasoning_tokens, speaker

if TYPE_CHECKING:
    from batchframe.emulator._model_table import Model

# What a response repeats of its request, and how what was not said is filled in.
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
    """Answer a body whose digest and number of tokens are known already."""
    number, name = int.from_bytes(digest[:6], "big"), digest.hex()
    chat = _as_chat(body)
    cap = body.get("max_output_tokens") or model.output_tokens
    reasoning = min(cap, reasoning_tokens(chat, number, model))
    said = speaker(chat, number)(0)
    output: list[dict[str, Any]] = []
    if reasoning:
        output.append({"id": f"rs_{name[:48]}", "type": "reasoning", "summary": _summary(body, reasoning)})
    if isinstance(said, dict):
        called = said["function"]
        used = tokens.of_text(called["name"]) + tokens.of_text(called["arguments"])
        is_cut = used > cap - reasoning
        if not is_cut:
            output.append(_call(f"fc_{name[:48]}", said["id"], called))
    else:
        used = tokens.of_text(said)
        is_cut = used > cap - reasoning
        # Who has thought until the end of its tokens says nothing at all.
        if cap > reasoning:
            output.append(_message(f"msg_{name[:48]}", tokens.cut(said, cap - reasoning), body, is_cut=is_cut))
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


def spent(answer: dict[str, Any]) -> tuple[int, int, int]:
    """Return what an answer used: input, output and reasoning tokens."""
    usage = answer["usage"]
    return usage["input_tokens"], usage["output_tokens"], usage["output_tokens_details"]["reasoning_tokens"]


def _as_chat(body: dict[str, Any]) -> dict[str, Any]:
    """Ask the same of the chat endpoint, as far as it decides what is said."""
    chat: dict[str, Any] = {"messages": items.messages(body)}
    form = (body.get("text") or {}).get("format") or _PLAIN
    chat["response_format"] = {"type": form["type"], "json_schema": form}
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
            for other in entry["top_logprobs"]:
                other["bytes"] = list(other["token"].encode())
    status = "incomplete" if is_cut else "completed"
    return {"id": item_id, "type": "message", "status": status, "content": [part], "role": "assistant"}


def _call(item_id: str, call_id: str, called: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": item_id,
        "type": "function_call",
        "status": "completed",
        "arguments": called["arguments"],
        "call_id": call_id,
        "name": called["name"],
    }


def _summary(body: dict[str, Any], reasoning: int) -> list[dict[str, str]]:
    """Summarize the reasoning when that was asked for."""
    asked = body.get("reasoning") or {}
    if not (asked.get("summary") or asked.get("generate_summary")):
        return []
    return [{"type": "summary_text", "text": f"Thought about the request for {reasoning} tokens."}]


def _reasoning(body: dict[str, Any], model: Model) -> dict[str, Any]:
    asked = body.get("reasoning") or {}
    return {
        "effort": asked.get("effort") or model.usual_effort,
        "summary": asked.get("summary"),
    }


def _text(body: dict[str, Any]) -> dict[str, Any]:
    asked = body.get("text") or {}
    return {"format": asked.get("format") or _PLAIN, "verbosity": asked.get("verbosity") or "medium"}
