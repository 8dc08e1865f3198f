"""Per endpoint: what the prompt becomes in a body, and how an answer is read from the body of a result line."""

from __future__ import annotations

import base64
import struct
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from batchframe._lenient import integer, mapping, number
from batchframe._usage import NO_DETAILS, tokens_of, usage_struct

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeAlias

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
EMBEDDINGS = "/v1/embeddings"
COMPLETIONS = "/v1/completions"
MODERATIONS = "/v1/moderations"


class Answer(NamedTuple):
    """What one result line says; ``code`` is None exactly when the row succeeded, ``again`` whether a failure may pass.

    ``response`` is a text, whatever the endpoint: that of the answer; an embedding as little-endian floats of 32 bits
    in base64; a moderation as JSON. Where several choices were asked for, it and ``finish_reason`` are JSON arrays.
    ``pieces`` is a JSON array of the texts of the messages, where several messages make up the response.
    """

    response: str | None = None
    finish_reason: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    code: str | None = None
    message: str | None = None
    again: bool | None = None
    model: str | None = None
    request_id: str | None = None
    pieces: str | None = None


# The shape of a good chat line, and no more: msgspec skips the rest without making objects of it. `gc=False`, since
# nothing here can refer to itself, and the collector would walk every one of millions.


class _Message(msgspec.Struct, gc=False):
    content: str | None = None
    refusal: str | None = None
    tool_calls: msgspec.Raw | None = None


class _Choice(msgspec.Struct, gc=False):
    message: _Message
    finish_reason: str | None = None


if TYPE_CHECKING:
    _Usage: TypeAlias = Any
    _ResponsesUsage: TypeAlias = Any
else:
    _Usage = usage_struct("prompt_tokens", "completion_tokens")
    _ResponsesUsage = usage_struct("input_tokens", "output_tokens")
_NO_USAGE = msgspec.convert({}, _Usage)
_NO_RESPONSES_USAGE = msgspec.convert({}, _ResponsesUsage)


class _Body(msgspec.Struct, gc=False):
    choices: list[_Choice]
    usage: _Usage = _NO_USAGE
    model: str | None = None


class _Response(msgspec.Struct, gc=False):
    status_code: int
    body: _Body
    request_id: str | None = None


class ChatLine(msgspec.Struct, gc=False):
    """A good line of an output file of ``/v1/chat/completions``."""

    custom_id: str
    response: _Response


class _Part(msgspec.Struct, gc=False):
    type: str | None = None
    text: str | None = None


class _Item(msgspec.Struct, gc=False):
    type: str | None = None
    phase: str | None = None
    content: list[_Part] | None = None


class _ResponsesBody(msgspec.Struct, gc=False):
    output: list[_Item]
    status: Literal["completed"]
    error: None = None
    incomplete_details: None = None
    usage: _ResponsesUsage = _NO_RESPONSES_USAGE
    model: str | None = None


class _ResponsesResponse(msgspec.Struct, gc=False):
    status_code: int
    body: _ResponsesBody
    request_id: str | None = None


class _ResponsesLine(msgspec.Struct, gc=False):
    custom_id: str
    response: _ResponsesResponse


_decode_responses = msgspec.json.Decoder(_ResponsesLine).decode


def _glance_at_response(line: bytes) -> tuple[str, Answer] | None:
    """Return custom_id and answer of a good line of ``/v1/responses``; None where it takes a closer look."""
    try:
        good = _decode_responses(line)
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


def _read_chat(body: dict[str, Any]) -> Answer:
    choices = choices_of(body)
    if not choices or not isinstance(choices[0].get("message"), dict):
        return _unreadable("no choices" if not choices else "a choice without a message")
    return _of_choice(choices[0])


