"""A Polars struct type → the strict JSON schema of its values."""

from __future__ import annotations

from typing import Any

import polars as pl

from batchframe._core.dtypes import holds
from batchframe._core.exceptions import OptionError

# The keyword for a dtype that JSON schema cannot express. It is kept in the strict schema and not sent.
MARK = "x-polars"
_MARKED: dict[str, Any] = {
    name: getattr(pl, name)
    for name in ("Int8", "Int16", "Int32", "UInt8", "UInt16", "UInt32", "UInt64", "Float32", "Categorical", "Datetime",
                 "Duration", "Decimal", "Array")
}  # fmt: skip
_MAX_INT = 2**63 - 1
# UInt64 ends at Int64's maximum: JSON readers disagree on larger integers.
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

# Examples for dtypes that were passed as a bare class.
_EXAMPLES: dict[Any, str] = {
    pl.List: "pl.List(pl.String)",
    pl.Array: "pl.Array(pl.Float64, 3)",
    pl.Struct: 'pl.Struct({"name": pl.String})',
    pl.Enum: 'pl.Enum(["yes", "no"])',
    pl.Decimal: "pl.Decimal(12, 2)",
}


def schema_of(dtype: Any, path: str = "$") -> dict[str, Any]:  # noqa: PLR0911  (one case per line is clearest)
    """Return the JSON schema of a dtype, without null.

    Raises
    ------
    OptionError
        The dtype is, or contains, one that an answer cannot have, such as Binary.
    """
    dtype = _with_default_unit(dtype)
    for plain, schema in _PLAIN.items():
        if dtype == plain:
            return dict(schema)
    if isinstance(dtype, pl.Struct) and dtype.fields:
        properties = {field.name: schema_of(field.dtype, f"{path}.{field.name}") for field in dtype.fields}
        closed = {"required": [*properties], "additionalProperties": False}
        return {"type": "object", "properties": properties, **closed}
    if isinstance(dtype, pl.List):
        return {"type": "array", "items": schema_of(dtype.inner, f"{path}[]")}
    # Polars 1.37 cannot make an Array of categories.
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
    msg = f"response_format, at {path}: {dtype} is not possible as the type of an answer. {_remedy(dtype)}"
    raise OptionError(msg)


def _with_default_unit(dtype: Any) -> Any:
    """Return a bare Datetime or Duration with the time unit that Polars gives it by default."""
    return dtype() if dtype is pl.Datetime or dtype is pl.Duration else dtype


def _time_schema(dtype: Any) -> dict[str, Any]:
    if isinstance(dtype, pl.Duration):
        mark = {} if dtype.time_unit == "us" else {MARK: ["Duration", dtype.time_unit]}
        return {"type": "string", "format": "duration", **mark}
    is_default = (dtype.time_unit, dtype.time_zone) == ("us", "UTC")
    mark = {} if is_default else {MARK: ["Datetime", dtype.time_unit, dtype.time_zone]}
    return {"type": "string", "format": "date-time", **mark}


def _remedy(dtype: Any) -> str:
    if isinstance(dtype, type) and dtype in _EXAMPLES:
        return f"Pass it in full, such as {_EXAMPLES[dtype]}"
    if isinstance(dtype, (pl.Datetime, pl.Duration)):
        return 'Use the time unit "us" and cast the column afterwards'
    if isinstance(dtype, pl.Array):
        return "Use a List instead"
    if isinstance(dtype, pl.Struct):
        return "Give the struct at least one field"
    if isinstance(dtype, pl.Enum):
        return "Give the Enum at least one category"
    return "Use pl.String, or another type that JSON can represent, and cast the column afterwards"


def decimal_schema(digits: int, places: int, bounds: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a Decimal. It is sent as text, since most readers take a JSON number for a float.

    Parameters
    ----------
    digits, places
        The number of all digits, and of those after the decimal point.
    bounds
        Any of ``gt``, ``ge``, ``lt`` and ``le``.
    """
    whole = rf"\d{{1,{digits - places}}}" if digits > places else "0"
    fraction = rf"(\.\d{{1,{places}}})?" if places else ""
    keywords = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
    limits = {keyword: str(bounds[name]) for name, keyword in keywords.items() if bounds.get(name) is not None}
    return {"type": "string", "pattern": rf"^-?{whole}{fraction}$", MARK: ["Decimal", digits, places], **limits}


def marked_dtype(mark: list[Any], inner: Any = None, size: int = 0) -> Any:
    """Return the dtype that a mark names. An Array also needs its inner dtype and size."""
    name, *arguments = mark
    return pl.Array(inner, size) if name == "Array" else _MARKED[name](*arguments)
