"""``response_format`` → a schema of strict mode.

There are two schemas: the *strict* one, against which answers are checked, and the one that is sent. Keywords that
strict mode does not support but JSON schema can check (the length of a text) are sent as part of the description.

Sources: the structured outputs guide, "supported schemas" (2026): formats and limits. Not in the guide, but in replies
of the service: a lookaround in a pattern ends in a 500, and ``uri`` is not a valid format.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, is_dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import msgspec
import polars as pl

from batchframe._core.exceptions import OptionError
from batchframe._core.json_values import json_value
from batchframe._schemas.from_dtype import MARK, decimal_schema, schema_of
from batchframe._schemas.strict import KEYWORDS, OF_TYPE, Strict, definition, refuse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchframe._schemas.decoder import Decoder

FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid")
_SERVICE_FORMS = ("text", "json_object", "json_schema")
_LEVELS, _PROPERTIES, _TEXT, _ENUM_VALUES = 10, 5_000, 120_000, 1_000
_LONG_ENUM, _LONG_ENUM_TEXT = 250, 15_000

# Sent in the description, since strict mode does not support them. All but uniqueItems and examples are checked here.
_IN_DESCRIPTION = ("minLength", "maxLength", "uniqueItems", "examples")
_MAX_DIGITS = 38  # Polars' Decimal
_UNUSABLE = re.compile(r'["\\\x00-\x1f]')
_LOOKAROUND = re.compile(r"\(\?(?:=|!|<=|<!)")


@dataclass(frozen=True)
class AnswerType:
    """The type of the answers of a run.

    Parameters
    ----------
    name
        The name of the schema at the service.
    schema
        The strict schema.
    """

    name: str
    schema: dict[str, Any]

    def response_format(self) -> dict[str, Any]:
        """Return the request parameter."""
        sent = {"name": self.name, "strict": True, "schema": _sent_schema(self.schema)}
        return {"type": "json_schema", "json_schema": sent}

    @cached_property
    def decoder(self) -> Decoder:
        """The decoder of the answers."""
        from batchframe._schemas.decoder import Decoder  # noqa: PLC0415  (pyarrow is slow to import, and seldom needed)

        return Decoder(self.schema)


def requested_answer_type(value: Any) -> AnswerType | None:
    """Return the requested type of answers. None for text, as with the service's own forms.

    Raises
    ------
    OptionError
        As for `answer_type`.
    """
    is_text = value is None or (isinstance(value, dict) and value.get("type") in _SERVICE_FORMS)
    return None if is_text else answer_type(value)


def answer_type(value: Any) -> AnswerType:
    """Return the type of answers for a ``response_format``.

    Parameters
    ----------
    value
        A pydantic model, a JSON schema, or a ``pl.Struct`` (``pl.Schema``).

    Raises
    ------
    OptionError
        The value is none of these, or uses something that strict mode does not support.
    """
    if isinstance(value, pl.Schema):
        value = pl.Struct(value)
    if isinstance(value, pl.Struct):
        answers = AnswerType("response", schema_of(value))
    elif isinstance(value, type) and callable(getattr(value, "model_json_schema", None)):
        answers = AnswerType(_name(value.__name__), Strict(_model_schema(value), is_model=True).schema())
    elif isinstance(value, dict) and not KEYWORDS.isdisjoint(value) and not isinstance(value.get("format"), dict):
        schema = json_value(value, "response_format")
        title = schema.get("title")
        answers = AnswerType(_name(title if isinstance(title, str) else ""), Strict(schema, is_model=False).schema())
    else:
        msg = (
            "response_format must be a pydantic model (the class), a JSON schema, a pl.Struct({…}) with its fields, or "
            f'the service\'s own form, such as {{"type": "json_object"}}; got {_short(value)}{_remedy(value)}'
        )
        raise OptionError(msg)
    _check_limits(_sent_schema(answers.schema))
    return answers


def _remedy(value: Any) -> str:
    if isinstance(value, dict):
        inner = next((key for key in ("schema", "format") if key in value), None)
        return f" (pass the value of its key {inner!r})" if inner else ""
    if isinstance(value, type) and (is_dataclass(value) or hasattr(value, "__total__")):  # a TypedDict
        return f" (pass its schema: pydantic.TypeAdapter({value.__name__}).json_schema())"
    if isinstance(value, type) and callable(getattr(value, "schema", None)):
        return f" (a model of pydantic 1: pass its schema, {value.__name__}.schema())"
    return ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"  # noqa: PLR2004


def _name(text: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_-]", "_", text)[:64] or "response"


def _model_schema(model: Any) -> dict[str, Any]:
    """Return the JSON schema of a pydantic model."""
    from pydantic.errors import PydanticUserError  # noqa: PLC0415  (pydantic is needed only for a model)
    from pydantic.json_schema import GenerateJsonSchema  # noqa: PLC0415
    from pydantic_core import core_schema  # noqa: PLC0415

    class Generator(GenerateJsonSchema):
        # pydantic's own schema is "a number or a text", which has no single dtype.
        def decimal_schema(self, schema: Any) -> dict[str, Any]:
            digits, places = schema.get("max_digits"), schema.get("decimal_places")
            if digits is not None and places is not None and places <= digits <= _MAX_DIGITS:
                return decimal_schema(digits, places, schema)
            bounds = {name: float(schema[name]) for name in ("ge", "gt", "le", "lt") if schema.get(name) is not None}
            return self.float_schema(core_schema.float_schema() | cast("Any", bounds))

    try:
        schema: dict[str, Any] = model.model_json_schema(schema_generator=Generator)
    except (PydanticUserError, AttributeError) as error:  # BaseModel itself raises AttributeError
        msg = f"response_format: {model.__name__} has no JSON schema: {error}"
        raise OptionError(msg) from error
    return schema


def _sent_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the form of a strict schema that is sent to the service."""
    defs = schema.get("$defs", {})
    root = {key: value for key, value in schema.items() if key != "$defs"}
    if "$ref" in root:  # the service requires an object as the root
        target = definition(root.pop("$ref"))
        root = _sendable({**defs[target], **root}, defs, (target,))
    else:
        root = _sendable(root, defs, ())
    named = {name: _sendable(value, defs, (name,)) for name, value in defs.items()}
    return root | ({"$defs": named} if named else {})