def _of_choice(choice: dict[str, Any]) -> Answer:  # noqa: PLR0911  (a case a line is the clearest)
    """Return what one choice of the chat endpoint says."""
    message = mapping(choice.get("message"))
    answer = Answer(finish_reason=_text(choice.get("finish_reason")))
    content, refusal = message.get("content"), _text(message.get("refusal"))
    parts = content if isinstance(content, list) else []
    if isinstance(content, list):  # of thinking and text, from some services
        content, refusal = _joined(parts), refusal or _joined(parts, "refusal")
    if isinstance(content, str) and content:
        return answer._replace(response=content)
    if content is not None and content != "":
        return answer._replace(code="invalid_response", message=f"the content is {type(content).__name__}, not text")
    if refusal is not None:
        return answer._replace(code="refusal", message=refusal)
    if message.get("tool_calls") or message.get("function_call"):
        return answer
    if answer.finish_reason == "length":
        return _cut_short(answer, "max_completion_tokens", "reasoning_effort")
    if content == "":
        return answer._replace(response="")
    if parts:
        types = dict.fromkeys(str(mapping(part).get("type", type(part).__name__)) for part in parts)
        return answer._replace(
            code="invalid_response", message=f"the content has parts of type {', '.join(types)}, and none with a text"
        )
    return _nothing(answer, "neither content nor tool calls")


def _read_completion(body: dict[str, Any]) -> Answer:
    choices = choices_of(body)
    return _of_text_choice(choices[0]) if choices else _unreadable("no choices")


def _of_text_choice(choice: dict[str, Any]) -> Answer:
    answer = Answer(finish_reason=_text(choice.get("finish_reason")))
    text = choice.get("text")
    return answer._replace(response=text) if isinstance(text, str) else _nothing(answer, "no text")


def choices_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the choices of a body in the order of their indices, which is not always that of the list."""
    choices = body.get("choices")
    found = [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []
    return sorted(found, key=lambda choice: integer(choice.get("index")) or 0)


def _read_choices(body: dict[str, Any], read: Callable[[dict[str, Any]], Answer]) -> Answer:
    """Return several choices as one answer: it succeeded when one of them did."""
    answers = [read(choice) for choice in choices_of(body)]
    if not answers:
        return _unreadable("no choices")
    failed = [answer for answer in answers if answer.code is not None]
    answer = Answer(
        response=_json(answer.response for answer in answers),
        finish_reason=_json(answer.finish_reason for answer in answers),
    )
    if len(failed) < len(answers):
        return answer
    return answer._replace(response=None, code=failed[0].code, message=failed[0].message, again=failed[0].again)


def _json(texts: Iterable[str | None]) -> str:
    return msgspec.json.encode(list(texts)).decode()


# Worth another attempt where a response failed: what would be a 5xx or a 429 elsewhere.
_PASSING = frozenset({"server_error", "rate_limit_exceeded"})


def _read_response(body: dict[str, Any]) -> Answer:  # noqa: PLR0911  (a case a line is the clearest)
    """Return what a body of the responses endpoint says: all texts of its messages, joined."""
    output = body.get("output")
    status, error = body.get("status"), mapping(body.get("error"))
    items = [item for item in output if isinstance(item, dict)] if isinstance(output, list) else []
    reason = _text(mapping(body.get("incomplete_details")).get("reason"))
    answer = Answer(finish_reason=reason or _text(status))
    if status == "failed" or error:
        code = _text(error.get("code")) or "failed"
        message = _text(error.get("message")) or "the response failed, and the service gave no reason"
        return answer._replace(code=code, message=message, again=code in _PASSING)
    if not isinstance(output, list):
        return _unreadable("no output")
    messages = _contents(output)
    parts = [part for content in messages for part in content]
    texts = [text for text in map(_joined, messages) if text is not None]
    is_cut = status == "incomplete" and reason != "content_filter"
    if any(texts) or (not is_cut and texts):
        pieces = [text for text in texts if text]
        return answer._replace(response="".join(texts), pieces=_json(pieces) if len(pieces) > 1 else None)
    refusal = _joined(parts, "refusal")
    if refusal is not None:
        return answer._replace(code="refusal", message=refusal)
    if is_cut and reason == "max_output_tokens":
        return _cut_short(answer, "max_output_tokens", "reasoning.effort")
    if is_cut:
        said = f"the response is incomplete ({reason or 'no reason given'}), and has no text"
        return answer._replace(code=reason or "incomplete", message=said)
    if any(str(item.get("type")).endswith(_ACTIONS) for item in items):
        return answer
    return _nothing(answer, "no text")


# The ends of the types of items by which a model acts, or wants to.
_ACTIONS = ("_call", "mcp_approval_request")
# The ``phase`` of a message: openai.types.responses.ResponseOutputMessage (3.54.0).
_COMMENTARY = "commentary"
# Of parts that are text; some services of the same interface leave the type out, or use chat's.
_TEXTS = ("output_text", "text", None)


def messages_of(output: list[Any]) -> list[dict[str, Any]]:
    """Return the parts of all messages in an output that are of text, or a refusal."""
    return [part for content in _contents(output) for part in content]


def _contents(output: list[Any]) -> list[list[dict[str, Any]]]:
    """Return the parts of each message in an output that are of text, or a refusal.

    Some models comment on what they do before they answer: that is no part of the answer, unless there is nothing else.
    """
    messages = [item for item in output if isinstance(item, dict) and item.get("type") == "message"]
    final = [item for item in messages if item.get("phase") != _COMMENTARY]
    return [_parts(item.get("content")) for item in final or messages]


def _parts(content: Any) -> list[dict[str, Any]]:
    """Return the parts of a message's content that are of text, or a refusal; a bare text is one."""
    parts = content if isinstance(content, list) else [content]
    found = [{"text": part} if isinstance(part, str) else part for part in parts]
    return [part for part in found if isinstance(part, dict) and part.get("type") in (*_TEXTS, "refusal")]


