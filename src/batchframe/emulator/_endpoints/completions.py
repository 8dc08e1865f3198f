"""``/v1/completions``: the checks of a body, and the text that continues it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchframe.emulator import _errors as errors
from batchframe.emulator._endpoints import content_filters
from batchframe.emulator._endpoints import parameter_kinds as kinds
from batchframe.emulator._endpoints.base import Endpoint
from batchframe.emulator._endpoints.generation import logprobs, until_stop
from batchframe.emulator._faults.row_effects import alter_text
from batchframe.emulator._model import text_model, tokens

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchframe.emulator._faults.row_faults import RowFault
    from batchframe.emulator._model.model_table import Model

_USUAL_TOKENS = 16

# Source: openai.types.completion_create_params (3.54.0) for the names, the API reference for the bounds.
PARAMETERS: dict[str, kinds.Check] = {
    "best_of": kinds.integer(1, 20),
    "echo": kinds.boolean,
    "frequency_penalty": kinds.decimal(-2, 2),
    "logit_bias": kinds.logit_bias,
    "logprobs": kinds.integer(0, 5),
    "max_tokens": kinds.integer(0, float("inf")),
    "model": kinds.string,
    "n": kinds.integer(1, 128),
    "presence_penalty": kinds.decimal(-2, 2),
    "prompt": kinds.texts_or_tokens(kinds.string),
    "seed": kinds.integer(-(2**63), 2**63 - 1),
    "stop": kinds.stop,
    "stream": kinds.boolean,
    "stream_options": kinds.mapping,
    "suffix": kinds.string,
    "temperature": kinds.decimal(0, 2),
    "top_p": kinds.decimal(0, 1),
    "user": kinds.string,
}
_NOT_NULL = {"model": "a string", "prompt": "one of a string or array", "user": "a string"}


def count(body: dict[str, Any]) -> int:
    """Count the tokens of all prompts."""
    return sum(map(tokens.of_part, tokens.split(body["prompt"])))


def check(body: dict[str, Any], model: Model) -> int:
    """Refuse a body the service would refuse; return its input tokens."""
    kinds.parameters(body, PARAMETERS, required=("model", "prompt"), not_null=_NOT_NULL)
    if body.get("best_of") is not None and body["best_of"] < (body.get("n") or 1):
        message = "You requested that the server return more choices than it will generate (HINT: 'best_of' < 'n')."
        raise errors.ApiError(message, param="best_of")
    cap = _cap(body)
    for prompt in tokens.split(body["prompt"]):
        used = tokens.of_part(prompt)
        if used + cap > model.context_tokens:
            message = (
                f"This model's maximum context length is {model.context_tokens} tokens, however you requested "
                f"{used + cap} tokens ({used} in your prompt; {cap} for the completion). Please reduce your prompt; "
                "or completion length."
            )
            raise errors.ApiError(message, code="context_length_exceeded")
    return count(body)


def respond(body: dict[str, Any], digest: bytes, prompt_tokens: int, created: int, model: Model) -> dict[str, Any]:
    """Answer each prompt `n` times."""
    number, cap = int.from_bytes(digest[:6], "big"), _cap(body)
    choices: list[dict[str, Any]] = []
    output_tokens = 0
    for prompt in tokens.split(body["prompt"]):
        text = prompt if isinstance(prompt, str) else " ".join(map(str, prompt))
        reading = text_model.read([{"role": "user", "content": text}])
        for _ in range(body.get("n") or 1):
            completion, reason = until_stop(text_model.reply(reading, number + len(choices)), body.get("stop")), "stop"
            if tokens.of_text(completion) > cap:
                completion, reason = tokens.cut(completion, cap), "length"
            output_tokens += tokens.of_text(completion)
            choices.append(
                {
                    "text": text + completion if body.get("echo") else completion,
                    "index": len(choices),
                    "logprobs": None if body.get("logprobs") is None else _logprobs(completion, body["logprobs"]),
                    "finish_reason": reason,
                }
            )
    return {
        "id": f"cmpl-{digest.hex()[:32]}",
        "object": "text_completion",
        "created": created,
        "model": model.snapshot,
        "choices": choices,
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": output_tokens,
            "total_tokens": prompt_tokens + output_tokens,
        },
        "system_fingerprint": "fp_emulator00",
    }


def used_tokens(answer: dict[str, Any]) -> tuple[int, int, int]:
    """Return the input, output and reasoning tokens of an answer."""
    return answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"], 0


def alter(answer: dict[str, Any], hits: Iterable[RowFault]) -> None:
    """Apply faults to an answer; this endpoint has no refusals."""
    for fault in hits:
        for choice in answer["choices"]:
            choice["text"] = alter_text(choice["text"], fault)
            if fault.kind in {"content_filter", "length"}:
                choice["finish_reason"] = fault.kind
    usage = answer["usage"]
    usage["completion_tokens"] = sum(tokens.of_text(choice["text"]) for choice in answer["choices"])
    usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]


def _wrong_model(model: Model) -> errors.ApiError | None:
    if model.kind not in {"chat", "responses"}:
        return None
    message = (
        "This is a chat model and not supported in the v1/completions endpoint. Did you mean to use "
        "v1/chat/completions?"
    )
    return errors.ApiError(message, status=404, param="model")


def _cap(body: dict[str, Any]) -> int:
    cap = body.get("max_tokens")
    return _USUAL_TOKENS if cap is None else int(cap)


def _logprobs(text: str, top: int) -> dict[str, Any]:
    entries = logprobs(text, top)
    offsets, offset = [], 0
    for entry in entries:
        offsets.append(offset)
        offset += len(entry["token"])
    return {
        "tokens": [entry["token"] for entry in entries],
        "token_logprobs": [entry["logprob"] for entry in entries],
        "top_logprobs": [{each["token"]: each["logprob"] for each in entry["top_logprobs"]} for entry in entries],
        "text_offset": offsets,
    }


ENDPOINT = Endpoint(
    path="/v1/completions",
    required="prompt",
    model_kinds=("completion",),
    azure_operation="completion",
    count=count,
    check=check,
    respond=respond,
    used_tokens=used_tokens,
    streams="Completions",
    alter=alter,
    add_azure_fields=content_filters.annotate_choices,
    wrong_model=_wrong_model,
)
