"""Encode a value of each dtype as text in a prompt and as JSON in a body, as Polars expressions.

``struct.json_encode`` escapes strings exactly and fast. But it has its own format for temporal values, writes a Decimal
as a string and NaN as null, and panics on Binary. So it encodes only the dtypes in ``_PLAIN``; this module encodes
the others.
"""

from __future__ import annotations

import functools
import operator
from typing import TYPE_CHECKING, Any

import polars as pl

from batchframe._core.dtypes import MAP, holds
from batchframe._core.exceptions import TemplateError
from batchframe._core.json_values import json_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_FRACTION = "%.f"
_DATETIME = "%Y-%m-%dT%H:%M:%S" + _FRACTION
_TIME = "%H:%M:%S" + _FRACTION
# Polars (1.37 to 2.1) formats days from -96465292 to 95026236, counted from 1970, and panics outside. A time zone may
# shift a day by one. DuckDB's infinity is outside. Nanoseconds cannot reach the limit.
_LAST_DAY = 95_000_000
_UNITS_PER_DAY = {"us": 86_400_000_000, "ms": 86_400_000}
_UNENCODABLE = (pl.Binary, pl.Object)
# Dtypes for json_encode. It supports 128-bit integers and Float16 only in recent versions, so they are not listed.
_PLAIN = (pl.String, pl.Boolean, pl.Null, pl.Int8, pl.Int16, pl.Int32, pl.Int64,
          pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64, pl.Float32, pl.Float64)  # fmt: skip


def text(value: pl.Expr, dtype: Any, name: str) -> pl.Expr:
    """Return the text of a value in a prompt, null where the value is null.

    Parameters
    ----------
    value
        The value.
    dtype
        Its dtype.
    name
        The label in error messages.

    Raises
    ------
    TemplateError
        The dtype has no text form (Binary, Object).
    """
    _refuse_unencodable(dtype, name)
    value, dtype = stored(value, dtype)
    if isinstance(dtype, pl.String):
        return value
    if dtype.is_nested():
        return pl.when(value.is_not_null()).then(json(value, dtype, name))
    return _plain_text(value, dtype)


def _plain_text(value: pl.Expr, dtype: Any) -> pl.Expr:
    is_outside = _is_out_of_calendar(value, dtype)
    if is_outside is not None:
        value = pl.when(~is_outside).then(value)  # the row is not sent: `out_of_calendar` reports it
    if isinstance(dtype, pl.Datetime):
        return value.dt.to_string(_DATETIME if dtype.time_zone is None else _DATETIME + "%:z")
    if isinstance(dtype, pl.Time):
        return value.dt.to_string(_TIME)
    if isinstance(dtype, pl.Duration):
        return value.dt.to_string("iso")
    return value.cast(pl.String)


def column(schema: Mapping[str, Any], name: str) -> pl.Expr:
    """Return a column by its exact name. ``pl.col`` treats ``*`` and ``^…$`` as patterns."""
    return pl.nth(list(schema).index(name)) if is_pattern(name) else pl.col(name)


def struct_field(value: pl.Expr, dtype: Any, name: str) -> pl.Expr:
    """Return a struct's field by its exact name, as `column` does."""
    if not is_pattern(name):
        return value.struct.field(name)
    names = [field.name for field in dtype.fields]
    plain = [f"field {index}" for index in range(len(names))]
    return value.struct.rename_fields(plain).struct.field(plain[names.index(name)])


def is_pattern(name: str) -> bool:
    """Whether ``pl.col`` treats a name as a pattern."""
    return name == "*" or (name.startswith("^") and name.endswith("$"))


def json(value: pl.Expr, dtype: Any, name: str, *, omit_null_fields: bool = False) -> pl.Expr:
    """Return the JSON of a value; null becomes ``null``. `not_finite` reports values that JSON cannot represent.

    Parameters
    ----------
    value
        The value.
    dtype
        Its dtype.
    name
        The label in error messages.
    omit_null_fields
        Omit null fields of structs instead of writing ``null``.

    Raises
    ------
    TemplateError
        The dtype has no JSON form (Binary, Object).
    """
    _refuse_unencodable(dtype, name)
    value, dtype = stored(value, dtype)
    if _is_plain(dtype) and not (omit_null_fields and holds(dtype, pl.Struct)):
        encoded = pl.struct(value.alias("v")).struct.json_encode()
        return encoded.str.strip_prefix('{"v":').str.strip_suffix("}")
    if isinstance(dtype, (pl.List, pl.Array)):
        items = value.arr.to_list() if isinstance(dtype, pl.Array) else value
        encoded = json(pl.element(), dtype.inner, name, omit_null_fields=omit_null_fields)
        return pl.concat_str(pl.lit("["), items.list.eval(encoded).list.join(","), pl.lit("]")).fill_null("null")
    if isinstance(dtype, MAP):
        key, entry = pl.element().struct.field("key"), pl.element().struct.field("value")
        key = json(text(key, dtype.key, name), pl.String(), name)
        entry = json(entry, dtype.value, name, omit_null_fields=omit_null_fields)
        entries = value.map.entries().list.eval(pl.concat_str(key, pl.lit(":"), entry)).list.join(",")
        return pl.concat_str(pl.lit("{"), entries, pl.lit("}")).fill_null("null")
    if isinstance(dtype, pl.Struct):
        members = [
            member(field.name, struct_field(value, dtype, field.name), field.dtype, name, omit_null=omit_null_fields)
            for field in dtype.fields
        ]
        return pl.when(value.is_not_null()).then(json_object(members)).otherwise(pl.lit("null"))
    if isinstance(dtype, pl.Decimal) or dtype.is_numeric():
        return value.cast(pl.String).fill_null("null")
    return json(_plain_text(value, dtype), pl.String(), name)