def _joined(content: list[Any], member: str = "text") -> str | None:
    """Return the texts, or the refusals, of a message's parts, joined; None where there are none."""
    texts = [part[member] for part in _parts(content) if isinstance(part.get(member), str)]
    return "".join(texts) if texts else None


def _read_embedding(body: dict[str, Any]) -> Answer:
    data = body.get("data")
    if not isinstance(data, list) or len(data) != 1 or not isinstance(data[0], dict):
        count = len(data) if isinstance(data, list) else "no"
        return _unreadable(f"{count} embeddings instead of one")
    vector = data[0].get("embedding")
    if isinstance(vector, list):
        try:
            vector = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        except (struct.error, OverflowError):
            return _unreadable("an embedding that is not of numbers")
    return Answer(response=vector) if isinstance(vector, str) and vector else _unreadable("no embedding")


# Source: openai.types.moderation (3.54.0). Older models judge fewer of them.
CATEGORIES = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "self-harm",
    "self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence", "violence/graphic",
)  # fmt: skip


def _read_moderation(body: dict[str, Any]) -> Answer:
    results = body.get("results")
    if not isinstance(results, list) or len(results) != 1 or not isinstance(results[0], dict):
        count = len(results) if isinstance(results, list) else "no"
        return _unreadable(f"{count} results instead of one")
    flagged = results[0].get("flagged")
    if not isinstance(flagged, bool):
        return _unreadable("a result that does not say whether it is flagged")
    categories, scores = mapping(results[0].get("categories")), mapping(results[0].get("category_scores"))
    told = {
        "flagged": flagged,
        "categories": {name: _flag(categories.get(name)) for name in CATEGORIES},
        "category_scores": {name: number(scores.get(name)) for name in CATEGORIES},
    }
    return Answer(response=msgspec.json.encode(told).decode())


def _unreadable(said: str) -> Answer:
    return Answer(code="invalid_response", message=f"the body has {said}")


def _cut_short(answer: Answer, limit: str, effort: str) -> Answer:
    """Return an answer whose tokens were used up before its text began."""
    # Not again by itself: it would be cut once more, and paid for once more.
    reason = answer.finish_reason
    said = (
        f"the token limit was reached before any text (finish_reason {reason}), and reasoning counts towards it: raise "
        f"{limit}, or lower {effort}"
    )
    return answer._replace(code=reason, message=said)


def _nothing(answer: Answer, said: str) -> Answer:
    """Return an answer with nothing in it: withheld by the filter, or to be asked for once more."""
    if answer.finish_reason == "content_filter":
        return answer._replace(code="content_filter", message="the answer was withheld by the content filter")
    return answer._replace(code="empty_response", message=f"the body has {said}", again=True)


