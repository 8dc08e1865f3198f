"""A JSON schema → a schema of strict mode: objects are closed, and all properties required, optional ones as nullable.

Keywords that strict mode does not support are refused by name, with the path in the schema and a remedy.

Sources: the structured outputs guide, "supported schemas" (2026). Not in the guide, but in replies of the service: no
keyword is allowed beside ``$ref``.
"""

from __future__ import annotations

from typing import Any, NoReturn

from batchframe._core.exceptions import OptionError, suggestion
from batchframe._schemas.from_dtype import MARK

_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
OF_TYPE: dict[str, tuple[str, ...]] = {
    "object": ("properties", "required", "additionalProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems", "uniqueItems"),
    "string": ("pattern", "format", "minLength", "maxLength"),
    "number": _NUMBERS,
    "integer": _NUMBERS,
    "boolean": (),
    "null": (),
}
BESIDE = ("description", "title", "examples")  # annotations, kept on every node
_IGNORED = frozenset({"$schema", "$id", "$comment", "$defs", "definitions", "default", "deprecated", "readOnly",
                      "writeOnly", "discriminator", "contentEncoding", "contentMediaType", "example"})  # fmt: skip
_DEFINING = ("$ref", "anyOf", "oneOf", "allOf", "type", "enum", "const")
_KNOWN = {*BESIDE, *_IGNORED, *_DEFINING, *(keyword for keywords in OF_TYPE.values() for keyword in keywords)}
_AFTERWARDS = "leave it out and check the answers afterwards"
_REFUSED = {
    **dict.fromkeys(
        ("not", "if", "then", "else", "dependentRequired", "dependentSchemas", "dependencies"), _AFTERWARDS
    ),
    **dict.fromkeys(("contains", "minContains", "maxContains", "minProperties", "maxProperties"), _AFTERWARDS),
    **dict.fromkeys(("patternProperties", "propertyNames", "unevaluatedProperties"), "name each property"),
    **dict.fromkeys(("unevaluatedItems", "additionalItems"), "describe the items by items alone"),
    **dict.fromkeys(("$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef"), "use $ref and $defs"),
    "nullable": 'write "type": [..., "null"]',
}
KEYWORDS = _KNOWN | _REFUSED.keys()
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength")
_SHAPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("properties", "$defs", "definitions"), (dict,)),
    **dict.fromkeys(("required", "prefixItems", "enum", "anyOf", "oneOf", "allOf", "examples"), (list,)),
    **dict.fromkeys(("description", "title", "pattern", "format", "$ref"), (str,)),
    "type": (str, list),
    **dict.fromkeys(_NUMBERS, (int, float)),
    **dict.fromkeys(_COUNTS, (int,)),
}
_OPEN_OBJECT = (
    "an object with arbitrary keys is not possible in strict mode: name its properties, or use a list of objects with "
    "a key and a value"
)


