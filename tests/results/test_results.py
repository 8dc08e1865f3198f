"""What a result line of any shape says; nothing that a service writes makes the parser raise."""

# ruff: noqa: E501  (a table reads best a case a line)

from __future__ import annotations

import io
import json

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchframe._endpoints.registry import ENDPOINTS
from batchframe._results import result_lines
from batchframe._results.answer_format import AnswerFormat
from batchframe._results.columns import best_answers
from batchframe._results.extra_columns import columns_of_lines
from batchframe._results.result_lines import ANSWER_SCHEMA, read_answers

MESSAGE = {"role": "assistant", "content": "hello"}
USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 7,
    "total_tokens": 12,
    "prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 2},
}


def body(**changes):
    return {
        "model": "m-2024",
        "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}],
        "usage": USAGE,
    } | changes


def line(**changes):
    return {
        "id": "b",
        "custom_id": "x",
        "response": {"status_code": 200, "request_id": "r", "body": body()},
        "error": None,
    } | changes


def response(status=200, **more):
    return {"response": {"status_code": status, "request_id": "r"} | more}


def message(**changes):
    return response(body=body(choices=[{"message": MESSAGE | changes, "finish_reason": "stop"}]))


def written(*lines, end=b"\n"):
    return end.join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines) + end


def read(*lines, end=b"\n"):
    return pl.concat(list(read_answers(io.BytesIO(written(*lines, end=end)))))


def test_good_line():
    (row,) = read(line()).rows(named=True)
    assert row == {
        "custom_id": "x",
        "response": "hello",
        "finish_reason": "stop",
        "input_tokens": 5,
        "output_tokens": 7,
        "total_tokens": 12,
        "cached_tokens": 3,
        "cache_write_tokens": 4,
        "reasoning_tokens": 2,
        "code": None,
        "message": None,
        "again": None,
        "model": "m-2024",
        "request_id": "r",
        "pieces": None,
    }


