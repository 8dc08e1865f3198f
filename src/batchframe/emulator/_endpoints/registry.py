"""The endpoints that the emulator executes. Each is a module of its own that defines ``ENDPOINT``."""

from __future__ import annotations

from typing import Any

import msgspec

from batchframe.emulator._endpoints import chat, completions, embeddings, moderations, responses
from batchframe.emulator._json import canonical_digest
from batchframe.emulator._model.model_table import model_named

_MODULES = (chat, responses, embeddings, completions, moderations)
ENDPOINTS = {module.ENDPOINT.path: module.ENDPOINT for module in _MODULES}


def answer(body: dict[str, Any], *, created: int = 0, endpoint: str = chat.ENDPOINT.path) -> dict[str, Any]:
    """Return the emulator's answer to a request body that passes its checks.

    Parameters
    ----------
    body
        The request's ``body``.
    created
        The answer's ``created`` or ``created_at``, the only part that does not follow from `body`.
    endpoint
        The ``url`` of the request's line.
    """
    if endpoint not in ENDPOINTS:
        raise ValueError(f"the emulator does not execute {endpoint!r}; it executes {', '.join(ENDPOINTS)}")
    target = ENDPOINTS[endpoint]
    model = model_named(body.get("model", "omni-moderation-latest"))
    response = target.respond(body, canonical_digest(body), target.count(body), created, model)
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(response))
    return decoded
