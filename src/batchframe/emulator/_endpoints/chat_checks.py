"""``/v1/chat/completions``: the checks of a body, from the emulator's own tables."""

from __future__ import annotations

from typing import Any

from batchframe.emulator import _errors as errors
from batchframe.emulator._endpoints import parameter_kinds as kinds
from batchframe.emulator._endpoints.chat_messages import check_messages, count, mentions_json
from batchframe.emulator._endpoints.strict_schemas import check_strict
from batchframe.emulator._model.model_table import Model, model_named


def _function(param: str, value: Any) -> None:
    kinds.needs(param, value, ("name",), ("name", "description", "parameters", "strict"))
    kinds.name(f"{param}.name", value["name"])
    if value.get("parameters") is not None:
        kinds.mapping(f"{param}.parameters", value["parameters"])
        if value.get("strict"):
            check_strict(value["name"], value["parameters"], f"{param}.parameters")


def _tool(param: str, value: Any) -> None:
    kinds.mapping(param, value)
    kind = value.get("type")
    if kind is None:
        raise errors.missing(f"{param}.type")
    kinds.one_of("function", "custom")(f"{param}.type", kind)
    kinds.needs(param, value, (kind,), ("type", kind))
    if kind == "function":
        _function(f"{param}.function", value["function"])


def _tool_choice(param: str, value: Any) -> None:
    if type(value) is str:
        kinds.one_of("none", "auto", "required")(param, value)
    elif type(value) is not dict:
        raise errors.wrong_type(param, "one of a string or object", value)
    elif value.get("type") == "function":
        kinds.needs(f"{param}.function", value.get("function"), ("name",), ("name",))


def _response_format(param: str, value: Any) -> None:
    if kinds.format_type(param, value) != "json_schema":
        return
    inner, path = value.get("json_schema"), f"{param}.json_schema"
    if inner is None:
        raise errors.missing(path)
    kinds.needs(path, inner, ("name",), ("name", "description", "schema", "strict"))
    kinds.name(f"{path}.name", inner["name"])
    if inner.get("schema") is not None:
        kinds.mapping(f"{path}.schema", inner["schema"])
    if inner.get("strict"):
        if inner.get("schema") is None:
            raise errors.missing(f"{path}.schema")
        check_strict(inner["name"], inner["schema"])


# The parameters of /v1/chat/completions. Source: openai.types.chat.completion_create_params (3.54.0) for the names,
# the API reference for the bounds.
PARAMETERS: dict[str, kinds.Check] = {
    "audio": kinds.mapping,
    "frequency_penalty": kinds.decimal(-2, 2),
    "function_call": lambda param, value: None if type(value) is str else kinds.mapping(param, value),
    "functions": kinds.array_of("objects", _function, min_items=1, max_items=128),
    "logit_bias": kinds.logit_bias,
    "logprobs": kinds.boolean,
    "max_completion_tokens": kinds.integer(1, float("inf")),
    "max_tokens": kinds.integer(1, float("inf")),
    "messages": check_messages,
    "metadata": kinds.metadata,
    "modalities": kinds.array_of("strings", kinds.one_of("text", "audio")),
    "model": kinds.string,
    "moderation": kinds.mapping,
    "n": kinds.integer(1, 128),
    "parallel_tool_calls": kinds.boolean,
    "prediction": kinds.mapping,
    "presence_penalty": kinds.decimal(-2, 2),
    "prompt_cache_key": kinds.string,
    "prompt_cache_options": kinds.mapping,
    "prompt_cache_retention": kinds.one_of("in_memory", "24h"),
    "reasoning_effort": kinds.one_of("none", "minimal", "low", "medium", "high", "xhigh", "max"),
    "response_format": _response_format,
    "safety_identifier": kinds.string,
    "seed": kinds.integer(-(2**63), 2**63 - 1),
    "service_tier": kinds.one_of("auto", "default", "flex", "scale", "priority", "fast"),
    "stop": kinds.stop,
    "store": kinds.boolean,
    "stream": kinds.boolean,
    "stream_options": kinds.mapping,
    "temperature": kinds.decimal(0, 2),
    "tool_choice": _tool_choice,
    "tools": kinds.array_of("objects", _tool, min_items=1, max_items=128),
    "top_logprobs": kinds.integer(0, 20),
    "top_p": kinds.decimal(0, 1),
    "user": kinds.string,
    "verbosity": kinds.one_of("low", "medium", "high"),
    "web_search_options": kinds.mapping,
}
_NOT_NULL = {
    "messages": "an array of objects",
    "model": "a string",
    "parallel_tool_calls": "a boolean",
    "response_format": "an object",
    "tool_choice": "one of a string or object",
    "tools": "an array of objects",
    "user": "a string",
}
# Parameters that reasoning models take only at this value.
_FIXED = {"temperature": 1, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0}
# Parameters that some of them take while they do not reason.
_SAMPLING = frozenset({"temperature", "top_p", "logprobs", "top_logprobs"})


