"""A Polars struct type → the strict JSON schema of its values."""

from __future__ import annotations

from typing import Any

import polars as pl

from batchframe._core.dtypes import holds
from batchframe._core.exceptions import OptionError

# What of a dtype JSON schema has no word for; it is kept in the strict schema, and not sent.
MARK = "x-polars"
_MARKED: dict[str, Any] = {
    name: getattr(pl, name)
    for name in ("Int8", "Int16", "Int32", "UInt8", "UInt16", "UInt32", "UInt64", "Float32", "Categorical", "Datetime",
                 "Duration", "Decimal", "Array")
}  # fmt: skip
_MAX_INT = 2**63 - 1
# UInt64: what JSON readers agree on ends with Int64.
RANGES = {f"Int{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)} | {
    f"UInt{bits}": (0, min(2**bits - 1, _MAX_INT)) for bits in (8, 16, 32, 64)
}
_PLAIN: dict[Any, dict[str, Any]] = {
    pl.Int64: {"type": "integer"},
    pl.Float64: {"type": "number"},
    pl.String: {"type": "string"},
    pl.Boolean: {"type": "boolean"},
    pl.Date: {"type": "string", "format": "date"},
    pl.Time: {"type": "string", "format": "time"},
    pl.Float32: {"type": "number", MARK: ["Float32"]},
    pl.Categorical: {"type": "string", MARK: ["Categorical"]},
}

# What a dtype of which only the name is given lacks.
_IN_FULL: dict[Any, str] = {
    pl.List: "pl.List(pl.String)",
    pl.Array: "pl.Array(pl.Float64, 3)",
    pl.Struct: 'pl.Struct({"name": pl.String})',
    pl.Enum: 'pl.Enum(["yes", "no"])',
    pl.Decimal: "pl.Decimal(12, 2)",
}


def schema_of(dtype: Any, path: str = "$") -> dict[str, Any]:  # noqa: PLR0911  (a case a line is the clearest)
    """Return the schema of a dtype's values, none of them null.

    Raises
    ------
    OptionError
        It holds a dtype that an answer cannot have, such as Binary.
    """
    dtype = _with_unit(dtype)
    for plain, schema in _PLAIN.items():
        if dtype == plain:
            return dict(schema)
    if isinstance(dtype, pl.Struct) and dtype.fields:
        properties = {field.name: schema_of(field.dtype, f"{path}.{field.name}") for field in dtype.fields}
        closed = {"required": [*properties], "additionalProperties": False}
        return {"type": "object", "properties": properties, **closed}
    if isinstance(dtype, pl.List):
        return {"type": "array", "items": schema_of(dtype.inner, f"{path}[]")}
    # Polars 1.37 makes no Array of categories.
    if isinstance(dtype, pl.Array) and not holds(dtype, pl.Categorical, pl.Enum):
        items = schema_of(dtype.inner, f"{path}[]")
        return {"type": "array", "items": items, "minItems": dtype.size, "maxItems": dtype.size, MARK: ["Array"]}
    if isinstance(dtype, pl.Enum) and len(dtype.categories):
        return {"type": "string", "enum": dtype.categories.to_list()}
    if isinstance(dtype, pl.Decimal):
        return decimal_schema(dtype.precision or 38, dtype.scale, {})
    if isinstance(dtype, (pl.Datetime, pl.Duration)) and dtype.time_unit != "ns":
        return _time_schema(dtype)
    if str(dtype) in RANGES:
        low, high = RANGES[str(dtype)]
        return {"type": "integer", "minimum": low, "maximum": high, MARK: [str(dtype)]}
    msg = f"response_format, at {path}: {dtype} is no type of an answer. {_instead(dtype)}"
    raise OptionError(msg)


def _with_unit(dtype: Any) -> Any:
    """Return what Polars takes a point in time or a duration for, where its unit is not told."""
    return dtype() if dtype is pl.Datetime or dtype is pl.Duration else dtype


def _time_schema(dtype: Any) -> dict[str, Any]:
    if isinstance(dtype, pl.Duration):
        mark = {} if dtype.time_unit == "us" else {MARK: ["Duration", dtype.time_unit]}
        return {"type": "string", "format": "duration", **mark}
    is_natural = (dtype.time_unit, dtype.time_zone) == ("us", "UTC")
    mark = {} if is_natural else {MARK: ["Datetime", dtype.time_unit, dtype.time_zone]}
    return {"type": "string", "format": "date-time", **mark}


def _instead(dtype: Any) -> str:
    if isinstance(dtype, type) and dtype in _IN_FULL:
        return f"Give it in full, such as {_IN_FULL[dtype]}"
    if isinstance(dtype, (pl.Datetime, pl.Duration)):
        return 'Use the time unit "us", and cast the column afterwards'
    if isinstance(dtype, pl.Array):
        return "Use a List of them"
    if isinstance(dtype, pl.Struct):
        return "Give the struct at least one field"
    if isinstance(dtype, pl.Enum):
        return "Give the Enum at least one category"
    return "Use pl.String, or another type that JSON has, and cast the column afterwards"


def decimal_schema(digits: int, places: int, bounds: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of decimals: as text, since a JSON number is a float to most that read it.

    Parameters
    ----------
    digits, places
        All digits, and those after the point.
    bounds
        ``gt``, ``ge``, ``lt`` and ``le``, as far as there are any.
    """
    whole = rf"\d{{1,{digits - places}}}" if digits > places else "0"
    fraction = rf"(\.\d{{1,{places}}})?" if places else ""
    keywords = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
    limits = {keyword: str(bounds[name]) for name, keyword in keywords.items() if bounds.get(name) is not None}
    return {"type": "string", "pattern": rf"^-?{whole}{fraction}$", MARK: ["Decimal", digits, places], **limits}


def marked_dtype(mark: list[Any], inner: Any = None, size: int = 0) -> Any:
    """Return the dtype that a mark names; of an Array, with what is in it."""
    name, *arguments = mark
    return pl.Array(inner, size) if name == "Array" else _MARKED[name](*arguments)
