"""The answers of the chat endpoint: deterministic, plausible, and in the requested format."""

from __future__ import annotations

import datetime as dt
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchframe.emulator import answer, body_digest
from batchframe.emulator._endpoints.chat_checks import check

from .conftest import body


def text_of(request_body):
    return answer(request_body)["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Classify the sentiment of this review: I love this kettle, it works great!", "positive"),
        ("Classify the sentiment of this review: It broke after two days, awful.", "negative"),
        ("Classify the sentiment of this review: It is a kettle.", "neutral"),
        ("Is this positive, negative or mixed? Answer in one word.\nI would not recommend it", "negative"),
        ("Choose one of: sports, politics, science.\nThe politics of the city council", "politics"),
        ("Label the text as one of: sports, politics, science: A match of sports teams", "sports"),
        (
            "Give me three paragraphs on the penguin lifecycle.",
            "In short: Give me three paragraphs on the penguin lifecycle.",
        ),
        ("Summarize: The sea was calm. The sun rose.", "In short: The sea was calm."),
        ("What is the capital of France?", "You ask: What is the capital of France?"),
    ],
)
def test_answers_are_sensible(text, expected):
    assert text_of(body(text)) == expected


def test_the_system_message_instructs():
    request_body = body("Terrible, it leaks.")
    request_body["messages"].insert(0, {"role": "system", "content": "Reply with good or bad. Sentiment only."})
    assert text_of(request_body) in {"good", "bad"}


def test_numbers_stay_in_range_and_follow_the_sentiment():
    good = int(text_of(body("Rate this review from 1 to 5: I love it, excellent")))
    bad = int(text_of(body("Rate this review from 1 to 5: awful, it broke")))
    assert 1 <= bad < good <= 5


def test_the_same_body_gets_the_same_answer_and_another_body_another_id():
    bodies = [body(f"text {i}") for i in range(2000)]
    answers = [answer(b) for b in bodies]
    assert answers == [answer(json.loads(json.dumps(b))) for b in bodies]
    assert len({a["id"] for a in answers}) == 2000
    reordered = dict(reversed(bodies[0].items()))
    assert (answer(reordered), body_digest(reordered)) == (answers[0], body_digest(bodies[0]))


def test_the_answer_has_the_services_shape():
    got = answer(body("Tell me about owls."), created=5)
    assert list(got) == ["id", "object", "created", "model", "choices", "usage", "service_tier", "system_fingerprint"]
    assert (got["object"], got["created"], got["model"]) == ("chat.completion", 5, "gpt-4o-mini-2024-07-18")
    [choice] = got["choices"]
    assert (choice["index"], choice["finish_reason"], choice["logprobs"]) == (0, "stop", None)
    assert {"role": "assistant", "refusal": None, "annotations": []}.items() <= choice["message"].items()
    usage = got["usage"]
    # 3 for the reply, 3 for the message, 1 for "user", 5 for nineteen bytes.
    assert usage["prompt_tokens"] == 3 + 3 + 1 + 5
    assert usage["completion_tokens"] == -(-len(choice["message"]["content"]) // 4)
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == 0
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 0


def test_tokens_are_bytes_not_characters():
    ascii_tokens = answer(body("a" * 40))["usage"]["prompt_tokens"]
    assert answer(body("ä" * 40))["usage"]["prompt_tokens"] == ascii_tokens + 10


def test_a_cap_cuts_the_answer():
    got = answer(body("Tell me about the great grey owls of the north.", max_tokens=2))
    assert got["choices"][0]["finish_reason"] == "length"
    assert (got["choices"][0]["message"]["content"], got["usage"]["completion_tokens"]) == ("In short", 2)
    assert "\ufffd" not in text_of(body("äöü" * 20, max_tokens=4))


def test_stop_sequences_end_the_answer():
    assert text_of(body("Tell me about owls.", stop=["about", "zzz"])) == "In short: Tell me "


def test_n_choices():
    got = answer(body("Tell me about owls.", n=3))
    assert [choice["index"] for choice in got["choices"]] == [0, 1, 2]
    assert got["usage"]["completion_tokens"] == 3 * answer(body("Tell me about owls."))["usage"]["completion_tokens"]


def test_reasoning_models_reason():
    request_body = {**body("Tell me about owls."), "model": "o3-mini"}
    usage = answer(request_body)["usage"]
    reasoned = usage["completion_tokens_details"]["reasoning_tokens"]
    assert 0 < reasoned < usage["completion_tokens"]
    got = answer({**request_body, "max_completion_tokens": 10})
    assert (got["choices"][0]["message"]["content"], got["choices"][0]["finish_reason"]) == ("", "length")
    assert got["usage"]["completion_tokens"] == 10


def test_logprobs():
    got = answer(body("Tell me about owls.", logprobs=True, top_logprobs=3))
    content = got["choices"][0]["logprobs"]["content"]
    assert "".join(entry["token"] for entry in content) == got["choices"][0]["message"]["content"]
    for entry in content:
        assert bytes(entry["bytes"]).decode() == entry["token"]
        assert entry["logprob"] < 0
        assert len(entry["top_logprobs"]) == 3


PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}]


@pytest.mark.parametrize(
    ("choice", "reason"), [("required", "tool_calls"), ({"type": "function", "function": {"name": "weather"}}, "stop")]
)
def test_a_required_tool_is_called(choice, reason):
    [got] = answer(body("Weather in Oslo?", tools=TOOLS, tool_choice=choice))["choices"]
    [call] = got["message"]["tool_calls"]
    assert (got["finish_reason"], got["message"]["content"]) == (reason, None)
    assert (call["type"], call["function"]["name"]) == ("function", "weather")
    assert_conforms(json.loads(call["function"]["arguments"]), PARAMETERS)


