"""The text of each dtype in a template, in a message and as a parameter. Expected texts are written by hand."""

# ruff: noqa: E501  (one line a case)

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from typing import NamedTuple

import polars as pl
import pytest

import batchframe as bf
from each import each

NAN, INFINITY = float("nan"), float("inf")
START = '{"custom_id":"row-%d","method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":'
INVALID = object()


class Case(NamedTuple):
    """Values of a dtype, with the text of each in a prompt and its JSON in a body."""

    dtype: object
    values: list[object]
    texts: list[object]
    jsons: list[object]


def of(dtype, *triples):
    values, texts, jsons = zip(*triples, strict=True)
    return Case(dtype, list(values), list(texts), list(jsons))


def same(dtype, *pairs):
    """Return a case whose JSON equals its text."""
    return of(dtype, *[(value, text, text) for value, text in pairs])


def quoted(dtype, *pairs):
    """Return a case whose JSON is its text in quotes."""
    return of(dtype, *[(value, text, f'"{text}"') for value, text in pairs])


def nested(dtype, *pairs):
    return same(dtype, *pairs)


NOON_UTC = dt.datetime(2024, 7, 1, 12, tzinfo=dt.timezone.utc)
LATE_UTC = dt.datetime(2024, 1, 31, 23, 59, 59, 123000, tzinfo=dt.timezone.utc)
NOON, LATE = NOON_UTC.replace(tzinfo=None), LATE_UTC.replace(tzinfo=None)
HOUR = dt.timedelta(hours=1)

