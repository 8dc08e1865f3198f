"""Checks of values that several packages make."""

from __future__ import annotations

from typing import Any, TypeGuard


def is_count(value: Any) -> TypeGuard[int]:
    """Whether a value is a whole number of at least 1; a boolean is not."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def is_text_dict(value: Any) -> TypeGuard[dict[str, Any]]:
    """Whether a value is a dict with text keys."""
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)
