"""The leaves of a strict schema (text, numbers, booleans, temporal values), and the errors for invalid values."""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import functools
import math
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import polars as pl
import pyarrow as pa

from batchframe._schemas.from_dtype import MARK, RANGES, marked_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_LEAF_TYPES: dict[str, tuple[Any, Any, pa.DataType]] = {
    "string": (str, pl.String(), pa.large_string()),
    "integer": (int, pl.Int64(), pa.int64()),
    "number": (float, pl.Float64(), pa.float64()),
    "boolean": (bool, pl.Boolean(), pa.bool_()),
    "date": (dt.date, pl.Date(), pa.date32()),
    "date-time": (dt.datetime, pl.Datetime("us", "UTC"), pa.timestamp("us", "UTC")),
    "time": (dt.time, pl.Time(), pa.time64("us")),
    "duration": (dt.timedelta, pl.Duration("us"), pa.duration("us")),
}
_BOUNDS = frozenset({"enum", "minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf"})
LEAVES = frozenset({"string", "integer", "number", "boolean"})
_SHAPES = {
    "date": "a date as YYYY-MM-DD",
    "date-time": "a date-time as YYYY-MM-DDThh:mm:ssZ",
    "time": "a time as hh:mm:ss",
    "duration": "a duration of days and less, such as P1DT2H30M",
}
_PATTERNS = {
    "uuid": r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$",
    "email": r"^[^@\s]+@[^@\s]+$",
    "ipv4": r"^((25[0-5]|2[0-4]\d|1?\d?\d)(\.(?!$)|$)){4}$",
}
_JSON_NAMES = {"int": "integer", "float": "number", "str": "string", "bool": "boolean"}
_WEEKS = re.compile(r"P(\d{1,6})W")
_MAX_FLOAT32 = 3.4028234663852886e38
_SHOWN, _LISTED = 60, 12


