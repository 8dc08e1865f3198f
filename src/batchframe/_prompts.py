"""Prompt and parameters → the pieces of a request body: texts that are the same for all rows, and expressions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from batchframe import _encode, _template
from batchframe._endpoints import EMBEDDINGS
from batchframe._exceptions import OptionError, TemplateError, warn
from batchframe._frames import OURS, Source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchframe._endpoints import Endpoint
    from batchframe._options import Options

_PROMPT = OURS + "prompt"
_SYSTEM = OURS + "system"
_PARAMETER = OURS + "body:"


@dataclass
class _Text:
    """A text that a row makes: pieces to join."""

    pieces: list[str | pl.Expr]

    @property
    def constant(self) -> str | None:
        """Give the text itself where no row changes it."""
        return "".join(self.pieces) if all(isinstance(piece, str) for piece in self.pieces) else None  # type: ignore[arg-type]

    def expression(self, on_null: str) -> pl.Expr:
        """Return the text as an expression; null where something in it is null and that is not rendered."""
        pieces = [pl.lit(piece) if isinstance(piece, str) else piece for piece in self.pieces]
        if on_null == "render":
            pieces = [piece.fill_null("") for piece in pieces]
        return pieces[0] if len(pieces) == 1 else pl.concat_str(pieces)


def stage(frame: pl.DataFrame | pl.LazyFrame, prompt: Any, options: Options) -> Source:
    """Collect the user's expressions: they are evaluated on the whole frame, before it is sliced."""
    contents = prompt if isinstance(prompt, (list, tuple)) else []
    contents = [message.get("content") if isinstance(message, dict) else None for message in contents]
    asked = {f"{_PROMPT}:{index}": content for index, content in enumerate(contents) if isinstance(content, pl.Expr)}
    if isinstance(prompt, pl.Expr):
        asked[_PROMPT] = prompt
    staged = dict(asked)
    if isinstance(options.system, pl.Expr):
        staged[_SYSTEM] = options.system
    staged |= {_PARAMETER + name: value for name, value in options.body.items() if isinstance(value, pl.Expr)}
    for name, expression in staged.items():
        _check_expression(frame, name, expression)
    schema = frame.collect_schema()
    pieces = [piece for content in contents if isinstance(content, str) for piece in _template.parse(content, schema)]
    varies = any(isinstance(piece, _template.Field) for piece in pieces)
    per_row = frozenset[str]() if varies else frozenset(asked)
    # A slice of rows becomes a block, and a block's answers are held together.
    return Source(frame, staged, per_row, options.form.max_rows)


def _check_expression(frame: pl.DataFrame | pl.LazyFrame, name: str, expression: pl.Expr) -> None:
    """Refuse an expression that has no dtype on this frame."""
    called = name.removeprefix(OURS).removeprefix("body:")
    columns = ", ".join(map(repr, frame.collect_schema()))
    try:
        outputs = frame.lazy().select(expression).collect_schema().names()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = str(error).split("\n\n", 1)[0]
        msg = f"the expression for {called} does not fit the frame: {reason}. Columns: {columns}"
        raise TemplateError(msg) from error
    if len(outputs) != 1:
        shown = f" ({', '.join(map(repr, outputs[:5]))})" if outputs else ""
        msg = f"the expression for {called} gives {len(outputs)} columns{shown}, not one: join them, as pl.format does"
        raise TemplateError(msg)


