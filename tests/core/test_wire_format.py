"""Request and result lines are written and read correctly for any ids and bodies."""

from __future__ import annotations

import json

import msgspec
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batchframe._core import wire_format

TEXTS = st.text(max_size=30)
HARD_IDS = ['"body":', '{"body":1}', "\\", '"', "}\n", "é\u2028", ""]


def line_of(custom_id, body):
    ids, bodies = (pl.Series([msgspec.json.encode(value).decode()]) for value in (custom_id, body))
    expression = wire_format.request_lines(pl.col("id"), "/v1/embeddings", pl.col("body"))
    return pl.DataFrame({"id": ids, "body": bodies}).select(expression).item().encode()


@given(TEXTS, TEXTS, TEXTS)
@example(*HARD_IDS[:3])
@example(*HARD_IDS[3:6])
@example(HARD_IDS[6], HARD_IDS[0], HARD_IDS[1])
def test_request_line_functions_agree_with_json(custom_id, other_id, text):
    body = {"input": text, "body": {"body": text}, "custom_id": text}
    line = line_of(custom_id, body)
    members = {"custom_id": custom_id, "method": "POST", "url": "/v1/embeddings", "body": body}
    assert json.loads(line) == members
    assert line.endswith(b"}\n")

    assert wire_format.custom_id_of_request(line) == custom_id
    assert wire_format.body_of_request(line) == msgspec.json.encode(body)
    assert bytes(wire_format.read_request(line).body) == msgspec.json.encode(body)
    assert wire_format.rename_request(line, other_id) == line_of(other_id, body)
    assert wire_format.replace_body(line, b'{"input":1}') == line_of(custom_id, {"input": 1})


def test_foreign_request_line_becomes_one_of_ours():
    line = b'{ "body": {"b":1, "a":2},\t"method":"POST", "custom_id": "x", "url": "/v1/embeddings" }'
    renamed = wire_format.rename_request(line, 'y"')
    assert json.loads(renamed) == json.loads(line) | {"custom_id": 'y"'}
    assert wire_format.body_of_request(renamed) == b'{"b":1, "a":2}'


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b'{"custom_id":1,"body":{}}', b'{"custom_id":"x"}', b'{"custom_id":"\xff","body":{}}'])  # fmt: skip  # noqa: E501
def test_read_request_returns_none_for_other_lines(line):
    assert wire_format.read_request(line) is None


def test_null_body_gives_null_line():
    rows = pl.DataFrame({"id": ['"a"', '"b"'], "body": ["{}", None]})
    lines = rows.select(wire_format.request_lines(pl.col("id"), "/v1/x", pl.col("body"))).to_series()
    assert lines.to_list() == ['{"custom_id":"a","method":"POST","url":"/v1/x","body":{}}\n', None]


@given(TEXTS, TEXTS)
@example(HARD_IDS[0], HARD_IDS[1])
def test_rename_result_changes_only_the_custom_id(custom_id, other_id):
    members = {"id": "b", "custom_id": custom_id, "response": {"status_code": 200, "body": {"custom_id": "inner"}}}
    line = json.dumps(members).encode()
    assert wire_format.custom_id_of_result(line) == custom_id
    renamed = wire_format.rename_result(line, other_id)
    assert json.loads(renamed) == members | {"custom_id": other_id}
    assert wire_format.custom_id_of_result(renamed) == other_id


@pytest.mark.parametrize(
    ("line", "custom_id"),
    [
        (b'{"custom_id":"x","response":{"score":NaN}}', "x"),
        (b'{"custom_id":"x\\ud800","response":null}', "x\ufffd"),
        (b'\xef\xbb\xbf{"custom_id":"x"}', "x"),
        (b'{"custom_id": "a\\"b", "response": {"status', 'a"b'),
        (b'{"custom_id":"' + b"x" * 10 + b'","response":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "x" * 10),
        (b'{"custom_id":5,"response":{}}', None),
        (b'["custom_id"]', None),
        (b"cut off", None),
        (b"", None),
    ],
)
def test_custom_id_of_odd_result_lines(line, custom_id):
    assert wire_format.custom_id_of_result(line) == custom_id


def test_rename_result_keeps_nan():
    renamed = wire_format.rename_result(b'{"custom_id":"x","response":{"score":NaN}}', "y")
    assert renamed == b'{"custom_id": "y", "response": {"score": NaN}}\n'


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"custom_id":"x","response":{"status_code":200,"body":1,"request_id":"r"},"error":null}', ("x", True, 200, 1, "r", None)),  # noqa: E501
        (b'{"custom_id":"x","response":{"choices":[]}}', ("x", False, None, None, None, None)),
        (b'{"custom_id":"x","response":null,"error":{"code":"c"}}', ("x", False, None, None, None, {"code": "c"})),
        (b'{"response":"text","error":"e"}', (None, False, None, None, None, "e")),
        (b"[]", (None, False, None, None, None, None)),
    ],
)  # fmt: skip
def test_read_result_of_any_shape(line, expected):
    result = wire_format.read_result(line)
    actual = (result.custom_id, result.has_envelope, result.status_code, result.body, result.request_id, result.error)
    assert actual == expected