CASES = {
    "Int8": same(pl.Int8, (-128, "-128"), (127, "127")),
    "Int16": same(pl.Int16, (-32768, "-32768"), (32767, "32767")),
    "Int32": same(pl.Int32, (-2147483648, "-2147483648"), (0, "0")),
    "Int64": same(pl.Int64, (-9223372036854775808, "-9223372036854775808"), (9223372036854775807, "9223372036854775807")),
    "Int128": same(pl.Int128, (-(2**127), "-170141183460469231731687303715884105728"), (7, "7")),
    "UInt8": same(pl.UInt8, (0, "0"), (255, "255")),
    "UInt16": same(pl.UInt16, (0, "0"), (65535, "65535")),
    "UInt32": same(pl.UInt32, (0, "0"), (4294967295, "4294967295")),
    "UInt64": same(pl.UInt64, (0, "0"), (18446744073709551615, "18446744073709551615")),
    "UInt128": same(pl.UInt128, (2**128 - 1, "340282366920938463463374607431768211455"), (0, "0")),
    "Float16": same(pl.Float16, (1.5, "1.5"), (-0.0, "-0.0"), (2.0, "2.0")),
    "Float32": same(pl.Float32, (0.1, "0.1"), (1.0, "1.0"), (-2.5, "-2.5")),
    "Float64": same(pl.Float64, (0.1, "0.1"), (1e22, "1e+22"), (1e-7, "1e-7"), (-0.0, "-0.0"), (100.0, "100.0")),
    "Float64 without JSON": of(pl.Float64, (NAN, "NaN", INVALID), (INFINITY, "inf", INVALID), (-INFINITY, "-inf", INVALID)),
    "Float32 without JSON": of(pl.Float32, (NAN, "NaN", INVALID), (INFINITY, "inf", INVALID)),
    "Float16 without JSON": of(pl.Float16, (NAN, "NaN", INVALID), (INFINITY, "inf", INVALID)),
    "Boolean": same(pl.Boolean, (True, "true"), (False, "false")),
    "String": of(pl.String, ("", "", '""'), ('a"b\\c\n', 'a"b\\c\n', r'"a\"b\\c\n"'), ("{x} é 😀", "{x} é 😀", '"{x} é 😀"')),
    "Date": quoted(pl.Date, (dt.date(2024, 2, 29), "2024-02-29"), (dt.date(1, 1, 1), "0001-01-01")),
    "Time": quoted(pl.Time, (dt.time(1, 2, 3), "01:02:03"), (dt.time(23, 59, 59, 5), "23:59:59.000005"), (dt.time(), "00:00:00")),
    "Datetime ms": quoted(pl.Datetime("ms"), (NOON, "2024-07-01T12:00:00"), (LATE, "2024-01-31T23:59:59.123")),
    "Datetime us": quoted(pl.Datetime("us"), (NOON, "2024-07-01T12:00:00"), (LATE, "2024-01-31T23:59:59.123")),
    "Datetime ns": quoted(pl.Datetime("ns"), (NOON, "2024-07-01T12:00:00"), (LATE, "2024-01-31T23:59:59.123")),
    "Datetime ms UTC": quoted(pl.Datetime("ms", "UTC"), (NOON_UTC, "2024-07-01T12:00:00+00:00")),
    "Datetime us UTC": quoted(pl.Datetime("us", "UTC"), (LATE_UTC, "2024-01-31T23:59:59.123+00:00")),
    "Datetime ns UTC": quoted(pl.Datetime("ns", "UTC"), (NOON_UTC, "2024-07-01T12:00:00+00:00")),
    "Datetime ms Berlin": quoted(pl.Datetime("ms", "Europe/Berlin"), (NOON_UTC, "2024-07-01T14:00:00+02:00")),
    "Datetime us Berlin": quoted(pl.Datetime("us", "Europe/Berlin"), (LATE_UTC, "2024-02-01T00:59:59.123+01:00")),
    "Datetime ns Berlin": quoted(pl.Datetime("ns", "Europe/Berlin"), (NOON_UTC, "2024-07-01T14:00:00+02:00")),
    "Duration ms": quoted(pl.Duration("ms"), (HOUR, "PT1H"), (-HOUR, "-PT1H"), (dt.timedelta(), "PT0S")),
    "Duration us": quoted(pl.Duration("us"), (25 * HOUR, "P1DT1H"), (dt.timedelta(microseconds=-1), "-PT0.000001S")),
    "Duration ns": quoted(pl.Duration("ns"), (dt.timedelta(seconds=90, milliseconds=5), "PT1M30.005S"), (24 * HOUR, "P1D")),
    "Decimal": same(pl.Decimal(10, 2), (Decimal("1.50"), "1.50"), (Decimal("-0.01"), "-0.01"), (Decimal("0.00"), "0.00")),
    "Decimal of fractions": same(pl.Decimal(5, 5), (Decimal("0.12345"), "0.12345")),
    "Decimal of wholes": same(pl.Decimal(38, 0), (Decimal(10) ** 37, "1" + "0" * 37)),
    "Categorical": of(pl.Categorical, ('a"b', 'a"b', r'"a\"b"'), ("{y}", "{y}", '"{y}"')),
    "Enum": quoted(pl.Enum(["no", "yes"]), ("yes", "yes"), ("no", "no")),
    "List of Int64": nested(pl.List(pl.Int64), ([1, None], "[1,null]"), ([], "[]"), ([None], "[null]")),
    "List of Int128": nested(pl.List(pl.Int128), ([1, None], "[1,null]"), ([], "[]")),
    "List of Float64": of(pl.List(pl.Float64), ([1.0, None], "[1.0,null]", "[1.0,null]"), ([1.0, NAN], INVALID, INVALID), ([INFINITY], INVALID, INVALID)),
    "List of Float16": of(pl.List(pl.Float16), ([1.0, None], "[1.0,null]", "[1.0,null]"), ([NAN], INVALID, INVALID)),
    "List of String": nested(pl.List(pl.String), (['a"', None, ""], r'["a\"",null,""]'), ([], "[]")),
    "List of Boolean": nested(pl.List(pl.Boolean), ([True, None, False], "[true,null,false]")),
    "List of Decimal": nested(pl.List(pl.Decimal(10, 2)), ([Decimal("1.5"), None], "[1.50,null]"), ([], "[]")),
    "List of Date": nested(pl.List(pl.Date), ([dt.date(2024, 1, 2), None], '["2024-01-02",null]')),
    "List of Time": nested(pl.List(pl.Time), ([dt.time(1, 2), None], '["01:02:00",null]')),
    "List of Datetime": nested(pl.List(pl.Datetime("us", "UTC")), ([NOON_UTC, None], '["2024-07-01T12:00:00+00:00",null]')),
    "List of Duration": nested(pl.List(pl.Duration("us")), ([HOUR, None], '["PT1H",null]')),
    "List of Categorical": nested(pl.List(pl.Categorical), (['a"', None], r'["a\"",null]')),
    "List of Enum": nested(pl.List(pl.Enum(["no", "yes"])), (["yes", None], '["yes",null]')),
    "List of Null": nested(pl.List(pl.Null), ([None, None], "[null,null]"), ([], "[]")),
    "List of List": nested(pl.List(pl.List(pl.Decimal(4, 1))), ([[Decimal("1.5")], None, []], "[[1.5],null,[]]"), ([], "[]")),
    "List of List of Float64": of(pl.List(pl.List(pl.Float64)), ([[1.5], None], "[[1.5],null]", "[[1.5],null]"), ([[], [NAN]], INVALID, INVALID)),
    "Array": nested(pl.Array(pl.Int64, 2), ([1, None], "[1,null]")),
    "Array of Decimal": nested(pl.Array(pl.Decimal(4, 1), 2), ([Decimal("1.5"), None], "[1.5,null]")),
    "Array of Float64": of(pl.Array(pl.Float64, 1), ([1.0], "[1.0]", "[1.0]"), ([NAN], INVALID, INVALID)),
    "Array of Array": nested(pl.Array(pl.Date, (2, 1)), ([[dt.date(2024, 1, 2)], [None]], '[["2024-01-02"],[null]]')),
    "Array of nothing": nested(pl.Array(pl.Int64, 0), ([], "[]")),
    "Struct": nested(
        pl.Struct({"a": pl.Int64, 'b"': pl.String}),
        ({"a": 1, 'b"': "x\n"}, r'{"a":1,"b\"":"x\n"}'),
        ({"a": None, 'b"': None}, r'{"a":null,"b\"":null}'),
    ),
    "Struct of others": nested(
        pl.Struct({"d": pl.Decimal(4, 1), "t": pl.Date, "e": pl.Enum(["x"]), "l": pl.List(pl.Duration("us"))}),
        ({"d": Decimal("1.5"), "t": dt.date(2024, 1, 2), "e": "x", "l": [HOUR]}, '{"d":1.5,"t":"2024-01-02","e":"x","l":["PT1H"]}'),
        ({"d": None, "t": None, "e": None, "l": None}, '{"d":null,"t":null,"e":null,"l":null}'),
    ),
    "Struct of Float64": of(
        pl.Struct({"a": pl.Float64}),
        ({"a": 0.5}, '{"a":0.5}', '{"a":0.5}'),
        ({"a": None}, '{"a":null}', '{"a":null}'),
        ({"a": NAN}, INVALID, INVALID),
    ),
    "Struct of Struct": nested(
        pl.Struct({"a": pl.Struct({"b": pl.Date})}),
        ({"a": {"b": dt.date(2024, 1, 2)}}, '{"a":{"b":"2024-01-02"}}'),
        ({"a": {"b": None}}, '{"a":{"b":null}}'),
        ({"a": None}, '{"a":null}'),
    ),
    "Struct with patterns for names": nested(
        pl.Struct({"*": pl.Date, "^.*$": pl.Int64}), ({"*": dt.date(2024, 1, 2), "^.*$": 1}, '{"*":"2024-01-02","^.*$":1}')
    ),
    "List of Struct": nested(
        pl.List(pl.Struct({"a": pl.Int64, "b": pl.Date})),
        ([{"a": 1, "b": dt.date(2024, 1, 2)}, None, {"a": None, "b": None}], '[{"a":1,"b":"2024-01-02"},null,{"a":null,"b":null}]'),
        ([], "[]"),
    ),
}  # fmt: skip
if hasattr(pl, "Map"):
    CASES["Map"] = nested(pl.Map(pl.String, pl.Int64), ({'a"': 1, "b": None}, r'{"a\"":1,"b":null}'), ({}, "{}"))
    CASES["Map of others"] = nested(
        pl.Map(pl.Date, pl.Decimal(4, 1)), ({dt.date(2024, 1, 2): Decimal("1.5")}, '{"2024-01-02":1.5}')
    )
    CASES["Map of Float64"] = of(
        pl.Map(pl.String, pl.Float64), ({"a": 1.0}, '{"a":1.0}', '{"a":1.0}'), ({"a": NAN}, INVALID, INVALID)
    )


