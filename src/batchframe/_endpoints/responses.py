"""``/v1/responses``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from batchframe._core.lenient import mapping
from batchframe._core.wire_format import ResultLine
from batchframe._endpoints.base import (
    MAX_IMAGES,
    Answer,
    Endpoint,
    cut_short,
    empty,
    joined_text,
    json_array,
    objects_of,
    text_of,
    text_parts,
    tool_call,
    unreadable,
)
from batchframe._endpoints.logprobs import read_tokens
from batchframe._endpoints.parameter_table import PARAMETERS
from batchframe._endpoints.usage import NO_DETAILS, usage_struct

if TYPE_CHECKING:
    from typing import TypeAlias

# Items that may stand between messages: calls, their outputs, reasoning.
# Source: openai.types.responses.response_input_item (3.54.0).
_ITEMS = (
    "additional_tools", "apply_patch_call", "apply_patch_call_output", "code_interpreter_call", "compaction",
    "compaction_trigger", "computer_call", "computer_call_output", "configuration_update", "custom_tool_call",
    "custom_tool_call_output", "file_search_call", "function_call", "function_call_output", "image_generation_call",
    "item_reference", "local_shell_call", "local_shell_call_output", "mcp_approval_request", "mcp_approval_response",
    "mcp_call", "mcp_list_tools", "program", "program_output", "reasoning", "shell_call", "shell_call_output",
    "tool_search_call", "tool_search_output", "web_search_call",
)  # fmt: skip


class _Part(msgspec.Struct, gc=False):
    type: str | None = None
    text: str | None = None


class _Item(msgspec.Struct, gc=False):
    type: str | None = None
    phase: str | None = None
    content: list[_Part] | None = None


if TYPE_CHECKING:
    _Usage: TypeAlias = Any
else:
    _Usage = usage_struct("input_tokens", "output_tokens")
_NO_USAGE = msgspec.convert({}, _Usage)


class _Body(msgspec.Struct, gc=False):
    output: list[_Item]
    status: Literal["completed"]
    error: None = None
    incomplete_details: None = None
    usage: _Usage = _NO_USAGE
    model: str | None = None


_decode_line = msgspec.json.Decoder(ResultLine[_Body]).decode


def _read_line(line: bytes) -> tuple[str, Answer] | None:
    """Return the custom_id and answer of a successful line. None for any other line, which `_read` must read."""
    try:
        good = _decode_line(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    response = good.response
    body = response.body
    messages = [item for item in body.output if item.type == "message"]
    if len(messages) != 1 or messages[0].phase == _COMMENTARY:
        return None
    parts = messages[0].content or ()
    text = "".join([part.text or "" for part in parts])
    is_plain = all(part.type == "output_text" for part in parts)
    if not text or not is_plain or not 200 <= response.status_code < 300:  # noqa: PLR2004
        return None
    usage = body.usage
    inputs, outputs = usage.input_tokens_details or NO_DETAILS, usage.output_tokens_details or NO_DETAILS
    return good.custom_id, Answer(
        text,
        body.status,
        usage.input_tokens,
        usage.output_tokens,
        usage.total_tokens,
        inputs.cached_tokens,
        inputs.cache_write_tokens,
        outputs.reasoning_tokens,
        model=body.model,
        request_id=response.request_id,
    )


# Codes of a failed response that are worth a retry: at other endpoints they would be a 5xx or a 429.
_TRANSIENT = frozenset({"server_error", "rate_limit_exceeded"})


def _read(body: dict[str, Any]) -> Answer:  # noqa: PLR0911  (one case per line is clearest)
    """Return the answer of a body. Its response is the text of all messages, joined."""
    output = body.get("output")
    status, error = body.get("status"), mapping(body.get("error"))
    items = [item for item in output if isinstance(item, dict)] if isinstance(output, list) else []
    reason = text_of(mapping(body.get("incomplete_details")).get("reason"))
    answer = Answer(finish_reason=reason or text_of(status))
    if status == "failed" or error:
        code = text_of(error.get("code")) or "failed"
        message = text_of(error.get("message")) or "the response failed, and the service gave no reason"
        return answer._replace(code=code, message=message, again=code in _TRANSIENT)
    if not isinstance(output, list):
        return unreadable("no output")
    messages = _contents(output)
    parts = [part for content in messages for part in content]
    texts = [text for text in map(joined_text, messages) if text is not None]
    is_cut = status == "incomplete" and reason != "content_filter"
    if any(texts) or (not is_cut and texts):
        pieces = [text for text in texts if text]
        return answer._replace(response="".join(texts), pieces=json_array(pieces) if len(pieces) > 1 else None)
    refusal = joined_text(parts, "refusal")
    if refusal is not None:
        return answer._replace(code="refusal", message=refusal)
    if is_cut and reason == "max_output_tokens":
        return cut_short(answer, "max_output_tokens", "reasoning.effort")
    if is_cut:
        problem = f"the response is incomplete ({reason or 'no reason given'}), and has no text"
        return answer._replace(code=reason or "incomplete", message=problem)
    if any(str(item.get("type")).endswith(_ACTIONS) for item in items):
        return answer
    return empty(answer, "no text")


# Suffixes of the types of items by which a model acts, or asks to act.
_ACTIONS = ("_call", "mcp_approval_request")
# The ``phase`` of a message: openai.types.responses.ResponseOutputMessage (3.54.0).
_COMMENTARY = "commentary"


def _parts_of(output: list[Any]) -> list[dict[str, Any]]:
    """Return the text and refusal parts of all messages in an output."""
    return [part for content in _contents(output) for part in content]


def _contents(output: list[Any]) -> list[list[dict[str, Any]]]:
    """Return the text and refusal parts of each message in an output.

    Some models comment on their work before they answer. Comments are ignored unless there is no other message.
    """
    messages = [item for item in output if isinstance(item, dict) and item.get("type") == "message"]
    final = [item for item in messages if item.get("phase") != _COMMENTARY]
    return [text_parts(item.get("content")) for item in final or messages]


def _tool_calls(body: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        tool_call(item.get("call_id"), item)
        for item in objects_of(body["output"])
        if item.get("type") in ("function_call", "custom_tool_call")
    ]


def _logprobs(body: dict[str, Any]) -> list[Any] | None:
    """Return the tokens of all texts of a response, in the order in which its text joins them."""
    by_part = [
        read_tokens(part.get("logprobs")) for part in _parts_of(body["output"]) if isinstance(part.get("text"), str)
    ]
    tokens = [token for part in by_part if part for token in part]
    return tokens or None


def _whole(body: dict[str, Any]) -> list[dict[str, Any]]:
    return [body] if isinstance(body.get("output"), list) else []


RESPONSES = Endpoint(
    path="/v1/responses",
    parameters=PARAMETERS["/v1/responses"],
    prompt_member="input",
    answer_member="output",
    object_name="response",
    read=_read,
    read_line=_read_line,
    # Roles, keys and types of parts: easy_input_message_param, response_input_content_param and
    # response_output_message_param of openai.types.responses (3.54.0).
    roles=("system", "developer", "user", "assistant"),
    message_keys=("type", "id", "status", "phase"),
    part_types=("input_text", "input_image", "input_file", "input_audio", "output_text", "refusal"),
    item_types=_ITEMS,
    text_part="input_text",
    image_part=('{"type":"input_image","image_url":', "}"),
    max_images=MAX_IMAGES,
    has_image_detail=True,
    renamed_parameters={
        "function_call": "tool_choice",
        "functions": "tools",
        "logprobs": 'extra_body={"include": ["message.output_text.logprobs"]}',
        "max_completion_tokens": "max_output_tokens",
        "max_tokens": "max_output_tokens",
        "reasoning_effort": 'reasoning={"effort": "…"}',
        "verbosity": 'text={"verbosity": "…"}',
        "web_search_options": 'tools=[{"type": "web_search"}]',
    },
    format_parameter="text",
    logprobs_request=(
        "include",
        "message.output_text.logprobs",
        'extra_body={"include": ["message.output_text.logprobs"]}',
    ),
    choices=_whole,
    tool_calls=_tool_calls,
    logprobs=_logprobs,
)
