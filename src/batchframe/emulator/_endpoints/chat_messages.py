"""The messages of a chat request: their checks, and their tokens."""

from __future__ import annotations

from typing import Any

from batchframe.emulator import _errors as errors
from batchframe.emulator._endpoints import media
from batchframe.emulator._model import tokens

_ROLES = ("system", "assistant", "user", "function", "tool", "developer")
_ROLE_SET = frozenset(_ROLES)
_KEYS = frozenset(
    {"role", "content", "name", "tool_calls", "tool_call_id", "function_call", "refusal", "audio", "annotations"}
)
# The parts of a content, and the type of the member that each needs, which has the part's name.
_PARTS: dict[str, type] = {
    "text": str,
    "image_url": dict,
    "input_audio": dict,
    "refusal": str,
    "audio": dict,
    "file": dict,
}
_PART_NAMES: dict[type, str] = {str: "a string", dict: "an object"}


def check_messages(param: str, messages: Any) -> None:
    """Refuse messages the service would refuse."""
    if type(messages) is not list:
        raise errors.wrong_type(param, "an array of objects", messages)
    if not messages:
        raise errors.array_length(param, 0, 1, above=False)
    for position, message in enumerate(messages):
        _check_message(position, message)


def count(body: dict[str, Any]) -> int:
    """Count the tokens of a chat request: messages, tools and the schema of the answer."""
    total = tokens.PER_REPLY
    for message in body["messages"]:
        total += tokens.PER_MESSAGE
        for key, value in message.items():
            if type(value) is str:
                total += tokens.of_text(value)
            elif key == "content" and isinstance(value, list):
                total += sum(map(_count_part, value))
            elif value is not None:
                total += tokens.of_json(value)
            if key == "name":
                total += tokens.PER_NAME
    for key in ("tools", "functions", "response_format"):
        if body.get(key):
            total += tokens.of_json(body[key])
    return total


def _count_part(part: dict[str, Any]) -> int:
    if part["type"] == "text":
        return tokens.of_text(part["text"])
    if part["type"] == "image_url":
        return tokens.IMAGE_LOW if part["image_url"].get("detail") == "low" else tokens.IMAGE_HIGH
    return tokens.OTHER_PART


def mentions_json(messages: list[Any]) -> bool:
    """Say whether any text of a conversation has the word "json"."""
    for message in messages:
        content = message.get("content")
        texts = [content] if isinstance(content, str) else [part.get("text", "") for part in content or ()]
        if any("json" in text.lower() for text in texts):
            return True
    return False


def _check_message(position: int, message: Any) -> None:
    if type(message) is not dict:
        raise errors.wrong_type(f"messages[{position}]", "an object", message)
    role = message.get("role")
    if role is None:
        raise errors.missing(f"messages[{position}].role")
    if type(role) is not str:
        raise errors.wrong_type(f"messages[{position}].role", f"one of {errors.quoted_list(_ROLES)}", role)
    if role not in _ROLE_SET:
        raise errors.wrong_value(f"messages[{position}].role", role, _ROLES)
    for key in message:
        if key not in _KEYS:
            raise errors.unknown(f"messages[{position}].{key}")
    if type(message.get("content")) is not str:
        _check_content(position, role, message)
    if role == "tool" and type(message.get("tool_call_id")) is not str:
        raise errors.missing(f"messages[{position}].tool_call_id")
    name = message.get("name")
    if name is not None and type(name) is not str:
        raise errors.wrong_type(f"messages[{position}].name", "a string", name)


def _check_content(position: int, role: str, message: dict[str, Any]) -> None:
    """Check a content that is not a string."""
    param = f"messages[{position}].content"
    content = message.get("content")
    if content is None:
        if role == "assistant" and (message.get("tool_calls") or message.get("function_call") or "audio" in message):
            return
        if "content" not in message:
            raise errors.missing(param)
        # The sentence and the dot before the bracket are the service's.
        text = "Invalid value for 'content': expected a string, got null."
        raise errors.ApiError(text, param=f"messages.[{position}].content")
    if type(content) is not list:
        raise errors.wrong_type(param, "one of a string or array of objects", content)
    if not content:
        raise errors.array_length(param, 0, 1, above=False)
    for number, part in enumerate(content):
        _check_part(f"{param}[{number}]", part)


def _check_part(param: str, part: Any) -> None:
    if type(part) is not dict:
        raise errors.wrong_type(param, "an object", part)
    kind = part.get("type")
    if kind is None:
        raise errors.missing(f"{param}.type")
    if kind not in _PARTS:
        raise errors.wrong_value(f"{param}.type", kind, _PARTS)
    value: Any = part.get(kind)
    if value is None:
        raise errors.missing(f"{param}.{kind}")
    if type(value) is not _PARTS[kind]:
        raise errors.wrong_type(f"{param}.{kind}", _PART_NAMES[_PARTS[kind]], value)
    _check_media(param, kind, value)


def _check_media(param: str, kind: str, value: Any) -> None:
    """Check an image or a file."""
    if kind == "image_url":
        if type(value.get("url")) is not str:
            raise errors.missing(f"{param}.image_url.url")
        media.check_detail(f"{param}.image_url.detail", value.get("detail"))
        media.check_image(f"{param}.image_url.url", value["url"], where="Invalid image URL:")
    elif kind == "file":
        media.check_file(f"{param}.file", value, where="Invalid file data:")
