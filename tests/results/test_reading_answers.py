"""Answers of chat and responses in every shape: texts, calls and logprobs. No answer of a service raises."""

# ruff: noqa: E501  (a table reads best a case a line)

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchframe._endpoints.registry import ENDPOINTS
from batchframe._results.answer_format import AnswerFormat
from batchframe._results.extra_columns import EXTRA_COLUMNS, OF_LINES, columns_of_lines
from batchframe._results.result_lines import read_answers

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"


def line(body, status=200):
    return json.dumps({"custom_id": "x", "response": {"status_code": status, "request_id": "r", "body": body}}).encode()


def read(body, endpoint=RESPONSES, *, many=False):
    (answers,) = read_answers(io.BytesIO(line(body)), ENDPOINTS[endpoint], many=many)
    return answers.row(0, named=True)


def extra_column(body, name, endpoint=CHAT, *, choices=1):
    form = AnswerFormat(endpoint, choices)
    (column,) = columns_of_lines([line(body)], [name], form)
    assert column.dtype == EXTRA_COLUMNS[name].dtype_for(form)
    return column.to_list()[0]


# -- responses


def response(*output, status="completed", **more):
    usage = {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 1},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 12,
    }
    return {"object": "response", "model": "m", "status": status, "output": list(output), "usage": usage} | more


def text(words, **more):
    return {"type": "output_text", "text": words, "annotations": [], "logprobs": []} | more


def message(*parts, **more):
    return {"id": "msg", "type": "message", "status": "completed", "role": "assistant", "content": list(parts)} | more


REASONING = {"id": "rs", "type": "reasoning", "summary": [{"type": "summary_text", "text": "I thought."}]}
THOUGHTS = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]}
CITATION = {"type": "url_citation", "start_index": 0, "end_index": 2, "url": "https://a.example", "title": "A"}
SEARCH = {"id": "ws", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "q"}}
FUNCTION = {"type": "function_call", "id": "fc", "call_id": "call_1", "name": "f", "arguments": '{"a": 1}'}
CUT = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
FILTERED = {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}
REFUSED = {"type": "refusal", "refusal": "I cannot."}

# Body → response, finish_reason, code, whether it is retried.
RESPONSE_SHAPES = {
    "a text": (response(message(text("hi"))), ("hi", "completed", None, None)),
    "reasoning first": (response(REASONING, message(text("hi"))), ("hi", "completed", None, None)),
    "open reasoning": (response(THOUGHTS, message(text("hi"))), ("hi", "completed", None, None)),
    "several parts": (response(message(text("a"), text("b"))), ("ab", "completed", None, None)),
    "several messages": (response(message(text("a")), REASONING, message(text("b"))), ("ab", "completed", None, None)),
    "commentary": (
        response(message(text("Let me see. "), phase="commentary"), message(text("4"), phase="final_answer")),
        ("4", "completed", None, None),
    ),
    "a final answer": (response(message(text("4"), phase="final_answer")), ("4", "completed", None, None)),
    "only commentary": (response(message(text("Hm."), phase="commentary")), ("Hm.", "completed", None, None)),
    "annotations": (response(SEARCH, message(text("hi", annotations=[CITATION]))), ("hi", "completed", None, None)),
    "an empty text": (response(message(text(""))), ("", "completed", None, None)),
    "a text without type": (response(message({"text": "hi"})), ("hi", "completed", None, None)),
    "a text of chat's type": (response(message({"type": "text", "text": "hi"})), ("hi", "completed", None, None)),
    "an unknown part": (response(message({"type": "hologram", "text": "?"}, text("hi"))), ("hi", "completed", None, None)),
    "an unknown item": (response({"type": "hologram", "content": 5}, message(text("hi"))), ("hi", "completed", None, None)),
    "a refusal": (response(message(REFUSED)), (None, "completed", "refusal", None)),
    "a text and a refusal": (response(message(text("hi"), REFUSED)), ("hi", "completed", None, None)),
    "a call": (response(REASONING, FUNCTION), (None, "completed", None, None)),
    "a text and a call": (response(message(text("hi")), FUNCTION), ("hi", "completed", None, None)),
    "an image": (response({"type": "image_generation_call", "result": "AA=="}), (None, "completed", None, None)),
    "an approval": (response({"type": "mcp_approval_request", "name": "f"}), (None, "completed", None, None)),
    "reasoning alone": (response(REASONING), (None, "completed", "empty_response", True)),
    "no items": (response(), (None, "completed", "empty_response", True)),
    "cut in its text": (response(message(text("half")), **CUT), ("half", "max_output_tokens", None, None)),
    "cut in reasoning": (response(REASONING, **CUT), (None, "max_output_tokens", "max_output_tokens", None)),
    "cut before its text": (response(message(text("")), **CUT), (None, "max_output_tokens", "max_output_tokens", None)),
    "cut in a call": (response(FUNCTION, **CUT), (None, "max_output_tokens", "max_output_tokens", None)),
    "incomplete without a reason": (response(status="incomplete"), (None, "incomplete", "incomplete", None)),
    "steered": (response(status="incomplete", incomplete_details={"reason": "steered"}), (None, "steered", "steered", None)),
    "withheld": (response(**FILTERED), (None, "content_filter", "content_filter", None)),
    "failed": (
        response(status="failed", error={"code": "server_error", "message": "no"}),
        (None, "failed", "server_error", True),
    ),
    "failed for good": (response(status="failed", error={"code": "bad"}), (None, "failed", "bad", False)),
    "failed without an error": (response(message(text("hi")), status="failed"), (None, "failed", "failed", False)),
    "no output": ({"object": "response", "status": "completed"}, (None, "completed", "invalid_response", None)),
    "content that is text": (response(message() | {"content": "hi"}), ("hi", "completed", None, None)),
}  # fmt: skip