class Compiler:
    """Makes expressions of a prompt's pieces, and collects what may be wrong with a row on the way."""

    def __init__(
        self, staged_schema: Mapping[str, Any], schema: Mapping[str, Any], on_null: str, endpoint: Endpoint
    ) -> None:
        self._endpoint = endpoint
        self._staged = staged_schema
        self._schema = schema
        self._on_null = on_null
        self.nulls: dict[str, pl.Expr] = {}
        self.invalid: dict[str, pl.Expr] = {}

    def prompt(self, prompt: Any, system: Any) -> list[str | pl.Expr]:
        """Return what the prompt becomes: a JSON array of messages, or one text, as pieces."""
        return self._messages(prompt, system) if self._endpoint.roles else self._one_text(prompt)

    def _one_text(self, prompt: Any) -> list[str | pl.Expr]:
        path = self._endpoint.path
        if isinstance(prompt, (list, tuple)) or (isinstance(prompt, pl.Expr) and _is_list(self._staged[_PROMPT])):
            got = f"an expression of dtype {self._staged[_PROMPT]}" if isinstance(prompt, pl.Expr) else "a list"
            msg = f"{path} takes one text a row, got {got}: explode the frame, so that each text has a row of its own"
            raise OptionError(msg)
        text = self._text(prompt, _PROMPT, "prompt")
        if text.constant is not None:
            _warn_of_one_prompt()
            return [_encode.constant(text.constant, "prompt")]
        value = text.expression(self._on_null)
        if path == EMBEDDINGS:  # it refuses an empty text
            self.invalid["the text is empty, which has no embedding"] = (value == "").fill_null(value=False)
        return [_encode.json(value, pl.String(), "prompt")]

    def _messages(self, prompt: Any, system: Any) -> list[str | pl.Expr]:
        opening: list[str | pl.Expr] = []
        if system is not None:
            opening = [*self._message("system", self._text(system, _SYSTEM, "system")), ","]
        if isinstance(prompt, pl.Expr) and _is_list(self._staged[_PROMPT]):
            return ["[", *opening, self._conversation(self._staged[_PROMPT])]
        if isinstance(prompt, (list, tuple)):
            asked, varies = self._message_list(prompt)
        elif isinstance(prompt, (str, pl.Expr)):
            text = self._text(prompt, _PROMPT, "prompt")
            asked, varies = self._message("user", text), text.constant is None
        else:
            msg = (
                "the prompt must be a template, an expression, or a list of messages "
                f'[{{"role": …, "content": …}}], got {type(prompt).__qualname__}'
            )
            raise OptionError(msg)
        if not varies and all(isinstance(piece, str) for piece in opening):
            _warn_of_one_prompt()
        return ["[", *opening, *asked, "]"]

    def _message_list(self, prompt: Any) -> tuple[list[str | pl.Expr], bool]:
        """Return the messages, and whether any of them varies from row to row."""
        if not prompt:
            msg = "the list of messages is empty: at least one is needed"
            raise OptionError(msg)
        pieces: list[str | pl.Expr] = []
        varies = False
        for index, message in enumerate(prompt):
            if not isinstance(message, dict) or set(message) != {"role", "content"}:
                msg = f'message {index} must be {{"role": …, "content": …}}, got {message!r}'
                raise OptionError(msg)
            if not isinstance(message["role"], str) or message["role"] not in self._endpoint.roles:
                msg = (
                    f"message {index} has role {message['role']!r}: it must be one of {', '.join(self._endpoint.roles)}"
                )
                raise OptionError(msg)
            text = self._text(message["content"], f"{_PROMPT}:{index}", f"message {index}")
            varies = varies or text.constant is None
            pieces += [","] * bool(index) + self._message(message["role"], text)
        return pieces, varies

    def _text(self, content: Any, staged: str, name: str) -> _Text:
        """Return the text of a template or expression, after noting what may be null or not finite in it."""
        pieces: list[str | _template.Field]
        if isinstance(content, pl.Expr):
            pieces = [_template.Field((name,), self._staged[staged], pl.col(staged))]
        elif isinstance(content, str):
            pieces = _template.parse(content, self._schema)
        else:
            msg = f"{name} must be a template or an expression, got {type(content).__qualname__}"
            raise OptionError(msg)
        text = _Text([])
        for piece in pieces:
            if isinstance(piece, str):
                text.pieces.append(piece)
                continue
            called = name if isinstance(content, pl.Expr) else f"column {piece.name!r}"
            text.pieces.append(_encode.text(piece.value, piece.dtype, called))
            self.nulls[called] = piece.value.is_null()
            if piece.dtype.is_nested():
                self._refuse_not_finite(called, piece.value, piece.dtype)
        return text

    def _refuse_not_finite(self, called: str, value: pl.Expr, dtype: Any) -> None:
        found = _encode.not_finite(value, dtype)
        if found is not None:
            self.invalid[f"{called} holds NaN or infinity, which JSON has not"] = found

    def _message(self, role: str, text: _Text) -> list[str | pl.Expr]:
        if text.constant is not None:
            return [_encode.constant({"role": role, "content": text.constant}, "message")]
        content = text.expression(self._on_null).alias("content")
        return [pl.struct(pl.lit(role).alias("role"), content).struct.json_encode()]

    def _conversation(self, dtype: Any) -> pl.Expr:
        """Return the messages of a List[Struct{role, content}] column, without the opening bracket."""
        fields = {found.name: found.dtype for found in dtype.inner.fields} if isinstance(dtype.inner, pl.Struct) else {}
        if not {"role", "content"} <= fields.keys():
            msg = f"the prompt is {dtype}: a conversation is List(Struct) with the fields role and content"
            raise TemplateError(msg)
        value = pl.col(_PROMPT).arr.to_list() if isinstance(dtype, pl.Array) else pl.col(_PROMPT)
        message = pl.element()
        part = {name: _encode.struct_field(message, dtype.inner, name) for name in fields}
        unknown = message.is_null() | ~part["role"].cast(pl.String).is_in(self._endpoint.roles).fill_null(value=False)
        self.nulls["prompt"] = value.is_null()
        self.invalid["the conversation is null"] = value.is_null()  # where on_null renders: there is no empty one
        self.invalid["the conversation has no messages"] = (value.list.len() == 0).fill_null(value=False)
        self.invalid[f"a message's role is none of {', '.join(self._endpoint.roles)}"] = _any_of(value, unknown)
        self._refuse_not_finite("prompt", value, pl.List(dtype.inner))
        # A call of tools has no content.
        empty = part["content"].is_null() & message.is_not_null()
        if "tool_calls" in part:
            empty &= part["tool_calls"].is_null()
        self.nulls["a message's content"] = _any_of(value, empty)
        text = _encode.json(part["content"], fields["content"], "the content of a message", omit_null_fields=True)
        if not fields["content"].is_nested():
            plain = _encode.text(part["content"], fields["content"], "the content of a message")
            text = _encode.json(plain, pl.String(), "the content of a message")
        if self._on_null == "render":
            text = pl.when(empty).then(pl.lit('""')).otherwise(text)
        role = _encode.json(part["role"].cast(pl.String), pl.String(), "the role of a message")
        members = [pl.concat_str(pl.lit('"role":'), role), pl.concat_str(pl.lit('"content":'), text)]
        # A field is the same in all messages of a column, and the service takes no null for a name that is not there.
        members += [
            _encode.member(name, part[name], fields[name], f"the {name} of a message", omit_null=True)
            for name in fields
            if name not in {"role", "content"}
        ]
        messages = value.list.eval(_encode.json_object(members)).list.join(",")
        return pl.concat_str(messages, pl.lit("]"))

    def dtypes(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the dtypes of those parameters that differ from row to row."""
        return {name: self._staged[_PARAMETER + name] for name in parameters if _PARAMETER + name in self._staged}

    def members(self, body: dict[str, Any]) -> list[str | pl.Expr]:
        """Return the other members of the body, as pieces that begin with a comma."""
        pieces: list[str | pl.Expr] = []
        for name, value in body.items():
            key = "," + _encode.constant(name, "a parameter's name") + ":"
            if isinstance(value, pl.Expr):
                column, dtype = pl.col(_PARAMETER + name), self._staged[_PARAMETER + name]
                self._refuse_not_finite(name, column, dtype)
                encoded = pl.concat_str(pl.lit(key), _encode.json(column, dtype, name))
                pieces.append(pl.when(column.is_not_null()).then(encoded).otherwise(pl.lit("")))
            else:
                pieces.append(key + _encode.constant(value, name))
        return pieces


def _warn_of_one_prompt() -> None:
    warn("the prompt has no field: every row is asked the same, and each is paid for")


def join(pieces: list[str | pl.Expr]) -> pl.Expr:
    """Join pieces to one expression, neighbouring constants first."""
    joined: list[Any] = []
    for piece in pieces:
        if isinstance(piece, str) and joined and isinstance(joined[-1], str):
            joined[-1] += piece
        else:
            joined.append(piece)
    return pl.concat_str([pl.lit(piece) if isinstance(piece, str) else piece for piece in joined])


def _is_list(dtype: Any) -> bool:
    return isinstance(dtype, (pl.List, pl.Array))


def _any_of(messages: pl.Expr, found: pl.Expr) -> pl.Expr:
    """Return whether something is so for any message; False for a null conversation."""
    return messages.list.eval(found).list.any().fill_null(value=False)
