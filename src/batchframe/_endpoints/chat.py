"""``/v1/chat/completions``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from batchframe._core.lenient import mapping, read_json
from batchframe._core.wire_format import ResultLine
from batchframe._endpoints.base import (
    MAX_IMAGES,
    Answer,
    Endpoint,
    choices_of,
    cut_short,
    empty,
    joined_text,
    objects_of,
    text_of,
    tool_call,
    unreadable,
)
from batchframe._endpoints.logprobs import read_tokens
from batchframe._endpoints.parameter_table import PARAMETERS
from batchframe._endpoints.usage import NO_DETAILS, usage_struct

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from batchframe._endpoints.base import Columns

    ReadAny = Callable[[bytes], tuple[str | None, Answer]]

# The members of a successful chat line that are read. msgspec skips all others without making objects. `gc=False`:
# nothing here can refer to itself, and the garbage collector would walk millions of objects.


class _Message(msgspec.Struct, gc=False):
    content: str | None = None
    refusal: str | None = None
    tool_calls: msgspec.Raw | None = None


class _Choice(msgspec.Struct, gc=False):
    message: _Message
    finish_reason: str | None = None


if TYPE_CHECKING:
    _Usage: TypeAlias = Any
else:
    _Usage = usage_struct("prompt_tokens", "completion_tokens")
_NO_USAGE = msgspec.convert({}, _Usage)


class _Body(msgspec.Struct, gc=False):
    choices: list[_Choice]
    usage: _Usage = _NO_USAGE
    model: str | None = None


_decode_line = msgspec.json.Decoder(ResultLine[_Body]).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
# The positions of the columns that are null for a successful row.
_RARE = [1 + Answer._fields.index(name) for name in ("code", "message", "again", "pieces")]


def _read(body: dict[str, Any]) -> Answer:
    choices = choices_of(body)
    if not choices or not isinstance(choices[0].get("message"), dict):
        return unreadable("no choices" if not choices else "a choice without a message")
    return _read_choice(choices[0])


def _read_choice(choice: dict[str, Any]) -> Answer:  # noqa: PLR0911  (one case per line is clearest)
    """Return the answer of one choice."""
    message = mapping(choice.get("message"))
    answer = Answer(finish_reason=text_of(choice.get("finish_reason")))
    content, refusal = message.get("content"), text_of(message.get("refusal"))
    parts = content if isinstance(content, list) else []
    if isinstance(content, list):  # some services send parts of reasoning and text
        content, refusal = joined_text(parts), refusal or joined_text(parts, "refusal")
    if isinstance(content, str) and content:
        return answer._replace(response=content)
    if content is not None and content != "":
        return answer._replace(code="invalid_response", message=f"the content is {type(content).__name__}, not text")
    if refusal is not None:
        return answer._replace(code="refusal", message=refusal)
    if message.get("tool_calls") or message.get("function_call"):
        return answer
    if answer.finish_reason == "length":
        return cut_short(answer, "max_completion_tokens", "reasoning_effort")
    if content == "":
        return answer._replace(response="")
    if parts:
        types = dict.fromkeys(str(mapping(part).get("type", type(part).__name__)) for part in parts)
        return answer._replace(
            code="invalid_response", message=f"the content has parts of type {', '.join(types)}, but none with a text"
        )
    return empty(answer, "neither content nor tool calls")


def _read_lines(lines: list[bytes], columns: Columns, kept: list[bytes] | None, read_any: ReadAny) -> None:
    """Append the answer of each line to the columns.

    The loop runs once per row, and most rows succeeded. So it binds methods to names, avoids objects, and leaves all
    other lines to ``read_any``.
    """
    (add_id, add_response, add_finish, add_input, add_output, add_total, add_cached, add_written, add_reasoning, _, _,
     _, add_model, add_request_id, _) = (column.append for column in columns)  # fmt: skip
    failures: list[tuple[int, str, str | None, bool | None]] = []
    for line in lines:
        try:
            good = _decode_line(line)
            response, custom_id = good.response, good.custom_id
            body = response.body
            (choice,), usage = body.choices, body.usage
            inputs = usage.prompt_tokens_details or NO_DETAILS
            outputs = usage.completion_tokens_details or NO_DETAILS
            content = choice.message.content
            # An empty text may have been cut off by the token limit.
            is_good = bool(content) and 200 <= response.status_code < 300  # noqa: PLR2004
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
            is_good = False  # a ValueError: several choices may come in any order
        if is_good:
            add_id(custom_id)
            add_response(content)
            add_finish(choice.finish_reason)
            add_input(usage.prompt_tokens)
            add_output(usage.completion_tokens)
            add_total(usage.total_tokens)
            add_cached(inputs.cached_tokens)
            add_written(inputs.cache_write_tokens)
            add_reasoning(outputs.reasoning_tokens)
            add_model(body.model)
            add_request_id(response.request_id)
        else:
            other_id, answer = (None, None) if line.isspace() else read_any(line)
            if other_id is None or answer is None:
                continue
            if answer.code is not None:
                failures.append((len(columns[0]), answer.code, answer.message, answer.again))
            add_id(other_id)
            add_response(answer.response)
            add_finish(answer.finish_reason)
            add_input(answer.input_tokens)
            add_output(answer.output_tokens)
            add_total(answer.total_tokens)
            add_cached(answer.cached_tokens)
            add_written(answer.cache_write_tokens)
            add_reasoning(answer.reasoning_tokens)
            add_model(answer.model)
            add_request_id(answer.request_id)
        if kept is not None:
            kept.append(line)
    codes, messages, again, pieces = (columns[index] for index in _RARE)
    for values in (codes, messages, again, pieces):
        values.extend([None] * (len(columns[0]) - len(values)))
    for index, code, message, may_pass in failures:
        codes[index], messages[index], again[index] = code, message, may_pass


def _tool_calls(choice: dict[str, Any]) -> list[dict[str, Any]] | None:
    message = choice.get("message")
    if not isinstance(message, dict):
        return None
    calls = [_call_of(call) for call in objects_of(message.get("tool_calls"))]
    legacy = message.get("function_call")
    return [tool_call(None, legacy)] if isinstance(legacy, dict) and not calls else calls


def _call_of(call: dict[str, Any]) -> dict[str, Any]:
    return tool_call(call.get("id"), mapping(call.get("function") or call.get("custom")))


def _logprobs(choice: dict[str, Any]) -> list[Any] | None:
    logprobs: Any = choice.get("logprobs")
    if isinstance(logprobs, msgspec.Raw):
        try:
            logprobs = _decode_members(logprobs)
        except (msgspec.DecodeError, UnicodeDecodeError):
            logprobs = read_json(logprobs)
    return read_tokens(mapping(logprobs).get("content"))


CHAT = Endpoint(
    path="/v1/chat/completions",
    parameters=PARAMETERS["/v1/chat/completions"],
    prompt_member="messages",
    answer_member="choices",
    object_name="chat.completion",
    read=_read,
    read_choice=_read_choice,
    read_lines=_read_lines,
    # Roles, keys and types of parts: the modules of openai.types.chat that end in message_param (3.54.0).
    roles=("system", "developer", "user", "assistant", "tool", "function"),
    message_keys=("name", "tool_call_id", "tool_calls", "function_call", "refusal", "audio"),
    part_types=("text", "image_url", "input_audio", "file", "refusal"),
    image_part=('{"type":"image_url","image_url":{"url":', "}}"),
    max_images=MAX_IMAGES,
    has_image_detail=True,
    renamed_parameters={
        "instructions": "system",
        "max_output_tokens": "max_completion_tokens",
        "reasoning": 'reasoning_effort="…"',
        "text": 'verbosity="…" or response_format',
    },
    format_parameter="response_format",
    logprobs_request=("logprobs", None, "logprobs=True, and top_logprobs=5 for the alternatives"),
    choices=choices_of,
    tool_calls=_tool_calls,
    logprobs=_logprobs,
)
