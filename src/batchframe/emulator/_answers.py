"""From a request body to a response body: pure, so that a test can say what each row must get."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

from batchframe.emulator import _replies as replies
from batchframe.emulator import _tokens as tokens
from batchframe.emulator._completions import Choice, Completion, CompletionDetails, Message, PromptDetails, Usage
from batchframe.emulator._instances import instance

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchframe.emulator._model_table import Model

_PIECE = re.compile(r"\s*\S+|\s+")
_REASONING_TOKENS = 64
_ANY_OBJECT = {"type": "object"}
_NO_PROMPT_DETAILS = PromptDetails()
_NO_DETAILS = CompletionDetails()


def respond(body: dict[str, Any], digest: bytes, prompt_tokens: int, created: int, model: Model) -> Completion:
    """Answer a body whose digest and number of tokens are known already."""
    number = int.from_bytes(digest[:6], "big")
    cap = body.get("max_completion_tokens") or body.get("max_tokens") or model.output_tokens
    reasoning = min(cap, reasoning_tokens(body, number, model))
    say = speaker(body, number)
    written = 0
    choices = []
    for index in range(body.get("n") or 1):
        choice, used = _choice(body, index, say, cap - reasoning)
        choices.append(choice)
        written += used + reasoning
    return Completion(
        id=f"chatcmpl-{digest.hex()[:32]}",
        created=created,
        model=model.snapshot,
        choices=choices,
        usage=Usage(
            prompt_tokens,
            written,
            prompt_tokens + written,
            _NO_PROMPT_DETAILS,
            CompletionDetails(reasoning * len(choices)) if reasoning else _NO_DETAILS,
        ),
    )


def speaker(body: dict[str, Any], number: int) -> Callable[[int], str | dict[str, Any]]:
    """Find what kind of answer is asked for: for the n-th choice, a text or the call of a tool."""
    reading = replies.read(body["messages"])
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
        return lambda index: _json({"answer": replies.say(reading, number + index)})
    return lambda index: replies.say(reading, number + index)


def _choice(
    body: dict[str, Any], index: int, say: Callable[[int], str | dict[str, Any]], cap: int
) -> tuple[Choice, int]:
    said = say(index)
    if isinstance(said, dict):
        # As the service does: a named tool ends with "stop", one it had to choose with "tool_calls".
        reason = "tool_calls" if body["tool_choice"] == "required" else "stop"
        used = tokens.of_text(said["function"]["name"]) + tokens.of_text(said["function"]["arguments"])
        return Choice(index=index, message=Message(tool_calls=[said]), finish_reason=reason), used
    stop = body.get("stop")
    if stop:
        for sequence in [stop] if isinstance(stop, str) else stop:
            said = said.split(sequence, 1)[0] if sequence else said
    choice = Choice(index=index, message=Message())
    used = tokens.of_text(said)
    if used > cap:
        said = tokens.cut(said, cap)
        used = cap
        choice.finish_reason = "length"
    choice.message.content = said
    if body.get("logprobs"):
        choice.logprobs = {"content": logprobs(said, body.get("top_logprobs") or 0), "refusal": None}
    return choice, used


def _called_tool(body: dict[str, Any], number: int) -> dict[str, Any] | None:
    """Find the function that has to be called; of a free choice ("auto") no use is made."""
    choice = body.get("tool_choice")
    if choice is None:
        return None
    functions: list[dict[str, Any]] = [t["function"] for t in body.get("tools") or () if t["type"] == "function"]
    if choice == "required" and functions:
        return functions[number % len(functions)]
    if isinstance(choice, dict):
        wanted = choice.get("function", {}).get("name")
        return next((function for function in functions if function["name"] == wanted), None)
    return None


def reasoning_tokens(body: dict[str, Any], number: int, model: Model) -> int:
    """Say how long a model thinks."""
    if not model.is_reasoning or (body.get("reasoning_effort") or model.usual_effort) in {"none", "minimal"}:
        return 0
    return _REASONING_TOKENS * (1 + number % 4)


def logprobs(text: str, top: int) -> list[dict[str, Any]]:
    """Make up how likely each piece of a text was, and `top` others in its place."""
    return [_logprob(piece, position, top) for position, piece in enumerate(_PIECE.findall(text))]


def _logprob(piece: str, position: int, top: int) -> dict[str, Any]:
    likely = -((len(piece) * 31 + position * 7) % 97 + 1) / 1000
    entry = {"token": piece, "logprob": likely, "bytes": list(piece.encode())}
    others = [
        {"token": f"{piece}{'~' * rank}", "logprob": round(likely - math.log1p(rank) * 3, 6), "bytes": None}
        for rank in range(1, top)
    ]
    return {**entry, "top_logprobs": [dict(entry), *others] if top else []}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