def frame_of(case):
    """Return a frame of the values, with a null at the end."""
    return pl.DataFrame({"x": pl.Series([*case.values, None], dtype=case.dtype, strict=False), "t": "t"})


def lines(frame, prompt, **options):
    return bf.requests(frame, prompt, model="m", **options)["request"].to_list()


def content(line):
    return json.loads(line)["body"]["messages"][0]["content"]


def expected(texts, convert):
    return [None if text is INVALID else convert(text) for text in texts]


def test_table_covers_every_polars_dtype():
    def subclass_names(kind):
        return {name for child in kind.__subclasses__() for name in ({child.__name__} | subclass_names(child))}

    abstract = {"NumericType", "IntegerType", "SignedIntegerType", "UnsignedIntegerType", "FloatType", "TemporalType",
                "NestedType", "ObjectType", "Unknown"}  # fmt: skip
    elsewhere = {"Binary", "Object", "Null", "BaseExtension", "Extension"}
    polars = {name for name in subclass_names(pl.DataType) if hasattr(pl, name)} - abstract
    assert polars - elsewhere == {name.split(" ")[0] for name in CASES} & polars
    assert elsewhere <= polars


@each(CASES)
def test_value_in_template(case):
    assert lines(frame_of(case).lazy(), "<{x}>") == lines(frame_of(case), "<{x}>")
    got = [line and content(line) for line in lines(frame_of(case), "<{x}>")]
    assert got == [*expected(case.texts, lambda text: f"<{text}>"), None]