class MismatchError(Exception):
    """A value does not match its schema: the path and the reason."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path


class Node:
    """A node of a schema: its dtype, its msgspec type, and the conversion of its values to an array.

    ``is_exact`` tells whether msgspec alone validates the node. If not, each value is also checked by `read`.
    """

    dtype: Any
    type: Any
    is_exact = True
    description = ""

    def read(self, value: Any, path: str) -> Any:
        """Return the value that msgspec would decode to. Raise `MismatchError` if it does not match."""
        raise NotImplementedError

    def fits(self, value: Any) -> bool:
        """Return whether a decoded JSON value matches."""
        with contextlib.suppress(MismatchError):
            self.read(value, "$")
            return True
        return False

    def array(self, values: Sequence[Any]) -> pa.Array:
        """Return decoded values as an array, with null for None."""
        raise NotImplementedError


class Leaf(Node):
    """A text, a number, a boolean or a temporal value.

    Parameters
    ----------
    schema
        The schema.
    options
        The alternatives, if the value may match any of several schemas of this type.
    """

    def __init__(self, schema: dict[str, Any], options: Sequence[Node] = ()) -> None:
        kind = schema["type"]
        known = schema.get("format") in _LEAF_TYPES and kind == "string"
        self._kind = schema["format"] if known else kind
        self._python, self.dtype, self._arrow = _LEAF_TYPES[self._kind]
        mark = schema.get(MARK)
        if mark:
            self.dtype = marked_dtype(mark)
        self.description = _SHAPES.get(self._kind, kind)
        self._checks: list[tuple[Callable[[Any], bool], str]] = []
        self.type = self._python
        self._is_unbounded = self._python is float and _BOUNDS.isdisjoint(schema)
        if "enum" in schema:
            self._enumerate(schema["enum"])
        elif isinstance(self.dtype, pl.Decimal):
            self._bound_decimal(schema)
        elif kind in {"integer", "number"}:
            self._bound(schema)
        elif self._kind == "string":
            self._restrict(schema)
        elif "pattern" in schema:
            self._check_pattern(schema["pattern"])
        if options:
            fits = [option.fits for option in options]
            description = dict.fromkeys(option.description for option in options)
            self._checks.append((lambda value: any(fit(value) for fit in fits), " or ".join(description)))
        self.is_exact = not self._checks

    def _enumerate(self, values: list[Any]) -> None:
        listed = ", ".join(display(value, kind=False) for value in values[:_LISTED])
        self.description = f"one of {listed}" + (f", … ({len(values)} values)" if len(values) > _LISTED else "")
        if self._python is str:
            self.dtype = pl.Enum(values)
        if self._python in {str, int} and all(_fits_int64(value) for value in values):
            self.type = Literal[tuple(values)]
        else:
            self._checks.append((values.__contains__, self.description))

    def _bound(self, schema: dict[str, Any]) -> None:
        limits = self._whole_limits(schema) if self._python is int else self._float_limits(schema)
        step = schema.get("multipleOf")
        if step is not None and self._python is int and float(step).is_integer():
            limits["multiple_of"] = int(step)
        elif step is not None:
            self._checks.append((lambda value: _is_multiple(value, step), f"a multiple of {step}"))
        self.type = Annotated[self._python, msgspec.Meta(**limits)] if limits else self._python

    def _whole_limits(self, schema: dict[str, Any]) -> dict[str, Any]:
        least, most = RANGES[str(self.dtype)]
        low = max(
            least, math.ceil(schema.get("minimum", least)), math.floor(schema.get("exclusiveMinimum", least - 1)) + 1
        )
        high = min(
            most, math.floor(schema.get("maximum", most)), math.ceil(schema.get("exclusiveMaximum", most + 1)) - 1
        )
        if low > high:
            self._checks.append((lambda _: False, "an integer within limits that allow none"))
        return {"ge": min(low, most), "le": max(high, least)}

    def _float_limits(self, schema: dict[str, Any]) -> dict[str, Any]:
        largest = _MAX_FLOAT32 if self.dtype == pl.Float32 else math.inf
        low, above = max(schema.get("minimum", -largest), -largest), schema.get("exclusiveMinimum", -math.inf)
        high, below = min(schema.get("maximum", largest), largest), schema.get("exclusiveMaximum", math.inf)
        limits = {"gt": above} if above >= low else {"ge": low}
        limits |= {"lt": below} if below <= high else {"le": high}
        return {name: float(limit) for name, limit in limits.items() if math.isfinite(limit)}

    def _restrict(self, schema: dict[str, Any]) -> None:
        limits = {"min_length": schema.get("minLength"), "max_length": schema.get("maxLength")}
        limits["pattern"] = _PATTERNS.get(schema.get("format", ""))
        if schema.get("format") in _PATTERNS:
            self.description = f"{schema['format']}"
        if "pattern" in schema and limits["pattern"] is None and _compiles(schema["pattern"]):
            limits["pattern"] = schema["pattern"]
        elif "pattern" in schema:
            self._check_pattern(schema["pattern"])
        limits = {name: limit for name, limit in limits.items() if limit is not None}
        self.type = Annotated[str, msgspec.Meta(**limits)] if limits else str

    def _check_pattern(self, pattern: str) -> None:
        # A pattern that Python cannot compile is left to the service.
        if _compiles(pattern):
            search = re.compile(pattern).search
            self._checks.append((lambda value: search(value) is not None, f"text matching {pattern}"))

    def _bound_decimal(self, schema: dict[str, Any]) -> None:
        self.type = Annotated[str, msgspec.Meta(pattern=schema["pattern"])]
        self.description = f"a decimal number as text, matching {schema['pattern']}"
        self._arrow = pa.decimal128(self.dtype.precision, self.dtype.scale)
        for keyword, holds, relation in (
            ("minimum", decimal.Decimal.__ge__, "at least"),
            ("exclusiveMinimum", decimal.Decimal.__gt__, "above"),
            ("maximum", decimal.Decimal.__le__, "at most"),
            ("exclusiveMaximum", decimal.Decimal.__lt__, "below"),
        ):
            if keyword in schema:
                limit = decimal.Decimal(schema[keyword])
                self._checks.append((functools.partial(_is_within, holds, limit), f"{relation} {limit}"))

    def read(self, value: Any, path: str) -> Any:
        if self._python is int and isinstance(value, float) and value.is_integer():
            value = int(value)
        if self._is_unbounded and isinstance(value, float) and not math.isfinite(value):
            return value
        weeks = _WEEKS.fullmatch(value) if self._kind == "duration" and isinstance(value, str) else None
        try:
            converted = dt.timedelta(weeks=int(weeks[1])) if weeks else msgspec.convert(value, self.type)
        except (msgspec.ValidationError, OverflowError) as error:
            raise MismatchError(path, f"expected {self._expected(value, str(error))}, got {display(value)}") from None
        for holds, expected in self._checks:
            if not holds(value):
                raise MismatchError(path, f"expected {expected}, got {display(value)}")
        return converted

    def _expected(self, value: Any, message: str) -> str:
        """Return what was expected, with JSON's type names. msgspec's message is used only for its limits."""
        has_type = isinstance(value, (int, float) if self._python is float else self._python)
        limit = re.fullmatch(r"Expected `(\w+)`( [^,]+| matching .+)", message, re.DOTALL)
        if limit is None or not has_type or self.description not in _LEAF_TYPES:
            return self.description
        return f"{_JSON_NAMES.get(limit[1], limit[1])}{limit[2]}"

    def array(self, values: Sequence[Any]) -> pa.Array:
        if isinstance(self.dtype, pl.Decimal):
            values = [None if value is None else decimal.Decimal(value) for value in values]
        elif self._kind == "time":  # keep the time of day as written
            values = [None if value is None else value.replace(tzinfo=None) for value in values]
        return pa.array(values, self._arrow)


def display(value: Any, *, kind: bool = True) -> str:
    """Return a JSON value as shown in a message."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (list, dict)):
        return "array" if isinstance(value, list) else "object"
    is_text = isinstance(value, str)
    short = shorten(msgspec.json.encode(value).decode() if is_text else str(value))
    return f"{'string' if is_text else 'number'} {short}" if kind else short


def shorten(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _is_within(holds: Callable[[Any, Any], bool], limit: decimal.Decimal, value: str) -> bool:
    return holds(decimal.Decimal(value), limit)


def _is_multiple(value: float, step: float) -> bool:
    # 0.3 / 0.1 is not a whole number in floating point.
    return math.isclose(value / step, round(value / step), rel_tol=1e-9, abs_tol=1e-9)


def _fits_int64(value: Any) -> bool:
    return isinstance(value, str) or -(2**63) <= value < 2**63


def _compiles(pattern: str) -> bool:
    with contextlib.suppress(re.error):
        re.compile(pattern)
        return True
    return False
