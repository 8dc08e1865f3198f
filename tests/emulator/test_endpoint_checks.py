"""Every way the other endpoints refuse a body; and any body at all is either answered or refused."""

from __future__ import annotations

import msgspec
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.completion_create_params import CompletionCreateParamsNonStreaming
from openai.types.embedding_create_params import EmbeddingCreateParams
from openai.types.moderation_create_params import ModerationCreateParams
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming

from batchframe.emulator._endpoints import chat_checks, completions, embeddings, moderations, responses_checks
from batchframe.emulator._endpoints.registry import ENDPOINTS
from batchframe.emulator._errors import ApiError
from batchframe.emulator._model.model_table import model_named

RESPONSES, EMBEDDINGS = "/v1/responses", "/v1/embeddings"
COMPLETIONS, MODERATIONS, CHAT = "/v1/completions", "/v1/moderations", "/v1/chat/completions"
MINIMAL = {
    RESPONSES: {"model": "gpt-4o-mini", "input": "Say hello."},
    EMBEDDINGS: {"model": "text-embedding-3-small", "input": "hello"},
    COMPLETIONS: {"model": "gpt-3.5-turbo-instruct", "prompt": "Say hello."},
    MODERATIONS: {"model": "omni-moderation-latest", "input": "hello"},
    CHAT: {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Say hello."}]},
}
TOOL = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
FORM = {"type": "json_schema", "name": "x", "strict": True, "schema": SCHEMA}


def admit(endpoint, changes):
    body = {**MINIMAL[endpoint], **changes}
    return ENDPOINTS[endpoint].admit(body, model_named(body["model"]), is_azure=False)


# (endpoint, changes to the minimal body, (status, code, param), the message or its beginning)
BODIES = [
    *(
        (endpoint, {"foo": 1}, (400, "unknown_parameter", "foo"), "Unknown parameter: 'foo'.")
        for endpoint in MINIMAL
        if endpoint != CHAT
    ),
    # Responses.
    (
        RESPONSES,
        {"messages": []},
        (400, "unsupported_parameter", "messages"),
        "Unsupported parameter: 'messages'. In the Responses API, this parameter has moved to 'input'. Try again with ",
    ),
    (
        RESPONSES,
        {"response_format": {}},
        (400, "unsupported_parameter", "response_format"),
        "Unsupported parameter: 'resp",
    ),
    (
        RESPONSES,
        {"input": 5},
        (400, "invalid_type", "input"),
        "Invalid type for 'input': expected one of a string or arr",
    ),
    (RESPONSES, {"input": []}, (400, "empty_array", "input"), "Invalid 'input': empty array."),
    (
        RESPONSES,
        {"input": ["x"]},
        (400, "invalid_type", "input[0]"),
        "Invalid type for 'input[0]': expected an object, b",
    ),
    (
        RESPONSES,
        {"input": [{"content": "x"}]},
        (400, "missing_required_parameter", "input[0].role"),
        "Missing required",
    ),
    (
        RESPONSES,
        {"input": [{"role": "tool", "content": "x"}]},
        (400, "invalid_value", "input[0].role"),
        "Invalid value: 'tool'. Supported values are: 'assistant', 'system', 'developer', and 'user'.",
    ),
    (
        RESPONSES,
        {"input": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]},
        (400, "invalid_value", "input[0].content[0].type"),
        "Invalid value: 'text'. Supported values are: 'input_text', 'input_image', 'input_file', ",
    ),
    (RESPONSES, {"input": [{"type": "nothing"}]}, (400, "invalid_value", "input[0].type"), "Invalid value: 'nothing'."),
    (
        RESPONSES,
        {"input": [{"type": "function_call_output", "output": "x"}]},
        (400, "missing_required_parameter", "input[0].call_id"),
        "Missing required parameter: 'input[0].call_id'.",
    ),
    (
        RESPONSES,
        {"input": [{"type": "item_reference", "id": "m"}]},
        (404, None, "input"),
        "Item with id 'm' not found.",
    ),
    (
        RESPONSES,
        {"max_output_tokens": 15},
        (400, "integer_below_min_value", "max_output_tokens"),
        "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16, but got 15 instead.",
    ),
    (
        RESPONSES,
        {"temperature": "x"},
        (400, "invalid_type", "temperature"),
        "Invalid type for 'temperature': expected a",
    ),
    (RESPONSES, {"background": True}, (400, "unsupported_parameter", "background"), "Background mode is not supported"),
    (
        RESPONSES,
        {"previous_response_id": "resp_1"},
        (400, "previous_response_not_found", "previous_response_id"),
        "Previous response with id 'resp_1' not found.",
    ),
    (RESPONSES, {"conversation": {"id": "conv_1"}}, (404, None, None), "Conversation with id 'conv_1' not found."),
    (RESPONSES, {"prompt": {"id": "p"}}, (501, None, None), "the emulator does not execute prompt templates yet"),
    (
        RESPONSES,
        {"reasoning": {"effort": "low"}},
        (400, "unsupported_parameter", "reasoning.effort"),
        "Unsupported para",
    ),
    (
        RESPONSES,
        {"model": "o3", "temperature": 0},
        (400, None, "temperature"),
        "Unsupported parameter: 'temperature' is",
    ),
    (
        RESPONSES,
        {"model": "o3", "reasoning": {"effort": "x"}},
        (400, "invalid_value", "reasoning.effort"),
        "Invalid value",
    ),
    (RESPONSES, {"text": {"foo": 1}}, (400, "unknown_parameter", "text.foo"), "Unknown parameter: 'text.foo'."),
    (
        RESPONSES,
        {"text": {"format": {"type": "json_schema", "schema": SCHEMA}}},
        (400, "missing_required_parameter", "text.format.name"),
        "Missing required parameter: 'text.format.name'.",
    ),
    (
        RESPONSES,
        {"text": {"format": {**FORM, "schema": {"type": "object"}}}},
        (400, "invalid_json_schema", "text.format.schema"),
        "Invalid schema for response_format 'x': In context=(), 'additionalProperties' is required to be supplied",
    ),
    (
        RESPONSES,
        {"text": {"format": {"type": "json_object"}}},
        (400, None, "input"),
        "Response input messages must contain the word 'json' in some form to use 'text.format' of type 'json_object'.",
    ),
    (RESPONSES, {"tools": [{"type": "x"}]}, (400, "invalid_value", "tools[0].type"), "Invalid value: 'x'."),
    (
        RESPONSES,
        {"tools": [{"type": "function"}]},
        (400, "missing_required_parameter", "tools[0].name"),
        "Missing requir",
    ),
    (
        RESPONSES,
        {"tools": [{**TOOL, "strict": True}]},
        (400, "invalid_function_parameters", "tools[0].parameters"),
        "Invalid schema for function 'look': In context=(), 'additionalProperties'",
    ),
    (
        RESPONSES,
        {"tool_choice": "required"},
        (400, None, "tool_choice"),
        "Tool choice 'required' must be specified with",
    ),
    (
        RESPONSES,
        {"tools": [TOOL], "tool_choice": {"type": "function", "name": "other"}},
        (400, None, "tool_choice"),
        "Tool choice 'other' not found in 'tools' parameter.",
    ),
    (
        RESPONSES,
        {"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}},
        (501, None, None),
        "the emulator does not execute the tool 'web_search' yet",
    ),
    (
        RESPONSES,
        {"input": "x" * 4 * 128_000},
        (400, "context_length_exceeded", "input"),
        "Your input exceeds the context window of this model. Please adjust your input and try again.",
    ),
    # Embeddings.
    (EMBEDDINGS, {"input": ""}, (400, None, "input"), "Invalid 'input': input cannot be an empty string."),
    (EMBEDDINGS, {"input": ["x", ""]}, (400, None, "input[1]"), "Invalid 'input[1]': input cannot be an empty string."),
    (EMBEDDINGS, {"input": []}, (400, "empty_array", "input"), "Invalid 'input': empty array."),
    (
        EMBEDDINGS,
        {"input": {}},
        (400, "invalid_type", "input"),
        "Invalid type for 'input': expected one of a string or",
    ),
    (
        EMBEDDINGS,
        {"input": ["x", 1]},
        (400, "invalid_type", "input[1]"),
        "Invalid type for 'input[1]': expected a string",
    ),
    (
        EMBEDDINGS,
        {"input": [1, "x"]},
        (400, "invalid_type", "input[1]"),
        "Invalid type for 'input[1]': expected an integ",
    ),
    (
        EMBEDDINGS,
        {"input": [["x"]]},
        (400, "invalid_type", "input[0][0]"),
        "Invalid type for 'input[0][0]': expected an",
    ),
    (EMBEDDINGS, {"input": [[]]}, (400, "empty_array", "input[0]"), "Invalid 'input[0]': empty array."),
    (
        EMBEDDINGS,
        {"input": ["x"] * 2049},
        (400, "array_above_max_length", "input"),
        "Invalid 'input': array too long. Expected an array with maximum length 2048, but got an array with length 2",
    ),
    (
        EMBEDDINGS,
        {"input": ["x", "x" * (4 * 8192 + 1)]},
        (400, None, None),
        "Invalid 'input[1]': maximum input length is 8192 tokens.",
    ),
    (
        EMBEDDINGS,
        {"input": ["x" * 4 * 8192] * 37},
        (400, "max_tokens_per_request", None),
        "Requested 303104 tokens, max 300000 tokens per request",
    ),
    (
        EMBEDDINGS,
        {"dimensions": 0},
        (400, "integer_below_min_value", "dimensions"),
        "Invalid 'dimensions': integer below",
    ),
    (
        EMBEDDINGS,
        {"dimensions": 1537},
        (400, None, None),
        "Invalid value for 'dimensions' = 1537. Must be less than or e",
    ),
    (
        EMBEDDINGS,
        {"model": "text-embedding-ada-002", "dimensions": 5},
        (400, None, None),
        "This model does not support specifying dimensions.",
    ),
    (
        EMBEDDINGS,
        {"encoding_format": "hex"},
        (400, "invalid_value", "encoding_format"),
        "Invalid value: 'hex'. Supported",
    ),
    # Completions.
    (
        COMPLETIONS,
        {"prompt": [1, "x"]},
        (400, "invalid_type", "prompt[1]"),
        "Invalid type for 'prompt[1]': expected an i",
    ),
    (
        COMPLETIONS,
        {"logprobs": 6},
        (400, "integer_above_max_value", "logprobs"),
        "Invalid 'logprobs': integer above maxi",
    ),
    (
        COMPLETIONS,
        {"logprobs": True},
        (400, "invalid_type", "logprobs"),
        "Invalid type for 'logprobs': expected an integ",
    ),
    (
        COMPLETIONS,
        {"n": 3, "best_of": 2},
        (400, None, "best_of"),
        "You requested that the server return more choices than",
    ),
    (
        COMPLETIONS,
        {"max_tokens": 4096},
        (400, "context_length_exceeded", None),
        "This model's maximum context length is 4096 tokens, however you requested 4099 tokens (3 in your ",
    ),
    # Moderations.
    (
        MODERATIONS,
        {"input": 1},
        (400, "invalid_type", "input"),
        "Invalid type for 'input': expected one of a string or a",
    ),
    (
        MODERATIONS,
        {"input": ["x", {}]},
        (400, "invalid_type", "input[1]"),
        "Invalid type for 'input[1]': expected a stri",
    ),
    (
        MODERATIONS,
        {"input": [{}]},
        (400, "missing_required_parameter", "input[0].type"),
        "Missing required parameter: 'i",
    ),
    (
        MODERATIONS,
        {"model": "text-moderation-latest", "input": [{"type": "image_url", "image_url": {"url": "https://x"}}]},
        (400, None, "input"),
        "Image inputs are not supported with this model.",
    ),
    # Models of another endpoint.
    (
        CHAT,
        {"model": "text-embedding-3-small"},
        (404, None, "model"),
        "This is not a chat model and thus not supported in the v1/chat/completions endpoint. Did you mean to",
    ),
    (
        CHAT,
        {"model": "o3-pro"},
        (404, None, "model"),
        "This model is only supported in v1/responses and not in v1/chat/co",
    ),
    (EMBEDDINGS, {"model": "gpt-4o"}, (403, None, None), "You are not allowed to generate embeddings from this model"),
    (
        COMPLETIONS,
        {"model": "gpt-4o"},
        (404, None, "model"),
        "This is a chat model and not supported in the v1/completions endpoint. Did you mean to use v1/chat",
    ),
    (
        RESPONSES,
        {"model": "omni-moderation-latest"},
        (404, None, "model"),
        "The model 'omni-moderation-latest' is not su",
    ),
    (
        MODERATIONS,
        {"model": "gpt-4o"},
        (404, None, "model"),
        "The model 'gpt-4o' is not supported in the v1/moderations e",
    ),
]


@pytest.mark.parametrize(
    ("endpoint", "changes", "expected", "message"), BODIES, ids=[f"{x[0]}-{x[2][2]}-{x[2][1]}" for x in BODIES]
)
def test_bad_body_is_refused_with_the_services_sentence(endpoint, changes, expected, message):
    with pytest.raises(ApiError) as refused:
        admit(endpoint, changes)
    error = refused.value.body()["error"]
    assert (refused.value.status, error["code"], error["param"]) == expected
    assert error["message"].startswith(message)


GOOD = [
    *((endpoint, {}) for endpoint in MINIMAL),
    (RESPONSES, {"model": "o3-pro"}),
    (RESPONSES, {"tools": [{"type": "web_search_preview"}, TOOL], "tool_choice": "auto"}),
    (RESPONSES, {"text": {"format": FORM, "verbosity": "low"}, "max_output_tokens": 16, "store": False}),
    (RESPONSES, {"model": "gpt-5", "reasoning": {"effort": "low", "summary": "auto"}, "temperature": 1}),
    (
        RESPONSES,
        {
            "input": [
                {
                    "role": "user",
                    "content": [{"type": "input_text", "text": "x"}, {"type": "input_image", "file_id": "f"}],
                },
                {"type": "reasoning", "summary": []},
                {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "seen"},
            ]
        },
    ),
    (EMBEDDINGS, {"input": ["x"] * 2048, "dimensions": 8}),
    (EMBEDDINGS, {"input": [1, 2]}),
    (EMBEDDINGS, {"input": [[1], [2, 3]], "encoding_format": None}),
    (EMBEDDINGS, {"input": "x" * 4 * 8192, "user": "u"}),
    (COMPLETIONS, {"prompt": ["a", "b"], "n": 2, "best_of": 2, "logprobs": 0, "stop": ["x"], "echo": True}),
    (COMPLETIONS, {"prompt": [[1, 2]], "max_tokens": 0}),
    (MODERATIONS, {"input": ["a", ""]}),
    (MODERATIONS, {"input": [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": "https://y"}}]}),
]


@pytest.mark.parametrize(("endpoint", "changes"), GOOD)
def test_good_bodies_are_accepted(endpoint, changes):
    assert admit(endpoint, changes) > 0


@pytest.mark.parametrize(
    ("table", "params"),
    [
        (responses_checks.PARAMETERS, ResponseCreateParamsNonStreaming),
        (embeddings.PARAMETERS, EmbeddingCreateParams),
        (completions.PARAMETERS, CompletionCreateParamsNonStreaming),
        (moderations.PARAMETERS, ModerationCreateParams),
    ],
)
def test_parameter_tables_cover_the_sdk(table, params):
    assert set(params.__annotations__) <= set(table)
    if int(openai.__version__.partition(".")[0]) >= 3:  # older ones do not know the newest parameters
        assert set(table) - set(params.__annotations__) <= {"stream"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "x", "json", "function", "message", "user"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "role", "content", "text", "name", "format", "schema", "output", "id", "summary"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
TABLES = {
    RESPONSES: responses_checks.PARAMETERS,
    EMBEDDINGS: embeddings.PARAMETERS,
    COMPLETIONS: completions.PARAMETERS,
    MODERATIONS: moderations.PARAMETERS,
    CHAT: chat_checks.PARAMETERS,
}


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_any_body_is_answered_or_refused(data):
    endpoint = data.draw(st.sampled_from(sorted(TABLES)))
    names = st.sampled_from(sorted(set(TABLES[endpoint]) - {"model"}))
    body = {**MINIMAL[endpoint], **data.draw(st.dictionaries(names, JSON, max_size=3))}
    asked, model = ENDPOINTS[endpoint], model_named(body["model"])
    try:
        tokens = asked.admit(body, model, is_azure=False)
    except ApiError:
        return
    assert msgspec.json.encode(asked.respond(body, b"0" * 32, tokens, 0, model))
