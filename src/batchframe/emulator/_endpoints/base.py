"""What an endpoint is. Each endpoint's own module makes one; ``registry`` lists them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from batchframe.emulator._errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from batchframe.emulator._faults.row_faults import RowFault
    from batchframe.emulator._model.model_table import Model


def add_nothing(_answer: dict[str, Any], *, has_details: bool) -> None:
    """Add nothing: Azure writes this answer as OpenAI does."""


def alter_nothing(_answer: Any, _hits: Sequence[RowFault]) -> None:
    """Alter nothing: the answer holds no text that a fault could change."""


class Endpoint(NamedTuple):
    """One endpoint.

    Chat, the endpoint of most batches, makes its answers as structs, for speed; the others make dicts.
    """

    path: str
    required: str
    """The member that a body needs besides its model: ``messages``, ``input`` or ``prompt``."""
    model_kinds: tuple[str, ...]
    """The kinds of models that serve it."""
    azure_operation: str
    """Its name in Azure's errors."""
    count: Callable[[dict[str, Any]], int]
    """Counts the input tokens of a body, which may be malformed."""
    check: Callable[[dict[str, Any], Model], int]
    """Refuses a body, or returns its input tokens."""
    respond: Callable[[dict[str, Any], bytes, int, int, Model], Any]
    """Answers a body, given its digest, its tokens, the time and the model."""
    used_tokens: Callable[[Any], tuple[int, int, int]]
    """Returns the input, output and reasoning tokens of an answer."""
    streams: str | None = None
    """Its name in the error that refuses streaming; None: it has no parameter ``stream``."""
    alter: Callable[[Any, Sequence[RowFault]], None] = alter_nothing
    """Applies the faults of a row to its answer."""
    add_azure_fields: Callable[..., None] = add_nothing
    """Adds to an answer, as a dict, what only Azure writes."""
    wrong_model: Callable[[Model], ApiError | None] | None = None
    """The error for a model of another kind, where the service has a sentence of its own for it."""
    count_inputs: Callable[[dict[str, Any]], int] | None = None
    """Counts the inputs of a body, where the service limits them per batch."""
    names_deployment: bool = False
    """Whether the ``model`` of Azure's answers is the deployment, not the model."""

    def admit(self, body: dict[str, Any], model: Model, *, is_azure: bool) -> int:
        """Refuse a body, or a model of another endpoint; return the tokens."""
        if model.kind is not None and model.kind not in self.model_kinds:
            name = body.get("model", "")
            raise self._azure_refusal(name) if is_azure else self._refusal(name, model)
        return self.check(body, model)

    def _azure_refusal(self, name: str) -> ApiError:
        # Seen for embeddings and chat.
        message = (
            f"The {self.azure_operation} operation does not work with the specified model, {name}. Please choose "
            "different model and try again. You can learn more about which models can be used with each operation "
            "here: https://go.microsoft.com/fwlink/?linkid=2197993."
        )
        return ApiError(message, code="OperationNotSupported")

    def _refusal(self, name: str, model: Model) -> ApiError:
        error = None if self.wrong_model is None else self.wrong_model(model)
        if error is not None:
            return error
        # The service's own sentence is not known.
        message = f"The model '{name}' is not supported in the {self.path.removeprefix('/')} endpoint."
        return ApiError(message, status=404, param="model")
