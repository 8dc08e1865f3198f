"""Conversation columns: ``List(Struct{role, content, …})`` as messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from batchframe._core.exceptions import TemplateError
from batchframe._requests import encode

if TYPE_CHECKING:
    from batchframe._requests.compile_context import CompileContext

_CONTENT = "the content of a message"


def conversation(context: CompileContext, called: str, images: list[pl.Expr]) -> pl.Expr:
    """Return the messages of a column, without brackets; images belong to its last message, which must be a user's.

    Parameters
    ----------
    context
        Against what is compiled; takes what may be wrong with a row.
    called
        What the column is called.
    images
        The parts of images.

    Raises
    ------
    TemplateError
        It is no conversation.
    """
    value, dtype = context.value(called)
    fields = {found.name: found.dtype for found in dtype.inner.fields} if isinstance(dtype.inner, pl.Struct) else {}
    if not {"role", "content"} <= fields.keys():
        msg = f"the {called} is {dtype}: a conversation is List(Struct) with the fields role and content"
        raise TemplateError(msg)
    value = value.arr.to_list() if isinstance(dtype, pl.Array) else value
    roles = context.endpoint.roles
    message = _Message(pl.element(), dtype.inner, context)
    context.nulls[called] = value.is_null()
    context.invalid["the conversation is null"] = value.is_null()  # where on_null renders: there is no empty one
    context.invalid["the conversation has no messages"] = (value.list.len() == 0).fill_null(value=False)
    unknown = message.value.is_null() | ~(message.role.is_in(roles).fill_null(value=False) | message.is_item)
    context.invalid[f"a message's role is none of {', '.join(roles)}"] = _any_of(value, unknown)
    context.refuse_unwritable(called, value, pl.List(dtype.inner))
    context.nulls["a message's content"] = _any_of(value, message.is_empty)
    if not images:
        return value.list.eval(message.json()).list.join(",")
    last = _Message(value.list.last(), dtype.inner, context)
    has_image = pl.any_horizontal(image.is_not_null() for image in images)
    said = "images belong to the last message of a conversation, and it is not the user's"
    context.invalid[said] = (has_image & last.role.ne_missing("user")).fill_null(value=False)
    before = value.list.slice(0, value.list.len() - 1).list.eval(message.json()).list.join(",")
    parts = pl.concat_str(last.parts(context.endpoint.text_part), *images, separator=",", ignore_nulls=True)
    ending = pl.when(has_image).then(last.json(pl.concat_str(pl.lit("["), parts, pl.lit("]")))).otherwise(last.json())
    return pl.concat_str(pl.when(value.list.len() > 1).then(before), ending, separator=",", ignore_nulls=True)


class _Message:
    """A message of a conversation, as expressions.

    Parameters
    ----------
    value, dtype
        The struct.
    context
        Says what a null content means, and whether there may be items that are no messages.
    """

    def __init__(self, value: pl.Expr, dtype: Any, context: CompileContext) -> None:
        self.value = value
        self._on_null = context.on_null
        self._dtypes = {found.name: found.dtype for found in dtype.fields}
        self._fields = {name: encode.struct_field(value, dtype, name) for name in self._dtypes}
        self.role = self._fields["role"].cast(pl.String)
        self._item_types = context.endpoint.item_types if "type" in self._fields else ()

    @property
    def is_item(self) -> pl.Expr:
        """Whether it is no message but an item of responses, such as what came of a call."""
        if not self._item_types:
            return pl.lit(value=False)
        return self.role.is_null() & self._fields["type"].cast(pl.String).is_in(self._item_types).fill_null(value=False)

    @property
    def is_empty(self) -> pl.Expr:
        """Whether its content is null; a call of tools has none."""
        empty = self._fields["content"].is_null() & self.value.is_not_null() & ~self.is_item
        return empty & self._fields["tool_calls"].is_null() if "tool_calls" in self._fields else empty

    def json(self, content: pl.Expr | None = None) -> pl.Expr:
        """Return its JSON, with another content where one is given."""
        role = encode.json(self.role, pl.String(), "the role of a message")
        content = self._content() if content is None else content
        members = [pl.concat_str(pl.lit('"role":'), role), pl.concat_str(pl.lit('"content":'), content)]
        # A field is the same in all messages of a column, and the service takes no null for a name that is not there.
        others = self._members(*(name for name in self._dtypes if name not in {"role", "content"}))
        message = encode.json_object([*members, *others])
        if not self._item_types:
            return message
        return pl.when(self.is_item).then(encode.json_object(self._members(*self._dtypes))).otherwise(message)

    def _members(self, *names: str) -> list[pl.Expr]:
        return [
            encode.member(name, self._fields[name], self._dtypes[name], f"the {name} of a message", omit_null=True)
            for name in names
        ]

    def parts(self, text_part: str) -> pl.Expr:
        """Return its content as parts, joined by commas; null where there are none. A text is a part of that type."""
        given, dtype = self._fields["content"], self._dtypes["content"]
        if dtype.is_nested():
            inner = self._content().str.strip_prefix("[").str.strip_suffix("]")
            return pl.when(given.is_not_null() & (inner != "")).then(inner)
        return pl.concat_str(pl.lit(f'{{"type":"{text_part}","text":'), self._content(), pl.lit("}"))

    def _content(self) -> pl.Expr:
        given, dtype = self._fields["content"], self._dtypes["content"]
        if dtype.is_nested():
            text = encode.json(given, dtype, _CONTENT, omit_null_fields=True)
        else:
            text = encode.json(encode.text(given, dtype, _CONTENT), pl.String(), _CONTENT)
        if self._on_null == "render":
            text = pl.when(self.is_empty).then(pl.lit('""')).otherwise(text)
        return text


def _any_of(messages: pl.Expr, found: pl.Expr) -> pl.Expr:
    """Return whether something is so for any message; False for a null conversation."""
    return messages.list.eval(found).list.any().fill_null(value=False)
