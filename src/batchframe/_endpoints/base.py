"""The description of an endpoint, its answers, and readers that several endpoints share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from batchframe._core.lenient import integer
from batchframe._endpoints.foreign import LOOKS_LIKE, foreign_endpoint
from batchframe._endpoints.usage import tokens_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import polars as pl

    from batchframe._endpoints.parameter_table import Kinds


class Answer(NamedTuple):
    """The answer of one result line. ``code`` is None exactly when the row succeeded.

    ``again`` tells whether a retry of a failed row may succeed. ``response`` is a text for every endpoint: the text of
    the answer, an embedding as little-endian 32-bit floats in base64, or a moderation as JSON. With several requested
    choices, ``response`` and ``finish_reason`` are JSON arrays. ``pieces`` is a JSON array of the messages' texts, if
    the response consists of several messages.
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


# The maximum number of images in a request with messages: OpenAI's guide,
# developers.openai.com/api/docs/guides/images-vision (in 2026; 500 until April). Azure's pages say 10, for the chat
# models of 2024, so Azure may still refuse a row.
MAX_IMAGES = 1_500

# The columns of answers, one list of values each: the custom_id, then the fields of `Answer`.
Columns = list[list[Any]]


@dataclass(frozen=True, eq=False)
class Endpoint:
    """An endpoint: the bodies of its requests, and the readers of its answers.

    Parameters
    ----------
    path
        The path, as we spell it.
    prompt_member
        The member of a request body that holds the prompt.
    answer_member
        The member that every answer has. A body without it that has an error is an error.
    object_name
        The value of ``object`` in an answer, if it identifies the endpoint.
    read
        Returns the answer of a 2xx body of any shape.
    read_choice
        Returns the answer of one of several choices. None without choices.
    read_line
        Returns the answer of a plainly successful line, in a fraction of the time; None for any other line.
    read_lines
        The same for many lines: appends to columns, and passes other lines to a function.
    roles
        The roles of messages. Empty if the prompt is one text.
    message_keys, part_types, item_types
        The keys of a message beside role and content, the types of content parts, and the types of items that may
        stand between messages.
    text_part
        The type of a part with the user's text.
    image_part
        The JSON before and after the URL of an image. None without images.
    max_images
        The maximum number of images in a request.
    has_image_detail
        Whether images have a detail.
    parameters
        The request parameters, with the kinds of their values.
    default_parameters
        Parameters that are sent unless the call passes them.
    renamed_parameters
        The names at this endpoint of parameters of other endpoints.
    own_models
        Prefixes of the models that only this endpoint serves.
    refuses_empty_text
        Whether an empty prompt is refused.
    format_parameter
        The parameter for ``response_format``. None if the answers cannot follow a schema.
    logprobs_request
        The parameter that requests logprobs, the value that it must contain (None: anything but False), and its
        spelling in a call.
    choices
        Returns the objects of a body that have tool calls and logprobs: its choices, or the body itself.
    tool_calls, logprobs
        Return the tool calls or logprobs of one choice. None if the endpoint has none.
    counts_inputs
        Whether services limit the number of its requests separately (`Provider.max_embeddings`).
    dimensions_of
        Returns the dimensions of an answer, from the model and the requested dimensions. None without dimensions.
    dtype
        Returns the dtype of an answer that is not text, from the dimensions.
    decode
        Converts the texts of such answers to that dtype, and returns the problem with each or null.
    max_rows
        Returns the maximum number of such answers to hold in memory together.
    """

    path: str
    prompt_member: str
    answer_member: str
    read: Callable[[dict[str, Any]], Answer]
    object_name: str | None = None
    read_choice: Callable[[dict[str, Any]], Answer] | None = None
    read_line: Callable[[bytes], tuple[str, Answer] | None] | None = None
    read_lines: Callable[[list[bytes], Columns, list[bytes] | None, Any], None] | None = None
    roles: tuple[str, ...] = ()
    message_keys: tuple[str, ...] = ()
    part_types: tuple[str, ...] = ()
    item_types: tuple[str, ...] = ()
    text_part: str = "text"
    image_part: tuple[str, str] | None = None
    max_images: int = 0
    has_image_detail: bool = False
    parameters: Mapping[str, Kinds] = field(default_factory=dict)
    default_parameters: Mapping[str, Any] = field(default_factory=dict)
    renamed_parameters: Mapping[str, str] = field(default_factory=dict)
    own_models: tuple[str, ...] = ()
    refuses_empty_text: bool = False
    format_parameter: str | None = None
    logprobs_request: tuple[str, str | None, str] | None = None
    choices: Callable[[dict[str, Any]], list[dict[str, Any]]] | None = None
    tool_calls: Callable[[dict[str, Any]], list[dict[str, Any]] | None] | None = None
    logprobs: Callable[[dict[str, Any]], list[Any] | None] | None = None
    counts_inputs: bool = False
    dimensions_of: Callable[[str, int | None], int | None] | None = None
    dtype: Callable[[int | None], pl.DataType] | None = None
    decode: Callable[[pl.Series, int | None], tuple[pl.Series, pl.Series]] | None = None
    max_rows: Callable[[int | None], int] | None = None

    def answer(self, body: dict[str, Any], *, many: bool) -> Answer:
        """Return the answer of a 2xx body of any shape, with everything that can be read.

        Parameters
        ----------
        body
            The body.
        many
            Whether several choices were requested.
        """
        read_choice = self.read_choice
        answer = _read_choices(body, read_choice) if many and read_choice is not None else self.read(body)
        foreign = foreign_endpoint(body) if answer.code == "invalid_response" else None
        if foreign is not None:
            answer = answer._replace(message=f"{answer.message}: {LOOKS_LIKE}{foreign}")
        return answer._replace(**tokens_of(body.get("usage")), model=text_of(body.get("model")))  # type: ignore[arg-type]


