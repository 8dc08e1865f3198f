"""``/v1/moderations``: the checks of a body, and the results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchframe.emulator import _errors as errors
from batchframe.emulator._endpoints import media
from batchframe.emulator._endpoints import parameter_kinds as kinds
from batchframe.emulator._endpoints.base import Endpoint
from batchframe.emulator._model import moderation_words, tokens

if TYPE_CHECKING:
    from batchframe.emulator._model.model_table import Model

_FLAGGED_FROM = 0.5
# The categories that images are judged by. Source: openai.types.moderation (3.54.0).
_IMAGE_CATEGORIES = frozenset(
    {"self-harm", "self-harm/intent", "self-harm/instructions", "sexual", "violence", "violence/graphic"}
)


def _input(param: str, value: Any) -> None:
    if type(value) is str:
        return
    if type(value) is not list:
        raise errors.wrong_type(param, "one of a string or array", value)
    if not value:
        raise errors.array_length(param, 0, 1, above=False)
    for position, item in enumerate(value):
        if type(value[0]) is str:
            kinds.string(f"{param}[{position}]", item)
        else:
            _part(f"{param}[{position}]", item)
    images = sum(isinstance(item, dict) and item["type"] == "image_url" for item in value)
    if images > 1:
        message = f"Number of images ({images}) exceeds maximum of 1"
        raise errors.ApiError(message, param=param, code="too_many_images")


def _part(param: str, part: Any) -> None:
    kinds.mapping(param, part)
    if part.get("type") is None:
        raise errors.missing(f"{param}.type")
    kinds.one_of("image_url", "text")(f"{param}.type", part["type"])
    kinds.needs(param, part, (part["type"],), ("type", part["type"]))
    if part["type"] == "text":
        kinds.string(f"{param}.text", part["text"])
    else:
        kinds.needs(f"{param}.image_url", part["image_url"], ("url",), ("url",))
        kinds.string(f"{param}.image_url.url", part["image_url"]["url"])
        media.check_image(f"{param}.image_url.url", part["image_url"]["url"], where="Invalid image URL:")


# Source: openai.types.moderation_create_params (3.54.0).
PARAMETERS: dict[str, kinds.Check] = {"input": _input, "model": kinds.string}
_NOT_NULL = {"input": "one of a string or array", "model": "a string"}


def count(body: dict[str, Any]) -> int:
    """Count the tokens of all texts."""
    return sum(tokens.of_text(text) for text, _ in _subjects(body["input"]))


def check(body: dict[str, Any], model: Model) -> int:
    """Refuse a body the service would refuse; return its input tokens."""
    kinds.parameters(body, PARAMETERS, required=("input",), not_null=_NOT_NULL)
    if model.snapshot.startswith("text-") and any(has_image for _, has_image in _subjects(body["input"])):
        # It is known that these models take no images; the service's sentence is not.
        raise errors.ApiError("Image inputs are not supported with this model.", param="input")
    return count(body)


def respond(body: dict[str, Any], digest: bytes, _tokens: int, _created: int, model: Model) -> dict[str, Any]:
    """Judge each text; an input of parts is judged as one. The images themselves are not read."""
    results = []
    for text, has_image in _subjects(body["input"]):
        scores = moderation_words.scores(text, digest)
        categories = {name: score >= _FLAGGED_FROM for name, score in scores.items()}
        applied = {
            name: (["text"] if text else []) + (["image"] if has_image and name in _IMAGE_CATEGORIES else [])
            for name in scores
        }
        results.append(
            {
                "flagged": any(categories.values()),
                "categories": categories,
                "category_scores": scores,
                "category_applied_input_types": applied,
            }
        )
    return {"id": f"modr-{digest.hex()[:32]}", "model": model.snapshot, "results": results}


def used_tokens(_answer: dict[str, Any]) -> tuple[int, int, int]:
    """Return no tokens: moderation is free, and its answers have no usage."""
    return 0, 0, 0


def _subjects(value: Any) -> list[tuple[str, bool]]:
    """Return the texts to judge, each with whether images belong to it."""
    if isinstance(value, str):
        return [(value, False)]
    if isinstance(value[0], str):
        return [(text, False) for text in value]
    texts = [part["text"] for part in value if part["type"] == "text"]
    return [("\n".join(texts), any(part["type"] == "image_url" for part in value))]


ENDPOINT = Endpoint(
    path="/v1/moderations",
    required="input",
    model_kinds=("moderation",),
    azure_operation="moderations",
    count=count,
    check=check,
    respond=respond,
    used_tokens=used_tokens,
)