def member(key: str, value: pl.Expr, dtype: Any, name: str, *, omit_null: bool) -> pl.Expr:
    """Return the member ``"key":value`` of an object. With ``omit_null``, it is null where the value is null."""
    encoded = json(value, dtype, name, omit_null_fields=omit_null)
    pair = pl.concat_str(pl.lit(json_text(key, name) + ":"), encoded)
    return pl.when(value.is_not_null()).then(pair) if omit_null else pair


def json_object(members: list[pl.Expr]) -> pl.Expr:
    """Return a JSON object of the members that are not null."""
    inner = [pl.concat_str(members, separator=",", ignore_nulls=True)] if members else []
    return pl.concat_str(pl.lit("{"), *inner, pl.lit("}"))


def not_finite(value: pl.Expr, dtype: Any) -> pl.Expr | None:
    """Return whether a value contains NaN or infinity, which JSON cannot represent; None if its dtype cannot."""
    return _any_leaf(value, dtype, lambda leaf, kind: ~leaf.is_finite() if kind.is_float() else None)


def out_of_calendar(value: pl.Expr, dtype: Any) -> pl.Expr | None:
    """Return whether a value contains a day that Polars panics on formatting; None if its dtype cannot."""
    return _any_leaf(value, dtype, _is_out_of_calendar)


def _is_out_of_calendar(value: pl.Expr, dtype: Any) -> pl.Expr | None:
    units = _UNITS_PER_DAY.get(dtype.time_unit) if isinstance(dtype, pl.Datetime) else 1
    if units is None or not isinstance(dtype, (pl.Date, pl.Datetime)):
        return None
    return ~value.cast(pl.Int64).is_between(-_LAST_DAY * units, _LAST_DAY * units)


def _any_leaf(value: pl.Expr, dtype: Any, predicate: Callable[[pl.Expr, Any], pl.Expr | None]) -> pl.Expr | None:
    """Return whether a predicate holds for any leaf of a value; None if it applies to none of the leaf dtypes."""
    value, dtype = stored(value, dtype)
    if isinstance(dtype, pl.Array):
        return _any_leaf(value.arr.to_list(), pl.List(dtype.inner), predicate)
    if isinstance(dtype, pl.List):
        inner = _any_leaf(pl.element(), dtype.inner, predicate)
        return None if inner is None else value.list.eval(inner).list.any().fill_null(value=False)
    if isinstance(dtype, MAP):
        entries = pl.List(pl.Struct({"key": dtype.key, "value": dtype.value}))
        return _any_leaf(value.map.entries(), entries, predicate)
    if isinstance(dtype, pl.Struct):
        fields = [_any_leaf(struct_field(value, dtype, field.name), field.dtype, predicate) for field in dtype.fields]
        applicable = [expression for expression in fields if expression is not None]
        return functools.reduce(operator.or_, applicable) if applicable else None
    leaf = predicate(value, dtype)
    return None if leaf is None else leaf.fill_null(value=False)


def _is_plain(dtype: Any) -> bool:
    # Not an Array: json_encode of Polars 1.37 shifts the values that follow a null array.
    if isinstance(dtype, pl.List):
        return _is_plain(dtype.inner)
    if isinstance(dtype, pl.Struct):
        return bool(dtype.fields) and all(_is_plain(field.dtype) for field in dtype.fields)
    return isinstance(dtype, _PLAIN)


def stored(value: pl.Expr, dtype: Any) -> tuple[pl.Expr, Any]:
    """Return the storage value and dtype of an extension type, and other values unchanged."""
    while isinstance(dtype, pl.BaseExtension):
        value, dtype = value.ext.storage(), dtype.ext_storage()
    return value, dtype


def _refuse_unencodable(dtype: Any, name: str) -> None:
    if holds(dtype, *_UNENCODABLE):
        msg = f"{name} has dtype {dtype}, which has no text form: convert it to String, "
        msg += "for example with .bin.encode('base64')"
        if holds(dtype, pl.Binary):
            msg += ", or .cast(pl.String) if it is UTF-8; pass images with images="
        raise TemplateError(msg)
