"""Conversation columns: ``List(Struct{role, content, …})`` as messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from batchframe._core.exceptions import TemplateError
from batchframe._requests import encode

if TYPE_CHECKING:
    from batchframe._requests.compile_context import CompileContext

_CONTENT = "the content of a message"


def conversation(context: CompileContext, label: str, images: list[pl.Expr]) -> pl.Expr:
    """Return the messages of a conversation column without brackets, with the images in the last one, a user message.

    Parameters
    ----------
    context
        The compile context. Collects what may be wrong with a row.
    label
        The label of the column in error messages.
    images
        The image parts.

    Raises
    ------
    TemplateError
        The column is not a conversation.
    """
    value, dtype = context.value(label)
    fields = {field.name: field.dtype for field in dtype.inner.fields} if isinstance(dtype.inner, pl.Struct) else {}
    if not {"role", "content"} <= fields.keys():
        msg = f"the {label} has dtype {dtype}: a conversation must be List(Struct) with the fields role and content"
        raise TemplateError(msg)
    value = value.arr.to_list() if isinstance(dtype, pl.Array) else value
    roles = context.endpoint.roles
    message = _Message(pl.element(), dtype.inner, context)
    context.nulls[label] = value.is_null()
    context.invalid["the conversation is null"] = value.is_null()  # on_null="render" has no empty conversation to send
    context.invalid["the conversation has no messages"] = (value.list.len() == 0).fill_null(value=False)
    unknown = message.value.is_null() | ~(message.role.is_in(roles).fill_null(value=False) | message.is_item)
    context.invalid[f"a message's role is not one of {', '.join(roles)}"] = _any_of(value, unknown)
    context.refuse_unwritable(label, value, pl.List(dtype.inner))
    context.nulls["a message's content"] = _any_of(value, message.is_empty)
    if not images:
        return value.list.eval(message.json()).list.join(",")
    last = _Message(value.list.last(), dtype.inner, context)
    has_image = pl.any_horizontal(image.is_not_null() for image in images)
    reason = "images are added to the last message of a conversation, and its role is not 'user'"
    context.invalid[reason] = (has_image & last.role.ne_missing("user")).fill_null(value=False)
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
        Gives the meaning of a null content, and the items that the endpoint takes between messages.
    """

    def __init__(self, value: pl.Expr, dtype: Any, context: CompileContext) -> None:
        self.value = value
        self._on_null = context.on_null
        self._dtypes = {field.name: field.dtype for field in dtype.fields}
        self._fields = {name: encode.struct_field(value, dtype, name) for name in self._dtypes}
        self.role = self._fields["role"].cast(pl.String)
        self._item_types = context.endpoint.item_types if "type" in self._fields else ()

    @property
    def is_item(self) -> pl.Expr:
        """Whether the struct is not a message but an item of the responses endpoint, such as the output of a call."""
        if not self._item_types:
            return pl.lit(value=False)
        return self.role.is_null() & self._fields["type"].cast(pl.String).is_in(self._item_types).fill_null(value=False)

    @property
    def is_empty(self) -> pl.Expr:
        """Whether the content is null where it is needed. A message with tool calls needs none."""
        empty = self._fields["content"].is_null() & self.value.is_not_null() & ~self.is_item
        return empty & self._fields["tool_calls"].is_null() if "tool_calls" in self._fields else empty

    def json(self, content: pl.Expr | None = None) -> pl.Expr:
        """Return the JSON of the message, with ``content`` in place of its own content if passed."""
        role = encode.json(self.role, pl.String(), "the role of a message")
        content = self._content() if content is None else content
        members = [pl.concat_str(pl.lit('"role":'), role), pl.concat_str(pl.lit('"content":'), content)]
        # All messages of a column have the same fields, and the service refuses null for a key that a message lacks.
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
        """Return the content as parts joined by commas, null where there are none. A text becomes one ``text_part``."""
        content, dtype = self._fields["content"], self._dtypes["content"]
        if dtype.is_nested():
            inner = self._content().str.strip_prefix("[").str.strip_suffix("]")
            return pl.when(content.is_not_null() & (inner != "")).then(inner)
        return pl.concat_str(pl.lit(f'{{"type":"{text_part}","text":'), self._content(), pl.lit("}"))

    def _content(self) -> pl.Expr:
        content, dtype = self._fields["content"], self._dtypes["content"]
        if dtype.is_nested():
            text = encode.json(content, dtype, _CONTENT, omit_null_fields=True)
        else:
            text = encode.json(encode.text(content, dtype, _CONTENT), pl.String(), _CONTENT)
        if self._on_null == "render":
            text = pl.when(self.is_empty).then(pl.lit('""')).otherwise(text)
        return text


def _any_of(messages: pl.Expr, condition: pl.Expr) -> pl.Expr:
    """Return whether a condition holds for any message; False for a null conversation."""
    return messages.list.eval(condition).list.any().fill_null(value=False)