@pytest.mark.parametrize("shape", RESPONSE_SHAPES)
def test_response_shapes(shape):
    body, expected = RESPONSE_SHAPES[shape]
    row = read(body)
    outcome = (row["response"], row["finish_reason"], row["code"], row["again"])
    assert outcome == expected if shape != "no output" else outcome[2] == expected[2]
    if "usage" in body:
        assert [row[name] for name in ("input_tokens", "output_tokens", "total_tokens")] == [5, 7, 12]
        assert [row[name] for name in ("cached_tokens", "reasoning_tokens")] == [1, 2]


@pytest.mark.parametrize("shape", RESPONSE_SHAPES)
def test_fast_path_matches_slow_path(shape):
    body, _ = RESPONSE_SHAPES[shape]
    fast = ENDPOINTS[RESPONSES].read_line(line(body))
    assert fast is None or fast == ("x", ENDPOINTS[RESPONSES].answer(body, many=False)._replace(request_id="r"))
    assert (fast is not None) == (shape in {
        "a text", "reasoning first", "open reasoning", "several parts", "a final answer", "annotations", "a text and a call",
    })  # fmt: skip


# -- chat


def chat(reason="stop", **fields):
    return {"object": "chat.completion", "choices": [{"index": 0, "message": fields, "finish_reason": reason}]}


CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": '}}
CUSTOM = {"id": "call_2", "type": "custom", "custom": {"name": "g", "input": "SELECT 1 -- ü"}}
CALLED = {"id": "call_1", "name": "f", "arguments": '{"a": '}
OF_CUSTOM = {"id": "call_2", "name": "g", "arguments": "SELECT 1 -- ü"}