def test_json_object():
    value = json.loads(
        text_of(body("Classify the sentiment as JSON: I love it", response_format={"type": "json_object"}))
    )
    assert value == {"answer": "positive"}


# ----------------------------------------------------------------------------------------------------- json_schema


def assert_conforms(value, schema, root=None):  # noqa: C901, PLR0912 - a branch a keyword
    """Validate a value against the part of JSON schema used here; written independently of the emulator."""
    root = root or schema
    if "$ref" in schema:
        target = root
        for step in schema["$ref"].split("/")[1:]:
            target = target[step]
        assert_conforms(value, target, root)
        return
    if "const" in schema:
        assert value == schema["const"]
        return
    if "enum" in schema:
        assert value in schema["enum"]
        return
    if "anyOf" in schema:
        for option in schema["anyOf"]:
            try:
                assert_conforms(value, option, root)
            except (AssertionError, ValueError):
                continue
            return
        raise AssertionError(f"{value!r} is none of {schema['anyOf']}")
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    types = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    matches = {kind: isinstance(value, types[kind]) for kind in types}
    matches["number"] = is_number
    matches["integer"] = is_number and isinstance(value, int)
    assert any(matches[kind] for kind in kinds), (value, kinds)
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        assert set(schema.get("required", ())) <= set(value)
        if schema.get("additionalProperties") is False:
            assert set(value) <= set(properties)
        for name, inner in value.items():
            if name in properties:
                assert_conforms(inner, properties[name], root)
    if isinstance(value, list):
        assert schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", 10**9)
        for inner in value:
            assert_conforms(inner, schema["items"], root)
    if is_number:
        assert schema.get("minimum", value) <= value <= schema.get("maximum", value)
        if "exclusiveMinimum" in schema:
            assert value > schema["exclusiveMinimum"]
        if "exclusiveMaximum" in schema:
            assert value < schema["exclusiveMaximum"]
        if "multipleOf" in schema:
            assert value % schema["multipleOf"] == 0
    if isinstance(value, str):
        assert schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 10**9)
        if schema.get("format") == "date":
            dt.date.fromisoformat(value)
        if schema.get("format") == "date-time":
            dt.datetime.fromisoformat(value.replace("Z", "+00:00"))
        if "pattern" in schema:
            assert re.search(schema["pattern"], value)


def strict_object(properties):
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def bounded(kind, numbers):
    names = st.sampled_from([("minimum", "maximum"), ("exclusiveMinimum", "exclusiveMaximum")])
    return st.builds(
        lambda low, width, ends: {"type": kind, ends[0]: low, ends[1]: low + width},
        numbers,
        st.integers(3, 500),
        names,
    )


LEAVES = st.one_of(
    st.sampled_from(
        [
            {"type": "string"},
            {"type": "integer"},
            {"type": "number"},
            {"type": "boolean"},
            {"type": "null"},
            {"type": ["string", "null"]},
            {"type": ["integer", "null"]},
            {"type": "string", "format": "date"},
            {"type": "string", "format": "date-time"},
            {"type": "string", "pattern": r"^[A-Z]{2}-\d{3,5}(x|y)?$"},
            {"type": "integer", "multipleOf": 7, "minimum": 10, "maximum": 100},
            {"type": "integer", "minimum": 5},
            {"type": "number", "maximum": -5},
            {"const": 42},
            {"$ref": "#/$defs/tree"},
        ]
    ),
    st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=5, unique=True).map(
        lambda values: {"type": "string", "enum": values}
    ),
    st.integers(0, 30).map(lambda least: {"type": "string", "minLength": least, "maxLength": least + 5}),
    bounded("integer", st.integers(-1000, 1000)),
    bounded("number", st.integers(-1000, 1000)),
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.dictionaries(st.text(min_size=1, max_size=6), inner, max_size=4).map(strict_object),
        st.builds(
            lambda items, least, more: {"type": "array", "items": items, "minItems": least, "maxItems": least + more},
            inner,
            st.integers(0, 3),
            st.integers(0, 3),
        ),
        st.lists(inner, min_size=1, max_size=3).map(lambda options: {"anyOf": options}),
    ),
    max_leaves=8,
)
TREE = strict_object(
    {
        "value": {"type": "string"},
        "left": {"anyOf": [{"$ref": "#/$defs/tree"}, {"type": "null"}]},
        "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}},
    }
)


@settings(max_examples=150, deadline=None)
@given(properties=st.dictionaries(st.text(min_size=1, max_size=6), SCHEMAS, max_size=4), text=st.text(max_size=60))
def test_answers_conform_to_the_schema(properties, text):
    schema = {**strict_object(properties), "$defs": {"tree": TREE}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    request_body = body(text, response_format=form)
    check(request_body)
    [choice] = answer(request_body)["choices"]
    assert choice["finish_reason"] == "stop"
    assert_conforms(json.loads(choice["message"]["content"]), schema)


def test_an_enum_of_sentiments_follows_the_text():
    schema = strict_object(
        {"label": {"type": "string", "enum": ["POSITIVE", "NEGATIVE"]}, "score": {"type": "integer"}}
    )
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    got = [json.loads(text_of(body(t, response_format=form)))["label"] for t in ("I love it", "I hate it")]
    assert got == ["POSITIVE", "NEGATIVE"]
