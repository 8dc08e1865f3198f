"""Checks of request parameters against the table of their kinds.

The values of a per-row column and the contents of an object are not checked: the service checks them row by row.
"""

from __future__ import annotations

import datetime as dt
import decimal
import json
from typing import TYPE_CHECKING, Any

import polars as pl

from batchframe._core.dtypes import MAP, holds
from batchframe._core.exceptions import OptionError, suggestion
from batchframe._endpoints.registry import ENDPOINTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchframe._endpoints.parameter_table import Kinds

_SHOWN_CHARACTERS = 100
_ONE = {
    "text": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "a boolean",
    "list": "a list",
    "object": "a dict",
}
_MANY = {
    "text": "texts",
    "integer": "whole numbers",
    "number": "numbers",
    "boolean": "booleans",
    "list": "lists",
    "object": "dicts",
}
# By the kind of a column and the expected kind: the method that converts it.
_CASTS = {
    ("number", "integer"): ".cast(pl.Int64)",
    ("text", "integer"): ".cast(pl.Int64)",
    ("text", "number"): ".cast(pl.Float64)",
    ("integer", "text"): ".cast(pl.String)",
    ("text", "list"): ".str.json_decode(dtype)",
    ("text", "object"): ".str.json_decode(dtype)",
}


def check_values(endpoint: str, values: Mapping[str, Any]) -> None:
    """Check parameters that are the same for every row, as `json_value` returns them. Expressions are skipped.

    Raises
    ------
    OptionError
        A value has a kind that its parameter does not accept, or is not one of the allowed texts.
    """
    for name, value in values.items():
        kinds = ENDPOINTS[endpoint].parameters.get(name)
        if kinds is not None and value is not None and not isinstance(value, pl.Expr):
            _refuse(name, _problem(name, value, kinds))


def check_dtypes(endpoint: str, dtypes: Mapping[str, Any]) -> None:
    """Check per-row parameters by the dtypes of their expressions.

    Raises
    ------
    OptionError
        A dtype has a kind that its parameter does not accept.
    """
    for name, dtype in dtypes.items():
        kinds = ENDPOINTS[endpoint].parameters.get(name)
        if kinds is not None and not _fits(dtype, kinds):
            got = f"got an expression of dtype {dtype}"
            _refuse(name, f"{name} must be {_expected(kinds)}, {got}{_cast(dtype, kinds)}.")


def from_text(endpoint: str, name: str, text: str) -> Any:
    """Return the value of a parameter that was passed as text, such as on a command line.

    The text is decoded if it is JSON. It is kept as text if it is not JSON, or if the parameter accepts only text, such
    as a user named 123.
    """
    try:
        value = json.loads(text.lower() if text in {"True", "False"} else text)
    except (ValueError, RecursionError):
        return text
    kinds = ENDPOINTS[endpoint].parameters.get(name) if endpoint in ENDPOINTS else None
    if kinds is None or value is None or "text" not in kinds or _kind_in(kinds, _kind(value)) is not None:
        return value
    return text


def elsewhere(endpoint: str, name: str) -> str:
    """Return a sentence, with a leading space, on the endpoints that have a parameter, or its name at this one.

    It is empty if no endpoint has the parameter.
    """
    name_here = ENDPOINTS[endpoint].renamed_parameters.get(name)
    if name_here is not None:
        return f" It is {name_here} there."
    paths = [path for path, other in ENDPOINTS.items() if name in other.parameters]
    return f" It is a parameter of {', '.join(paths)}." if paths else ""


def _refuse(name: str, problem: str | None) -> None:
    if problem is not None:
        msg = f"{problem} To send it anyway: extra_body={{{name!r}: …}}"
        raise OptionError(msg)


def _problem(path: str, value: Any, kinds: Kinds) -> str | None:
    """Return the problem with a value as one or more sentences, or None."""
    kind = _kind_in(kinds, _kind(value))
    if kind is None:
        return f"{path} must be {_expected(kinds)}, got {_shown(value)}{_remedy(value, kinds)}."
    inside = kinds[kind]
    if isinstance(inside, tuple) and value not in inside:
        near = suggestion(str(value).lower(), inside)
        return f"{path} must be {_expected(kinds)}, got {_shown(value)}.{near}"
    if isinstance(inside, dict):
        problems = (_problem(f"{path}[{index}]", item, inside) for index, item in enumerate(value))
        return next((problem for problem in problems if problem is not None), None)
    return None


def _kind_in(kinds: Kinds, kind: str) -> str | None:
    """Return the kind under which a parameter accepts a value of this kind, or None."""
    if kind == "integer" and kind not in kinds:
        kind = "number"
    return kind if kind in kinds else None


def _kind(value: Any) -> str:  # noqa: PLR0911  (one case per line is clearest)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, decimal.Decimal):  # its digits are sent, which may be those of a whole number
        return "number" if value.as_tuple().exponent else "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, (str, dt.date, dt.time)):
        return "text"
    return "list" if isinstance(value, list) else "object"


def _remedy(value: Any, kinds: Kinds) -> str:
    if isinstance(value, float) and value.is_integer() and "integer" in kinds:
        return f": write {int(value)}"
    items = kinds.get("list")
    if isinstance(items, dict) and _problem("", value, items) is None:
        return ": put it in a list"
    return ""


def _fits(dtype: Any, kinds: Kinds) -> bool:
    dtype = _stored(dtype)
    known = _kind_of_dtype(dtype)
    if known is None:
        return True
    kind = _kind_in(kinds, known)
    if kind is None:
        return False
    inside = kinds[kind]
    return not isinstance(inside, dict) or _fits(dtype.inner, inside)


def _kind_of_dtype(dtype: Any) -> str | None:
    """Return the kind of a dtype's values. None if it is unknown, or left to `encode` to refuse."""
    if isinstance(dtype, (pl.Null, pl.Unknown)) or holds(dtype, pl.Binary, pl.Object):
        return None
    if dtype.is_integer() or (isinstance(dtype, pl.Decimal) and dtype.scale == 0):
        return "integer"
    if dtype.is_numeric():
        return "number"
    if isinstance(dtype, pl.Boolean):
        return "boolean"
    if isinstance(dtype, (pl.List, pl.Array)):
        return "list"
    return "object" if isinstance(dtype, (pl.Struct, MAP)) else "text"


def _cast(dtype: Any, kinds: Kinds) -> str:
    items = kinds.get("list")
    if isinstance(items, dict) and _fits(dtype, items):
        return ": pl.concat_list(…) converts it"
    got = _kind_of_dtype(_stored(dtype))
    for kind, inside in kinds.items():
        method = _CASTS.get((str(got), kind))
        if method is not None and not isinstance(inside, tuple):
            return f": {method} converts it"
    return ""


def _stored(dtype: Any) -> Any:
    """Return the storage dtype of an extension type, or the dtype itself."""
    while isinstance(dtype, pl.BaseExtension):
        dtype = dtype.ext_storage()
    return dtype


def _expected(kinds: Kinds, names: Mapping[str, str] = _ONE) -> str:
    """Return a phrase for the kinds that a parameter accepts."""
    words: list[str] = []
    for kind, inside in kinds.items():
        if isinstance(inside, tuple):
            words += [f'"{text}"' for text in inside]
        elif isinstance(inside, dict):
            words.append(f"{names[kind]} of {_expected(inside, _MANY)}")
        else:
            words.append(names[kind])
    return " or ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= _SHOWN_CHARACTERS else shown[: _SHOWN_CHARACTERS - 1] + "…"
