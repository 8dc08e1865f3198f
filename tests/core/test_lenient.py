"""Lenient JSON: everything that Python's parser reads is read, and only invalid JSON raises."""

from __future__ import annotations

import contextlib
import json
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchframe._core.lenient import integer, read_json

TEXTS = st.text(st.characters(exclude_categories=()), max_size=8)  # including lone surrogates
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def joined(text):
    """Return a text as a parser reads it: adjacent surrogates are joined into a character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def expected(value):
    if isinstance(value, str):
        return joined(value)
    if isinstance(value, list):
        return [expected(inner) for inner in value]
    if isinstance(value, dict):
        return {joined(key): expected(inner) for key, inner in value.items()}
    return value


@given(VALUES)
def test_reads_json_written_by_python(value):
    assert repr(read_json(json.dumps(value))) == repr(expected(json.loads(json.dumps(value))))


@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_only_decode_errors_are_raised(data):
    with contextlib.suppress(msgspec.DecodeError):
        read_json(data)


def test_reads_non_strict_json():
    assert read_json(rb'{"a": "\ud83d \\ud83d \ud83d\ude00", "b": [NaN, -Infinity, 1e999]}') == {
        "a": "\ufffd \\ud83d \U0001f600",
        "b": [pytest.approx(math.nan, nan_ok=True), -math.inf, math.inf],
    }
    assert read_json(b'\xef\xbb\xbf{"a": "\xff\t"}') == {"a": "\ufffd\t"}
    assert read_json('{"a": ' + "9" * 5_000 + "}") == {"a": math.inf}


@pytest.mark.parametrize("depth", [150, 2_000, 100_000])
def test_deeply_nested_value_does_not_affect_others(depth):
    text = '{"a": 1, "deep": ' + '[{"x": "]}" , "y": ' * depth + "1" + "}]" * depth + ', "b": [2]}'
    value = read_json(text.encode())
    assert (value["a"], value["b"]) == (1, [2])
    if depth > 1_000:
        with pytest.raises(RecursionError):
            read_json(text, whole=True)


@pytest.mark.parametrize("text", ["", "{", '{"a": 01}', "{}{}", "[" * 5_000, '"' + "[" * 5_000, '{"a": NaNa}', "\x00"])
def test_invalid_json_is_refused(text):
    with pytest.raises(msgspec.DecodeError):
        read_json(text)


@pytest.mark.parametrize(
    ("value", "count"),
    [(3, 3), (3.0, 3), (-(2**63), -(2**63)), (2**63, None), (1e30, None), (3.5, None), (math.nan, None),
     (math.inf, None), (True, None), ("3", None), (None, None)],
)  # fmt: skip
def test_integer(value, count):
    assert integer(value) == count
    assert integer(value) is None or type(integer(value)) is int
