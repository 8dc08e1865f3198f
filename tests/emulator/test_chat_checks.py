"""Every way the service refuses a chat body."""

from __future__ import annotations

import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming

from batchframe.emulator._endpoints.chat_checks import PARAMETERS, check
from batchframe.emulator._errors import ApiError

from .conftest import body, ended, read, request

SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "string"}},
    "required": ["a"],
    "additionalProperties": False,
}


def form(schema, name="x", strict=True):
    return {"type": "json_schema", "json_schema": {"name": name, "strict": strict, "schema": schema}}


def messages(*items):
    return {"model": "gpt-4o-mini", "messages": list(items)}


def reasoning(**more):
    return {**body(), "model": "o3-mini", **more}


USER = {"role": "user", "content": "x"}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
ROLES = "'system', 'assistant', 'user', 'function', 'tool', and 'developer'."

# (body, code, param, the message or its beginning)
BODIES = [
    (body(foo=1), "unknown_parameter", "foo", "Unknown parameter: 'foo'."),
    (
        body(temperature="hot"),
        "invalid_type",
        "temperature",
        "Invalid type for 'temperature': expected a decimal, but got a string instead.",
    ),
    (
        body(temperature=2.5),
        "decimal_above_max_value",
        "temperature",
        "Invalid 'temperature': decimal above maximum value. Expected a value <= 2, but got 2.5 instead.",
    ),
    (body(top_p=-1), "decimal_below_min_value", "top_p", "Invalid 'top_p': decimal below minimum value."),
    (
        body(max_tokens=0),
        "integer_below_min_value",
        "max_tokens",
        "Invalid 'max_tokens': integer below minimum value. Expected a value >= 1, but got 0 instead.",
    ),
    (
        body(max_tokens=1.5),
        "invalid_type",
        "max_tokens",
        "Invalid type for 'max_tokens': expected an integer, but got a",
    ),
    (
        body(max_tokens=True),
        "invalid_type",
        "max_tokens",
        "Invalid type for 'max_tokens': expected an integer, but got a",
    ),
    (body(n=129), "integer_above_max_value", "n", "Invalid 'n': integer above maximum value."),
    (body(max_tokens=10**6), "invalid_value", "max_tokens", "max_tokens is too large: 1000000. This model supports at"),
    (body(logprobs="yes"), "invalid_type", "logprobs", "Invalid type for 'logprobs': expected a boolean, but got a st"),
    (body(user=None), "invalid_type", "user", "Invalid type for 'user': expected a string, but got null instead."),
    (body(stop=list("abcde")), "array_above_max_length", "stop", "Invalid 'stop': array too long."),
    (body(stop=[1]), "invalid_type", "stop[0]", "Invalid type for 'stop[0]': expected a string, but got an integer"),
    (body(logit_bias={"1": 101}), "decimal_above_max_value", "logit_bias.1", "Invalid 'logit_bias.1': decimal above"),
    (body(metadata={"a": 1}), "invalid_type", "metadata.a", "Invalid type for 'metadata.a': expected a string"),
    (body(service_tier="no"), "invalid_value", "service_tier", "Invalid value: 'no'. Supported values are: 'auto'"),
    (body(top_logprobs=2), None, "top_logprobs", "The 'top_logprobs' parameter is only allowed when 'logprobs'"),
    (body(reasoning_effort="low"), None, None, "Unrecognized request argument supplied: reasoning_effort"),
    # Messages.
    (messages(), "empty_array", "messages", "Invalid 'messages': empty array. Expected an array with minimum length 1"),
    (
        {"model": "gpt-4o-mini", "messages": "hello"},
        "invalid_type",
        "messages",
        "Invalid type for 'messages': expected an array of objects, but got a string instead.",
    ),
    (messages("hello"), "invalid_type", "messages[0]", "Invalid type for 'messages[0]': expected an object, but got a"),
    (messages({"content": "x"}), "missing_required_parameter", "messages[0].role", "Missing required parameter: 'mess"),
    (
        messages(USER, {"role": "robot", "content": "x"}),
        "invalid_value",
        "messages[1].role",
        f"Invalid value: 'robot'. Supported values are: {ROLES}",
    ),
    (
        messages({"role": "user", "content": None}),
        None,
        "messages.[0].content",
        "Invalid value for 'content': expected a string, got null.",
    ),
    (
        messages({"role": "user", "content": 5}),
        "invalid_type",
        "messages[0].content",
        "Invalid type for 'messages[0].content': expected one of a string or array of objects, but got an integer in",
    ),
    (messages({"role": "user"}), "missing_required_parameter", "messages[0].content", "Missing required parameter: 'm"),
    (messages({"role": "user", "content": []}), "empty_array", "messages[0].content", "Invalid 'messages[0].content'"),
    (messages({**USER, "foo": 1}), "unknown_parameter", "messages[0].foo", "Unknown parameter: 'messages[0].foo'."),
    (
        messages({"role": "user", "content": [{"type": "movie"}]}),
        "invalid_value",
        "messages[0].content[0].type",
        "Invalid value: 'movie'. Supported values are: 'text', 'image_url'",
    ),
    (
        messages({"role": "user", "content": [{"type": "image_url", "image_url": "https://x"}]}),
        "invalid_type",
        "messages[0].content[0].image_url",
        "Invalid type for 'messages[0].content[0].image_url': expected an object, but got a string instead.",
    ),
    (
        messages({"role": "tool", "content": "x"}),
        "missing_required_parameter",
        "messages[0].tool_call_id",
        "Missing required parameter: 'messages[0].tool_call_id'.",
    ),
    (
        messages({"role": "user", "content": "x" * 4 * 128_001}),
        "context_length_exceeded",
        "messages",
        "This model's maximum context length is 128000 tokens. However, your messages resulted in 128008 tokens.",
    ),
    # Reasoning models.
    (
        reasoning(max_tokens=5),
        "unsupported_parameter",
        "max_tokens",
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
    ),
    (
        reasoning(temperature=0),
        "unsupported_value",
        "temperature",
        "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported.",
    ),
    (reasoning(logprobs=True), "unsupported_parameter", "logprobs", "Unsupported parameter: 'logprobs' is not"),
    # response_format.
    (
        body(response_format="json"),
        "invalid_type",
        "response_format",
        "Invalid type for 'response_format': expected an",
    ),
    (body(response_format={"type": "xml"}), "invalid_value", "response_format.type", "Invalid value: 'xml'."),
    (
        body(response_format={"type": "json_object"}),
        None,
        "messages",
        "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.",
    ),
    (
        body(response_format={"type": "json_schema"}),
        "missing_required_parameter",
        "response_format.json_schema",
        "Missing required parameter: 'response_format.json_schema'.",
    ),
    (
        body(response_format=form(SCHEMA, name="my schema")),
        "invalid_value",
        "response_format.json_schema.name",
        "Invalid 'response_format.json_schema.name': string does not match pattern. Expected a string that matches",
    ),
    (
        body(response_format=form(SCHEMA, name="x" * 65)),
        "string_above_max_length",
        "response_format.json_schema.name",
        "Invalid 'response_format.json_schema.name': string too long.",
    ),
    # Tools.
    (body(tools=[]), "empty_array", "tools", "Invalid 'tools': empty array."),
    (body(tools=[{}]), "missing_required_parameter", "tools[0].type", "Missing required parameter: 'tools[0].type'."),
    (body(tool_choice="auto"), None, "tool_choice", "'tool_choice' is only allowed when 'tools' are specified."),
    (
        body(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "other"}}),
        None,
        "tool_choice",
        "Tool choice 'other' not found in 'tools' parameter.",
    ),
]


