"""Any text is escaped in the request line and decodes to itself."""

from __future__ import annotations

import json
import math
import warnings

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import batchframe as bf

NASTY = ["", "{", "}", "{x}", "{{x}}", '"', "\\", '\\"', "\\u0000", "\x00", "\x1f", "\x7f", "\n", "\r\n", "\u0085",
         "\u2028\u2029", "\ufeff", "\ufffe", "\U0010ffff", "😀👩‍👧", "e\u0301",
         "</script>", "null", "%s", "\t"]  # fmt: skip
texts = st.text(st.characters(exclude_categories=("Cs",))) | st.sampled_from(NASTY)
# A field name may contain anything but braces.
names = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="{}"), min_size=1).filter(
    lambda name: not name.startswith("batchframe:")
)
relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def lines(frame, prompt, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bf.BatchframeWarning)
        return bf.requests(frame, prompt, model="m", **options)["request"].to_list()


def decoded(line):
    """Decode a line after checking that it is one line of UTF-8."""
    assert not {"\n", "\r"} & set(line)
    return json.loads(line.encode("utf-8"))


@relaxed
@given(st.lists(texts, min_size=1, max_size=20))
@example(NASTY)
def test_cells_survive_in_templates(cells):
    frame = pl.DataFrame({"x": cells})
    got = [decoded(line)["body"]["messages"] for line in lines(frame, "a {x} b{{x}}")]
    assert got == [[{"role": "user", "content": f"a {cell} b{{x}}"}] for cell in cells]


@relaxed
@given(st.lists(texts, min_size=1, max_size=20))
@example(NASTY)
def test_cells_survive_in_messages_and_parameters(cells):
    frame = pl.DataFrame({"x": cells})
    messages = [{"role": "system", "content": pl.col("x")}, {"role": "user", "content": "{x}"}]
    got = [decoded(line)["body"] for line in lines(frame, messages, user=pl.col("x"), stop=pl.concat_list("x", "x"))]
    assert got == [
        {
            "model": "m",
            "messages": [{"role": "system", "content": cell}, {"role": "user", "content": cell}],
            "stop": [cell, cell],
            "user": cell,
        }
        for cell in cells
    ]


@relaxed
@given(texts, texts, texts)
@example('"', "\\", "\u2028")
@example("{{", "}}", "{")
def test_constants_survive_in_all_places(literal, system, value):
    def doubled(text):
        return text.replace("{", "{{").replace("}", "}}")

    frame = pl.DataFrame({"x": ["1"]})
    (line,) = lines(frame, doubled(literal) + "{x}", system=doubled(system), extra_body={value: [value]})
    assert decoded(line)["body"] | {value: [value]} == {
        "model": "m",
        "messages": [{"role": "system", "content": system}, {"role": "user", "content": literal + "1"}],
        value: [value],
    }


@relaxed
@given(names, texts)
@example("*", "x")
@example("^.*$", "x")
@example("a:b", "x")
@example("a!r", "x")
@example("a.b", "x")
@example(" ", "x")
@example('"', "x")
def test_column_and_field_names_survive(name, cell):
    frame = pl.DataFrame({name: [cell]})
    (line,) = lines(frame, f"<{{{name}}}>")
    assert decoded(line)["body"]["messages"][0]["content"] == f"<{cell}>"
    inside = frame.select(pl.struct(pl.all()).alias("s"))
    (line,) = lines(inside, f"{{s.{name}}}", extra_body={"p": pl.col("s")})
    assert decoded(line)["body"]["messages"][0]["content"] == cell
    assert decoded(line)["body"]["p"] == {name: cell}


@relaxed
@given(st.lists(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=64), min_size=1, unique=True))
@example(["\x00", '"', "\\", "é" * 64, "\u2028"])
def test_custom_ids_survive(ids):
    frame = pl.DataFrame({"id": ids})
    rows = bf.requests(frame, "{id}", model="m", custom_id="id")
    assert rows["custom_id"].to_list() == ids
    assert [decoded(line)["custom_id"] for line in rows["request"]] == ids