GOOD = {
    "no usage": response(body=body(usage=None)),
    "no usage details": response(body=body(usage={"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12})),
    "usage of another shape": response(body=body(usage="many")),
    "a number too large": response(body=body(usage={"prompt_tokens": 2**70})),
    "a body as JSON text": response(body=json.dumps(body())),
    "no id, other key order": {"id": None},
    "201": response(201, body=body()),
    "extra keys": {"response": {"status_code": 200, "body": body(prompt_filter_results=[{"x": 1}])}},
    "an error object that says nothing": {"error": {}},
}


@pytest.mark.parametrize("case", GOOD)
def test_other_shapes_of_success(case):
    (row,) = read(line(**GOOD[case])).rows(named=True)
    assert row["code"] is None
    assert row["response"] == "hello"


def test_empty_content_is_an_answer():
    (row,) = read(line(**message(content=""))).rows(named=True)
    assert (row["response"], row["code"]) == ("", None)


def test_tool_calls_without_content_succeed_without_text():
    (row,) = read(line(**message(content=None, tool_calls=[{"id": "1"}]))).rows(named=True)
    assert (row["response"], row["code"]) == (None, None)


BAD = {
    "4xx with error null": (response(400, body={"error": {"code": "bad", "type": "t", "message": "said"}}), "bad", "said"),
    "type where no code": (response(400, body={"error": {"code": None, "type": "t", "message": "said"}}), "t", "said"),
    "neither": (response(418, body={"error": {"message": "said"}}), "http_418", "said"),
    "status 0": (response(0, body={}), "http_0", "the service gave no reason (http_0)"),
    "status 0, body null": (response(0, body=None), "http_0", "the service gave no reason (http_0)"),
    "429": (response(429, body={"error": {"code": "rate_limit_exceeded", "message": "slow"}}), "rate_limit_exceeded", "slow"),
    "body as text": (response(500, body="<html>"), "http_500", "<html>"),
    "message beside": (response(400, body={"message": "flat", "code": "c"}), "c", "flat"),
    "expired": ({"response": None, "error": {"code": "batch_expired", "message": "too late"}}, "batch_expired", "too late"),
    "no response, no error": ({"response": None}, "empty_response", "the line has neither a response nor an error"),
    "response missing": ({"response": 5}, "empty_response", "the line has neither a response nor an error"),
    "body null": (response(body=None), "empty_response", "status 200 without a body"),
    "body empty": (response(body={}), "empty_response", "status 200 without a body"),
    "body empty text": (response(body=""), "empty_response", "status 200 without a body"),
    "body a list": (response(body=[1]), "invalid_response", "the body is list, not an object"),
    "body a text": (response(body="hi"), "invalid_response", "the body is str, not an object"),
    "no choices": (response(body=body(choices=[])), "invalid_response", "the body has no choices"),
    "choices null": (response(body=body(choices=None)), "invalid_response", "the body has no choices"),
    "choice without message": (response(body=body(choices=[{}])), "invalid_response", "the body has a choice without a message"),
    "content an object": (message(content={"text": "x"}), "invalid_response", "the content is dict, not text"),
    "content of other parts": (message(content=[{"type": "image_url"}, {"type": "thinking", "thinking": "x"}, 5]), "invalid_response", "the content has parts of type image_url, thinking, int, but none with a text"),
    "content null": (message(content=None), "empty_response", "the body has neither content nor tool calls"),
    "refusal": (message(content=None, refusal="I will not"), "refusal", "I will not"),
    "no status": ({"response": {"body": body()}}, "invalid_response", "the line has no status_code, got None"),
    "an error in a 200": (response(body={"error": {"code": "late", "message": "said"}}), "late", "said"),
    "error a text": ({"response": None, "error": "boom"}, "unknown_error", "boom"),
    "code a number": (response(400, body={"error": {"code": 1301, "message": "said"}}), "1301", "said"),
    "withheld": (
        response(body=body(choices=[{"message": {"content": None}, "finish_reason": "content_filter"}])),
        "content_filter",
        "the answer was withheld by the content filter",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_failed_line(case):
    changes, code, message = BAD[case]
    (row,) = read(line(**changes)).rows(named=True)
    assert (row["code"], row["message"], row["response"]) == (code, message, None)


def test_refusal_keeps_its_usage():
    (row,) = read(line(**message(content=None, refusal="no"))).rows(named=True)
    assert (row["input_tokens"], row["output_tokens"], row["finish_reason"]) == (5, 7, "stop")


def test_broken_line_keeps_its_custom_id():
    broken = json.dumps(line()).encode()[:-30]
    (row,) = read(broken).rows(named=True)
    assert (row["custom_id"], row["code"]) == ("x", "malformed_line")
    assert read(b'{"oops": 1', b"null", b"[]", b'{"custom_id": 5}').height == 0


def test_invalid_utf8_affects_no_other_line():
    bad = json.dumps(line(custom_id="y")).encode().replace(b"hello", b"\xff\xfe")
    frame = read(line(), bad, line(custom_id="z"))
    assert frame["custom_id"].to_list() == ["x", "y", "z"]
    assert frame["response"].to_list() == ["hello", "\ufffd\ufffd", "hello"]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n\n", b"\n \n"])
def test_line_ends_and_blank_lines(end):
    frame = read(line(), line(custom_id="y"), end=end)
    assert frame["custom_id"].to_list() == ["x", "y"]
    assert frame["code"].null_count() == 2


def test_missing_last_newline_and_unicode_line_separators():
    text = "a\u2028b\u2029c\u0085d\x1ce"
    data = json.dumps(line(**message(content=text)), ensure_ascii=False).encode()
    (frame,) = read_answers(io.BytesIO(data))
    assert frame["response"].to_list() == [text]


def test_empty_file_has_no_answers():
    assert list(read_answers(io.BytesIO(b""))) == []


def test_content_filter_column():
    prompt = [{"prompt_index": 0, "content_filter_results": {"hate": {"filtered": False, "severity": "safe"}}}]
    answer = {"violence": {"filtered": True, "severity": "high"}}
    choice = {"message": MESSAGE, "finish_reason": "stop", "content_filter_results": answer}
    good = line(**response(body=body(choices=[choice], prompt_filter_results=prompt)))
    inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": answer}
    refused = line(**response(400, body={"error": {"code": "content_filter", "message": "no", "innererror": inner}}))
    lines = [good, refused, line(), line(response=None), line(response={"body": [1]}), b'{"custom_id": "x"']
    (column,) = columns_of_lines([written(line) for line in lines], ["content_filter"], AnswerFormat())
    verdicts = [None if text is None else json.loads(text) for text in column]
    assert verdicts == [{"prompt": prompt, "response": answer}, {"prompt": answer}, None, None, None, None]
    assert read(*lines)["code"].to_list()[:2] == [None, "content_filter"]


@pytest.mark.parametrize("slice_bytes", [1, 500, 8_000_000])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
def test_answers_have_the_places_of_their_lines(monkeypatch, slice_bytes, path):
    monkeypatch.setattr(result_lines, "SLICE_BYTES", slice_bytes)
    expected = [line(), line(custom_id="ü", **response(500)), line(response=None)]
    data = written(
        b"", expected[0], b"{}", b"not JSON", expected[1], b"  ", expected[2], b'{"custom_id": "x"', end=b"\r\n"
    )
    frame = pl.concat(list(read_answers(io.BytesIO(data), ENDPOINTS[path], places=True)))
    lines = [data[at : at + size] for at, size in frame.select("line_at", "line_bytes").rows()]
    assert [json.loads(line) for line in lines[:3]] == expected
    assert lines[3:] == [b'{"custom_id": "x"\r\n']
    (raw,) = columns_of_lines(lines, ["raw"], AnswerFormat())
    assert raw[0] == json.dumps(line())


@given(st.lists(st.text(max_size=30), max_size=20), st.integers(1, 200))
def test_slice_size_does_not_change_the_answers(texts, slice_bytes):
    data = b"".join(
        json.dumps(line(custom_id=str(n), **message(content=text)), ensure_ascii=False).encode("utf-8", "surrogatepass")
        + b"\n"
        for n, text in enumerate(texts)
    )
    before, result_lines.SLICE_BYTES = result_lines.SLICE_BYTES, slice_bytes
    try:
        frames = list(read_answers(io.BytesIO(data)))
    finally:
        result_lines.SLICE_BYTES = before
    frame = pl.concat([pl.DataFrame(schema=ANSWER_SCHEMA), *frames])
    assert frame["custom_id"].to_list() == [str(n) for n in range(len(texts))]
    assert frame["response"].to_list() == texts


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["response", "error", "body", "choices", "message", "content", "status_code", "usage", "code", "prompt_tokens"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(json_values)
def test_line_of_any_shape_has_an_outcome(value):
    frame = read({"custom_id": "x"} | (value if isinstance(value, dict) else {"response": value}))
    assert frame["custom_id"].to_list() == ["x"]
    assert (frame["code"][0] is None) <= (frame["response"][0] is not None or "tool_calls" in str(value))


def answers(*rows):
    return pl.DataFrame(rows, schema=["custom_id", "response", "code", "generation"], orient="row")


def test_best_answer_is_first_success_else_last_failure():
    frame = best_answers(
        answers(
            ("a", None, "x", 0),
            ("a", "A", None, 0),
            ("a", "A2", None, 0),
            ("b", None, "x", 0),
            ("b", None, "y", 0),
            ("c", "C", None, 0),
            ("a", None, "z", 0),
        )
    )
    assert sorted(frame.rows()) == [("a", "A", None, 0), ("b", None, "y", 0), ("c", "C", None, 0)]


def test_best_answer_prefers_newer_generations():
    frame = best_answers(
        answers(
            ("a", "A", None, 0),
            ("b", "B", None, 0),
            ("c", None, "x", 0),
            ("a", "A2", None, 1),
            ("b", None, "x", 1),
            ("c", None, "y", 1),
            ("a", "A3", None, 1),
        )
    )
    assert sorted(frame.rows()) == [("a", "A2", None, 1), ("b", "B", None, 0), ("c", None, "y", 1)]