def check(body: dict[str, Any], model: Model | None = None) -> int:
    """Refuse a body the service would refuse; return its input tokens. `model`: None looks its name up."""
    kinds.parameters(body, PARAMETERS, required=("messages", "model"), not_null=_NOT_NULL)
    model = model or model_named(body["model"])
    if model.is_reasoning:
        _check_reasoning(body, model)
    elif body.get("reasoning_effort") is not None:
        message = "Unrecognized request argument supplied: reasoning_effort"
        raise errors.ApiError(message)
    _check_together(body, model)
    prompt_tokens = count(body)
    if prompt_tokens > model.context_tokens:
        message = (
            f"This model's maximum context length is {model.context_tokens} tokens. However, your messages resulted "
            f"in {prompt_tokens} tokens. Please reduce the length of the messages."
        )
        raise errors.ApiError(message, param="messages", code="context_length_exceeded")
    return prompt_tokens


def _check_reasoning(body: dict[str, Any], model: Model) -> None:
    if body.get("max_tokens") is not None:
        message = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        )
        raise errors.ApiError(message, param="max_tokens", code="unsupported_parameter")
    allowed = _SAMPLING if model.samples(body.get("reasoning_effort")) else frozenset()
    for name, default in _FIXED.items():
        value = body.get(name)
        if value is not None and value != default and name not in allowed:
            message = (
                f"Unsupported value: '{name}' does not support {value} with this model. "
                f"Only the default ({default}) value is supported."
            )
            raise errors.ApiError(message, param=name, code="unsupported_value")
    for name in ("logprobs", "top_logprobs", "logit_bias"):
        if body.get(name) and name not in allowed:
            message = f"Unsupported parameter: '{name}' is not supported with this model."
            raise errors.ApiError(message, param=name, code="unsupported_parameter")


def _check_together(body: dict[str, Any], model: Model) -> None:
    """Check the parameters that depend on one another."""
    for name in ("max_tokens", "max_completion_tokens"):
        if (body.get(name) or 0) > model.output_tokens:
            message = (
                f"{name} is too large: {body[name]}. This model supports at most {model.output_tokens} completion "
                f"tokens, whereas you provided {body[name]}."
            )
            raise errors.ApiError(message, param=name, code="invalid_value")
    if body.get("max_tokens") is not None and body.get("max_completion_tokens") is not None:
        message = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."
        raise errors.ApiError(message, param="max_tokens", code="invalid_parameter_combination")
    if body.get("top_logprobs") is not None and not body.get("logprobs"):
        message = "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled."
        raise errors.ApiError(message, param="top_logprobs")
    if "response_format" in body and body["response_format"]["type"] == "json_object":
        _check_mentions_json(body)
    if "tool_choice" in body and body["tool_choice"] != "none" and not body.get("tools"):
        raise errors.ApiError("'tool_choice' is only allowed when 'tools' are specified.", param="tool_choice")
    if "tool_choice" in body and isinstance(body["tool_choice"], dict):
        _check_named_tool(body)


def _check_mentions_json(body: dict[str, Any]) -> None:
    if not mentions_json(body["messages"]):
        message = (
            "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'."
        )
        raise errors.ApiError(message, param="messages")


def _check_named_tool(body: dict[str, Any]) -> None:
    choice = body["tool_choice"]
    if choice.get("type") != "function":
        return
    name = choice["function"]["name"]
    if name not in {tool["function"]["name"] for tool in body["tools"] if tool["type"] == "function"}:
        message = f"Tool choice '{name}' not found in 'tools' parameter."
        raise errors.ApiError(message, param="tool_choice")
