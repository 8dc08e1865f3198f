"""Python values → JSON, for values that are the same for every row, such as a parameter."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import math
import numbers
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from batchframe._core.exceptions import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable

_encoder = msgspec.json.Encoder(decimal_format="number")


def json_text(value: Any, name: str) -> str:
    """Return the JSON text of a Python value that is the same for every row.

    Raises
    ------
    OptionError
        The value cannot be written as JSON: it holds NaN, infinity, bytes, an expression or another object.
    """
    try:
        return _encoder.encode(json_value(value, name)).decode()
    except UnicodeEncodeError as error:
        surrogate = error.object[error.start]
        msg = f"{name} contains {surrogate!r}, half of a surrogate pair, which UTF-8 cannot encode: remove it"
        raise OptionError(msg) from error


def json_value(value: Any, name: str) -> Any:
    """Return a value as the built-in types of JSON. Subclasses and numpy scalars are converted.

    Raises
    ------
    OptionError
        The value cannot be written as JSON, or msgspec would encode it differently from what the user means.
    """
    try:
        return _plain(value, name)
    except RecursionError as error:
        msg = f"{name} cannot be written as JSON: it is nested too deeply, or contains itself"
        raise OptionError(msg) from error


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return {_key(key, name): _plain(inner, f"{name}[{key!r}]") for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner, f"{name}[{index}]") for index, inner in enumerate(value)]
    if isinstance(value, enum.Enum):
        return _plain(value.value, name)
    if value is None or isinstance(value, (bool, dt.date, dt.time)):
        return value
    for kinds, built_in in _BUILT_IN:
        if isinstance(value, kinds):
            return built_in(value, name)
    if getattr(value, "shape", None) == () and isinstance(value.item(), bool):  # numpy.bool is not numbers.Integral
        return value.item()
    raise _no_json(value, name)


def _no_json(value: Any, name: str) -> OptionError:
    for kinds, reason in _NOT_JSON:
        if isinstance(value, kinds):
            return OptionError(f"{name} {reason}")
    remedy = "pass dicts, lists, text and numbers"
    if getattr(value, "shape", ()):
        remedy = "for one value per row pass an expression, such as pl.col(…); for one list, pass a Python list"
    return OptionError(f"{name} contains {type(value).__qualname__}, which cannot be written as JSON: {remedy}")


def _finite(value: Any, name: str) -> float | decimal.Decimal:
    number = value if isinstance(value, decimal.Decimal) else float(value)
    if math.isfinite(number):
        return number
    msg = f"{name} contains {value!r}, which JSON cannot represent"
    raise OptionError(msg)


_BUILT_IN: tuple[tuple[Any, Callable[[Any, str], Any]], ...] = (
    (str, lambda value, _: str.__str__(value)),
    (numbers.Integral, lambda value, _: int(value)),
    ((numbers.Real, decimal.Decimal), _finite),
)
_NOT_JSON: tuple[tuple[Any, str], ...] = (
    (pl.Expr, "contains an expression inside a value: make the whole value an expression, such as pl.struct(...)"),
    (type, "is a class: pass a value; openai.pydantic_function_tool(…) makes a tool of a pydantic model"),
    ((bytes, bytearray, memoryview), "contains bytes, which JSON cannot represent: encode them first, as base64 say"),
)


def _key(key: Any, name: str) -> str:
    if isinstance(key, (str, int)) and not isinstance(key, bool):
        return str.__str__(key) if isinstance(key, str) else str(int(key))
    msg = f"{name} has the key {key!r}, but keys in JSON must be text"
    raise OptionError(msg)
