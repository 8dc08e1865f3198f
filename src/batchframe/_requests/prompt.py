"""Prompt and parameters → the pieces of a request body: constant texts and expressions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from batchframe._core.column_names import OURS
from batchframe._core.exceptions import OptionError, TemplateError, first_paragraph, warn
from batchframe._core.json_values import json_text
from batchframe._endpoints.registry import ENDPOINTS
from batchframe._requests import images as _images
from batchframe._requests import messages, template
from batchframe._requests.compile_context import BODY
from batchframe._requests.conversations import conversation
from batchframe._requests.frame_source import Source

if TYPE_CHECKING:
    from batchframe._requests.compile_context import CompileContext, Pieces
    from batchframe._requests.request_spec import RequestSpec


def stage(frame: pl.DataFrame | pl.LazyFrame, spec: RequestSpec) -> Source:
    """Collect the user's expressions, which are evaluated on the whole frame before it is sliced."""
    prompt = spec.prompt
    in_prompt = {"prompt": prompt} if isinstance(prompt, pl.Expr) else {}
    templates = [prompt] if isinstance(prompt, str) else []
    if isinstance(prompt, (list, tuple)) and ENDPOINTS[spec.endpoint].roles:
        messages.check(prompt, ENDPOINTS[spec.endpoint])
        in_prompt = messages.expressions(prompt)
        templates = list(messages.templates(prompt))
    in_prompt |= _images.expressions(spec.images)
    staged = dict(in_prompt)
    if isinstance(spec.system, pl.Expr):
        staged["system"] = spec.system
    staged |= {BODY + name: value for name, value in spec.body.items() if isinstance(value, pl.Expr)}
    for name, expression in staged.items():
        _check_expression(frame, name.removeprefix(BODY), expression)
    schema = frame.collect_schema()
    varies = any(isinstance(image, str) for image in spec.images) or any(
        isinstance(piece, template.Field) for text in templates for piece in template.parse(text, schema)
    )
    per_row = frozenset[str]() if varies else frozenset(OURS + name for name in in_prompt)
    # A slice of rows becomes a block, and the answers of a block are in memory together.
    return Source(frame, {OURS + name: expression for name, expression in staged.items()}, per_row, spec.max_slice_rows)


def _check_expression(frame: pl.DataFrame | pl.LazyFrame, label: str, expression: pl.Expr) -> None:
    """Refuse an expression that does not give one column on this frame."""
    columns = ", ".join(map(repr, frame.collect_schema()))
    try:
        outputs = frame.lazy().select(expression).collect_schema().names()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        msg = f"the expression for {label} does not fit the frame: {first_paragraph(error)}. Columns: {columns}"
        raise TemplateError(msg) from error
    if len(outputs) != 1:
        shown = f" ({', '.join(map(repr, outputs[:5]))})" if outputs else ""
        got = f"{len(outputs)} columns{shown}"
        msg = f"the expression for {label} gives {got}, expected one: join them, as pl.format does"
        raise TemplateError(msg)


def compiled(context: CompileContext, spec: RequestSpec) -> Pieces:
    """Return the JSON of the prompt as pieces: an array of messages, one text, or content parts."""
    images = _images.parts(context, spec.images, spec.image_detail)
    if context.endpoint.roles:
        return _of_messages(context, spec.prompt, spec.system, images)
    return _of_one_text(context, spec.prompt, images)


def _of_one_text(context: CompileContext, prompt: Any, images: list[pl.Expr]) -> Pieces:
    path = context.endpoint.path
    dtype = context.value("prompt")[1] if isinstance(prompt, pl.Expr) else None
    if isinstance(prompt, (list, tuple)) or _is_list(dtype):
        got = "a list" if dtype is None else f"an expression of dtype {dtype}"
        msg = f"{path} takes one text per row, got {got}: explode the frame, so that each text has its own row"
        raise OptionError(msg)
    text = context.text(prompt, "prompt")
    context.check_braces()
    if images:
        return messages.content(context, text, images)
    if text.constant is not None:
        _check_one_prompt(context, prompt)
    elif context.endpoint.refuses_empty_text:
        empty = text.expression(context.on_null) == ""
        context.invalid["the text is empty, and empty texts cannot be embedded"] = empty.fill_null(value=False)
    return [text.json(context.on_null)]


def _of_messages(context: CompileContext, prompt: Any, system: Any, images: list[pl.Expr]) -> Pieces:
    opening: Pieces = []
    if system is not None:
        opening = [messages.plain("system", context.text(system, "system"), context.on_null), ","]
    encoded: Pieces
    if isinstance(prompt, pl.Expr) and _is_list(context.value("prompt")[1]):
        encoded = [conversation(context, "prompt", images)]
    elif isinstance(prompt, (list, tuple)):
        encoded = messages.message_list(context, prompt, images)
    elif isinstance(prompt, (str, pl.Expr)):
        text = context.text(prompt, "prompt")
        encoded = (
            messages.with_images(context, "user", text, images)
            if images
            else [messages.plain("user", text, context.on_null)]
        )
    else:
        msg = (
            "the prompt must be a template, an expression, or a list of messages "
            f'[{{"role": …, "content": …}}], got {type(prompt).__qualname__}'
        )
        raise OptionError(msg)
    context.check_braces()
    if all(isinstance(piece, str) for piece in [*opening, *encoded]):
        _check_one_prompt(context, prompt)
    return ["[", *opening, *encoded, "]"]


def members(context: CompileContext, body: dict[str, Any]) -> Pieces:
    """Return the parameters in the body as pieces that begin with a comma."""
    pieces: Pieces = []
    for name, value in body.items():
        if isinstance(value, pl.Expr):
            pieces.append(context.member(name, BODY + name))
        else:
            pieces.append(f",{json_text(name, 'a name')}:{json_text(value, name)}")
    return pieces


def _check_one_prompt(context: CompileContext, prompt: Any) -> None:
    if isinstance(prompt, str) and prompt in context.schema:
        msg = f"the prompt is a column name, not a template: use '{{{prompt}}}' or pl.col({prompt!r})"
        raise TemplateError(msg)
    warn("the prompt has no {column} field: every row will send, and be billed for, the same request")


def join(pieces: Pieces) -> pl.Expr:
    """Join pieces into one expression, after merging adjacent constants."""
    joined: list[Any] = []
    for piece in pieces:
        if isinstance(piece, str) and joined and isinstance(joined[-1], str):
            joined[-1] += piece
        else:
            joined.append(piece)
    return pl.concat_str([pl.lit(piece) if isinstance(piece, str) else piece for piece in joined])


def _is_list(dtype: Any) -> bool:
    return isinstance(dtype, (pl.List, pl.Array))
