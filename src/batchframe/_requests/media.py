"""What bytes and URLs are, and the JSON text that carries them: images and PDF files, as Polars expressions.

Bytes are told by how they begin: the name of a file says nothing, and nothing is decoded here.
"""

from __future__ import annotations

import functools
import operator
from typing import Any

import polars as pl

from batchframe._core.exceptions import TemplateError
from batchframe._requests import encode

# Azure's "vision-enabled chat model concepts" (2026): an image has 20 MB at most. OpenAI's refusal of an image said the
# same; its guide (developers.openai.com/api/docs/guides/images-vision) bounds the request alone.
MAX_IMAGE_BYTES = 20 * 1_048_576
_TEXT = (pl.String, pl.Categorical, pl.Enum, pl.Null)
_Signature = dict[int, bytes]  # what stands at which places
# What the services take, by MIME type. Source: the guide above.
_IMAGES: dict[str, list[_Signature]] = {
    "image/png": [{0: b"\x89PNG\r\n\x1a\n"}],
    "image/jpeg": [{0: b"\xff\xd8\xff"}],
    "image/gif": [{0: b"GIF87a"}, {0: b"GIF89a"}],
    "image/webp": [{0: b"RIFF", 8: b"WEBP"}],
}
_PDF: list[_Signature] = [{0: b"%PDF-"}]
# What else is found in columns of images, by what to call it.
_OTHERS: dict[str, list[_Signature]] = {
    "a PDF": _PDF,
    "SVG or other XML": [{0: b"<svg"}, {0: b"<?xml"}, {0: b"\xef\xbb\xbf<"}],
    "an HTML page": [{0: b"<!DOCTYPE"}, {0: b"<!doctype"}, {0: b"<html"}],
    "HEIC": [{4: b"ftyp" + brand} for brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")],
    "AVIF": [{4: b"ftypavif"}, {4: b"ftypavis"}],
    "TIFF": [{0: b"II*\x00"}, {0: b"MM\x00*"}],
    "BMP": [{0: b"BM"}],
}
_CONVERT = "images are PNG, JPEG, GIF or WEBP, so convert it"
_WEB = r"(?i)^https?://\S+$"
_DATA = r"^data:(?i:image/(?:png|jpe?g|gif|webp)(?:;[^;,]*)*;base64),[A-Za-z0-9+/]+=*$"
_BARE_BASE64 = r"^(?:iVBORw0KGgo|/9j/|R0lGOD|UklGR)"  # how images begin in base64
_SHOWN_CHARACTERS = 60


def image(value: pl.Expr, dtype: Any, called: str) -> tuple[pl.Expr, pl.Expr]:
    """Return the JSON text of an image's URL, null for a null, and why it cannot be sent, null where it can.

    Parameters
    ----------
    value, dtype
        A URL; or bytes, which become a data URL.
    called
        What to call it in an error.

    Raises
    ------
    TemplateError
        The dtype is that of neither.
    """
    if isinstance(dtype, pl.Binary):
        kind = _first(_IMAGES, value)
        return _data_url(value, kind), _problem_of_bytes(value, kind, called)
    if isinstance(dtype, _TEXT):
        url = value.cast(pl.String)
        return _json(url, called), _problem_of_url(url, called)
    fields = [repr(found.name) for found in dtype.fields] if isinstance(dtype, pl.Struct) else []
    hint = f". Name one of its fields: {', '.join(fields)}" if fields else ""
    msg = f"{called} is {dtype}, and an image is a URL (String) or bytes (Binary){hint}"
    raise TemplateError(msg)


def file(value: pl.Expr, dtype: Any, called: str) -> tuple[pl.Expr, pl.Expr]:
    """Return the JSON text of a file's data, as `image` does: texts as they are, bytes must be a PDF.

    Other kinds of file cannot be told by how they begin: to name them is the user's.
    """
    if not isinstance(dtype, pl.Binary):
        return _json(encode.text(value, dtype, called), called), pl.lit(None, pl.String)
    other = "is no PDF: for other files make the data URL, such as "
    other += "pl.concat_str(pl.lit('data:text/csv;base64,'), pl.col('file').bin.encode('base64'))"
    found = pl.when(value.is_not_null() & ~_matches(_PDF, value)).then(pl.lit(f"{called} {other}"))
    return _data_url(value, pl.lit("application/pdf")), found


def _json(text: pl.Expr, called: str) -> pl.Expr:
    return pl.when(text.is_not_null()).then(encode.json(text, pl.String(), called))


def _data_url(value: pl.Expr, kind: pl.Expr) -> pl.Expr:
    # Nothing in it is to be escaped, and an image more in memory is no trifle.
    return pl.concat_str(pl.lit('"data:'), kind, pl.lit(";base64,"), value.bin.encode("base64"), pl.lit('"'))


def _problem_of_bytes(value: pl.Expr, kind: pl.Expr, called: str) -> pl.Expr:
    size = value.bin.size()
    other = pl.coalesce(_first(_OTHERS, value), pl.lit("no image"))
    return (
        pl.when(size == 0)
        .then(pl.lit(f"{called} has no bytes, where an image was expected"))
        .when(value.is_not_null() & kind.is_null())
        .then(pl.concat_str(pl.lit(f"{called} is "), other, pl.lit(f": {_CONVERT}")))
        .when(size > MAX_IMAGE_BYTES)
        .then(_too_large(size, called))
    )


def _problem_of_url(url: pl.Expr, called: str) -> pl.Expr:
    shown = pl.concat_str(
        pl.lit(f"{called} is '"),
        url.str.slice(0, _SHOWN_CHARACTERS),
        pl.when(url.str.len_chars() > _SHOWN_CHARACTERS).then(pl.lit("…'")).otherwise(pl.lit("'")),
    )
    size = (url.str.len_bytes() - url.str.find(",", literal=True)) // 4 * 3
    is_data = url.str.contains(_DATA)
    return (
        pl.when(url.is_null() | url.str.contains(_WEB) | (is_data & (size <= MAX_IMAGE_BYTES)))
        .then(pl.lit(None, pl.String))
        .when(is_data)
        .then(_too_large(size, called))
        .when(url.str.strip_chars() == "")
        .then(pl.lit(f"{called} is an empty text, where the URL of an image was expected"))
        .when(url.str.contains(r"(?i)^\s*https?://"))
        .then(pl.concat_str(shown, pl.lit(": a URL has no white space, so strip it, and write %20 for that inside")))
        .when(url.str.starts_with("data:"))
        .then(pl.concat_str(shown, pl.lit(f", which is not data:image/…;base64,…: {_CONVERT}")))
        .when(url.str.contains(_BARE_BASE64))
        .then(pl.concat_str(shown, pl.lit(": base64 alone, so put data:image/png;base64, or its like before it")))
        .otherwise(
            pl.concat_str(
                shown, pl.lit(", which is no URL (https://… or data:image/…;base64,…): read files into a Binary column")
            )
        )
    )


def _too_large(size: pl.Expr, called: str) -> pl.Expr:
    most = f" bytes, and an image may have {MAX_IMAGE_BYTES}: make it smaller"
    return pl.concat_str(pl.lit(f"{called} has "), size, pl.lit(most))


def _first(kinds: dict[str, list[_Signature]], value: pl.Expr) -> pl.Expr:
    """Return the name of the first kind that bytes are of, null for none."""
    return pl.coalesce(pl.when(_matches(signatures, value)).then(pl.lit(name)) for name, signatures in kinds.items())


def _matches(signatures: list[_Signature], value: pl.Expr) -> pl.Expr:
    each = [
        functools.reduce(operator.and_, [value.bin.slice(at, len(found)) == pl.lit(found) for at, found in one.items()])
        for one in signatures
    ]
    return functools.reduce(operator.or_, each)
