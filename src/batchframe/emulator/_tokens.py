"""Counting tokens: a quarter of the UTF-8 bytes, the service's own rule of thumb for admission."""

from __future__ import annotations

from typing import Any

from batchframe.emulator._ledger import canonical

BYTES = 4
# The overhead of a chat: three tokens a message, one a name, three for the start of the reply (OpenAI cookbook).
PER_MESSAGE, _PER_NAME, PER_REPLY = 3, 1, 3
IMAGE_LOW, IMAGE_HIGH, OTHER_PART = 85, 765, 100


def of_text(text: str) -> int:
    """Count the tokens of a text."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return -(-size // BYTES)


def of_json(value: Any) -> int:
    """Count the tokens of anything, as its JSON."""
    return of_text(canonical(value).decode())


def split(given: Any) -> list[str | list[int]]:
    """Return as a list what may be a text, tokens, or several of these."""
    is_one = isinstance(given, str) or (given and isinstance(given[0], int))
    return [given] if is_one else given


def of_part(item: str | list[int]) -> int:
    """Count one item of :func:`split`."""
    return of_text(item) if isinstance(item, str) else len(item)


def cut(text: str, most: int) -> str:
    """Return no more of a text than so many tokens."""
    return text if of_text(text) <= most else text.encode()[: most * BYTES].decode(errors="ignore")


def of_prompt(body: dict[str, Any]) -> int:
    """Count the tokens of a chat request: messages, tools and the schema of the answer."""
    total = PER_REPLY
    for message in body["messages"]:
        total += PER_MESSAGE
        for key, value in message.items():
            if type(value) is str:
                total += of_text(value)
            elif key == "content" and isinstance(value, list):
                total += sum(map(_of_part, value))
            elif value is not None:
                total += of_text(canonical(value).decode())
            if key == "name":
                total += _PER_NAME
    for key in ("tools", "functions", "response_format"):
        if body.get(key):
            total += of_text(canonical(body[key]).decode())
    return total


def _of_part(part: dict[str, Any]) -> int:
    if part["type"] == "text":
        return of_text(part["text"])
    if part["type"] == "image_url":
        return IMAGE_LOW if part["image_url"].get("detail") == "low" else IMAGE_HIGH
    return OTHER_PART