# No Enum: Polars panics on an Enum in an Array in a Struct.
values = {
    pl.String(): texts,
    pl.Int64(): st.integers(-(2**63), 2**63 - 1),
    pl.Float64(): st.floats(allow_nan=False, allow_infinity=False),
    pl.Float32(): st.floats(allow_nan=False, allow_infinity=False, width=32),
    pl.Boolean(): st.booleans(),
    # Polars cannot build larger ones from Python in a List; test_dtypes.py covers them.
    pl.Int128(): st.integers(-(2**63), 2**63 - 1),
}


@st.composite
def nested(draw, depth=2):
    """Draw a dtype and a strategy for its values."""
    kinds = ["flat"] if depth == 0 else ["flat", "list", "array", "struct"]
    kind = draw(st.sampled_from(kinds))
    if kind == "flat":
        dtype = draw(st.sampled_from(list(values)))
        return dtype, st.none() | values[dtype]
    if kind == "struct":
        fields = draw(st.dictionaries(texts, nested(depth=depth - 1), min_size=1, max_size=3))
        structs = st.fixed_dictionaries({name: value for name, (_, value) in fields.items()})
        return pl.Struct({name: dtype for name, (dtype, _) in fields.items()}), st.none() | structs
    dtype, value = draw(nested(depth=depth - 1))
    if kind == "array":
        return pl.Array(dtype, 2), st.none() | st.lists(value, min_size=2, max_size=2)
    return pl.List(dtype), st.none() | st.lists(value, max_size=3)


@relaxed
@given(st.data())
def test_nested_values_round_trip(data):
    dtype, cell_values = data.draw(nested(depth=3))
    cells = data.draw(st.lists(cell_values, min_size=1, max_size=4))
    frame = pl.DataFrame({"x": pl.Series(cells, dtype=dtype), "t": "t"})
    python = frame["x"].to_list()
    for cell, line in zip(python, lines(frame, "{t}", extra_body={"p": pl.col("x")}), strict=True):
        body = decoded(line)["body"]
        assert ("p" in body) == (cell is not None)
        assert is_equal(body.get("p"), cell), (body.get("p"), cell)


def is_equal(got, cell):
    if isinstance(cell, float):
        # Polars prints a Float32 with its own precision, which is another number as a Float64.
        return isinstance(got, float) and math.isclose(got, cell, rel_tol=1e-6, abs_tol=1e-44)
    if isinstance(cell, dict):
        return isinstance(got, dict) and list(got) == list(cell) and all(is_equal(got[key], cell[key]) for key in cell)
    if isinstance(cell, list):
        return isinstance(got, list) and len(got) == len(cell) and all(map(is_equal, got, cell))
    return type(got) is type(cell) and got == cell


@relaxed
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_are_exact(value):
    (line,) = lines(pl.DataFrame({"x": [value]}), "{x}", temperature=pl.col("x"))
    body = decoded(line)["body"]
    assert body["temperature"] == value
    assert float(body["messages"][0]["content"]) == value


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=10,
)


@relaxed
@given(json_values)
def test_constant_parameters_round_trip(value):
    (line,) = lines(pl.DataFrame({"x": ["1"]}), "{x}", extra_body={"p": value})
    assert decoded(line)["body"]["p"] == value


@pytest.mark.parametrize("half", ["\ud800", "a\udfffb"])
def test_lone_surrogates_are_refused(half):
    frame = pl.DataFrame({"x": ["1"]})
    with pytest.raises(bf.TemplateError, match=r"the prompt contains .*surrogate pair"):
        lines(frame, half + "{x}")
    with pytest.raises(bf.TemplateError, match="surrogate pair"):
        lines(frame, "{x}", system=half)
    for options in ({"user": half}, {"stop": ["a", half]}, {"extra_body": {half: 1}}):
        with pytest.raises(bf.OptionError, match="surrogate pair"):
            lines(frame, "{x}", **options)
    with pytest.raises(bf.OptionError, match=r"model contains .*surrogate pair"):
        bf.requests(frame, "{x}", model=half)
