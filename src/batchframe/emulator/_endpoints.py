"""The endpoints a batch can be executed for: what each needs, refuses and answers."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from batchframe.emulator import _answers as chat
from batchframe.emulator import _bodies as chat_bodies
from batchframe.emulator import _embeddings as embeddings
from batchframe.emulator import _items as items
from batchframe.emulator import _moderations as moderations
from batchframe.emulator import _more_effects as more_effects
from batchframe.emulator import _response_bodies as response_bodies
from batchframe.emulator import _responses as responses
from batchframe.emulator import _row_effects as effects
from batchframe.emulator import _text_completions as completions
from batchframe.emulator import _tokens as tokens
from batchframe.emulator._ledger import canonical
from batchframe.emulator._model_table import described
from batchframe.emulator._serving import Operation, check_served

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from batchframe.emulator._completions import Completion
    from batchframe.emulator._model_table import Model
    from batchframe.emulator._row_faults import RowFault

CHAT = "/v1/chat/completions"


class Endpoint(NamedTuple):
    """One endpoint. `answer` is a struct for chat, the endpoint of most batches, and a dict for the others."""

    path: str
    required: str
    """What a body must have besides its model."""
    operation: Operation
    streams: str | None
    """What it is called when streaming is refused; None: ``stream`` is not among its parameters."""
    count: Callable[[dict[str, Any]], int]
    """The tokens of a body, whose form may be wrong."""
    check: Callable[[dict[str, Any], Model], int]
    """Refuses a body, or returns its tokens."""
    respond: Callable[[dict[str, Any], bytes, int, int, Model], Any]
    """Answers: body, its digest, its tokens, the time, the model."""
    alter: Callable[[Any, Sequence[RowFault]], None]
    """Does to an answer what the faults of its row say."""
    spent: Callable[[Any], tuple[int, int, int]]
    """Input, output and reasoning tokens of an answer."""

    def admit(self, body: dict[str, Any], model: Model, *, is_azure: bool) -> int:
        """Refuse a body, or a model that is another endpoint's; return the tokens."""
        check_served(self.operation, body.get("model", ""), model, is_azure=is_azure)
        return self.check(body, model)


def _spent(answer: Completion) -> tuple[int, int, int]:
    usage = answer.usage
    return usage.prompt_tokens, usage.completion_tokens, usage.completion_tokens_details.reasoning_tokens


ENDPOINTS = {
    endpoint.path: endpoint
    for endpoint in (
        Endpoint(
            CHAT,
            "messages",
            "chat",
            "Chat Completions",
            tokens.of_prompt,
            chat_bodies.check_body,
            chat.respond,
            effects.alter,
            _spent,
        ),
        Endpoint(
            "/v1/responses",
            "input",
            "responses",
            "Responses",
            items.count,
            response_bodies.check,
            responses.respond,
            more_effects.alter_response,
            responses.spent,
        ),
        Endpoint(
            "/v1/embeddings",
            "input",
            "embedding",
            None,
            embeddings.count,
            embeddings.check,
            embeddings.respond,
            more_effects.alter_nothing,
            embeddings.spent,
        ),
        Endpoint(
            "/v1/completions",
            "prompt",
            "completion",
            "Completions",
            completions.count,
            completions.check,
            completions.respond,
            more_effects.alter_text,
            completions.spent,
        ),
        Endpoint(
            "/v1/moderations",
            "input",
            "moderation",
            None,
            moderations.count,
            moderations.check,
            moderations.respond,
            more_effects.alter_nothing,
            moderations.spent,
        ),
    )
}


def answer(body: dict[str, Any], *, created: int = 0, endpoint: str = CHAT) -> dict[str, Any]:
    """Return the answer the emulator gives to a request body that passes its checks.

    Parameters
    ----------
    body
        The request's ``body``.
    created
        What the answer's ``created``, or ``created_at``, shall be: the only part that does not follow from `body`.
    endpoint
        Where the request goes: the ``url`` of its line.
    """
    if endpoint not in ENDPOINTS:
        raise ValueError(f"the emulator does not execute {endpoint!r}; it executes {', '.join(ENDPOINTS)}")
    asked = ENDPOINTS[endpoint]
    digest = hashlib.sha256(canonical(body)).digest()
    model = described(body.get("model", "omni-moderation-latest"))
    made: dict[str, Any] = msgspec.json.decode(
        msgspec.json.encode(asked.respond(body, digest, asked.count(body), created, model))
    )
    return made
