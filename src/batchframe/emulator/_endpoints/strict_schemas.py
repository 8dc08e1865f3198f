"""The rules for JSON schemas under ``"strict": true``, with the service's sentences."""

from __future__ import annotations

import functools
from typing import Any

import msgspec

from batchframe.emulator import _errors as errors
from batchframe.emulator._model.json_schema import resolve

# Source: the structured outputs guide (supported schemas); the sentences are from replies. The guide's pages disagree
# on whether minLength and maxLength are refused, so they pass.
_FORBIDDEN = frozenset(
    {
        "allOf",
        "contains",
        "default",
        "dependentRequired",
        "dependentSchemas",
        "else",
        "if",
        "maxContains",
        "maxProperties",
        "minContains",
        "minProperties",
        "not",
        "oneOf",
        "patternProperties",
        "prefixItems",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
        "uniqueItems",
    }
)
_MAX_LEVELS, _MAX_PROPERTIES, _MAX_ENUM_VALUES = 10, 5_000, 1_000
_INSTEAD_OF_TYPE = frozenset({"$ref", "anyOf", "enum", "const"})


def check_strict(name: str, schema: dict[str, Any], param: str = "response_format", code: str | None = None) -> None:
    """Refuse a schema that strict mode does not accept."""
    problem = _problem(msgspec.json.encode(schema))
    if problem is not None:
        kind = "function" if param.endswith(".parameters") else "response_format"
        raise errors.ApiError(f"Invalid schema for {kind} '{name}': {problem}", param=param, code=code)


# Cached, as all rows of a batch tend to have the same schema.
@functools.lru_cache(maxsize=128)
def _problem(encoded: bytes) -> str | None:
    schema = msgspec.json.decode(encoded)
    if schema.get("type") != "object":
        kind = schema.get("type")
        return f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{kind}\"'."
    walk = _Walk(schema)
    try:
        walk.check(schema, (), 1)
    except _ProblemError as problem:
        return str(problem)
    return None


class _ProblemError(Exception):
    def __init__(self, path: tuple[str, ...], text: str) -> None:
        super().__init__(f"In context={path!r}, {text}")


class _Walk:
    """One pass over a schema; counts what is limited over the whole schema."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._properties = 0
        self._enum_values = 0

    def check(self, schema: Any, path: tuple[str, ...], level: int) -> None:
        self._check_keywords(schema, path)
        types = schema.get("type")
        if types == "object" or (isinstance(types, list) and "object" in types):
            self._check_object(schema, path, level)
        if types == "array" or (isinstance(types, list) and "array" in types):
            if "items" not in schema:
                raise _ProblemError(path, "array schema missing items.")
            self.check(schema["items"], (*path, "items"), level)
        for position, option in enumerate(schema.get("anyOf", ())):
            self.check(option, (*path, "anyOf", str(position)), level)
        for keyword in ("$defs", "definitions"):
            for name, definition in schema.get(keyword, {}).items():
                self.check(definition, (*path, keyword, name), 1)

    def _check_keywords(self, schema: Any, path: tuple[str, ...]) -> None:
        if not isinstance(schema, dict):
            raise _ProblemError(path, "schema must be an object.")
        for keyword in schema:
            if keyword in _FORBIDDEN:
                raise _ProblemError(path, f"'{keyword}' is not permitted.")
        if "type" not in schema and not _INSTEAD_OF_TYPE & schema.keys():
            raise _ProblemError(path, "schema must have a 'type' key.")
        if "$ref" in schema and resolve(self._root, schema["$ref"]) is None:
            raise _ProblemError(path, f"reference to component '{schema['$ref']}' which was not found in the schema.")
        if "anyOf" in schema and not path:
            raise _ProblemError(path, "'anyOf' is not permitted.")
        self._enum_values += len(schema.get("enum", ()))
        if self._enum_values > _MAX_ENUM_VALUES:
            raise _ProblemError(path, f"the schema has more than {_MAX_ENUM_VALUES} enum values in total.")

    def _check_object(self, schema: dict[str, Any], path: tuple[str, ...], level: int) -> None:
        properties = schema.get("properties", {})
        if schema.get("additionalProperties") is not False:
            raise _ProblemError(path, "'additionalProperties' is required to be supplied and to be false.")
        required = schema.get("required", [] if not properties else None)
        rule = "'required' is required to be supplied and to be an array including every key in properties."
        for name in properties:
            if not isinstance(required, list) or name not in required:
                raise _ProblemError(path, f"{rule} Missing '{name}'.")
        for name in required or ():
            if name not in properties:
                raise _ProblemError(path, f"{rule} Extra required key '{name}' supplied.")
        self._properties += len(properties)
        if self._properties > _MAX_PROPERTIES:
            raise _ProblemError(path, f"the schema has more than {_MAX_PROPERTIES} properties in total.")
        if level > _MAX_LEVELS:
            raise _ProblemError(path, f"the schema exceeds the maximum of {_MAX_LEVELS} levels of nesting.")
        for name, value in properties.items():
            self.check(value, (*path, "properties", name), level + 1)
