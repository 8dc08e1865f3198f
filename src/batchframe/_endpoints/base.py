"""What all endpoints have in common: the answer that a body holds, and what an endpoint is."""

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


# How many images a request of messages may hold: OpenAI's guide, developers.openai.com/api/docs/guides/images-vision
# (in 2026; 500 until April). Azure's pages say 10, for the chat models of 2024: a refusal may still come from there.
MAX_IMAGES = 1_500

# Values of the columns of answers, one list a column: the custom_id, then the fields of `Answer`.
Columns = list[list[Any]]


@dataclass(frozen=True, eq=False)
class Endpoint:
    """What one endpoint makes of a prompt, and how its answers are read.

    Parameters
    ----------
    path
        As we spell it.
    prompt_member
        What the prompt becomes in a body.
    answer_member
        What every answer has: where it is not there, a body with an error is one.
    object_name
        What ``object`` says in an answer, where it tells the endpoint.
    read
        Reads a body of a 2xx of any shape.
    read_choice
        Reads one of several choices; None where there are none.
    read_line
        Reads a line if it is simply good, in a fraction of the time; None where it takes a closer look.
    read_lines
        The same for many lines: appends to columns, and leaves to a function what is not simply good.
    roles
        Of messages; none where the prompt is one text.
    message_keys, part_types, item_types
        What a message may have beside role and content, the types of the parts of a content, and of what may stand
        between the messages.
    text_part
        The type of a part that holds a text of the user's.
    image_part
        What stands around the JSON text of an image's URL; None where there are no images.
    max_images
        How many images a request may hold.
    has_image_detail
        Whether it is told how closely images are looked at.
    parameters
        The request parameters that it takes, with the kinds of their values.
    default_parameters
        Those that are sent unless the call has others.
    renamed_parameters
        What is called otherwise here, by its name at other endpoints.
    own_models
        How the names of models begin that are this endpoint's alone.
    refuses_empty_text
        Whether a prompt must have a text.
    format_parameter
        Where ``response_format`` is sent; None where answers are no texts that could follow a schema.
    logprobs_request
        The parameter that asks for logprobs, what it must hold (None: anything but False), and how that is written.
    choices
        Returns what of a body has tool calls and logprobs of its own: its choices, or the whole.
    tool_calls, logprobs
        Read these of one choice; None where there are none.
    counts_inputs
        Whether services limit its requests by a number of their own (`Provider.max_embeddings`).
    dimensions_of
        Returns the dimensions of an answer by the model and those that were asked for; None where it has none.
    dtype
        The dtype of an answer that is no text, by the dimensions that were asked for.
    decode
        Makes such answers of their texts, and says what is wrong with each.
    max_rows
        How many such answers can be held together.
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
        return answer._replace(**tokens_of(body.get("usage")), model=text_of(body.get("model")))  # type: ignore[arg-type]


def choices_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the choices of a body in the order of their indices, which is not always that of the list."""
    choices = body.get("choices")
    found = [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []
    return sorted(found, key=lambda choice: integer(choice.get("index")) or 0)


def _read_choices(body: dict[str, Any], read: Callable[[dict[str, Any]], Answer]) -> Answer:
    """Return several choices as one answer: it succeeded when one of them did."""
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
    """Return texts as one."""
    return msgspec.json.encode(list(texts)).decode()


# Of parts that are text; some services of the same interface leave the type out, or use another endpoint's.
_TEXTS = ("output_text", "text", None)


def text_parts(content: Any) -> list[dict[str, Any]]:
    """Return the parts of a message's content that are of text, or a refusal; a bare text is one."""
    parts = content if isinstance(content, list) else [content]
    found = [{"text": part} if isinstance(part, str) else part for part in parts]
    return [part for part in found if isinstance(part, dict) and part.get("type") in (*_TEXTS, "refusal")]


def joined_text(content: list[Any], member: str = "text") -> str | None:
    """Return the texts, or the refusals, of a message's parts, joined; None where there are none."""
    texts = [part[member] for part in text_parts(content) if isinstance(part.get(member), str)]
    return "".join(texts) if texts else None


def unreadable(what: str) -> Answer:
    """Return what a body of another shape says."""
    return Answer(code="invalid_response", message=f"the body has {what}")


def cut_short(answer: Answer, limit: str, effort: str) -> Answer:
    """Return an answer whose tokens were used up before its text began."""
    # Not again by itself: it would be cut once more, and paid for once more.
    reason = answer.finish_reason
    said = (
        f"the token limit was reached before any text (finish_reason {reason}), and reasoning counts towards it: raise "
        f"{limit}, or lower {effort}"
    )
    return answer._replace(code=reason, message=said)


def nothing(answer: Answer, said: str) -> Answer:
    """Return an answer with nothing in it: withheld by the filter, or to be asked for once more."""
    if answer.finish_reason == "content_filter":
        return answer._replace(code="content_filter", message="the answer was withheld by the content filter")
    return answer._replace(code="empty_response", message=f"the body has {said}", again=True)


def text_of(value: Any) -> str | None:
    """Return a value that is text."""
    return value if isinstance(value, str) else None


def as_text(value: Any) -> str | None:
    """Return a text; what should be one and is something else, as its JSON."""
    return value if value is None or isinstance(value, str) else msgspec.json.encode(value).decode()


def tool_call(call_id: Any, called: dict[str, Any]) -> dict[str, Any]:
    """Return a call of a tool; its arguments as the model wrote them, which need not be JSON."""
    return {
        "id": as_text(call_id),
        "name": as_text(called.get("name")),
        "arguments": as_text(called.get("arguments", called.get("input"))),
    }


def objects_of(value: Any) -> list[dict[str, Any]]:
    """Return the objects of a list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