def _sendable(node: dict[str, Any], defs: dict[str, Any], within: tuple[str, ...]) -> dict[str, Any]:
    if "$ref" in node:
        target = definition(node["$ref"])
        if len(node) == 1 or target in within or not target:
            return {"$ref": node["$ref"]}
        # Strict mode allows no keyword beside a $ref.
        return _sendable({**defs[target], **{key: node[key] for key in node if key != "$ref"}}, defs, (*within, target))
    unsupported = {key: node[key] for key in _IN_DESCRIPTION if node.get(key)}
    if node.get("format", FORMATS[0]) not in FORMATS:
        unsupported["format"] = node["format"]
    if _LOOKAROUND.search(node.get("pattern", "")):
        unsupported["pattern"] = node["pattern"]
    if MARK in node:  # a Decimal is sent as text, which has no bounds
        unsupported |= {key: node[key] for key in OF_TYPE["number"] if key in node and node["type"] == "string"}
    sent = {key: value for key, value in node.items() if key not in unsupported and key != MARK}
    if unsupported:
        notes = "; ".join(f"{key}: {msgspec.json.encode(value).decode()}" for key, value in unsupported.items())
        sent["description"] = f"{sent['description']} ({notes})" if "description" in sent else notes
    if "properties" in sent:
        sent["properties"] = {name: _sendable(value, defs, within) for name, value in sent["properties"].items()}
    if "items" in sent:
        sent["items"] = _sendable(sent["items"], defs, within)
    if "anyOf" in sent:
        sent["anyOf"] = [_sendable(option, defs, within) for option in sent["anyOf"]]
    return sent


def _check_limits(schema: dict[str, Any]) -> None:
    """Refuse a schema that is larger than the service takes."""
    properties = enum_values = text = 0
    for path, node, level in _nodes(schema, "$", 1):
        if level > _LEVELS and "properties" in node:
            refuse(path, f"objects are nested {level} levels deep, but strict mode allows {_LEVELS}: flatten them")
        texts = [value for value in node.get("enum", ()) if isinstance(value, str)]
        if len(texts) > _LONG_ENUM and sum(map(len, texts)) > _LONG_ENUM_TEXT:
            problem = f"its {len(texts)} enum values have {sum(map(len, texts)):,} characters in total"
            refuse(path, f"{problem}, but more than {_LONG_ENUM} values may have {_LONG_ENUM_TEXT:,}: shorten them")
        names = [*node.get("properties", ()), *node.get("$defs", ())]
        odd = next((name for name in names if _UNUSABLE.search(name)), None)
        if odd is not None:
            refuse(path, f"the name {odd!r} contains a quote, a backslash or a control character: rename it")
        properties += len(node.get("properties", ()))
        enum_values += len(node.get("enum", ()))
        text += sum(map(len, names)) + sum(map(len, texts))
    for count, most, what in (
        (properties, _PROPERTIES, "properties"),
        (enum_values, _ENUM_VALUES, "enum values"),
        (text, _TEXT, "characters in names and enum values"),
    ):
        if count > most:
            refuse("$", f"the schema has {count:,} {what}, but strict mode allows {most:,}: make it smaller")


def _nodes(node: dict[str, Any], path: str, level: int) -> Iterator[tuple[str, dict[str, Any], int]]:
    yield path, node, level
    for name, value in node.get("properties", {}).items():
        yield from _nodes(value, f"{path}.properties.{name}", level + 1)
    if "items" in node:
        yield from _nodes(node["items"], f"{path}.items", level)
    for index, option in enumerate(node.get("anyOf", ())):
        yield from _nodes(option, f"{path}.anyOf[{index}]", level)
    for name, value in node.get("$defs", {}).items():
        yield from _nodes(value, f"{path}.$defs.{name}", 1)
