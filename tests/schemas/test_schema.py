"""``response_format``: accepted types, their strict schemas, and decoding answers or reporting why they do not fit."""

# ruff: noqa: E501, PYI030, PYI061, UP007, UP045  (a table reads best a case a line; types are spelled as users spell them)

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import re
import uuid
from typing import Annotated, Any, Generic, Literal, Optional, TypedDict, TypeVar, Union

import msgspec
import polars as pl
import pydantic
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from polars.testing import assert_series_equal
from pydantic import BaseModel, Field

from batchframe._core.dtypes import holds
from batchframe._core.exceptions import OptionError
from batchframe._results.answer_format import AnswerFormat
from batchframe._results.result_lines import ANSWER_SCHEMA
from batchframe._schemas.decoder import _as_lists
from batchframe._schemas.response_format import AnswerType, answer_type
from batchframe.emulator import answer
from batchframe.emulator._endpoints.strict_schemas import check_strict

DATETIME = pl.Datetime("us", "UTC")
TREE = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
    "required": ["name", "next"],
}


def sent(value):
    """Return the schema that is sent, after checking that the emulator accepts it."""
    form = answer_type(value).response_format()
    assert form["type"] == "json_schema"
    assert form["json_schema"]["strict"] is True
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", form["json_schema"]["name"])
    check_strict(form["json_schema"]["name"], form["json_schema"]["schema"])
    return form["json_schema"]["schema"]


def dtype(value):
    return answer_type(value).decoder.dtype


def read(value, *texts):
    """Return the decoded values and the problems of some answers, passed as JSON text or as values."""
    texts = [text if isinstance(text, (str, type(None))) else json.dumps(text) for text in texts]
    values, problems = answer_type(value).decoder.decode(pl.Series(texts, dtype=pl.String))
    assert values.dtype == dtype(value)
    assert len(values) == len(problems) == len(texts)
    return values.to_list(), problems.to_list()


def obj(**properties):
    return {"type": "object", "properties": properties, "required": [*properties]}


def one_property(**schema):
    """Return the schema of an object whose only property is ``x``."""
    return obj(x=schema)


def refusal(value):
    with pytest.raises(OptionError) as refused:
        answer_type(value)
    return str(refused.value)


def model(annotation, **field):
    return pydantic.create_model("Made", x=(annotation, Field(**field) if field else ...))


# -- pydantic models