class Strict:
    """The conversion of a schema to strict mode."""

    def __init__(self, root: dict[str, Any], *, is_model: bool) -> None:
        self._root = root
        self._is_model = is_model
        self._defs: dict[str, Any] = {}

    def schema(self) -> dict[str, Any]:
        schema = self._node(self._root, "$")
        schema.pop("title", None)  # it is sent as the name
        target = schema
        while "$ref" in target and target["$ref"] != "#":
            target = self._defs[definition(target["$ref"])]
        if target.get("type") != "object":
            kind = "anyOf" if "anyOf" in target else target.get("type", "$ref")
            refuse("$", f"the root must be an object, got {kind}: wrap it in an object with one property")
        return schema | ({"$defs": self._defs} if self._defs else {})

    def _node(self, node: Any, path: str, name: str = "") -> dict[str, Any]:
        if not isinstance(node, dict) or not {*node} - {*BESIDE, *_IGNORED}:
            refuse(path, "the schema has no type, and strict mode needs one: name the type")
        if MARK in node and self._is_model:
            return {key: value for key, value in node.items() if key not in ("title", "default")}
        self._check_shapes(node, path)
        if len(node.get("allOf", ())) == 1 and isinstance(node["allOf"][0], dict):
            rest = {key: value for key, value in node.items() if key != "allOf"}
            return self._node({**node["allOf"][0], **rest}, path, name)
        self._check_keywords(node, path)
        beside = {key: node[key] for key in BESIDE if key in node}
        if beside.get("title") in {None, "", name.replace("_", " ").title(), name}:
            beside.pop("title", None)  # pydantic derives it from the name, and each request would pay for it
        if "$ref" in node:
            self._check_alone("$ref", node, path)
            return {"$ref": self._reference(node["$ref"], path), **beside}
        for keyword in ("anyOf", "oneOf"):
            if keyword in node:
                self._check_alone(keyword, node, path)
                return self._any_of(node[keyword], f"{path}.{keyword}") | beside
        if "const" in node or "enum" in node:
            values = [node["const"]] if "const" in node else node["enum"]
            return _any(_enum(values, node.get("type"), path)) | beside
        kinds = node.get("type", "object" if "properties" in node else "array" if "items" in node else None)
        kinds = kinds if isinstance(kinds, list) and kinds else [kinds]
        return _any([self._of_type(kind, node, path) for kind in kinds]) | beside

    def _check_shapes(self, node: dict[str, Any], path: str) -> None:
        for keyword, kinds in _SHAPES.items():
            if keyword in node and (not isinstance(node[keyword], kinds) or isinstance(node[keyword], bool)):
                kind = " or ".join(kind.__name__ for kind in kinds)
                refuse(path, f"{keyword} must be {kind}, got {node[keyword]!r}")
        if node.get("multipleOf", 1) <= 0:
            refuse(path, f"multipleOf must be above 0, got {node['multipleOf']!r}")

    def _check_keywords(self, node: dict[str, Any], path: str) -> None:
        for keyword in node:
            if keyword == "allOf":
                refuse(path, "'allOf' is not possible in strict mode: merge its parts into one schema")
            if keyword in _REFUSED:
                refuse(path, f"{keyword!r} is not possible in strict mode: {_REFUSED[keyword]}")
            if keyword not in _KNOWN and not keyword.startswith("x-"):
                refuse(path, f"{keyword!r} is not a keyword of JSON schema.{suggestion(keyword, _KNOWN)} Leave it out")

    def _check_alone(self, keyword: str, node: dict[str, Any], path: str) -> None:
        for other in node:
            if other != keyword and other not in {*BESIDE, *_IGNORED} and not other.startswith("x-"):
                refuse(path, f"{other!r} beside {keyword!r} is not possible in strict mode: move it inside")

    def _reference(self, reference: Any, path: str) -> str:
        if reference == "#":
            return "#"
        name = definition(reference)
        known = {**self._root.get("definitions", {}), **self._root.get("$defs", {})}
        if name not in known:
            refuse(path, f"$ref {reference!r} has no target: it must name one of $defs ({', '.join(known) or 'none'})")
        if name not in self._defs:
            self._defs[name] = {}  # a definition may refer to itself
            self._defs[name] = self._node(known[name], f"$.$defs.{name}", name)
        return f"#/$defs/{_escaped(name)}"

    def _any_of(self, options: list[Any], path: str) -> dict[str, Any]:
        if not options:
            refuse(path, "it must be a non-empty list of schemas")
        return _any([self._node(option, f"{path}[{index}]") for index, option in enumerate(options)])

    def _of_type(self, kind: Any, node: dict[str, Any], path: str) -> dict[str, Any]:
        if not isinstance(kind, str) or kind not in OF_TYPE:
            known = ", ".join(OF_TYPE)
            refuse(
                path,
                f"type must be one of {known}, got {kind!r}" if kind else f"the type is missing: use one of {known}",
            )
        typed = {"type": kind} | {keyword: node[keyword] for keyword in OF_TYPE[kind] if keyword in node}
        if kind == "object":
            return self._object(typed, path)
        if kind == "array":
            return self._array(typed, path)
        return typed

    def _object(self, node: dict[str, Any], path: str) -> dict[str, Any]:
        properties = node.get("properties")
        if not properties or node.get("additionalProperties"):
            refuse(path, _OPEN_OBJECT)
        required = node.get("required", [])
        strict = {}
        for name, value in properties.items():
            schema = self._node(value, f"{path}.properties.{name}", name)
            # A model's annotations tell which fields are nullable. In a schema, null replaces an omitted property.
            may_be_null = not self._is_model or ("default" in value and value["default"] is None)
            strict[name] = _or_null(schema) if name not in required and may_be_null else schema
        for name in required:
            if name not in properties:
                refuse(path, f"required names {name!r}, which is not one of its properties: add it, or leave it out")
        return {"type": "object", "properties": strict, "required": [*strict], "additionalProperties": False}

    def _array(self, node: dict[str, Any], path: str) -> dict[str, Any]:
        positions = node.pop("prefixItems", None)
        if positions:
            items = [self._node(item, f"{path}.prefixItems[{index}]") for index, item in enumerate(positions)]
            if any(item != items[0] for item in items) or node.get("maxItems") != len(items) != node.get("minItems"):
                refuse(path, "a tuple is not possible in strict mode: use a model or object with a field for each part")
            return node | {"items": items[0], "minItems": len(items)}
        if "items" not in node:
            refuse(path, "the array has no items: add the schema of its items")
        return node | {"items": self._node(node["items"], f"{path}.items")}