@pytest.mark.parametrize(("bad", "code", "param", "message"), BODIES, ids=[f"{x[1]}-{x[2]}" for x in BODIES])
def test_bad_body_is_refused_with_the_services_sentence(bad, code, param, message):
    with pytest.raises(ApiError) as refused:
        check(bad)
    error = refused.value.body()["error"]
    assert (error["code"], error["param"], error["type"]) == (code, param, "invalid_request_error")
    assert error["message"].startswith(message)
    assert refused.value.status == 400


def deep(levels):
    schema = {"type": "string"}
    for _ in range(levels):
        schema = {**SCHEMA, "properties": {"a": schema}}
    return schema


ADDITIONAL = "'additionalProperties' is required to be supplied and to be false."
REQUIRED = "'required' is required to be supplied and to be an array including every key in properties."
SCHEMAS = [
    ({"type": "object"}, f"In context=(), {ADDITIONAL}"),
    ({**SCHEMA, "additionalProperties": True}, f"In context=(), {ADDITIONAL}"),
    ({**SCHEMA, "required": []}, f"In context=(), {REQUIRED} Missing 'a'."),
    ({**SCHEMA, "required": ["a", "b"]}, f"In context=(), {REQUIRED} Extra required key 'b' supplied."),
    ({"type": "array", "items": SCHEMA}, "schema must be a JSON Schema of 'type: \"object\"', got 'type: \"array\"'."),
    (
        {**SCHEMA, "properties": {"a": {"type": "object", "properties": {}}}},
        f"In context=('properties', 'a'), {ADDITIONAL}",
    ),
    ({**SCHEMA, "properties": {"a": {"type": "array"}}}, "In context=('properties', 'a'), array schema missing items."),
    ({**SCHEMA, "properties": {"a": {}}}, "In context=('properties', 'a'), schema must have a 'type' key."),
    (
        {**SCHEMA, "properties": {"a": {"type": "string", "default": "x"}}},
        "In context=('properties', 'a'), 'default' is not permitted.",
    ),
    (
        {**SCHEMA, "properties": {"a": {"oneOf": [{"type": "string"}]}}},
        "In context=('properties', 'a'), 'oneOf' is not permitted.",
    ),
    (
        {**SCHEMA, "properties": {"a": {"anyOf": [{"type": "object", "properties": {}}]}}},
        f"In context=('properties', 'a', 'anyOf', '0'), {ADDITIONAL}",
    ),
    (
        {**SCHEMA, "$defs": {"d": {"type": "object", "properties": {}}}},
        f"In context=('$defs', 'd'), {ADDITIONAL}",
    ),
    (
        {**SCHEMA, "properties": {"a": {"$ref": "#/$defs/none"}}},
        "In context=('properties', 'a'), reference to component '#/$defs/none' which was not found in the schema.",
    ),
    (deep(11), f"In context={('properties', 'a') * 10}, the schema exceeds the maximum of 10 levels of nesting."),
]