class Colour(str, enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Address(BaseModel):
    street: str
    city: Optional[str] = None


class Item(BaseModel):
    """One line of the invoice."""

    name: str = Field(description="as it is printed")
    price: float = Field(ge=0)
    quantity: int = 1
    tags: list[str] = Field(default_factory=list)


class Invoice(BaseModel):
    """An invoice, as a user would define it."""

    number: str = Field(min_length=1, max_length=20)
    issued: dt.date
    paid_at: Optional[dt.datetime] = None
    status: Literal["open", "paid"]
    colour: Colour
    level: Level
    billing: Address = Field(description="where the bill goes")
    shipping: Optional[Address] = None
    items: list[Item]
    total: decimal.Decimal = Field(max_digits=10, decimal_places=2)
    is_net: bool = True


def test_typical_model():
    schema = sent(Invoice)
    assert schema["required"] == [*Invoice.model_fields]
    assert schema["description"] == "An invoice, as a user would define it."
    assert schema["properties"]["number"] == {"type": "string", "description": "minLength: 1; maxLength: 20"}
    assert schema["properties"]["billing"] == {**schema["$defs"]["Address"], "description": "where the bill goes"}
    assert schema["properties"]["shipping"] == {"anyOf": [{"$ref": "#/$defs/Address"}, {"type": "null"}]}
    assert schema["$defs"]["Item"]["properties"]["quantity"] == {"type": "integer"}
    assert schema["$defs"]["Item"]["properties"]["tags"] == {"type": "array", "items": {"type": "string"}}
    assert schema["$defs"]["Item"]["additionalProperties"] is False
    address = pl.Struct({"street": pl.String, "city": pl.String})
    assert dtype(Invoice) == pl.Struct(
        {
            "number": pl.String,
            "issued": pl.Date,
            "paid_at": DATETIME,
            "status": pl.Enum(["open", "paid"]),
            "colour": pl.Enum(["red", "blue"]),
            "level": pl.Int64,
            "billing": address,
            "shipping": address,
            "items": pl.List(
                pl.Struct({"name": pl.String, "price": pl.Float64, "quantity": pl.Int64, "tags": pl.List(pl.String)})
            ),
            "total": pl.Decimal(10, 2),
            "is_net": pl.Boolean,
        }
    )


def test_answer_validates_with_the_model():
    bill = Invoice(
        number="7", issued="2024-02-29", paid_at="2024-03-01T10:00:00+02:00", status="paid", colour="red", level=2,
        billing={"street": "A"}, items=[Item(name="x", price=1.5), Item(name="y", price=2, tags=["t"])], total="12.50",
    )  # fmt: skip
    (row,), (problem,) = read(Invoice, bill.model_dump_json())
    assert problem is None
    assert Invoice.model_validate(row) == bill
    assert row["paid_at"] == dt.datetime(2024, 3, 1, 8, tzinfo=dt.timezone.utc)
    assert row["shipping"] is None


def test_emulator_answers_are_valid():
    form = answer_type(Invoice).response_format()
    texts = []
    for n in range(20):
        body = {
            "model": "gpt-4o-mini",
            "messages": [{"role": "user", "content": f"Invoice {n}"}],
            "response_format": form,
        }
        texts.append(answer(body)["choices"][0]["message"]["content"])
    assert [problem for problem in read(Invoice, *texts)[1] if problem is not None and "$.number" not in problem] == []


FIELDS = {
    "str": (str, {"type": "string"}, pl.String),
    "optional": (Optional[str], {"anyOf": [{"type": "string"}, {"type": "null"}]}, pl.String),
    "bool": (bool, {"type": "boolean"}, pl.Boolean),
    "one literal": (Literal["a"], {"type": "string", "enum": ["a"]}, pl.Enum(["a"])),
    "literals or null": (Optional[Literal["a", "b"]], {"anyOf": [{"type": "string", "enum": ["a", "b"]}, {"type": "null"}]}, pl.Enum(["a", "b"])),
    "null among literals": (Literal["a", None], {"anyOf": [{"type": "string", "enum": ["a"]}, {"type": "null"}]}, pl.Enum(["a"])),
    "int literals": (Literal[1, 2], {"type": "integer", "enum": [1, 2]}, pl.Int64),
    "a bool literal": (Literal[True], {"type": "boolean", "enum": [True]}, pl.Boolean),
    "mixed literals": (Literal["a", 1], {"anyOf": [{"type": "string", "enum": ["a"]}, {"type": "integer", "enum": [1]}]}, pl.String),
    "literals of two unions": (Union[Literal["a"], Literal["b"]], None, pl.Enum(["a", "b"])),
    "an enum or a literal": (Union[Colour, Literal["?"]], None, pl.Enum(["red", "blue", "?"])),
    "number": (Union[int, float], {"type": "number"}, pl.Float64),
    "number or null": (Union[int, float, None], {"anyOf": [{"type": "number"}, {"type": "null"}]}, pl.Float64),
    "decimal": (decimal.Decimal, {"type": "number"}, pl.Float64),
    "date": (dt.date, {"type": "string", "format": "date"}, pl.Date),
    "datetime": (dt.datetime, {"type": "string", "format": "date-time"}, DATETIME),
    "time": (dt.time, {"type": "string", "format": "time"}, pl.Time),
    "timedelta": (dt.timedelta, {"type": "string", "format": "duration"}, pl.Duration("us")),
    "uuid": (uuid.UUID, {"type": "string", "format": "uuid"}, pl.String),
    "url": (pydantic.AnyUrl, None, pl.String),
    "a set": (set[str], {"type": "array", "items": {"type": "string"}, "description": "uniqueItems: true"}, pl.List(pl.String)),
    "an even tuple": (tuple[float, float], {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}, pl.List(pl.Float64)),
    "lists of lists": (list[list[int]], None, pl.List(pl.List(pl.Int64))),
    "int or str": (Union[int, str], {"anyOf": [{"type": "integer"}, {"type": "string"}]}, pl.String),
    "date or any text": (Union[dt.date, str], None, pl.String),
    "a model": (Address, {"$ref": "#/$defs/Address"}, pl.Struct({"street": pl.String, "city": pl.String})),
    "only null": (None, {"type": "null"}, pl.String),
}  # fmt: skip


@pytest.mark.parametrize("case", FIELDS)
def test_model_fields(case):
    annotation, expected, column = FIELDS[case]
    schema = sent(model(annotation))["properties"]["x"]
    assert expected is None or schema == expected
    assert dtype(model(annotation)) == pl.Struct({"x": column})


def test_only_a_null_default_makes_a_field_nullable():
    class Defaults(BaseModel):
        count: int = 3
        names: list[str] = Field(default_factory=list)
        sloppy: str = None  # type: ignore[assignment]

    properties = sent(Defaults)["properties"]
    assert properties["count"] == {"type": "integer"}
    assert properties["names"] == {"type": "array", "items": {"type": "string"}}
    assert properties["sloppy"] == {"anyOf": [{"type": "string"}, {"type": "null"}]}


def test_constraints_outside_strict_mode_go_to_the_description():
    class Limited(BaseModel):
        score: int = Field(ge=1, le=5, description="from bad to good", examples=[3])
        share: float = Field(gt=0, lt=1, multiple_of=0.25)
        code: str = Field(pattern="^[A-Z]+$", min_length=2)
        odd: str = Field(json_schema_extra={"pattern": "^(?!x)"})
        site: pydantic.HttpUrl
        names: list[str] = Field(min_length=1, max_length=3)

    found = sent(Limited)["properties"]
    assert found["score"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 5,
        "description": "from bad to good (examples: [3])",
    }
    assert found["share"] == {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1, "multipleOf": 0.25}
    assert found["code"] == {"type": "string", "pattern": "^[A-Z]+$", "description": "minLength: 2"}
    assert found["odd"] == {"type": "string", "description": 'pattern: "^(?!x)"'}
    assert "format" not in found["site"]
    assert found["names"] == {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 3}
    good = {"score": 5, "share": 0.75, "code": "AB", "odd": "y", "site": "https://x.org", "names": ["a"]}
    bad = {
        "score": (0, "$.score: expected integer >= 1, got number 0"),
        "share": (0.3, "$.share: expected a multiple of 0.25, got number 0.3"),
        "code": ("A", '$.code: expected string of length >= 2, got string "A"'),
        "odd": ("x", "$.odd: expected string matching regex '^(?!x)', got string \"x\""),
        "names": ([], "$.names: expected at least 1 items, got 0"),
    }
    texts = [good, *(good | {name: value} for name, (value, _) in bad.items())]
    assert read(Limited, *texts)[1] == [None, *(message for _, message in bad.values())]
    assert read(Limited, good | {"code": "ab"})[1] == [
        "$.code: expected string matching regex '^[A-Z]+$', got string \"ab\""
    ]


def test_decimal_with_digits_and_places_is_exact():
    price = model(decimal.Decimal, max_digits=6, decimal_places=2, gt=0)
    assert sent(price)["properties"]["x"] == {
        "type": "string",
        "pattern": r"^-?\d{1,4}(\.\d{1,2})?$",
        "description": 'exclusiveMinimum: "0"',
    }
    values, problems = read(price, {"x": "12.5"}, {"x": "0"}, {"x": "1.005"}, {"x": 12.5})
    assert values[0] == {"x": decimal.Decimal("12.50")}
    assert problems[1] == '$.x: expected above 0, got string "0"'
    assert all(problem.startswith("$.x: expected a decimal number as text") for problem in problems[2:])


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    tricks: list[str]


def test_union_becomes_json_text():
    pets = model(list[Annotated[Union[Cat, Dog], Field(discriminator="kind")]])
    assert sent(pets)["properties"]["x"]["items"] == {"anyOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]}
    assert dtype(pets) == pl.Struct({"x": pl.List(pl.String)})
    values, problems = read(
        pets, '{"x": [{"kind":"cat", "lives":9}]}', {"x": [{"kind": "cat", "lives": "9"}]}, {"x": [5]}
    )
    assert values == [{"x": ['{"kind":"cat","lives":9}']}, None, None]
    assert problems[1:] == [
        '$.x[0].lives: expected integer, got string "9"',
        "$.x[0]: expected object or object, got number 5",
    ]
    optional = model(Union[int, str, None])
    assert read(optional, {"x": None}, {"x": 1}, {"x": "1"}) == ([{"x": None}, {"x": "1"}, {"x": '"1"'}], [None] * 3)


class Node(BaseModel):
    value: int
    children: list[Node] = Field(default_factory=list, description="below it")


def test_recursive_model_becomes_json_text():
    schema = sent(Node)
    assert schema["properties"]["children"] == {
        "type": "array",
        "items": {"$ref": "#/$defs/Node"},
        "description": "below it",
    }
    assert dtype(Node) == pl.Struct({"value": pl.Int64, "children": pl.List(pl.String)})
    leaf = {"value": 2, "children": []}
    values, problems = read(
        Node,
        {"value": 1, "children": [leaf, leaf]},
        {"value": 1, "children": [{"value": 2, "children": [{"value": 3}]}]},
    )
    assert [json.loads(child) for child in values[0]["children"]] == [leaf, leaf]
    assert problems[1] == "$.children[0].children[0].children: is missing"
    assert dtype(TREE) == pl.Struct({"name": pl.String, "next": pl.String})
    assert sent(TREE)["properties"]["next"] == TREE["properties"]["next"]
    deep = '{"name":"a","next":' * 5_000 + "null" + "}" * 5_000
    assert read(TREE, deep)[1] == ["$: nested too deeply"]


def test_schema_names():
    kind = TypeVar("kind")

    class Box(BaseModel, Generic[kind]):
        inside: kind

    assert answer_type(Box[int]).name == "Box_int_"
    assert answer_type({"title": "My answer!", **one_property(type="string")}).name == "My_answer_"
    assert answer_type({"title": "x" * 99, **one_property(type="string")}).name == "x" * 64
    assert answer_type(one_property(type="string")).name == "response"
    aliased = pydantic.create_model("Aliased", x=(int, Field(alias="the x")))
    assert read(aliased, {"the x": 1}, {"x": 1}) == (
        [{"the x": 1}, None],
        [None, "$.x: is not a property of this object"],
    )


# -- JSON schemas


def test_optional_properties_are_nullable():
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string", "description": "A"}, "b": {"type": ["integer", "null"], "minimum": 0}},
    }
    assert sent(schema) == {
        "type": "object",
        "properties": {
            "a": {"anyOf": [{"type": "string"}, {"type": "null"}], "description": "A"},
            "b": {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]},
        },
        "required": ["a", "b"],
        "additionalProperties": False,
    }