class Endpoint(NamedTuple):
    """What one endpoint makes of a prompt, and how its answers are read."""

    path: str
    member: str
    """What the prompt becomes in a body."""
    read: Callable[[dict[str, Any]], Answer]
    """Reads a body of a 2xx of any shape."""
    marks: str
    """The member that every answer has: where it is not there, a body with an error is one."""
    read_choice: Callable[[dict[str, Any]], Answer] | None = None
    """Reads one of several choices."""
    glance: Callable[[bytes], tuple[str, Answer] | None] | None = None
    """Reads a line if it is simply good, in a fraction of the time."""
    roles: tuple[str, ...] = ()
    """Of messages; none where the prompt is one text."""
    defaults: tuple[tuple[str, Any], ...] = ()
    """Parameters that are sent unless the call has others."""

    def answer(self, body: dict[str, Any], *, many: bool) -> Answer:
        """Return the answer of a 2xx body of any shape; whatever can be read of it is kept.

        Parameters
        ----------
        body
            The body.
        many
            Whether several choices were asked for.
        """
        read_choice = self.read_choice
        answer = _read_choices(body, read_choice) if many and read_choice is not None else self.read(body)
        foreign = foreign_endpoint(body) if answer.code == "invalid_response" else None
        if foreign is not None:
            answer = answer._replace(message=f"{answer.message}: {LOOKS_LIKE}{foreign}")
        return answer._replace(**tokens_of(body.get("usage")), model=_text(body.get("model")))  # type: ignore[arg-type]


ENDPOINTS = {
    endpoint.path: endpoint
    for endpoint in (
        Endpoint(
            CHAT, "messages", _read_chat, "choices", _of_choice,
            # openai.types.chat.ChatCompletionMessageParam (3.54.0).
            roles=("system", "developer", "user", "assistant", "tool", "function"),
        ),
        # openai.types.responses.EasyInputMessageParam (3.54.0).
        Endpoint(
            RESPONSES, "input", _read_response, "output", glance=_glance_at_response,
            roles=("system", "developer", "user", "assistant"),
        ),
        # As base64 a vector takes a third of the room that its digits take, and is read many times as fast.
        Endpoint(EMBEDDINGS, "input", _read_embedding, "data", defaults=(("encoding_format", "base64"),)),
        Endpoint(COMPLETIONS, "prompt", _read_completion, "choices", _of_text_choice),
        Endpoint(MODERATIONS, "input", _read_moderation, "results"),
    )
}  # fmt: skip
_OBJECTS = {"chat.completion": CHAT, "response": RESPONSES, "list": EMBEDDINGS, "text_completion": COMPLETIONS}


LOOKS_LIKE = "it looks like an answer of "
# Bodies of endpoints that are none of ours, by a member of theirs: of the body, or of the first item of a list in it.
# Sources: openai.types (3.57.0) for images, audio and videos; vLLM's ``run-batch`` for scores and rankings; Anthropic's
# Messages API.
_FOREIGN = (
    ("/v1/images/generations", "data", "b64_json"),
    ("/v1/images/generations", "data", "url"),
    ("/v1/score", "data", "score"),
    ("/v1/rerank", "results", "relevance_score"),
    ("/v1/audio/transcriptions", "", "text"),
    ("/v1/messages", "", "stop_reason"),
    ("/v1/videos", "", "seconds"),
)


def foreign_endpoint(body: dict[str, Any]) -> str | None:
    """Return the endpoint that a body seems to come from, where that is none of ours."""
    if "choices" in body or "output" in body:
        return None
    for path, member, mark in _FOREIGN:
        items = body.get(member) if member else [body]
        if isinstance(items, list) and items and mark in mapping(items[0]):
            return path
    return None


def is_answer(body: dict[str, Any]) -> bool:
    """Whether an object looks like the body of an answer."""
    return any(endpoint.marks in body for endpoint in ENDPOINTS.values()) or foreign_endpoint(body) is not None


def endpoint_of(body: dict[str, Any]) -> Endpoint:
    """Return the endpoint that a body comes from, as far as it tells."""
    told = _OBJECTS.get(str(body.get("object")))
    if told is None:
        return next((endpoint for endpoint in ENDPOINTS.values() if endpoint.marks in body), ENDPOINTS[CHAT])
    return ENDPOINTS[told]


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None
