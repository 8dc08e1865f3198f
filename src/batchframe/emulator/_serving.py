"""Which models serve which endpoint, and what is said to the others: an error for each row, as the models exist."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from batchframe.emulator._errors import ApiError

if TYPE_CHECKING:
    from batchframe.emulator._model_table import Model

Operation = Literal["chat", "responses", "embedding", "completion", "moderation"]
_AZURE_NAMES: dict[Operation, str] = {
    "chat": "chatCompletion",
    "responses": "responses",
    "embedding": "embeddings",
    "completion": "completion",
    "moderation": "moderations",
}

_PATHS = {"responses": "v1/responses", "completion": "v1/completions", "moderation": "v1/moderations"}


def check_served(operation: Operation, name: str, model: Model, *, is_azure: bool) -> None:
    """Refuse a model of another kind."""
    kind = model.kind
    if kind == operation or kind is None or (operation == "responses" and kind == "chat"):
        return
    if is_azure:
        # The sentence was seen for embeddings and chat.
        message = (
            f"The {_AZURE_NAMES[operation]} operation does not work with the specified model, {name}. Please choose "
            "different model and try again. You can learn more about which models can be used with each operation "
            "here: https://go.microsoft.com/fwlink/?linkid=2197993."
        )
        raise ApiError(message, code="OperationNotSupported")
    if operation == "embedding":
        raise ApiError("You are not allowed to generate embeddings from this model", status=403)
    if operation == "chat" and kind == "responses":
        message = "This model is only supported in v1/responses and not in v1/chat/completions."
        raise ApiError(message, status=404, param="model")
    if operation == "chat":
        message = (
            "This is not a chat model and thus not supported in the v1/chat/completions endpoint. Did you mean to use "
            "v1/completions?"
        )
        raise ApiError(message, status=404, param="model")
    if operation == "completion" and kind in {"chat", "responses"}:
        message = (
            "This is a chat model and not supported in the v1/completions endpoint. Did you mean to use "
            "v1/chat/completions?"
        )
        raise ApiError(message, status=404, param="model")
    # Of these the service's own words are not known.
    message = f"The model '{name}' is not supported in the {_PATHS[operation]} endpoint."
    raise ApiError(message, status=404, param="model")
