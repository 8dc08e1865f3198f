"""The option ``images``: columns of URLs or bytes become the image parts of a message."""

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
    """Return those of the images that are expressions, by what they are called."""
    named = zip(_names(images), images, strict=True)
    return {name: image for name, image in named if isinstance(image, pl.Expr)}


def _names(images: tuple[Any, ...]) -> list[str]:
    return ["images"] if len(images) == 1 else [f"images[{number}]" for number in range(len(images))]


def parts(context: CompileContext, images: tuple[Any, ...], detail: str | None) -> list[pl.Expr]:
    """Return the parts of each of the images, a JSON text joined by commas; null where a row has none.

    Parameters
    ----------
    context
        Against what is compiled; takes what may be wrong with the images.
    images
        Names of columns, and expressions.
    detail
        How closely they are to be looked at.

    Raises
    ------
    TemplateError
        A column is not there, or holds no images.
    """
    found: list[pl.Expr] = []
    counts: list[pl.Expr] = []
    for name, asked in zip(_names(images), images, strict=True):
        called, value, dtype = _column(context, asked, name)
        context.nulls[called] = value.is_null()
        if isinstance(dtype, (pl.List, pl.Array)):
            items = value.arr.to_list() if isinstance(dtype, pl.Array) else value
            url, problem = media.image(pl.element(), dtype.inner, f"an image of {called}")
            problem = items.list.eval(problem).list.drop_nulls().list.first()
            is_null = items.list.eval(pl.element().is_null())
            context.nulls[f"an image of {called}"] = is_null.list.any().fill_null(value=False)
            count = items.list.drop_nulls().list.len().fill_null(0)
            joined = items.list.eval(_part(context, url, detail)).list.drop_nulls().list.join(",")
            found.append(pl.when(count > 0).then(joined))
        else:
            url, problem = media.image(value, dtype, called)
            count = value.is_not_null().cast(pl.UInt32)
            found.append(_part(context, url, detail))
        context.problems.append(problem)
        counts.append(count)
    if counts:
        context.problems.append(_too_many(functools.reduce(operator.add, counts), context.endpoint.max_images))
    return found


def _too_many(count: pl.Expr, most: int) -> pl.Expr:
    said = pl.concat_str(pl.lit("the row has "), count, pl.lit(f" images, and a request may have {most}"))
    return pl.when(count > most).then(said)


def _column(context: CompileContext, asked: Any, name: str) -> tuple[str, pl.Expr, Any]:
    """Return what images are called, the values, and their dtype."""
    if isinstance(asked, pl.Expr):
        called = name
        value, dtype = context.value(name)
    else:
        found = template.resolve(asked, context.schema)
        if found is None:
            raise TemplateError.from_unknown_column(asked, context.schema, "images")
        called, value, dtype = f"column {found.name!r}", found.value, found.dtype
    value, dtype = encode.stored(value, dtype)
    return called, value, dtype


def _part(context: CompileContext, url: pl.Expr, detail: str | None) -> pl.Expr:
    assert context.endpoint.image_part is not None
    before, after = context.endpoint.image_part
    return pl.concat_str(pl.lit(before), url, pl.lit((f',"detail":"{detail}"' if detail else "") + after))
