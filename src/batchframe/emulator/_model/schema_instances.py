"""Makes a value that conforms to a JSON schema, filled from the conversation where that makes sense."""

from __future__ import annotations

import math
import re
from typing import Any

from batchframe.emulator._model import text_model
from batchframe.emulator._model.json_schema import resolve
from batchframe.emulator._model.pattern_texts import matching_text

# Below this depth values are as small as possible: nulls, no optional properties, arrays of minimum length.
_DEPTH = 6
_NUMBER_SPREAD = 100
_FORMATS = {
    "date": "2024-{month:02d}-{day:02d}",
    "date-time": "2024-{month:02d}-{day:02d}T12:{minute:02d}:00Z",
    "time": "12:{minute:02d}:00Z",
    "duration": "P{day}D",
    "email": "person{day}@example.com",
    "hostname": "host{day}.example.com",
    "ipv4": "192.0.2.{day}",
    "ipv6": "2001:db8::{day}",
    "uuid": "00000000-0000-4000-8000-{number:012x}",
    "uri": "https://example.com/{day}",
}


def instance(schema: dict[str, Any], reading: text_model.Reading, number: int) -> Any:
    """Make a value of `schema`; `number` decides where neither the schema nor the conversation does."""
    return _Maker(schema, reading, number).make(schema, "", 0)


