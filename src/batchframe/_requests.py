"""Rows → request lines: the prompt and the options become Polars expressions, evaluated a slice at a time.

No Python loop runs over rows here: each slice is one evaluation, and its lines are one Arrow buffer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl
import polars_hash as plh

from batchframe import _encode, _parameter_types, _template
from batchframe._exceptions import InputError, OptionError, TemplateError, warn
from batchframe._frames import OURS, Source

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from batchframe._options import Options

CUSTOM_ID = OURS + "custom_id"
DIGEST = OURS + "digest"
REQUEST = OURS + "request"
CODE = OURS + "code"
MESSAGE = OURS + "message"
LINE = OURS + "line"
_BODY = OURS + "body"

MAX_ID_CHARACTERS = 64
# Roles of the chat endpoint: openai.types.chat.ChatCompletionMessageParam.
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")


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


@dataclass
class Renderer:
    """What turns a slice of rows into request lines; made by `compile_prompt`.

    Parameters
    ----------
    source
        The frame, with the expressions that see the whole of it.
    """

    source: Source
    url: str
    max_line_bytes: int
    on_null: str
    custom_id: str | None
    _body: pl.Expr
    _nulls: dict[str, pl.Expr]
    _invalid: dict[str, pl.Expr]

    def slices(self) -> Iterator[pl.DataFrame]:
        """Yield, slice by slice, the user's columns and ours: custom_id, digest, code, message and line.

        ``line`` is the exact JSON line with its newline; null, like ``digest``, where the row is not sent. ``code``
        and ``message`` say why.

        Raises
        ------
        InputError
            A custom_id is null, empty, too long or of a wrong dtype; a null where ``on_null="raise"``.
        """
        offset = 0
        for rows in self.source.slices():
            yield self._render(rows, offset)
            offset += rows.height

    def _render(self, rows: pl.DataFrame, offset: int) -> pl.DataFrame:
        kept = [name for name in rows.columns if name not in self.source.staged]
        out = rows.with_columns(self._ids(rows, offset), *self._codes(rows, offset))
        body = self._body
        if out[CODE].null_count() < out.height:
            body = pl.when(pl.col(CODE).is_null()).then(body)
        out = out.with_columns(body.alias(_BODY))
        head, tail = '{"custom_id":', f',"method":"POST","url":{_encode.constant(self.url, "endpoint")},"body":'
        custom_id = pl.concat_str(pl.lit('"'), pl.col(CUSTOM_ID), pl.lit('"'))
        if self.custom_id is not None:  # ours have nothing to escape
            custom_id = _encode.json(pl.col(CUSTOM_ID), pl.String(), "custom_id")
        line = pl.concat_str(pl.lit(head), custom_id, pl.lit(tail), pl.col(_BODY), pl.lit("}\n"))
        out = out.with_columns(line.alias(LINE), digest(pl.col(_BODY)).alias(DIGEST))
        too_large = pl.col(LINE).str.len_bytes() > self.max_line_bytes
        if out.select(too_large.any()).item():
            said = pl.format(
                "the request line has {} bytes, and an input file may have {}",
                pl.col(LINE).str.len_bytes(),
                pl.lit(self.max_line_bytes),
            )
            out = out.with_columns(
                pl.when(too_large).then(pl.lit("request_too_large")).otherwise(pl.col(CODE)).alias(CODE),
                pl.when(too_large).then(said).otherwise(pl.col(MESSAGE)).alias(MESSAGE),
                pl.when(~too_large).then(pl.col(LINE)).alias(LINE),
                pl.when(~too_large).then(pl.col(DIGEST)).alias(DIGEST),
            )
        # Not select: a column may be called "*".
        return out[[*kept, CUSTOM_ID, DIGEST, CODE, MESSAGE, LINE]]

    def _ids(self, rows: pl.DataFrame, offset: int) -> pl.Series:
        if self.custom_id is None:
            numbers = pl.int_range(offset, offset + rows.height, eager=True).cast(pl.String)
            return ("row-" + numbers).alias(CUSTOM_ID)
        ids = rows[self.custom_id].cast(pl.String).alias(CUSTOM_ID)
        for found, said in (
            (ids.is_null(), "null"),
            (ids == "", "empty"),
            (ids.str.len_chars() > MAX_ID_CHARACTERS, f"longer than {MAX_ID_CHARACTERS} characters"),
        ):
            where = found.arg_true()
            if len(where):
                row = offset + where[0]
                msg = f"custom_id column {self.custom_id!r} is {said} in row {row}: every row needs an id of its own"
                raise InputError(msg)
        return ids

    def _codes(self, rows: pl.DataFrame, offset: int) -> list[pl.Expr]:
        """Return why each row is not sent, null where it is."""
        nothing = pl.lit(None, pl.String)
        flags = {f"null:{name}": found for name, found in self._nulls.items()}
        flags |= {f"invalid:{said}": found for said, found in self._invalid.items()}
        if not flags:
            return [nothing.alias(CODE), nothing.alias(MESSAGE)]
        found = rows.select(expression.alias(name) for name, expression in flags.items())
        hit = [name for name in flags if found[name].any()]
        if self.on_null == "raise":
            for name in hit:
                if name.startswith("null:"):
                    row = offset + found[name].arg_true()[0]
                    msg = f'{name.removeprefix("null:")} is null in row {row}, and on_null="raise" was asked for'
                    raise InputError(msg)
        codes, messages = nothing, nothing
        for name in reversed(hit):  # the first one found is the one that is told
            kind, _, said = name.partition(":")
            code = "null_input" if kind == "null" else "invalid_input"
            codes = pl.when(found[name]).then(pl.lit(code)).otherwise(codes)
            told = f"{said} is null" if kind == "null" else said
            messages = pl.when(found[name]).then(pl.lit(told)).otherwise(messages)
        return [codes.alias(CODE), messages.alias(MESSAGE)]


def digest(body: pl.Expr) -> pl.Expr:
    """Return the first 128 bits of each body's BLAKE3 digest, as Binary.

    It is cryptographic, since the texts come from strangers and equal digests share answers.
    """
    hashed: pl.Expr = plh.col(body.meta.output_name()).chash.blake3()
    return hashed.str.slice(0, 32).str.decode("hex")


def digest_number(name: str) -> pl.Expr:
    """Return a column of digests as numbers: they take half the room of Binary, and join faster."""
    return pl.col(name).bin.reinterpret(dtype=pl.UInt128, endianness="big")


def digest_sums(digests: pl.Series) -> int:
    """Return the sum modulo 2^128 of a column of digests; nulls count nothing."""
    # The sum of a column of UInt128 wraps around, which is the modulo.
    return int(digests.bin.reinterpret(dtype=pl.UInt128, endianness="big").sum() or 0)


def compile_prompt(
    frame: pl.DataFrame | pl.LazyFrame, prompt: Any, options: Options, max_line_bytes: int, url: str | None = None
) -> Renderer:
    """Check prompt and options against a frame, and return what renders its rows.

    Parameters
    ----------
    frame, prompt, options
        The call.
    max_line_bytes
        What an input file may hold.
    url
        The endpoint as the service spells it in a line; None: as we do.

    Raises
    ------
    TemplateError, OptionError, InputError
        The prompt, an option or the frame does not fit; nothing was evaluated but the frame's schema.
    """
    if isinstance(prompt, pl.Series):
        msg = 'the prompt is a Series: add it to the frame and pass its column, such as pl.col("prompt")'
        raise OptionError(msg)
    schema = frame.collect_schema()
    _check_custom_id(options.custom_id, schema)
    source = _stage(frame, prompt, options)
    staged = source.schema()
    dtypes = {name: staged[_PARAMETER + name] for name in options.parameters if _PARAMETER + name in staged}
    _parameter_types.check_dtypes(options.endpoint, dtypes)
    compiler = _Compiler(staged, schema, options.on_null)
    messages = compiler.messages(prompt, options.system)
    members = compiler.members(options.body)
    opening = '{"model":' + _encode.constant(options.model, "model") + ',"messages":'
    body = _join([opening, *messages, *members, "}"])
    return Renderer(
        source=source,
        url=url or options.endpoint,
        max_line_bytes=max_line_bytes,
        on_null=options.on_null,
        custom_id=options.custom_id,
        _body=body,
        _nulls=compiler.nulls if options.on_null != "render" else {},
        _invalid=compiler.invalid,
    )


def _check_custom_id(name: str | None, schema: Mapping[str, Any]) -> None:
    if name is None:
        return
    if name not in schema:
        raise TemplateError.from_unknown_column(name, schema)
    if not (isinstance(schema[name], pl.String) or schema[name].is_integer()):
        msg = f"custom_id column {name!r} is {schema[name]}: it must be String or an integer"
        raise InputError(msg)


def _stage(frame: pl.DataFrame | pl.LazyFrame, prompt: Any, options: Options) -> Source:
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
    return Source(frame, staged, frozenset() if varies else frozenset(asked))


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


_PROMPT = OURS + "prompt"
_SYSTEM = OURS + "system"
_PARAMETER = OURS + "body:"


class _Compiler:
    """Makes expressions of a prompt's pieces, and collects what may be wrong with a row on the way."""

    def __init__(self, staged_schema: Mapping[str, Any], schema: Mapping[str, Any], on_null: str) -> None:
        self._staged = staged_schema
        self._schema = schema
        self._on_null = on_null
        self.nulls: dict[str, pl.Expr] = {}
        self.invalid: dict[str, pl.Expr] = {}

    def messages(self, prompt: Any, system: Any) -> list[str | pl.Expr]:
        """Return the JSON array of messages, as pieces."""
        opening: list[str | pl.Expr] = []
        if system is not None:
            opening = [*self._message("system", self._text(system, _SYSTEM, "system")), ","]
        if isinstance(prompt, pl.Expr) and _is_conversation(self._staged[_PROMPT]):
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
            warn("the prompt has no field: every row is asked the same, and each is paid for")
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
            if not isinstance(message["role"], str) or message["role"] not in _ROLES:
                msg = f"message {index} has role {message['role']!r}: it must be one of {', '.join(_ROLES)}"
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
        unknown = message.is_null() | ~part["role"].cast(pl.String).is_in(_ROLES).fill_null(value=False)
        self.nulls["prompt"] = value.is_null()
        self.invalid["the conversation is null"] = value.is_null()  # where on_null renders: there is no empty one
        self.invalid["the conversation has no messages"] = (value.list.len() == 0).fill_null(value=False)
        self.invalid[f"a message's role is none of {', '.join(_ROLES)}"] = _any_of(value, unknown)
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


def _join(pieces: list[str | pl.Expr]) -> pl.Expr:
    """Join pieces to one expression, neighbouring constants first."""
    joined: list[Any] = []
    for piece in pieces:
        if isinstance(piece, str) and joined and isinstance(joined[-1], str):
            joined[-1] += piece
        else:
            joined.append(piece)
    return pl.concat_str([pl.lit(piece) if isinstance(piece, str) else piece for piece in joined])


def _is_conversation(dtype: Any) -> bool:
    return isinstance(dtype, (pl.List, pl.Array))


def _any_of(messages: pl.Expr, found: pl.Expr) -> pl.Expr:
    """Return whether something is so for any message; False for a null conversation."""
    return messages.list.eval(found).list.any().fill_null(value=False)
