"""The messages of a prompt: one template, or a list of messages whose leaves may be templates or expressions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from batchframe._core.exceptions import OptionError, suggestion
from batchframe._core.json_values import json_text
from batchframe._requests import encode, media, template

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchframe._endpoints.base import Endpoint
    from batchframe._requests.compile_context import CompileContext, Pieces, Text

_CALLS = ("tool_calls", "function_call", "audio")  # an assistant message with one of these needs no content
_TEXTS = {"text", "input_text", "output_text"}
_IMAGES = {"image_url": "url", "input_image": "image_url"}  # part type → the key that holds its URL
_FILES = {"file", "input_file"}


def check(prompt: Any, endpoint: Endpoint) -> None:
    """Check that a list of messages fits the endpoint.

    Raises
    ------
    OptionError
        A message is malformed. The error gives its index and what was expected.
    """
    if not prompt:
        msg = "the list of messages is empty: pass at least one message"
        raise OptionError(msg)
    for index, message in enumerate(prompt):
        label = f"message {index}"
        if _is_item(message, endpoint):
            continue
        content = message.get("content") if isinstance(message, dict) else None
        calls = [name for name in _CALLS if isinstance(message, dict) and message.get(name) is not None]
        if not isinstance(message, dict) or "role" not in message or not ("content" in message or calls):
            item = ', or an item {"type": "function_call_output", …}' if endpoint.item_types else ""
            msg = f'{label} must be {{"role": …, "content": …}}{item}, got {message!r}'
            raise OptionError(msg)
        if not isinstance(message["role"], str) or message["role"] not in endpoint.roles:
            msg = f"{label} has role {message['role']!r}: expected one of {', '.join(endpoint.roles)}"
            raise OptionError(msg)
        known = ("role", "content", *endpoint.message_keys)
        unknown = [key for key in message if key not in known]
        if unknown:
            near = suggestion(str(unknown[0]), known)
            keys = ", ".join(known)
            msg = f"{label} has the unknown key {unknown[0]!r}: a message of {endpoint.path} may have {keys}.{near}"
            raise OptionError(msg)
        if isinstance(content, (list, tuple)):
            _check_parts(label, content, endpoint)
        elif not isinstance(content, (str, pl.Expr)) and not (content is None and calls):
            kind = type(content).__qualname__
            msg = f"the content of {label} must be a template, an expression or a list of parts, got {kind}"
            raise OptionError(msg)


def _is_item(message: Any, endpoint: Endpoint) -> bool:
    return isinstance(message, dict) and "role" not in message and message.get("type") in endpoint.item_types


def _check_parts(label: str, content: Any, endpoint: Endpoint) -> None:
    known = endpoint.part_types
    if not content:
        msg = f"{label} has no parts: its content is an empty list"
        raise OptionError(msg)
    for number, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(kind, str) or kind not in known:
            got = f"the type {kind!r}" if isinstance(part, dict) else repr(part)
            msg = f"{label}, content[{number}] must be a part of type {', '.join(known)} at {endpoint.path}, got {got}"
            raise OptionError(msg)
        if kind in _TEXTS and not isinstance(part.get("text"), (str, pl.Expr)):
            msg = f"{label}, content[{number}] needs a text (a template or an expression), got {part.get('text')!r}"
            raise OptionError(msg)


def expressions(prompt: Any) -> dict[str, pl.Expr]:
    """Return the expressions in a list of messages, by label."""
    return {
        _label(index, path): leaf
        for index, message in enumerate(prompt)
        for path, leaf in _leaves(message, "")
        if isinstance(leaf, pl.Expr)
    }


def templates(prompt: Any) -> Iterator[str]:
    """Yield the templates in a list of messages."""
    for message in prompt:
        content = message.get("content")
        texts = [content] if isinstance(content, str) else content if isinstance(content, (list, tuple)) else []
        for text in texts:
            template_text = text.get("text") if isinstance(text, dict) and text.get("type") in _TEXTS else text
            if isinstance(template_text, str):
                yield template_text


def _label(index: int, path: str) -> str:
    return f"message {index}" + (f", {path}" if path != "content" else "")


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield each leaf of nested dicts and lists, with its path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{number}]")
    else:
        yield path, value


def plain(role: str, text: Text, on_null: str) -> str | pl.Expr:
    """Return a message whose content is a text."""
    if text.constant is not None:
        return json_text({"role": role, "content": text.constant}, "message")
    content = text.expression(on_null).alias("content")
    return pl.struct(pl.lit(role).alias("role"), content).struct.json_encode()


def with_images(context: CompileContext, role: str, text: Text, images: list[pl.Expr]) -> Pieces:
    """Return a message whose content is a text and images."""
    return [f'{{"role":"{role}","content":', *content(context, text, images), "}"]


def content(context: CompileContext, text: Text, images: list[pl.Expr]) -> Pieces:
    """Return a list of parts: the text and the images. An empty template adds no text part."""
    if text.constant != "":
        return _array([text_part(context, text), *images])
    context.invalid["the row has neither a text nor an image"] = pl.all_horizontal(image.is_null() for image in images)
    return _array(images)


def text_part(context: CompileContext, text: Text) -> str | pl.Expr:
    """Return the content part for a text of the user."""
    encoded, prefix = text.json(context.on_null), f'{{"type":"{context.endpoint.text_part}","text":'
    return f"{prefix}{encoded}}}" if isinstance(encoded, str) else pl.concat_str(pl.lit(prefix), encoded, pl.lit("}"))


def _array(parts: list[Any]) -> Pieces:
    """Return a JSON array of parts. A row leaves out the parts that are null in it."""
    if all(isinstance(part, str) for part in parts):
        return ["[" + ",".join(parts) + "]"]
    joined = [pl.lit(part) if isinstance(part, str) else part for part in parts]
    return ["[", pl.concat_str(joined, separator=",", ignore_nulls=True), "]"]


def message_list(context: CompileContext, prompt: Any, images: list[pl.Expr]) -> Pieces:
    """Return a list of messages without its brackets, with the images in the last user message.

    Raises
    ------
    OptionError
        There are images but no user message.
    """
    users = [index for index, message in enumerate(prompt) if message.get("role") == "user"]
    if images and not users:
        msg = "images are added to the last message with role 'user', and the list has no such message: add one"
        raise OptionError(msg)
    pieces: Pieces = []
    for index, message in enumerate(prompt):
        message_images = images if images and index == users[-1] else []
        pieces += [","] * bool(index)
        pieces += (
            _item(context, index, message)
            if _is_item(message, context.endpoint)
            else _message(context, index, message, message_images)
        )
    return pieces


def _item(context: CompileContext, index: int, item: dict[str, Any]) -> Pieces:
    pieces: Pieces = []
    for name, value in item.items():
        label = _label(index, name)
        pieces += [f"{',' if pieces else '{'}{json_text(name, label)}:", *_tree(context, value, label)]
    return [*pieces, "}"]


def _message(context: CompileContext, index: int, message: dict[str, Any], images: list[pl.Expr]) -> Pieces:
    role, message_content = message["role"], message.get("content")
    others = {name: value for name, value in message.items() if name not in {"role", "content"}}
    pieces: Pieces
    if isinstance(message_content, (list, tuple)):
        parts = [
            _part(context, part, _label(index, f"content[{number}]")) for number, part in enumerate(message_content)
        ]
        pieces = [f'{{"role":"{role}","content":', *_array([*parts, *images])]
    elif message_content is None:
        pieces = [f'{{"role":"{role}","content":null']
    else:
        text = context.text(message_content, f"message {index}")
        if not images and not others:
            return [plain(role, text, context.on_null)]
        encoded = content(context, text, images) if images else [text.json(context.on_null)]
        pieces = [f'{{"role":"{role}","content":', *encoded]
    for name, value in others.items():
        label = _label(index, name)
        if isinstance(value, pl.Expr):
            pieces.append(context.member(name, label))
        elif value is not None:
            pieces += [f",{json_text(name, label)}:", *_tree(context, value, label)]
    return [*pieces, "}"]


def _part(context: CompileContext, part: dict[str, Any], label: str) -> str | pl.Expr:
    """Return a content part, null where an expression in it is null. A text part is never null."""
    kind = part["type"]
    pieces: Pieces = []
    for name, value in part.items():
        encoded: Pieces
        if kind in _TEXTS and name == "text":
            encoded = [context.text(value, f"{label}.text").json(context.on_null)]
        else:
            encoded = _tree(context, value, f"{label}.{name}", kind)
        pieces += [f"{',' if pieces else '{'}{json_text(name, label)}:", *encoded]
    pieces.append("}")
    texts = [piece for piece in pieces if isinstance(piece, str)]
    if len(texts) == len(pieces):
        return "".join(texts)
    return pl.concat_str([pl.lit(piece) if isinstance(piece, str) else piece for piece in pieces])


def _tree(context: CompileContext, value: Any, label: str, kind: str = "") -> Pieces:
    """Return the JSON of a value whose leaves may be expressions; ``kind`` is the type of its content part, if any."""
    if isinstance(value, pl.Expr):
        return [_leaf(context, label, kind)]
    leaves = [leaf for _, leaf in _leaves(value, "")]
    if not any(isinstance(leaf, pl.Expr) for leaf in leaves):
        for leaf in leaves:
            if isinstance(leaf, str):
                template.refuse_fields(leaf, context.schema, label)
        return [json_text(value, label)]
    pieces: Pieces = []
    if isinstance(value, dict):
        for name, inner in value.items():
            key = json_text(name, label)
            pieces += [f"{',' if pieces else '{'}{key}:", *_tree(context, inner, f"{label}.{name}", kind)]
        return [*pieces, "}"]
    for number, inner in enumerate(value):
        pieces += ["," if pieces else "[", *_tree(context, inner, f"{label}[{number}]", kind)]
    return [*pieces, "]"]


def _leaf(context: CompileContext, label: str, kind: str) -> pl.Expr:
    """Return the JSON of an expression, null where its value is null."""
    value, dtype = context.value(label)
    context.nulls[label] = value.is_null()
    name = label.rsplit(".", 1)[-1]
    if name == _IMAGES.get(kind) or (kind in _FILES and name == "file_data"):
        encoded, problem = (media.file if kind in _FILES else media.image)(*encode.stored(value, dtype), label)
        context.problems.append(problem)
        return encoded
    context.refuse_unwritable(label, value, dtype)
    encoded = pl.when(value.is_not_null()).then(encode.json(value, dtype, label))
    return encoded if kind else encoded.fill_null('""')
