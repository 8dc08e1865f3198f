"""Images and PDF files as Polars expressions: detect their type, check them, and encode them as JSON.

The type of bytes is detected by their signature. File names are not used, and nothing is decoded.
"""

from __future__ import annotations

import functools
import operator
from typing import Any

import polars as pl

from batchframe._core.exceptions import TemplateError
from batchframe._requests import encode

# Azure's "vision-enabled chat model concepts" (2026): an image has at most 20 MB. OpenAI's error for a large
# image gives the same limit; its guide (developers.openai.com/api/docs/guides/images-vision) limits only the request.
MAX_IMAGE_BYTES = 20 * 1_048_576
_TEXT = (pl.String, pl.Categorical, pl.Enum, pl.Null)
_Signature = dict[int, bytes]  # offset → bytes
# Images that the services accept, by MIME type. Source: the guide above.
_IMAGES: dict[str, list[_Signature]] = {
    "image/png": [{0: b"\x89PNG\r\n\x1a\n"}],
    "image/jpeg": [{0: b"\xff\xd8\xff"}],
    "image/gif": [{0: b"GIF87a"}, {0: b"GIF89a"}],
    "image/webp": [{0: b"RIFF", 8: b"WEBP"}],
}
_PDF: list[_Signature] = [{0: b"%PDF-"}]
# Other contents that occur in image columns, by their name in messages.
_OTHERS: dict[str, list[_Signature]] = {
    "a PDF": _PDF,
    "SVG or other XML": [{0: b"<svg"}, {0: b"<?xml"}, {0: b"\xef\xbb\xbf<"}],
    "an HTML page": [{0: b"<!DOCTYPE"}, {0: b"<!doctype"}, {0: b"<html"}],
    "HEIC": [{4: b"ftyp" + brand} for brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")],
    "AVIF": [{4: b"ftypavif"}, {4: b"ftypavis"}],
    "TIFF": [{0: b"II*\x00"}, {0: b"MM\x00*"}],
    "BMP": [{0: b"BM"}],
}
_CONVERT = "convert it to PNG, JPEG, GIF or WEBP"
_WEB = r"(?i)^https?://\S+$"
_DATA = r"^data:(?i:image/(?:png|jpe?g|gif|webp)(?:;[^;,]*)*;base64),[A-Za-z0-9+/]+=*$"
_BARE_BASE64 = r"^(?:iVBORw0KGgo|/9j/|R0lGOD|UklGR)"  # signatures of images in base64
_SHOWN_CHARACTERS = 60


def image(value: pl.Expr, dtype: Any, label: str) -> tuple[pl.Expr, pl.Expr]:
    """Return the JSON of an image's URL (null if it is null), and the reason why it cannot be sent (null if it can).

    Parameters
    ----------
    value, dtype
        A URL, or bytes, which become a data URL.
    label
        The label in error messages.

    Raises
    ------
    TemplateError
        The dtype is neither a text nor Binary.
    """
    if isinstance(dtype, pl.Binary):
        kind = _first(_IMAGES, value)
        return _data_url(value, kind), _problem_of_bytes(value, kind, label)
    if isinstance(dtype, _TEXT):
        url = value.cast(pl.String)
        return _json(url, label), _problem_of_url(url, label)
    fields = [repr(field.name) for field in dtype.fields] if isinstance(dtype, pl.Struct) else []
    hint = f". Use one of its fields: {', '.join(fields)}" if fields else ""
    msg = f"{label} has dtype {dtype}; an image must be a URL (String) or bytes (Binary){hint}"
    raise TemplateError(msg)


def file(value: pl.Expr, dtype: Any, label: str) -> tuple[pl.Expr, pl.Expr]:
    """Return the JSON of a file's data, and the reason why it cannot be sent, as `image` does.

    Texts are sent unchanged. Bytes must be a PDF: the signatures of other files do not give their type, so the user
    builds the data URL.
    """
    if not isinstance(dtype, pl.Binary):
        return _json(encode.text(value, dtype, label), label), pl.lit(None, pl.String)
    reason = f"{label} is not a PDF: for other file types, build the data URL yourself, such as "
    reason += "pl.concat_str(pl.lit('data:text/csv;base64,'), pl.col('file').bin.encode('base64'))"
    problem = pl.when(value.is_not_null() & ~_matches(_PDF, value)).then(pl.lit(reason))
    return _data_url(value, pl.lit("application/pdf")), problem


def _json(text: pl.Expr, label: str) -> pl.Expr:
    return pl.when(text.is_not_null()).then(encode.json(text, pl.String(), label))


def _data_url(value: pl.Expr, kind: pl.Expr) -> pl.Expr:
    # Base64 needs no escaping; encoding it as JSON would copy the image.
    return pl.concat_str(pl.lit('"data:'), kind, pl.lit(";base64,"), value.bin.encode("base64"), pl.lit('"'))


def _problem_of_bytes(value: pl.Expr, kind: pl.Expr, label: str) -> pl.Expr:
    size = value.bin.size()
    other = pl.coalesce(_first(_OTHERS, value), pl.lit("not an image"))
    return (
        pl.when(size == 0)
        .then(pl.lit(f"{label} is empty: expected an image"))
        .when(value.is_not_null() & kind.is_null())
        .then(pl.concat_str(pl.lit(f"{label} is "), other, pl.lit(f": {_CONVERT}")))
        .when(size > MAX_IMAGE_BYTES)
        .then(_too_large(size, label))
    )


def _problem_of_url(url: pl.Expr, label: str) -> pl.Expr:
    shown = pl.concat_str(
        pl.lit(f"{label} is '"),
        url.str.slice(0, _SHOWN_CHARACTERS),
        pl.when(url.str.len_chars() > _SHOWN_CHARACTERS).then(pl.lit("…'")).otherwise(pl.lit("'")),
    )
    size = (url.str.len_bytes() - url.str.find(",", literal=True)) // 4 * 3
    is_data = url.str.contains(_DATA)
    return (
        pl.when(url.is_null() | url.str.contains(_WEB) | (is_data & (size <= MAX_IMAGE_BYTES)))
        .then(pl.lit(None, pl.String))
        .when(is_data)
        .then(_too_large(size, label))
        .when(url.str.strip_chars() == "")
        .then(pl.lit(f"{label} is an empty string: expected the URL of an image"))
        .when(url.str.contains(r"(?i)^\s*https?://"))
        .then(
            pl.concat_str(
                shown, pl.lit(": expected https://host/… without whitespace; strip it, and write inner spaces as %20")
            )
        )
        .when(url.str.starts_with("data:"))
        .then(pl.concat_str(shown, pl.lit(f": expected data:image/…;base64,…; {_CONVERT}")))
        .when(url.str.contains(_BARE_BASE64))
        .then(
            pl.concat_str(
                shown, pl.lit(": base64 without a prefix; prepend data:image/png;base64, with the type of the image")
            )
        )
        .otherwise(
            pl.concat_str(
                shown, pl.lit(": expected a URL (https://… or data:image/…;base64,…); read files into a Binary column")
            )
        )
    )


def _too_large(size: pl.Expr, label: str) -> pl.Expr:
    limit = f" bytes; an image may have at most {MAX_IMAGE_BYTES}: make it smaller"
    return pl.concat_str(pl.lit(f"{label} has "), size, pl.lit(limit))


def _first(kinds: dict[str, list[_Signature]], value: pl.Expr) -> pl.Expr:
    """Return the name of the first kind whose signature matches the bytes, null if none does."""
    return pl.coalesce(pl.when(_matches(signatures, value)).then(pl.lit(name)) for name, signatures in kinds.items())


def _matches(signatures: list[_Signature], value: pl.Expr) -> pl.Expr:
    matches = [
        functools.reduce(
            operator.and_, [value.bin.slice(offset, len(magic)) == pl.lit(magic) for offset, magic in signature.items()]
        )
        for signature in signatures
    ]
    return functools.reduce(operator.or_, matches)
