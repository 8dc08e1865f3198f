"""The registry of endpoints, and the recognition of a body's endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchframe._endpoints.chat import CHAT
from batchframe._endpoints.completions import COMPLETIONS
from batchframe._endpoints.embeddings import EMBEDDINGS
from batchframe._endpoints.foreign import foreign_endpoint
from batchframe._endpoints.moderations import MODERATIONS
from batchframe._endpoints.responses import RESPONSES

if TYPE_CHECKING:
    from batchframe._endpoints.base import Endpoint

DEFAULT = CHAT
# The endpoints by path, the default first.
ENDPOINTS = {endpoint.path: endpoint for endpoint in (CHAT, RESPONSES, EMBEDDINGS, COMPLETIONS, MODERATIONS)}


def is_answer(body: dict[str, Any]) -> bool:
    """Return whether an object looks like the body of an answer."""
    return any(endpoint.answer_member in body for endpoint in ENDPOINTS.values()) or foreign_endpoint(body) is not None


def endpoint_of(body: dict[str, Any]) -> Endpoint:
    """Return the endpoint of a body, or the default one if the body does not show it."""
    name = body.get("object")
    named = (endpoint for endpoint in ENDPOINTS.values() if endpoint.object_name == name is not None)
    marked = (endpoint for endpoint in ENDPOINTS.values() if endpoint.answer_member in body)
    return next(named, None) or next(marked, DEFAULT)
