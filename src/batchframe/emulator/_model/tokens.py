"""Token counts: a quarter of the UTF-8 bytes, the service's own rule of thumb for admission."""

from __future__ import annotations

from typing import Any

from batchframe.emulator._json import canonical

_BYTES = 4
# The overhead of a chat: three tokens per message, one per name, three for the start of the reply (OpenAI cookbook).
PER_MESSAGE, PER_NAME, PER_REPLY = 3, 1, 3
IMAGE_LOW, IMAGE_HIGH, OTHER_PART = 85, 765, 100


def of_text(text: str) -> int:
    """Count the tokens of a text."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return -(-size // _BYTES)


def of_json(value: Any) -> int:
    """Count the tokens of a value's JSON."""
    return of_text(canonical(value).decode())


def split(value: Any) -> list[str | list[int]]:
    """Return as a list a value that may be a text, the tokens of one, or a list of either."""
    is_single = isinstance(value, str) or (value and isinstance(value[0], int))
    return [value] if is_single else value


def of_part(item: str | list[int]) -> int:
    """Count one item of :func:`split`."""
    return of_text(item) if isinstance(item, str) else len(item)


def cut(text: str, max_tokens: int) -> str:
    """Cut a text to at most `max_tokens`."""
    return text if of_text(text) <= max_tokens else text.encode()[: max_tokens * _BYTES].decode(errors="ignore")