# Body → response, code, calls.
CHAT_SHAPES = {
    "two calls": (chat(content=None, tool_calls=[CALL, CUSTOM]), (None, None, [CALLED, OF_CUSTOM])),
    "empty content and a call": (chat(content="", tool_calls=[CALL]), (None, None, [CALLED])),
    "content and a call": (chat(content="Let me see.", tool_calls=[CALL]), ("Let me see.", None, [CALLED])),
    "a call that was cut": (chat("length", content=None, tool_calls=[CALL]), (None, None, [CALLED])),
    "a function, as it once was": (
        chat("function_call", content=None, function_call={"name": "f", "arguments": "{}"}),
        (None, None, [{"id": None, "name": "f", "arguments": "{}"}]),
    ),
    "arguments that are an object": (
        chat(content=None, tool_calls=[{"id": 1, "function": {"name": "f", "arguments": {"a": 1}}}]),
        (None, None, [{"id": "1", "name": "f", "arguments": '{"a":1}'}]),
    ),
    "an empty list": (chat(content="hi", tool_calls=[]), ("hi", None, [])),
    "no list": (chat(content="hi", tool_calls=None), ("hi", None, [])),
    "odd calls": (
        chat(content="hi", tool_calls=[None, 3, {}]), ("hi", None, [{"id": None, "name": None, "arguments": None}]),
    ),
    "a refusal": (chat(content=None, refusal="no"), (None, "refusal", [])),
    "a refusal beside empty content": (chat(content="", refusal="no"), (None, "refusal", [])),
    "all went into reasoning": (chat("length", content=""), (None, "length", [])),
    "all went into reasoning, null": (chat("length", content=None), (None, "length", [])),
    "an empty text": (chat(content=""), ("", None, [])),
    "nothing": (chat(content=None), (None, "empty_response", [])),
    "no message": ({"choices": [{"finish_reason": "stop"}]}, (None, "invalid_response", None)),
    "no choices": ({"choices": []}, (None, "invalid_response", None)),
}  # fmt: skip


@pytest.mark.parametrize("shape", CHAT_SHAPES)
def test_chat_message_shapes(shape):
    body, (response_text, code, calls) = CHAT_SHAPES[shape]
    row = read(body, CHAT)
    assert (row["response"], row["code"]) == (response_text, code)
    assert row["again"] is (True if code == "empty_response" else None)
    assert extra_column(body, "tool_calls") == calls
    assert extra_column(json.dumps(body), "tool_calls") == calls  # a body as JSON text


def test_tool_calls_of_responses():
    custom = {"type": "custom_tool_call", "call_id": "call_2", "name": "g", "input": "SELECT 1"}
    mcp = {"type": "mcp_call", "id": "mcp", "name": "h", "arguments": "{}", "output": "done"}  # run by the service
    odd = {"type": ["function_call"]}
    body = response(REASONING, FUNCTION, SEARCH, mcp, odd, custom, message(text("hi")))
    assert extra_column(body, "tool_calls", RESPONSES) == [
        {"id": "call_1", "name": "f", "arguments": '{"a": 1}'},
        {"id": "call_2", "name": "g", "arguments": "SELECT 1"},
    ]
    assert extra_column(response(message(text("hi"))), "tool_calls", RESPONSES) == []
    assert extra_column({"error": {"code": "bad"}}, "tool_calls", RESPONSES) is None


# -- logprobs

TOKEN = {"token": "hé", "logprob": -0.5, "bytes": [104, 195, 169], "top_logprobs": [{"token": "hé", "logprob": -0.5, "bytes": None}]}  # fmt: skip
SHOWN = TOKEN | {"top_logprobs": [{"token": "hé", "logprob": -0.5}]}


def with_logprobs(logprobs, content="hé"):
    return {"choices": [{"message": {"content": content}, "logprobs": logprobs, "finish_reason": "stop"}]}


def test_logprobs_of_chat():
    assert extra_column(with_logprobs({"content": [TOKEN, TOKEN], "refusal": None}), "logprobs") == [SHOWN, SHOWN]
    assert extra_column(with_logprobs({"content": None, "refusal": [TOKEN]}), "logprobs") is None
    for logprobs in (None, 5, [], {}, "x"):
        assert extra_column(with_logprobs(logprobs), "logprobs") is None
    odd = [TOKEN | {"bytes": [300]}, TOKEN | {"logprob": None}, 7, {"token": 3, "logprob": 10**400, "top_logprobs": 1}]
    assert extra_column(with_logprobs({"content": odd}), "logprobs") == [
        SHOWN | {"bytes": None},
        SHOWN | {"logprob": None},
        {"token": "3", "logprob": None, "bytes": None, "top_logprobs": []},
    ]
    both = {"choices": [with_logprobs({"content": [TOKEN]})["choices"][0] | {"index": n} for n in (1, 0)]}
    both["choices"][0]["logprobs"] = None
    assert extra_column(both, "logprobs", choices=2) == [[SHOWN], None]


