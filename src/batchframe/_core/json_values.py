"""Python values → JSON: what is the same for every row, such as a parameter."""

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
        It has no JSON: NaN, infinity, bytes, an expression inside, an object of another kind.
    """
    try:
        return _encoder.encode(json_value(value, name)).decode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        msg = f"{name} holds {half!r}, half of a surrogate pair, which no UTF-8 text can hold: remove it"
        raise OptionError(msg) from error


def json_value(value: Any, name: str) -> Any:
    """Return a value as the built-in types that JSON has, of subclasses of them and numpy's scalars too.

    Raises
    ------
    OptionError
        It has no JSON. What msgspec would encode as something else than the user means counts as such.
    """
    try:
        return _plain(value, name)
    except RecursionError as error:
        msg = f"{name} has no JSON: it is nested too deeply, or holds itself"
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
    if getattr(value, "shape", None) == () and isinstance(value.item(), bool):  # numpy's is no number to Python
        return value.item()
    raise _no_json(value, name)


def _no_json(value: Any, name: str) -> OptionError:
    for kinds, reason in _NOT_JSON:
        if isinstance(value, kinds):
            return OptionError(f"{name} {reason}")
    instead = "pass dicts, lists, text and numbers"
    if getattr(value, "shape", ()):
        instead = "for a value a row pass an expression, such as pl.col(…); for one list, a Python list"
    return OptionError(f"{name} holds {type(value).__qualname__}, which has no plain JSON: {instead}")


def _finite(value: Any, name: str) -> float | decimal.Decimal:
    number = value if isinstance(value, decimal.Decimal) else float(value)
    if math.isfinite(number):
        return number
    msg = f"{name} holds {value!r}, which JSON has not"
    raise OptionError(msg)


_BUILT_IN: tuple[tuple[Any, Callable[[Any, str], Any]], ...] = (
    (str, lambda value, _: str.__str__(value)),
    (numbers.Integral, lambda value, _: int(value)),
    ((numbers.Real, decimal.Decimal), _finite),
)
_NOT_JSON: tuple[tuple[Any, str], ...] = (
    (pl.Expr, "has an expression inside a value: make the whole value an expression, such as pl.struct(...)"),
    (type, "is a class: pass a value; of a pydantic model openai.pydantic_function_tool(…) makes a tool"),
    ((bytes, bytearray, memoryview), "holds bytes, which JSON has not: encode them first, such as base64"),
)


def _key(key: Any, name: str) -> str:
    if isinstance(key, (str, int)) and not isinstance(key, bool):
        return str.__str__(key) if isinstance(key, str) else str(int(key))
    msg = f"{name} has the key {key!r}, and JSON's keys are text"
    raise OptionError(msg)