def test_definitions_are_moved_to_defs():
    schema = obj(a={"$ref": "#/definitions/a~1b"}, b={"allOf": [{"$ref": "#/definitions/a~1b"}], "description": "B"})
    schema["definitions"] = {"a/b": {"type": "integer"}, "unused": {"type": "nothing"}}
    found = sent(schema)
    assert found["$defs"] == {"a/b": {"type": "integer"}}
    assert found["properties"] == {"a": {"$ref": "#/$defs/a~1b"}, "b": {"type": "integer", "description": "B"}}
    assert dtype(schema) == pl.Struct({"a": pl.Int64, "b": pl.Int64})


def nested(levels):
    schema = {"type": "string"}
    for _ in range(levels):
        schema = one_property(**schema)
    return schema


@dataclasses.dataclass
class Point:
    x: int


class Old:
    """Like a model of pydantic 1, which pydantic 2 includes only for Python below 3.14."""

    @classmethod
    def schema(cls):
        return {}


class Row(TypedDict):
    x: int


REFUSED = {
    "a class": (dict, "must be a pydantic model (the class), a JSON schema, a pl.Struct"),
    "an instance": (Address(street="a"), "must be a pydantic model (the class)"),
    "a struct without fields": (pl.Struct, "must be a pydantic model"),
    "a dict of dtypes": ({"a": pl.Int64}, "must be a pydantic model"),
    "the inside of the service's form": ({"name": "x", "schema": one_property(type="string")}, "(pass the value of its key 'schema')"),
    "the format of responses": ({"format": {"type": "json_schema", "name": "x"}}, "(pass the value of its key 'format')"),
    "a dataclass": (Point, "(pass its schema: pydantic.TypeAdapter(Point).json_schema())"),
    "a TypedDict": (Row, "(pass its schema: pydantic.TypeAdapter(Row).json_schema())"),
    "a model of pydantic 1": (Old, "(a model of pydantic 1: pass its schema, Old.schema())"),
    "BaseModel itself": (BaseModel, "response_format: BaseModel has no JSON schema: "),
    "dict[str, X]": (model(dict[str, int]), "at $.properties.x: an object with arbitrary keys is not possible in strict mode: name its properties, or use a list"),
    "Any": (model(Any), "at $.properties.x: the schema has no type"),
    "a list of anything": (model(list), "at $.properties.x.items: the schema has no type"),
    "an uneven tuple": (model(tuple[int, str]), "at $.properties.x: a tuple is not possible in strict mode"),
    "an open model": (pydantic.create_model("Open", __config__={"extra": "allow"}, x=(int, ...)), "at $: an object with arbitrary keys"),
    "an empty model": (pydantic.create_model("Empty"), "at $: an object with arbitrary keys"),
    "a root that is a list": (pydantic.RootModel[list[int]], "at $: the root must be an object, got array: wrap it"),
    "a root that is a union": (pydantic.RootModel[Union[Cat, Dog]], "at $: the root must be an object, got anyOf"),
    "allOf": (one_property(allOf=[{"type": "string"}, {"minLength": 1}]), "at $.properties.x: 'allOf' is not possible in strict mode: merge"),
    "not": (one_property(type="string", **{"not": {"const": "a"}}), "'not' is not possible in strict mode: leave it out and check"),
    "if": (one_property(type="string", **{"if": {}}), "'if' is not possible in strict mode"),
    "patternProperties": ({**one_property(type="string"), "patternProperties": {}}, "at $: 'patternProperties' is not possible"),
    "dependentRequired": ({**one_property(type="string"), "dependentRequired": {}}, "at $: 'dependentRequired' is not possible"),
    "nullable": (one_property(type="string", nullable=True), 'write "type": [..., "null"]'),
    "a mistyped keyword": (one_property(type="string", maxLenght=3), "'maxLenght' is not a keyword of JSON schema. Did you mean 'maxLength'?"),
    "a keyword beside $ref": ({**one_property(**{"$ref": "#", "minimum": 1})}, "'minimum' beside '$ref'"),
    "a $ref to nowhere": (one_property(**{"$ref": "#/$defs/y"}), "$ref '#/$defs/y' has no target: it must name one of $defs (none)"),
    "an unknown type": (one_property(type="text"), "at $.properties.x: type must be one of object, array"),
    "no type": (one_property(minimum=3), "at $.properties.x: the type is missing: use one of"),
    "an array without items": (one_property(type="array"), "the array has no items: add the schema of its items"),
    "an enum without values": (one_property(enum=[]), "enum must be a non-empty list of values"),
    "an enum of objects": (one_property(enum=[{}]), "an enum value must be text, a number, a boolean or null, got {}"),
    "an enum not of its type": (one_property(type="string", enum=[1]), "none of its enum values has its type 'string'"),
    "anyOf without options": (one_property(anyOf=[]), "it must be a non-empty list of schemas"),
    "a type that is not a string": (one_property(const=None, type=False), "at $.properties.x: type must be str or list, got False"),
    "an unknown required name": ({**one_property(type="string"), "required": ["x", "y"]}, "at $: required names 'y'"),
    "a limit that is text": (one_property(type="integer", minimum="3"), "minimum must be int or float, got '3'"),
    "multipleOf zero": (one_property(type="integer", multipleOf=0), "multipleOf must be above 0"),
    "properties in a list": ({"type": "object", "properties": []}, "properties must be dict"),
    "a quote in a name": (obj(**{'"': {"type": "null"}}), "the name '\"' contains a quote, a backslash or a control character"),
    "too deep": (nested(11), "objects are nested 11 levels deep, but strict mode allows 10"),
    "too many properties": (obj(**{f"p{n}": {"type": "null"} for n in range(5_001)}), "the schema has 5,001 properties, but strict mode allows 5,000"),
    "too many enum values": (one_property(enum=[str(n) for n in range(1_001)]), "the schema has 1,001 enum values, but strict mode allows 1,000"),
    "too long an enum": (one_property(enum=[f"{n:060}" for n in range(251)]), "its 251 enum values have 15,060 characters in total"),
    "too much text": (obj(**{f"{n:0130}": {"type": "null"} for n in range(1_000)}), "the schema has 130,000 characters in names"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_unsupported_schemas_are_refused(case):
    value, message = REFUSED[case]
    assert message in refusal(value)
    assert refusal(value).startswith("response_format")


def test_model_without_json_schema_is_refused():
    class Odd(BaseModel):
        model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
        x: re.Match  # type: ignore[type-arg]

    assert refusal(Odd).startswith("response_format: Odd has no JSON schema: ")


def test_schemas_at_the_limits_are_accepted():
    assert sent(nested(10))
    assert sent(one_property(enum=[str(n) for n in range(1_000)]))


# -- Polars types


DTYPES = {
    **{name: (getattr(pl, name)(), {"type": "integer"}) for name in ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64")},
    "Float32": (pl.Float32(), {"type": "number"}),
    "Float64": (pl.Float64(), {"type": "number"}),
    "Categorical": (pl.Categorical(), {"type": "string"}),
    "Enum": (pl.Enum(["a", "b"]), {"type": "string", "enum": ["a", "b"]}),
    "Datetime": (pl.Datetime("ms", "Europe/Berlin"), {"type": "string", "format": "date-time"}),
    "naive": (pl.Datetime("us"), {"type": "string", "format": "date-time"}),
    "Duration": (pl.Duration("ms"), {"type": "string", "format": "duration"}),
    "Decimal": (pl.Decimal(5, 2), {"type": "string", "pattern": r"^-?\d{1,3}(\.\d{1,2})?$"}),
    "fraction": (pl.Decimal(2, 2), {"type": "string", "pattern": r"^-?0(\.\d{1,2})?$"}),
    "Array": (pl.Array(pl.Int64, 2), {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}),
    "List": (pl.List(pl.Date()), {"type": "array", "items": {"type": "string", "format": "date"}}),
}  # fmt: skip


@pytest.mark.parametrize("case", DTYPES)
def test_schema_of_dtype(case):
    column, expected = DTYPES[case]
    found = sent(pl.Struct({"x": column}))["properties"]["x"]
    assert expected.items() <= found.items()
    assert set(found) - set(expected) <= {"minimum", "maximum"}
    assert dtype(pl.Struct({"x": column})) == pl.Struct({"x": column})
    assert dtype(pl.Schema({"x": column})) == pl.Struct({"x": column})


@pytest.mark.parametrize(
    "column",
    [pl.Binary(), pl.Object(), pl.Array(pl.Enum(["a"]), 1), pl.Null(), pl.Int128(), pl.Datetime("ns"), pl.Duration("ns"), pl.Enum([]), pl.Struct([]), pl.List],
    ids=str,
)  # fmt: skip
def test_unsupported_dtypes_are_refused(column):
    assert refusal(pl.Struct({"x": pl.List(column)} if isinstance(column, pl.DataType) else {"x": column})).startswith(
        "response_format, at $.x"
    )


def test_dtype_classes():
    assert dtype(pl.Struct({"x": pl.Datetime, "y": pl.List(pl.Duration)})) == pl.Struct(
        {"x": pl.Datetime("us"), "y": pl.List(pl.Duration("us"))}
    )
    for name, message in (("Decimal", "such as pl.Decimal(12, 2)"), ("List", "such as pl.List(pl.String)"),
                       ("Binary", "Use pl.String, or another"), ("Int128", "Use pl.String, or another")):  # fmt: skip
        assert message in refusal(pl.Struct({"x": getattr(pl, name)}))


def test_integers_are_bounded_by_their_dtype():
    values, problems = read(pl.Struct({"x": pl.UInt8}), {"x": 255}, {"x": 256}, {"x": -1}, {"x": 7.0})
    assert values == [{"x": 255}, None, None, {"x": 7}]
    assert problems[1:3] == [
        "$.x: expected integer <= 255, got number 256",
        "$.x: expected integer >= 0, got number -1",
    ]
    assert read(one_property(type="integer"), {"x": 2**63})[1] == [
        f"$.x: expected integer <= {2**63 - 1}, got number {2**63}"
    ]
    assert read(pl.Struct({"x": pl.Float32}), {"x": 1e39})[1][0].startswith("$.x: expected number <= 3.40282346")


def test_datetimes():
    naive = pl.Struct({"x": pl.Datetime("us")})
    noon = dt.datetime(2024, 1, 1, 12, tzinfo=dt.timezone.utc)
    for text in (
        "2024-01-01T12:00:00Z",
        "2024-01-01T12:00:00",
        "2024-01-01T14:00:00+02:00",
        "2024-01-01 12:00:00.000Z",
    ):
        assert read(one_property(type="string", format="date-time"), {"x": text}) == ([{"x": noon}], [None])
        assert read(naive, {"x": text}) == ([{"x": noon.replace(tzinfo=None)}], [None])
    (berlin,), _ = read(pl.Struct({"x": pl.Datetime("us", "Europe/Berlin")}), {"x": "2024-01-01T12:00:00Z"})
    assert (berlin["x"], berlin["x"].hour) == (noon, 13)
    for text in ("12:30:00", "12:30:00Z", "12:30:00+05:00"):
        assert read(one_property(type="string", format="time"), {"x": text}) == ([{"x": dt.time(12, 30)}], [None])
    durations = {
        "P1DT2H": dt.timedelta(days=1, hours=2),
        "P2W": dt.timedelta(weeks=2),
        "PT0.5S": dt.timedelta(seconds=0.5),
    }
    for text, expected in durations.items():
        assert read(one_property(type="string", format="duration"), {"x": text}) == ([{"x": expected}], [None])
    wrong = {"date": "2024-02-30", "date-time": "2024-01-01", "time": "noon", "duration": "P1Y"}
    for form, text in wrong.items():
        _, (problem,) = read(one_property(type="string", format=form), {"x": text})
        assert re.fullmatch(rf'\$\.x: expected a .+, got string "{text}"', problem)


# -- answers


SHAPE = pl.Struct(
    {"label": pl.Enum(["a", "b"]), "items": pl.List(pl.Struct({"price": pl.Float64, "is new": pl.Boolean}))}
)
GOOD = {"label": "a", "items": [{"price": 1, "is new": True}]}
MISFITS = {
    "a text for a number": (GOOD | {"items": [*GOOD["items"], {"price": "12", "is new": True}]}, '$.items[1].price: expected number, got string "12"'),
    "a number for a boolean": (GOOD | {"items": [{"price": 1, "is new": 1}]}, "$.items[0]['is new']: expected boolean, got number 1"),
    "a boolean for a number": (GOOD | {"items": [{"price": True, "is new": True}]}, "$.items[0].price: expected number, got true"),
    "null": (GOOD | {"items": None}, "$.items: expected array, got null"),
    "null for an item": (GOOD | {"items": [None]}, "$.items[0]: expected object, got null"),
    "another label": (GOOD | {"label": "c"}, '$.label: expected one of "a", "b", got string "c"'),
    "too little": ({"label": "a"}, "$.items: is missing"),
    "too much": (GOOD | {"more": 1}, "$.more: is not a property of this object"),
    "an array": ([GOOD], "$: expected object, got array"),
    "fenced": (f"```json\n{json.dumps(GOOD)}\n```", '$: not JSON (invalid character (byte 0)), got string "```json'),
    "cut": (json.dumps(GOOD)[:-5], "$: not JSON (Input data was truncated), got string"),
    "two answers": (json.dumps(GOOD) * 2, "$: not JSON (trailing characters"),
    "nothing": ("", '$: not JSON (Input data was truncated), got string ""'),
    "words": ("Sure!", '$: not JSON (invalid character (byte 0)), got string "Sure!"'),
    "long": (GOOD | {"label": "x" * 999}, '$.label: expected one of "a", "b", got string "' + "x" * 58 + "…"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISFITS)
def test_invalid_answer_error_gives_path_and_reason(case):
    text, message = MISFITS[case]
    values, problems = read(SHAPE, GOOD, text, None)
    assert values == [{"label": "a", "items": [{"price": 1.0, "is new": True}]}, None, None]
    assert problems[1].startswith(message)
    assert (problems[0], problems[2]) == (None, None)


def test_no_answers():
    assert read(SHAPE) == ([], [])
    assert read(SHAPE, None, None) == ([None, None], [None, None])


def test_null_object_differs_from_object_of_nulls():
    shape = model(Optional[Address])
    assert read(shape, {"x": None}, {"x": {"street": "a", "city": None}})[0] == [
        {"x": None},
        {"x": {"street": "a", "city": None}},
    ]
    lists = model(Optional[list[Optional[Address]]])
    assert read(lists, {"x": None}, {"x": []}, {"x": [None]})[0] == [{"x": None}, {"x": []}, {"x": [None]}]


def test_last_duplicate_key_wins():
    assert read(one_property(type="integer"), '{"x":1,"x":2}') == ([{"x": 2}], [None])


def test_decoding_with_another_type():
    rows = [
        ("a", json.dumps(GOOD), "stop", None, None, None),
        ("b", "{", "length", None, None, None),
        ("c", "{}", "stop", None, None, None),
        ("d", None, "stop", "refusal", "no", None),
        ("e", None, "tool_calls", None, None, None),
    ]
    names = ["custom_id", "response", "finish_reason", "code", "message", "pieces"]
    answers = pl.DataFrame(rows, schema={name: ANSWER_SCHEMA[name] for name in names}, orient="row")
    found = AnswerFormat(answer_type=answer_type(SHAPE)).decoded(answers)
    assert found.columns == names
    assert found["response"].dtype == SHAPE
    assert found["response"].is_null().to_list() == [False, True, True, True, True]
    assert found["code"].to_list() == [None, "invalid_response", "invalid_response", "refusal", None]
    assert found["message"][1].startswith(
        "the answer was cut by the token limit (finish_reason length), so raise max_completion_tokens: $: not JSON"
    )
    assert found["message"].to_list()[2:] == ["$.label: is missing", "no", None]


def test_answer_type_round_trips_through_json():
    for value in (Invoice, TREE, SHAPE, pl.Struct({name: column for name, (column, _) in DTYPES.items()})):
        before = answer_type(value)
        assert before.decoder.dtype == dtype(value)  # derived, and not part of the record
        after = msgspec.json.decode(msgspec.json.encode(before), type=AnswerType)
        assert after == before
        assert after.decoder.dtype == before.decoder.dtype


# -- arbitrary schemas


def values_of(column):  # noqa: PLR0911
    """Return a strategy of column values, each with its JSON value."""
    if isinstance(column, pl.Struct):
        fields = {field.name: values_of(field.dtype) for field in column.fields}
        return st.fixed_dictionaries(fields).map(
            lambda pairs: tuple({name: pair[side] for name, pair in pairs.items()} for side in (0, 1))
        )
    if isinstance(column, (pl.List, pl.Array)):
        size = {"min_size": column.size, "max_size": column.size} if isinstance(column, pl.Array) else {"max_size": 3}
        return st.lists(values_of(column.inner), **size).map(
            lambda pairs: tuple([pair[side] for pair in pairs] for side in (0, 1))
        )
    if column.is_integer():
        low, high = -(2**63), 2**63 - 1
        if str(column) not in {"Int64", "UInt64"}:
            low, high = (
                pl.select(bound(column)).item() for bound in (lambda kind: kind.min(), lambda kind: kind.max())
            )
        return st.integers(max(low, 0) if column.is_unsigned_integer() else low, high).map(lambda value: (value, value))
    if column.is_float():
        return st.floats(allow_nan=False, allow_infinity=False, width=32 if column == pl.Float32 else 64).map(
            lambda value: (value, value)
        )
    if isinstance(column, pl.Enum):
        return st.sampled_from(column.categories.to_list()).map(lambda value: (value, value))
    if isinstance(column, pl.Decimal):
        most = decimal.Decimal(10**column.precision - 1).scaleb(-column.scale)
        return st.decimals(-most, most, places=column.scale, allow_nan=False).map(lambda value: (value, f"{value:f}"))
    if isinstance(column, pl.Datetime):
        return st.datetimes(*(dt.datetime.fromisoformat(day) for day in ("1900-01-01", "2100-01-01"))).map(
            lambda value: (value.replace(microsecond=0), value.replace(microsecond=0).isoformat() + "Z")
        )
    if isinstance(column, pl.Duration):
        return (
            st.integers(-(10**9), 10**9)
            .map(lambda n: dt.timedelta(seconds=n))
            .map(lambda value: (value, msgspec.to_builtins(value)))
        )
    plain = {pl.Boolean: st.booleans(), pl.Date: st.dates(), pl.Time: st.times()}
    found = next(
        (strategy for kind, strategy in plain.items() if column == kind),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    )
    return found.map(lambda value: (value, value.isoformat() if isinstance(value, (dt.date, dt.time)) else value))


leaves = st.sampled_from(
    [column for column, _ in DTYPES.values()]
    + [pl.String(), pl.Boolean(), pl.Date(), pl.Time(), pl.Datetime("us", "UTC")]
)
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters='"\\', min_codepoint=32), max_size=6)


def _is_plain(column):
    return not holds(column, pl.Categorical, pl.Enum)


def structs(inner):
    return st.dictionaries(names, inner, min_size=1, max_size=4).map(pl.Struct)


columns = st.recursive(
    leaves,
    lambda inner: structs(inner) | inner.map(pl.List) | st.builds(pl.Array, inner.filter(_is_plain), st.integers(1, 3)),
    max_leaves=6,
)


@given(structs(columns).flatmap(lambda shape: st.tuples(st.just(shape), st.lists(values_of(shape), max_size=5))))
def test_values_of_a_dtype_round_trip(case):
    shape, rows = case
    sent(shape)
    texts = pl.Series([msgspec.json.encode(answer_value).decode() for _, answer_value in rows], dtype=pl.String)
    values, problems = answer_type(shape).decoder.decode(texts)
    assert problems.null_count() == len(rows), problems
    expected = pl.Series([value for value, _ in rows], dtype=_as_lists(_without_zones(shape)))
    for step in (_as_lists(_in_utc(shape)), _as_lists(shape), shape):
        expected = expected.cast(step)
    assert_series_equal(values, expected, check_names=False)


def _mapped(column, change):
    if isinstance(column, pl.Struct):
        return pl.Struct({field.name: _mapped(field.dtype, change) for field in column.fields})
    if isinstance(column, pl.List):
        return pl.List(_mapped(column.inner, change))
    if isinstance(column, pl.Array):
        return pl.Array(_mapped(column.inner, change), column.size)
    return change(column) if isinstance(column, pl.Datetime) else column


def _without_zones(column):
    return _mapped(column, lambda found: pl.Datetime(found.time_unit))


def _in_utc(column):
    return _mapped(column, lambda found: pl.Datetime(found.time_unit, found.time_zone and "UTC"))


def schemas():
    """Return a strategy of JSON schemas, most of them valid."""
    limits = {
        "integer": ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"],
        "string": ["minLength", "maxLength"],
    }
    limits["number"] = limits["integer"]
    leaf = st.sampled_from(["string", "integer", "number", "boolean", "null"]).flatmap(
        lambda kind: st.fixed_dictionaries(
            {"type": st.just(kind)}, optional={name: st.integers(1, 9) for name in limits.get(kind, [])}
        )
    ) | st.builds(
        lambda values: {"enum": values},
        st.lists(st.sampled_from(["a", "b", 1, 2, 1.5, True, None]), min_size=1, max_size=3),
    )

    def more(inner):
        properties = st.dictionaries(st.sampled_from(["a", "b", "c d"]), inner, min_size=1, max_size=3)
        closed = properties.flatmap(
            lambda found: st.lists(st.sampled_from([*found]), unique=True).map(
                lambda required: {"type": "object", "properties": found, "required": required}
            )
        )
        arrays = st.fixed_dictionaries(
            {"type": st.just("array"), "items": inner},
            optional={"minItems": st.integers(0, 1), "maxItems": st.integers(1, 2)},
        )
        return closed | arrays | st.lists(inner, min_size=1, max_size=3).map(lambda options: {"anyOf": options})

    return st.recursive(leaf, more, max_leaves=5).map(lambda schema: one_property(**schema))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 12)
    | st.sampled_from([1.0, 2.5, 1e30, "a", "b", "", "long text", "2024-01-01"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b", "c d"]), inner, max_size=3),
    max_leaves=6,
)


@given(schemas(), st.lists(json_values, max_size=6))
@example(
    one_property(
        anyOf=[{"type": "string"}, {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": []}]
    ),
    [{"a": None}],
)
def test_fast_and_slow_decoders_agree(schema, answers):
    parsed = answer_type(schema)
    sent(schema)
    root = parsed.decoder._root
    for value in answers:
        text = json.dumps({"x": value})
        values, problems = parsed.decoder.decode(pl.Series([text]))
        assert (problems[0] is None) == root.fits(json.loads(text)) == _conforms({"x": value}, parsed.schema)
        if problems[0] is None:
            array = root.array([root.read(json.loads(text), "$")])
            assert_series_equal(pl.Series(pl.from_arrow(array)).cast(values.dtype), values, check_names=False)


def _conforms(value, schema):  # noqa: PLR0911
    """Whether a value conforms to a JSON schema, checked naively; integers have 64 bits."""
    if "anyOf" in schema:
        return any(_conforms(value, option) for option in schema["anyOf"])
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    kinds = {
        "object": isinstance(value, dict),
        "array": isinstance(value, list),
        "string": isinstance(value, str),
        "boolean": isinstance(value, bool),
        "null": value is None,
        "number": is_number,
        "integer": is_number and float(value).is_integer() and abs(value) < 2**63,
    }
    if not kinds[schema["type"]]:
        return False
    if "enum" in schema:
        return value in schema["enum"]
    if isinstance(value, dict):
        return value.keys() == schema["properties"].keys() and all(
            _conforms(value[name], inner) for name, inner in schema["properties"].items()
        )
    if isinstance(value, list):
        return schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", 9) and all(
            _conforms(item, schema["items"]) for item in value
        )
    if isinstance(value, str):
        return schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 99)
    if not is_number:
        return True
    return (
        schema.get("minimum", -math.inf) <= value <= schema.get("maximum", math.inf)
        and schema.get("exclusiveMinimum", -math.inf) < value < schema.get("exclusiveMaximum", math.inf)
        and math.isclose(
            value / schema.get("multipleOf", value or 1), round(value / schema.get("multipleOf", value or 1))
        )
    )


keywords = st.sampled_from(["type", "properties", "items", "anyOf", "enum", "const", "$ref", "$defs", "required", "allOf", "minimum", "pattern",
                            "description", "additionalProperties", "format", "title", "not", "x-a"])  # fmt: skip
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["object", "string", "array", "#", "#/$defs/a", "a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(keywords, inner, max_size=4)
        | st.dictionaries(st.just("a"), inner)
    ),
    max_leaves=12,
)


@given(st.dictionaries(keywords, anything, max_size=5))
def test_any_dict_is_accepted_or_refused(schema):
    try:
        parsed = answer_type(schema)
    except OptionError as error:
        assert str(error).startswith("response_format")  # noqa: PT017
    else:
        sent(schema)
        assert isinstance(parsed.decoder.dtype, pl.Struct)
