"""JSON schemas, as far as checking them and making values of them both need it."""

from __future__ import annotations

from typing import Any


def resolve(root: dict[str, Any], reference: Any) -> dict[str, Any] | None:
    """Follow a local reference (``#``, ``#/$defs/name``); None if it leads nowhere."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    schema: Any = root
    for step in reference[1:].split("/")[1:]:
        if not isinstance(schema, dict):
            return None
        schema = schema.get(step.replace("~1", "/").replace("~0", "~"))
    return schema if isinstance(schema, dict) else None