@each(CASES)
def test_rendered_null_in_template(case):
    assert content(lines(frame_of(case), "<{x}>", on_null="render")[-1]) == "<>"


@each(CASES)
def test_value_in_message(case):
    messages = [{"role": "user", "content": pl.col("x")}]
    got = [line and content(line) for line in lines(frame_of(case), messages)]
    assert got == [*expected(case.texts, str), None]


@each(CASES)
def test_struct_field_in_template(case):
    frame = frame_of(case).select(pl.struct("x").alias("s"))
    got = [line and content(line) for line in lines(frame, "{s.x}")]
    assert got == [*expected(case.texts, str), None]


@each(CASES)
def test_value_as_parameter(case):
    got = lines(frame_of(case), "{t}", extra_body={"p": pl.col("x")})
    heads = [START % row + '[{"role":"user","content":"t"}]' for row in range(len(got))]
    expected_lines = [
        None if text is INVALID else f'{head},"p":{text}}}}}' for head, text in zip(heads, case.jsons, strict=False)
    ]
    assert got == [*expected_lines, heads[-1] + "}}"]


@each(CASES)
def test_null_in_list(case):
    frame = frame_of(case).select(pl.col("x").implode(), pl.lit("t").alias("t"))
    (line,) = lines(frame, "{t}", extra_body={"p": pl.col("x")})
    if INVALID in case.jsons:
        assert line is None
    else:
        inner = ",".join([*case.jsons, "null"])
        assert line == START % 0 + f'[{{"role":"user","content":"t"}}],"p":[{inner}]}}}}'


@each(CASES)
def test_value_in_struct(case):
    frame = frame_of(case).select(pl.struct("x").alias("x"), "t")
    got = lines(frame, "{x}")
    assert [line and content(line) for line in got] == [*expected(case.jsons, '{{"x":{}}}'.format), '{"x":null}']


def test_null_column():
    frame = pl.DataFrame({"x": [None, None], "t": ["t", "t"]})
    assert lines(frame, "<{x}>") == [None, None]
    assert [content(line) for line in lines(frame, "<{x}>", on_null="render")] == ["<>", "<>"]
    assert all('"p"' not in line for line in lines(frame, "{t}", extra_body={"p": pl.col("x")}))


@pytest.mark.parametrize(
    "dtype",
    [
        pl.Binary,
        pl.List(pl.Binary),
        pl.Array(pl.Binary, 1),
        pl.Struct({"b": pl.Binary}),
        pl.List(pl.Struct({"b": pl.List(pl.Binary)})),
    ],
    ids=str,
)
def test_binary_is_refused(dtype):
    frame = pl.DataFrame({"x": pl.Series([None], dtype=dtype), "t": ["t"]})
    with pytest.raises(bf.TemplateError, match=r"column 'x' has dtype .*Binary.* no text.*base64"):
        lines(frame, "{x}")
    with pytest.raises(bf.TemplateError, match=r"message 0 has dtype .*Binary"):
        lines(frame, [{"role": "user", "content": pl.col("x")}])
    with pytest.raises(bf.TemplateError, match=r"stop has dtype .*Binary"):
        lines(frame, "{t}", stop=pl.col("x"))
    assert content(lines(frame, "{t}")[0]) == "t"  # an unused column is not checked


