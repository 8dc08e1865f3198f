"""The option ``images``: columns of URLs or bytes that become image parts of a message."""

from __future__ import annotations

import functools
import operator
from typing import TYPE_CHECKING, Any

import polars as pl

from batchframe._core.exceptions import TemplateError
from batchframe._requests import encode, media, template

if TYPE_CHECKING:
    from batchframe._requests.compile_context import CompileContext


def expressions(images: tuple[Any, ...]) -> dict[str, pl.Expr]:
    """Return the images that are expressions, by label."""
    labelled = zip(_labels(images), images, strict=True)
    return {label: image for label, image in labelled if isinstance(image, pl.Expr)}


def _labels(images: tuple[Any, ...]) -> list[str]:
    return ["images"] if len(images) == 1 else [f"images[{number}]" for number in range(len(images))]


def parts(context: CompileContext, images: tuple[Any, ...], detail: str | None) -> list[pl.Expr]:
    """Return one expression per image column: its parts as JSON, joined by commas; null where a row has none.

    Parameters
    ----------
    context
        The compile context. Collects what may be wrong with the images.
    images
        Column names and expressions.
    detail
        The ``detail`` of the image parts.

    Raises
    ------
    TemplateError
        A column is missing, or its dtype cannot hold images.
    """
    encoded: list[pl.Expr] = []
    counts: list[pl.Expr] = []
    for name, image in zip(_labels(images), images, strict=True):
        label, value, dtype = _column(context, image, name)
        context.nulls[label] = value.is_null()
        if isinstance(dtype, (pl.List, pl.Array)):
            items = value.arr.to_list() if isinstance(dtype, pl.Array) else value
            url, problem = media.image(pl.element(), dtype.inner, f"an image of {label}")
            problem = items.list.eval(problem).list.drop_nulls().list.first()
            is_null = items.list.eval(pl.element().is_null())
            context.nulls[f"an image of {label}"] = is_null.list.any().fill_null(value=False)
            count = items.list.drop_nulls().list.len().fill_null(0)
            joined = items.list.eval(_part(context, url, detail)).list.drop_nulls().list.join(",")
            encoded.append(pl.when(count > 0).then(joined))
        else:
            url, problem = media.image(value, dtype, label)
            count = value.is_not_null().cast(pl.UInt32)
            encoded.append(_part(context, url, detail))
        context.problems.append(problem)
        counts.append(count)
    if counts:
        context.problems.append(_too_many(functools.reduce(operator.add, counts), context.endpoint.max_images))
    return encoded


def _too_many(count: pl.Expr, limit: int) -> pl.Expr:
    message = pl.concat_str(pl.lit("the row has "), count, pl.lit(f" images; a request may contain at most {limit}"))
    return pl.when(count > limit).then(message)


def _column(context: CompileContext, image: Any, name: str) -> tuple[str, pl.Expr, Any]:
    """Return the label of an image column, its values, and their dtype."""
    if isinstance(image, pl.Expr):
        label = name
        value, dtype = context.value(name)
    else:
        field = template.resolve(image, context.schema)
        if field is None:
            raise TemplateError.from_unknown_column(image, context.schema, "images")
        label, value, dtype = f"column {field.name!r}", field.value, field.dtype
    value, dtype = encode.stored(value, dtype)
    return label, value, dtype


def _part(context: CompileContext, url: pl.Expr, detail: str | None) -> pl.Expr:
    assert context.endpoint.image_part is not None
    prefix, suffix = context.endpoint.image_part
    return pl.concat_str(pl.lit(prefix), url, pl.lit((f',"detail":"{detail}"' if detail else "") + suffix))
