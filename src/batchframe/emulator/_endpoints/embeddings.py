"""``/v1/embeddings``: the checks of a body, and the vectors."""

from __future__ import annotations

import base64
import struct
from typing import TYPE_CHECKING, Any

from batchframe.emulator import _errors as errors
from batchframe.emulator._endpoints import parameter_kinds as kinds
from batchframe.emulator._endpoints.base import Endpoint
from batchframe.emulator._model import tokens, vectors

if TYPE_CHECKING:
    from batchframe.emulator._model.model_table import Model

_MAX_INPUTS = 2_048
_MAX_REQUEST_TOKENS = 300_000
_FULL_DIMENSIONS = {"text-embedding-3-large": 3_072}
_USUAL_DIMENSIONS = 1_536
_SHORTENABLE = "text-embedding-3"


def _text(param: str, value: Any) -> None:
    kinds.string(param, value)
    if not value:
        raise errors.ApiError(f"Invalid '{param}': input cannot be an empty string.", param=param)


# Source: openai.types.embedding_create_params (3.54.0).
PARAMETERS: dict[str, kinds.Check] = {
    "dimensions": kinds.integer(1, float("inf")),
    "encoding_format": kinds.one_of("float", "base64"),
    "input": kinds.texts_or_tokens(_text, max_items=_MAX_INPUTS),
    "model": kinds.string,
    "user": kinds.string,
}
_NOT_NULL = {"input": "one of a string or array", "model": "a string", "user": "a string"}


def count(body: dict[str, Any]) -> int:
    """Count the tokens of a body."""
    return sum(map(tokens.of_part, tokens.split(body["input"])))


def count_inputs(body: dict[str, Any]) -> int:
    """Count the texts of a body, which may be malformed."""
    value = body["input"]
    return len(tokens.split(value)) if isinstance(value, list) and value else 1


def check(body: dict[str, Any], model: Model) -> int:
    """Refuse a body the service would refuse; return its input tokens."""
    kinds.parameters(body, PARAMETERS, required=("input", "model"), not_null=_NOT_NULL)
    dimensions, full = body.get("dimensions"), _full(model)
    if dimensions is not None:
        if not model.snapshot.startswith(_SHORTENABLE):
            raise errors.ApiError("This model does not support specifying dimensions.")
        if dimensions > full:
            message = f"Invalid value for 'dimensions' = {dimensions}. Must be less than or equal to {full}."
            raise errors.ApiError(message)
    total = 0
    for position, item in enumerate(tokens.split(body["input"])):
        used = tokens.of_part(item)
        total += used
        if used > model.context_tokens:
            message = f"Invalid 'input[{position}]': maximum input length is {model.context_tokens} tokens."
            raise errors.ApiError(message)
    if total > _MAX_REQUEST_TOKENS:
        message = f"Requested {total} tokens, max {_MAX_REQUEST_TOKENS} tokens per request"
        raise errors.ApiError(message, kind="max_tokens_per_request", code="max_tokens_per_request")
    return total


def respond(body: dict[str, Any], _digest: bytes, prompt_tokens: int, _created: int, model: Model) -> dict[str, Any]:
    """Embed the inputs of a body."""
    full = _full(model)
    dimensions = body.get("dimensions") or full
    is_base64 = body.get("encoding_format") == "base64"
    data = []
    for index, item in enumerate(tokens.split(body["input"])):
        if isinstance(item, str):
            vector = vectors.of_text(item, model.snapshot, full, dimensions)
        else:
            vector = vectors.of_words([f"#{number}" for number in item], model.snapshot, full, dimensions)
        embedding = base64.b64encode(struct.pack(f"<{dimensions}f", *vector)).decode() if is_base64 else vector
        data.append({"object": "embedding", "index": index, "embedding": embedding})
    return {
        "object": "list",
        "data": data,
        "model": model.snapshot,
        "usage": {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens},
    }


def used_tokens(answer: dict[str, Any]) -> tuple[int, int, int]:
    """Return the input, output and reasoning tokens of an answer."""
    return answer["usage"]["prompt_tokens"], 0, 0


def _full(model: Model) -> int:
    return _FULL_DIMENSIONS.get(model.snapshot, _USUAL_DIMENSIONS)


def _wrong_model(_model: Model) -> errors.ApiError:
    return errors.ApiError("You are not allowed to generate embeddings from this model", status=403)


ENDPOINT = Endpoint(
    path="/v1/embeddings",
    required="input",
    model_kinds=("embedding",),
    azure_operation="embeddings",
    count=count,
    check=check,
    respond=respond,
    used_tokens=used_tokens,
    wrong_model=_wrong_model,
    count_inputs=count_inputs,
)
