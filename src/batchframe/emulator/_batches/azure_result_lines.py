"""Result lines as Azure writes them: no id, sorted keys, and the verdicts of the content filters."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from batchframe.emulator._endpoints.base import Endpoint
    from batchframe.emulator._model.shapes import ResultLine

_sorted = msgspec.json.Encoder(order="sorted")


def encode(line: ResultLine, endpoint: Endpoint | None, *, has_details: bool) -> bytes:
    """Encode a line; `endpoint` is None for a line without a response.

    `has_details`: whether the usage has its inner objects, as it did not in 2024.
    """
    response: dict[str, Any] | None = msgspec.to_builtins(line.response)
    if response is not None:
        response["request_id"] = str(uuid.UUID(response["request_id"]))
        if isinstance(response.get("body"), dict) and endpoint is not None:
            endpoint.add_azure_fields(response["body"], has_details=has_details)
    raw = msgspec.Raw(_sorted.encode(response))
    return msgspec.json.encode({"custom_id": line.custom_id, "response": raw, "error": line.error})