class _Maker:
    """Makes one value. Holds the root for references, and a number that differs from place to place."""

    def __init__(self, root: dict[str, Any], reading: text_model.Reading, number: int) -> None:
        self._root = root
        self._reading = reading
        self._number = number
        self._count = 0

    def make(self, schema: Any, name: str, depth: int) -> Any:  # noqa: PLR0911 - one per kind of schema
        schema = self._flattened(schema)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._of_enum(schema["enum"])
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                rest = {key: value for key, value in schema.items() if key != keyword}
                option = self._flattened(self._option(schema[keyword], depth))
                return self.make(_merged(rest, option), name, depth)
        kind = self._kind(schema, depth)
        if kind == "object":
            return self._object(schema, depth)
        if kind == "array":
            return self._array(schema, name, depth)
        if kind in {"integer", "number"}:
            return self._numeric(schema, name, is_integer=kind == "integer")
        if kind == "boolean":
            return self._boolean()
        return None if kind == "null" else self._string(schema, name)

    def _next(self) -> int:
        self._count += 1
        return (self._number + self._count * 2_654_435_761) % (1 << 40)

    def _flattened(self, part: Any) -> dict[str, Any]:
        """Resolve references and conjunctions."""
        schema: dict[str, Any] = part if isinstance(part, dict) else {}
        for _ in range(32):
            if "$ref" in schema:
                target = resolve(self._root, schema["$ref"]) or {}
                schema = _merged({key: value for key, value in schema.items() if key != "$ref"}, target)
            elif "allOf" in schema:
                parts = schema["allOf"]
                schema = {key: value for key, value in schema.items() if key != "allOf"}
                for conjunct in parts:
                    schema = _merged(schema, self._flattened(conjunct))
            else:
                break
        return schema

    def _option(self, options: list[Any], depth: int) -> Any:
        nulls = [option for option in options if self._flattened(option).get("type") == "null"]
        values = [option for option in options if self._flattened(option).get("type") != "null"]
        if not values or (nulls and depth >= _DEPTH):
            return nulls[0]
        if depth >= _DEPTH:
            return min(values, key=lambda option: _weight(self._flattened(option)))
        return values[self._next() % len(values)]

    def _of_enum(self, values: list[Any]) -> Any:
        if all(isinstance(value, str) for value in values):
            return text_model.choose(tuple(values), self._reading.content, self._next())
        return values[self._next() % len(values)]

    def _kind(self, schema: dict[str, Any], depth: int) -> str:
        kind = schema.get("type")
        if isinstance(kind, list):
            if "null" in kind and depth >= _DEPTH:
                return "null"
            return str(next((name for name in kind if name != "null"), "null"))
        if kind is None:
            return "object" if "properties" in schema else "array" if "items" in schema else "string"
        return str(kind)

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties", {})
        required = schema.get("required", [])
        value = {
            name: self.make(property_schema, name, depth + 1)
            for name, property_schema in properties.items()
            if name in required or depth < _DEPTH
        }
        additional = schema.get("additionalProperties")
        for name in required:
            if name not in value:
                value[name] = self.make(additional if isinstance(additional, dict) else {}, name, depth + 1)
        if not properties and not value and additional is not False and depth < _DEPTH:
            value["answer"] = self.make(additional if isinstance(additional, dict) else {}, "answer", depth + 1)
        return value

    def _array(self, schema: dict[str, Any], name: str, depth: int) -> list[Any]:
        min_items, max_items = schema.get("minItems", 0), schema.get("maxItems", math.inf)
        length = min_items if depth >= _DEPTH else max(min_items, min(max_items, 1 + self._next() % 3))
        items = schema.get("items", {})
        return [self.make(items, name, depth + 1) for _ in range(int(length))]

    def _numeric(self, schema: dict[str, Any], name: str, *, is_integer: bool) -> int | float:
        low, high = _bounds(schema, is_integer=is_integer)
        step = schema.get("multipleOf", 1 if is_integer else None)
        if step is None:
            step = 10.0 ** math.floor(math.log10(max(high - low, 1e-9)) - 2)
        first = math.ceil(low / step)
        last = math.floor(high / step)
        count = max(1, last - first + 1)
        mood = text_model.sentiment(self._reading.content) if _RATED.search(name) else 0
        offset = self._next() % max(1, count // 3)
        position = count - 1 - offset if mood > 0 else offset if mood < 0 else self._next() % count
        value = (first + position) * step
        if is_integer:
            return int(value)
        return min(max(round(value, 10), low), high)

    def _boolean(self) -> bool:
        mood = text_model.sentiment(self._reading.content)
        return mood > 0 if mood else bool(self._next() % 2)

    def _string(self, schema: dict[str, Any], name: str) -> str:
        number = self._next()
        if "pattern" in schema:
            return matching_text(str(schema["pattern"]), number)
        if schema.get("format") in _FORMATS:
            template: str = _FORMATS[schema["format"]]
            return template.format(month=1 + number % 12, day=1 + number % 28, minute=number % 60, number=number)
        if _LABELLED.search(name):
            text = text_model.reply(self._reading, number)
        else:
            text = text_model.leading_words(self._reading.content, 3 + number % 6)
        text = text.ljust(schema.get("minLength", 0), ".")
        return text[: schema.get("maxLength")]


_RATED = re.compile(r"scor|rat|stars|grade|sentiment", re.IGNORECASE)
_LABELLED = re.compile(r"sentiment|label|category|class|answer|verdict", re.IGNORECASE)


def _merged(schema: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    merged = {**other, **schema}
    for key, join in (("properties", dict), ("required", list)):
        if key in schema and key in other:
            merged[key] = (
                {**other[key], **schema[key]} if join is dict else list(dict.fromkeys([*other[key], *schema[key]]))
            )
    return merged


def _weight(schema: dict[str, Any]) -> int:
    """Estimate how large the smallest value of a schema is."""
    kind = schema.get("type")
    if kind == "object":
        return 2 + len(schema.get("required", ()))
    if kind == "array":
        return 1 + 9 * int(schema.get("minItems", 0))
    return 3 if "anyOf" in schema else 0


def _bounds(schema: dict[str, Any], *, is_integer: bool) -> tuple[float, float]:
    """Return the smallest and the largest value allowed, with exclusive bounds moved inwards."""
    low = schema.get("minimum", -math.inf)
    high = schema.get("maximum", math.inf)
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if is_integer:
        if above is not None:
            low = max(low, math.floor(above) + 1)
        if below is not None:
            high = min(high, math.ceil(below) - 1)
        low, high = (math.ceil(low) if low > -math.inf else low), (math.floor(high) if high < math.inf else high)
    else:
        if above is not None:
            low = max(low, math.nextafter(above, math.inf))
        if below is not None:
            high = min(high, math.nextafter(below, -math.inf))
    if low == -math.inf:
        low = min(0, high - _NUMBER_SPREAD) if high < math.inf else 0
    if high == math.inf:
        high = max(_NUMBER_SPREAD, low + _NUMBER_SPREAD)
    return low, high
