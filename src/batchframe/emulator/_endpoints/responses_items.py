"""The input of ``/v1/responses``, a text or items: its checks, its tokens, and the chat messages it stands for."""

from __future__ import annotations

from typing import Any

from batchframe.emulator import _errors as errors
from batchframe.emulator._endpoints import media
from batchframe.emulator._endpoints import parameter_kinds as kinds
from batchframe.emulator._model import tokens

_ROLES = ("assistant", "system", "developer", "user")
# The parts of a message, and the member that each needs besides its type (None: one of several).
_PARTS: dict[str, str | None] = {
    "input_text": "text",
    "input_image": None,
    "input_file": None,
    "input_audio": "input_audio",
    "output_text": "text",
    "refusal": "refusal",
}
# The items, and the members that each needs. The last ones come from hosted tools and are ignored here. Source:
# openai.types.responses.response_input_item (3.54.0).
_ITEMS: dict[str, tuple[str, ...]] = {
    "message": ("role", "content"),
    "function_call": ("call_id", "name", "arguments"),
    "function_call_output": ("call_id", "output"),
    "custom_tool_call": ("call_id", "name", "input"),
    "custom_tool_call_output": ("call_id", "output"),
    "item_reference": ("id",),
    "reasoning": ("summary",),
    **dict.fromkeys(
        (
            "additional_tools", "apply_patch_call", "apply_patch_call_output", "code_interpreter_call", "compaction",
            "computer_call", "computer_call_output", "file_search_call", "image_generation_call", "local_shell_call",
            "local_shell_call_output", "mcp_approval_request", "mcp_approval_response", "mcp_call", "mcp_list_tools",
            "shell_call", "shell_call_output", "tool_search_call", "tool_search_output", "web_search_call",
        ),
        (),
    ),
}  # fmt: skip


def check(param: str, value: Any) -> None:
    """Refuse an input the service would refuse."""
    if type(value) is str:
        return
    if type(value) is not list:
        raise errors.wrong_type(param, "one of a string or array of input items", value)
    if not value:
        raise errors.array_length(param, 0, 1, above=False)
    for position, item in enumerate(value):
        _check_item(f"{param}[{position}]", item)


def _check_item(param: str, item: Any) -> None:
    if type(item) is not dict:
        raise errors.wrong_type(param, "an object", item)
    # A message may omit its type.
    kind = item.get("type", "message")
    kinds.one_of(*_ITEMS)(f"{param}.type", kind)
    for name in _ITEMS[kind]:
        if item.get(name) is None:
            raise errors.missing(f"{param}.{name}")
    if kind == "item_reference":
        # The emulator stores no items, so no reference can resolve.
        raise errors.ApiError(f"Item with id '{item['id']}' not found.", status=404, param="input")
    if kind == "message":
        kinds.one_of(*_ROLES)(f"{param}.role", item["role"])
        if type(item["content"]) is not str:
            kinds.array_of("input content", _check_part)(f"{param}.content", item["content"])


def _check_part(param: str, part: Any) -> None:
    kinds.mapping(param, part)
    kind = part.get("type")
    if kind is None:
        raise errors.missing(f"{param}.type")
    kinds.one_of(*_PARTS)(f"{param}.type", kind)
    member = _PARTS[kind]
    if kind == "input_image":
        _check_image(param, part)
    elif kind == "input_file":
        media.check_file(param, part, where="Invalid file data:", alternatives=("file_url",))
    if member is None:
        return
    if part.get(member) is None:
        raise errors.missing(f"{param}.{member}")
    (kinds.mapping if member == "input_audio" else kinds.string)(f"{param}.{member}", part[member])


def _check_image(param: str, part: dict[str, Any]) -> None:
    names = [name for name in ("file_id", "image_url") if part.get(name) is not None]
    if len(names) != 1:
        message = (
            f"Mutually exclusive parameters: '{param}'. Ensure you are only providing one of: 'file_id' or 'image_url'."
            if names
            else f"Missing mutually exclusive parameters: '{param}'. "
            "Ensure you are providing exactly one of: 'file_id' or 'image_url'."
        )
        code = "mutually_exclusive_parameters" if names else "missing_mutually_exclusive_parameters"
        raise errors.ApiError(message, param=param, code=code)
    kinds.string(f"{param}.{names[0]}", part[names[0]])
    media.check_detail(f"{param}.detail", part.get("detail"))
    if names == ["image_url"]:
        media.check_image(f"{param}.image_url", part["image_url"], where="Invalid")


def messages(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the instructions and the input as chat messages."""
    instructions, value = body.get("instructions"), body["input"]
    conversation = [{"role": "system", "content": instructions}] if instructions else []
    if isinstance(value, str):
        return [*conversation, {"role": "user", "content": value}]
    for item in value:
        if _is_message(item):
            conversation.append({"role": item["role"], "content": _content(item["content"])})
        elif isinstance(item.get("output"), str):
            conversation.append({"role": "tool", "content": item["output"]})
    return conversation


def _is_message(item: dict[str, Any]) -> bool:
    return bool(item.get("type", "message") == "message")


def _content(content: Any) -> Any:
    if isinstance(content, str):
        return content
    return [{"type": "text", "text": part["text"]} for part in content if part["type"].endswith("_text")]


def count(body: dict[str, Any]) -> int:
    """Count the tokens of a request: instructions, items, tools and the schema of the answer."""
    total = tokens.PER_REPLY
    if body.get("instructions"):
        total += tokens.PER_MESSAGE + tokens.of_text(body["instructions"])
    value = body["input"]
    if isinstance(value, str):
        total += tokens.PER_MESSAGE + tokens.of_text(value)
    else:
        total += sum(map(_count_item, value))
    for value in (body.get("tools"), (body.get("text") or {}).get("format")):
        if value:
            total += tokens.of_json(value)
    return total


def _count_item(item: dict[str, Any]) -> int:
    content = item.get("content")
    if not _is_message(item):
        return tokens.PER_MESSAGE + tokens.of_json(item)
    if isinstance(content, str):
        return tokens.PER_MESSAGE + tokens.of_text(content)
    return tokens.PER_MESSAGE + sum(map(_count_part, content or ()))


def _count_part(part: dict[str, Any]) -> int:
    if part["type"] == "input_image":
        return tokens.IMAGE_LOW if part.get("detail") == "low" else tokens.IMAGE_HIGH
    text = part.get("text") or part.get("refusal")
    return tokens.of_text(text) if isinstance(text, str) else tokens.OTHER_PART