def choices_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the choices of a body by index. Services may list them in another order."""
    return sorted(objects_of(body.get("choices")), key=lambda choice: integer(choice.get("index")) or 0)


def _read_choices(body: dict[str, Any], read: Callable[[dict[str, Any]], Answer]) -> Answer:
    """Return several choices as one answer, which succeeded if any of them did."""
    answers = [read(choice) for choice in choices_of(body)]
    if not answers:
        return unreadable("no choices")
    failed = [answer for answer in answers if answer.code is not None]
    answer = Answer(
        response=json_array(answer.response for answer in answers),
        finish_reason=json_array(answer.finish_reason for answer in answers),
    )
    if len(failed) < len(answers):
        return answer
    return answer._replace(response=None, code=failed[0].code, message=failed[0].message, again=failed[0].again)


def json_array(texts: Iterable[str | None]) -> str:
    """Return texts as a JSON array."""
    return msgspec.json.encode(list(texts)).decode()


# The types of text parts. Some compatible services leave the type out, or use that of another endpoint.
_TEXTS = ("output_text", "text", None)


def text_parts(content: Any) -> list[dict[str, Any]]:
    """Return the text and refusal parts of a message's content. A bare text counts as one part."""
    items = content if isinstance(content, list) else [content]
    parts = [{"text": item} if isinstance(item, str) else item for item in items]
    return [part for part in parts if isinstance(part, dict) and part.get("type") in (*_TEXTS, "refusal")]


def joined_text(content: list[Any], member: str = "text") -> str | None:
    """Return the joined texts, or refusals, of a message's parts. None without any."""
    texts = [part[member] for part in text_parts(content) if isinstance(part.get(member), str)]
    return "".join(texts) if texts else None


def unreadable(what: str) -> Answer:
    """Return the failed answer for a body of an unexpected shape."""
    return Answer(code="invalid_response", message=f"the body has {what}")


def cut_short(answer: Answer, limit: str, effort: str) -> Answer:
    """Return the failed answer for a response that reached its token limit before its text began."""
    # Not retried automatically: the retry would be cut off again, and billed again.
    reason = answer.finish_reason
    message = (
        f"the token limit was reached before any text (finish_reason {reason}), and reasoning counts towards it: raise "
        f"{limit}, or lower {effort}"
    )
    return answer._replace(code=reason, message=message)


def empty(answer: Answer, problem: str) -> Answer:
    """Return the failed answer for a body without content: withheld by the content filter, or worth a retry."""
    if answer.finish_reason == "content_filter":
        return answer._replace(code="content_filter", message="the answer was withheld by the content filter")
    return answer._replace(code="empty_response", message=f"the body has {problem}", again=True)


def text_of(value: Any) -> str | None:
    """Return a text, and None for anything else."""
    return value if isinstance(value, str) else None


def as_text(value: Any) -> str | None:
    """Return a text, and the JSON of any other value but None."""
    return value if value is None or isinstance(value, str) else msgspec.json.encode(value).decode()


def tool_call(call_id: Any, function: dict[str, Any]) -> dict[str, Any]:
    """Return a tool call in our shape. The arguments stay as the model wrote them, which may not be JSON."""
    return {
        "id": as_text(call_id),
        "name": as_text(function.get("name")),
        "arguments": as_text(function.get("arguments", function.get("input"))),
    }


def objects_of(value: Any) -> list[dict[str, Any]]:
    """Return the objects of a list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
