"""What the endpoints that generate text share: choosing text or tool call, reasoning, log probabilities."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

from batchframe.emulator._model import text_model
from batchframe.emulator._model.schema_instances import instance

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchframe.emulator._model.model_table import Model

_PIECE = re.compile(r"\s*\S+|\s+")
_REASONING_TOKENS = 64
_ANY_OBJECT = {"type": "object"}


def writer(body: dict[str, Any], number: int) -> Callable[[int], str | dict[str, Any]]:
    """Return a function that makes the n-th choice of a chat body: a text, or a tool call."""
    reading = text_model.read(body["messages"])
    tool = _called_tool(body, number)
    if tool is not None:
        parameters = tool.get("parameters") or _ANY_OBJECT
        return lambda index: {
            "id": f"call_{number + index:024x}",
            "type": "function",
            "function": {"name": tool["name"], "arguments": _json(instance(parameters, reading, number + index))},
        }
    response_format: dict[str, Any] = body.get("response_format") or {}
    kind = response_format.get("type")
    if kind == "json_schema":
        schema = response_format["json_schema"].get("schema") or _ANY_OBJECT
        return lambda index: _json(instance(schema, reading, number + index))
    if kind == "json_object":
        return lambda index: _json({"answer": text_model.reply(reading, number + index)})
    return lambda index: text_model.reply(reading, number + index)


def _called_tool(body: dict[str, Any], number: int) -> dict[str, Any] | None:
    """Return the function that must be called, if any; with ``"auto"`` no function is called."""
    choice = body.get("tool_choice")
    if choice is None:
        return None
    functions: list[dict[str, Any]] = [t["function"] for t in body.get("tools") or () if t["type"] == "function"]
    if choice == "required" and functions:
        return functions[number % len(functions)]
    if isinstance(choice, dict):
        name = choice.get("function", {}).get("name")
        return next((function for function in functions if function["name"] == name), None)
    return None


def until_stop(text: str, stop: Any) -> str:
    """Cut a text at the first stop sequence."""
    for sequence in [stop] if isinstance(stop, str) else stop or ():
        text = text.split(sequence, 1)[0] if sequence else text
    return text


def reasoning_tokens(body: dict[str, Any], number: int, model: Model) -> int:
    """Return how many tokens a model reasons before it answers."""
    if not model.is_reasoning or (body.get("reasoning_effort") or model.usual_effort) in {"none", "minimal"}:
        return 0
    return _REASONING_TOKENS * (1 + number % 4)


def logprobs(text: str, top: int) -> list[dict[str, Any]]:
    """Make up a log probability for each piece of a text, and `top` alternatives."""
    return [_logprob(piece, position, top) for position, piece in enumerate(_PIECE.findall(text))]


def _logprob(piece: str, position: int, top: int) -> dict[str, Any]:
    logprob = -((len(piece) * 31 + position * 7) % 97 + 1) / 1000
    entry = {"token": piece, "logprob": logprob, "bytes": list(piece.encode())}
    alternatives = [
        {"token": f"{piece}{'~' * rank}", "logprob": round(logprob - math.log1p(rank) * 3, 6), "bytes": None}
        for rank in range(1, top)
    ]
    return {**entry, "top_logprobs": [dict(entry), *alternatives] if top else []}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