@pytest.mark.parametrize(("schema", "problem"), SCHEMAS, ids=[x[1][:60] for x in SCHEMAS])
def test_strict_schemas_are_checked(schema, problem):
    with pytest.raises(ApiError) as refused:
        check(body(response_format=form(schema)))
    error = refused.value.body()["error"]
    assert error["message"] == f"Invalid schema for response_format 'x': {problem}"
    assert (error["param"], error["code"]) == ("response_format", None)
    assert check(body(response_format=form(schema, strict=False))) > 0


GOOD = [
    body(),
    body(temperature=0, top_p=1, max_tokens=5, n=2, seed=7, stop="x", user="u", logit_bias={"1": -100}),
    body(temperature=None, max_tokens=None, stop=None, metadata=None),
    body(logprobs=True, top_logprobs=3),
    body(response_format=form(SCHEMA)),
    body(response_format=form(deep(10))),
    body("Answer in JSON.", response_format={"type": "json_object"}),
    body(tools=[TOOL], tool_choice="required"),
    reasoning(max_completion_tokens=100, reasoning_effort="low", temperature=1),
    # Models that reason on demand take sampling parameters while they do not reason.
    body(model="gpt-5.1", temperature=0, top_p=0.5, logprobs=True),
    body(model="gpt-5.4-2026-03-05", temperature=0, reasoning_effort="none"),
    messages({"role": "developer", "content": "x"}, {"role": "assistant", "content": None, "tool_calls": [{}]}, USER),
    messages(
        {
            "role": "user",
            "content": [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": "https://y"}}],
        }
    ),
]


@pytest.mark.parametrize("good", GOOD)
def test_good_bodies_are_accepted(good):
    assert check(good) > 0


def test_refused_bodies_go_to_the_error_file(client, service):
    bad = [(b, c, p) for b, c, p, _ in BODIES if b.get("model") == "gpt-4o-mini" and "messages" in b]
    lines = [request(f"bad-{i}", b) for i, (b, _, _) in enumerate(bad)]
    batch = ended(client, *lines, request("good"))
    assert (batch.status, batch.request_counts.failed, batch.request_counts.completed) == ("completed", len(bad), 1)
    by_id = {line["custom_id"]: line for line in read(client, batch.error_file_id)}
    for i, (_, code, param) in enumerate(bad):
        line = by_id[f"bad-{i}"]
        error = line["response"]["body"]["error"]
        assert (line["error"], line["response"]["status_code"]) == (None, 400)
        assert (error["code"], error["param"]) == (code, param)
    ledger = service.ledger(summary=True)
    assert (ledger["executions"], ledger["billed"]) == (len(bad) + 1, 1)


def test_parameter_table_covers_the_sdk():
    assert set(CompletionCreateParamsNonStreaming.__annotations__) <= set(PARAMETERS)