def test_logprobs_of_responses_join_all_texts():
    body = response(REASONING, message(text("hé", logprobs=[TOKEN])), message(text("hé", logprobs=[TOKEN]), REFUSED))
    assert extra_column(body, "logprobs", RESPONSES) == [SHOWN, SHOWN]
    assert extra_column(response(message(text("hé"))), "logprobs", RESPONSES) is None
    assert extra_column(response(), "logprobs", RESPONSES) is None


def test_logprobs_of_completions():
    logprobs = {"tokens": ["a", "b"], "token_logprobs": [None, -1], "top_logprobs": [None, {"b": -1, "c": -2.5}]}
    (first, second) = extra_column({"choices": [{"text": "ab", "logprobs": logprobs}]}, "logprobs", COMPLETIONS)
    assert first == {"token": "a", "logprob": None, "bytes": None, "top_logprobs": []}
    assert second["top_logprobs"] == [{"token": "b", "logprob": -1.0}, {"token": "c", "logprob": -2.5}]
    for odd in (logprobs | {"token_logprobs": None, "top_logprobs": [5]}, {"tokens": ["a", "b"]}):
        tokens = extra_column({"choices": [{"text": "ab", "logprobs": odd}]}, "logprobs", COMPLETIONS)
        assert [token["token"] for token in tokens] == ["a", "b"]
    assert extra_column({"choices": [{"text": "ab", "logprobs": {"tokens": 5}}]}, "logprobs", COMPLETIONS) is None


# -- anything at all

NAMES = st.sampled_from([
    "output", "status", "error", "incomplete_details", "reason", "code", "message", "content", "type", "text", "refusal",
    "choices", "index", "tool_calls", "function_call", "function", "custom", "arguments", "name", "logprobs", "tokens",
    "token", "logprob", "bytes", "top_logprobs", "token_logprobs", "usage", "input_tokens", "model", "call_id", "phase",
    "content_filter_results", "prompt_filter_results", "innererror", "data", "results", "flagged", "embedding",
])  # fmt: skip
WORDS = st.sampled_from([
    "message", "output_text", "refusal", "function_call", "completed", "incomplete", "failed", "length", "stop", "x", "",
])  # fmt: skip
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS | st.text()
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5), max_leaves=25
)
ITEMS = st.fixed_dictionaries({}, optional={"type": WORDS, "content": VALUES, "message": VALUES, "logprobs": VALUES})
BODIES = VALUES | st.fixed_dictionaries(
    {},
    optional={
        "output": st.lists(ITEMS | VALUES),
        "choices": st.lists(ITEMS | VALUES),
        "status": WORDS,
        "error": VALUES,
    },
)


@settings(deadline=None)
@given(BODIES, st.sampled_from([200, 400]), st.sampled_from(sorted(ENDPOINTS)), st.booleans())
def test_any_body_gives_one_outcome_without_raising(body, status, path, many):
    content = line(body, status)
    (answers,) = read_answers(io.BytesIO(content), ENDPOINTS[path], many=many)
    row = answers.row(0, named=True)
    assert row["code"] is None or row["response"] is None
    assert (row["code"] is None) == (row["message"] is None)
    form = AnswerFormat(path, 2 if many else 1)
    names = [
        name for name in OF_LINES if path in (CHAT, RESPONSES, COMPLETIONS) or name not in ("tool_calls", "logprobs")
    ]
    columns = columns_of_lines([content, None], names, form)
    assert [column.dtype for column in columns] == [EXTRA_COLUMNS[name].dtype_for(form) for name in names]