def test_object_is_refused():
    frame = pl.DataFrame({"x": pl.Series([object()], dtype=pl.Object), "t": ["t"]})
    with pytest.raises(bf.InputError, match=r"column 'x' has dtype Object, .*: drop it, or cast it"):
        lines(frame, "{t}")


@pytest.mark.parametrize("dtype", [pl.Struct({}), pl.List(pl.Struct({"a": pl.Struct({})}))], ids=str)
def test_struct_without_fields_is_refused(dtype):
    frame = pl.DataFrame({"x": pl.Series([None], dtype=dtype), "t": ["t"]})
    with pytest.raises(
        bf.InputError, match=r"column 'x' has dtype .*, and Parquet cannot hold a Struct without fields"
    ):
        lines(frame, "{t}")


def test_extension_type_uses_its_storage():
    class Name(pl.BaseExtension):
        def __init__(self):
            super().__init__("batchframe.test.name", pl.String, None)

    frame = pl.DataFrame({"x": pl.Series(['a"', None]).ext.to(Name())})
    assert frame.schema["x"] == Name()
    assert [line and content(line) for line in lines(frame, "<{x}>")] == ['<a">', None]
    (line,) = lines(frame.select(pl.struct("x")).head(1), "{x}")
    assert content(line) == r'{"x":"a\""}'


def test_null_array_does_not_shift_values():
    # json_encode of polars 1.37.1 gives row 1 the values of row 0, and row 2 those of row 1.
    frame = pl.DataFrame({"x": pl.Series([None, ["a", None], ["b", ""]], dtype=pl.Array(pl.String, 2)), "t": "t"})
    assert [line and content(line) for line in lines(frame, "{x}")] == [None, '["a",null]', '["b",""]']
    inside = frame.select(pl.struct("x").alias("s"))
    assert [content(line) for line in lines(inside, "{s}")] == ['{"x":null}', '{"x":["a",null]}', '{"x":["b",""]}']


def test_invalid_list_value_fails_only_its_row():
    frame = pl.DataFrame({"x": [[1.0], [NAN], [2.0]], "t": ["a", "b", "c"]})
    assert [line is None for line in lines(frame, "{t}", extra_body={"p": pl.col("x")})] == [False, True, False]


FAR = 2**31 - 1  # days; DuckDB's infinity


@pytest.mark.parametrize(
    "column",
    [
        pl.Series([FAR, -FAR, None], dtype=pl.Int32).cast(pl.Date),
        *(
            pl.Series([2**63 - 1, -(2**63) + 1, None]).cast(pl.Datetime(unit, zone))
            for unit in ("ms", "us")
            for zone in (None, "Europe/Paris")
        ),
    ],
    ids=lambda column: str(column.dtype),
)
def test_out_of_range_date_fails_its_row(column):
    near = pl.Series([1]).cast(column.dtype)
    frame = pl.DataFrame({"x": pl.concat([near, column]), "t": "t"})
    is_sent = [True, False, False]
    assert [line is not None for line in lines(frame, "{x}")] == [*is_sent, False]
    assert [line is not None for line in lines(frame, [{"role": "user", "content": pl.col("x")}])] == [*is_sent, False]
    assert [line is not None for line in lines(frame, "{t}", extra_body={"p": pl.col("x")})] == [*is_sent, True]
    dtypes = [pl.List(column.dtype), pl.Array(column.dtype, 1), pl.Struct({"x": column.dtype})]
    for dtype in dtypes:
        inside = pl.struct("x") if isinstance(dtype, pl.Struct) else pl.concat_list("x").cast(dtype)
        assert [line is not None for line in lines(frame.select(inside.alias("x")), "{x}")] == [*is_sent, True]


def test_dates_at_the_limits():
    days = pl.Series([95_000_000, -95_000_000], dtype=pl.Int32).cast(pl.Date)
    frame = pl.DataFrame({"x": days})
    assert [content(line) for line in lines(frame, "{x}")] == ["+262071-03-02", "-258132-11-01"]


def test_out_of_range_date_error_message(client):
    frame = pl.DataFrame({"x": pl.Series([0, FAR], dtype=pl.Int32).cast(pl.Date)})
    with pytest.warns(bf.BatchframeWarning, match="invalid_input"):
        out = bf.run(frame, "{x}", model="gpt-4o-mini", client=client, poll_seconds=0.02)
    assert out["error"].to_list() == [
        None,
        {
            "code": "invalid_input",
            "message": "column 'x' contains a date beyond the year 262000, such as DuckDB's infinity",
        },
    ]