def refuse(path: str, problem: str) -> NoReturn:
    msg = f"response_format, at {path}: {problem}"
    raise OptionError(msg)


def definition(reference: Any) -> str:
    """Return the name of the definition that a ``$ref`` points to, or an empty text."""
    head, _, name = str(reference).rpartition("/")
    return name.replace("~1", "/").replace("~0", "~") if head in {"#/$defs", "#/definitions"} else ""


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _enum(values: list[Any], kinds: Any, path: str) -> list[dict[str, Any]]:
    """Return one schema for each type among the values, such as ``{"type": "string", "enum": ["a", "b"]}``."""
    if not values:
        refuse(path, "enum must be a non-empty list of values")
    by_kind: dict[str, list[Any]] = {}
    for value in values:
        kind = next((kind for kind, known in _OF_PYTHON.items() if type(value) is known), None)
        if kind is None:
            refuse(path, f"an enum value must be text, a number, a boolean or null, got {value!r}")
        if kinds is None or kind in kinds or (kind == "integer" and "number" in kinds):
            same_kind = by_kind.setdefault(str(kind), [])
            same_kind += [] if value in same_kind else [value]
    if {"integer", "number"} <= by_kind.keys():
        by_kind["number"] += by_kind.pop("integer")
    if not by_kind:
        refuse(path, f"none of its enum values has its type {kinds!r}")
    return [{"type": kind} | ({} if kind == "null" else {"enum": same}) for kind, same in by_kind.items()]


_OF_PYTHON = {"string": str, "integer": int, "number": float, "boolean": bool, "null": type(None)}
_NULL = {"type": "null"}


def _any(options: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the union of schemas without redundant members, null last."""
    flat: list[dict[str, Any]] = []
    for option in options:
        for inner in option["anyOf"] if {*option} == {"anyOf"} else [option]:
            flat += [] if inner in flat else [inner]
    if {"type": "number"} in flat:
        flat = [option for option in flat if option != {"type": "integer"}]
    flat.sort(key=lambda option: option == _NULL)
    return flat[0] if len(flat) == 1 else {"anyOf": flat}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    beside = {key: schema[key] for key in BESIDE if key in schema}
    inner = {key: value for key, value in schema.items() if key not in beside}
    return _any([inner, _NULL]) | beside
