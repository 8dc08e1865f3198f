"""``/v1/responses``: the checks of a body."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchframe.emulator import _errors as errors
from batchframe.emulator._endpoints import parameter_kinds as kinds
from batchframe.emulator._endpoints import responses_items
from batchframe.emulator._endpoints.chat_messages import mentions_json
from batchframe.emulator._endpoints.strict_schemas import check_strict

if TYPE_CHECKING:
    from batchframe.emulator._model.model_table import Model

_TOOLS = (
    "function", "apply_patch", "code_interpreter", "computer", "computer_use_preview", "custom", "file_search",
    "image_generation", "local_shell", "mcp", "namespace", "shell", "tool_search", "web_search", "web_search_preview",
)  # fmt: skip
# Parameters of the chat endpoint that have another name here.
_MOVED = {
    "max_completion_tokens": "max_output_tokens",
    "max_tokens": "max_output_tokens",
    "messages": "input",
    "reasoning_effort": "reasoning.effort",
    "response_format": "text.format",
    "verbosity": "text.verbosity",
}


def _reasoning(param: str, value: Any) -> None:
    kinds.needs(param, value, (), ("context", "effort", "generate_summary", "mode", "summary"))
    if value.get("effort") is not None:
        efforts = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
        kinds.one_of(*efforts)(f"{param}.effort", value["effort"])
    for name in ("generate_summary", "summary"):
        if value.get(name) is not None:
            kinds.one_of("auto", "concise", "detailed")(f"{param}.{name}", value[name])


def _text(param: str, value: Any) -> None:
    kinds.needs(param, value, (), ("format", "verbosity"))
    if value.get("verbosity") is not None:
        kinds.one_of("low", "medium", "high")(f"{param}.verbosity", value["verbosity"])
    if value.get("format") is not None:
        _format(f"{param}.format", value["format"])


def _format(param: str, value: Any) -> None:
    if kinds.format_type(param, value) != "json_schema":
        return
    for name in ("name", "schema"):
        if value.get(name) is None:
            raise errors.missing(f"{param}.{name}")
    kinds.needs(param, value, (), ("type", "name", "schema", "description", "strict"))
    kinds.name(f"{param}.name", value["name"])
    kinds.mapping(f"{param}.schema", value["schema"])
    if value.get("strict"):
        check_strict(value["name"], value["schema"], f"{param}.schema", "invalid_json_schema")


def _tool(param: str, value: Any) -> None:
    kinds.mapping(param, value)
    kind = value.get("type")
    if kind is None:
        raise errors.missing(f"{param}.type")
    # Hosted tools also have dated names, which come and go.
    if type(kind) is not str or not kind.startswith(_TOOLS):
        kinds.one_of(*_TOOLS)(f"{param}.type", kind)
    if kind != "function":
        return
    if value.get("name") is None:
        raise errors.missing(f"{param}.name")
    kinds.name(f"{param}.name", value["name"])
    if value.get("parameters") is not None:
        kinds.mapping(f"{param}.parameters", value["parameters"])
        if value.get("strict"):
            check_strict(value["name"], value["parameters"], f"{param}.parameters", "invalid_function_parameters")


def _tool_choice(param: str, value: Any) -> None:
    if type(value) is str:
        kinds.one_of("none", "auto", "required")(param, value)
    else:
        kinds.mapping(param, value)
        if value.get("type") is None:
            raise errors.missing(f"{param}.type")
        if value["type"] == "function" and type(value.get("name")) is not str:
            raise errors.missing(f"{param}.name")


# Source: openai.types.responses.response_create_params (3.54.0) for the names, the API reference for the bounds.
PARAMETERS: dict[str, kinds.Check] = {
    **dict.fromkeys(
        ("access_programs", "background_options", "image", "moderation", "prompt", "prompt_cache_options"),
        kinds.mapping,
    ),
    "background": kinds.boolean,
    "context_management": kinds.array_of("objects", kinds.mapping),
    "conversation": lambda param, value: None if type(value) is str else kinds.mapping(param, value),
    "include": kinds.array_of("strings", kinds.string),
    "input": responses_items.check,
    "instructions": kinds.string,
    "max_output_tokens": kinds.integer(16, float("inf")),
    "max_tool_calls": kinds.integer(1, float("inf")),
    "metadata": kinds.metadata,
    "model": kinds.string,
    "parallel_tool_calls": kinds.boolean,
    "previous_response_id": kinds.string,
    "prompt_cache_key": kinds.string,
    "prompt_cache_retention": kinds.one_of("in_memory", "24h"),
    "reasoning": _reasoning,
    "safety_identifier": kinds.string,
    "service_tier": kinds.one_of("auto", "default", "flex", "scale", "priority", "fast"),
    "store": kinds.boolean,
    "stream": kinds.boolean,
    "stream_options": kinds.mapping,
    "temperature": kinds.decimal(0, 2),
    "text": _text,
    "tool_choice": _tool_choice,
    "tools": kinds.array_of("objects", _tool),
    "top_logprobs": kinds.integer(0, 20),
    "top_p": kinds.decimal(0, 1),
    "truncation": kinds.one_of("auto", "disabled"),
    "user": kinds.string,
}
_NOT_NULL = {"input": "one of a string or array of input items", "model": "a string", "tools": "an array of objects"}


def check(body: dict[str, Any], model: Model) -> int:
    """Refuse a body the service would refuse; return its input tokens."""
    for name, new_name in _MOVED.items():
        if name in body:
            message = (
                f"Unsupported parameter: '{name}'. In the Responses API, this parameter has moved to '{new_name}'. Try "
                "again with the new parameter. See the API documentation for more information: "
                "https://platform.openai.com/docs/api-reference/responses/create."
            )
            raise errors.ApiError(message, param=name, code="unsupported_parameter")
    kinds.parameters(body, PARAMETERS, required=("model", "input"), not_null=_NOT_NULL)
    _check_stored(body)
    _check_model(body, model)
    _check_together(body)
    used = responses_items.count(body)
    if used > model.context_tokens:
        message = "Your input exceeds the context window of this model. Please adjust your input and try again."
        raise errors.ApiError(message, param="input", code="context_length_exceeded")
    return used


def _check_stored(body: dict[str, Any]) -> None:
    """Refuse references to stored responses and conversations: nothing is stored."""
    if body.get("background"):
        # It is certain that a batch takes no background requests; the sentence is not.
        message = "Background mode is not supported in the Batch API."
        raise errors.ApiError(message, param="background", code="unsupported_parameter")
    previous, conversation = body.get("previous_response_id"), body.get("conversation")
    if previous is not None:
        message = f"Previous response with id '{previous}' not found."
        raise errors.ApiError(message, param="previous_response_id", code="previous_response_not_found")
    if conversation is not None:
        name = conversation if isinstance(conversation, str) else conversation.get("id")
        raise errors.ApiError(f"Conversation with id '{name}' not found.", status=404)
    if body.get("prompt") is not None:
        raise errors.not_emulated("prompt templates")


def _check_model(body: dict[str, Any], model: Model) -> None:
    effort = (body.get("reasoning") or {}).get("effort")
    if model.is_reasoning:
        for name in () if model.samples(effort) else ("temperature", "top_p"):
            if body.get(name) not in (None, 1):
                message = f"Unsupported parameter: '{name}' is not supported with this model."
                raise errors.ApiError(message, param=name)
    elif effort is not None:
        message = "Unsupported parameter: 'reasoning.effort' is not supported with this model."
        raise errors.ApiError(message, param="reasoning.effort", code="unsupported_parameter")


def _check_together(body: dict[str, Any]) -> None:
    """Check the parameters that depend on one another."""
    response_format = (body.get("text") or {}).get("format") or {}
    if response_format.get("type") == "json_object" and not mentions_json(responses_items.messages(body)):
        message = (
            "Response input messages must contain the word 'json' in some form to use 'text.format' of type "
            "'json_object'."
        )
        raise errors.ApiError(message, param="input")
    choice, tools = body.get("tool_choice"), body.get("tools") or []
    names = [tool["name"] for tool in tools if tool["type"] == "function"]
    if isinstance(choice, dict):
        if choice["type"] != "function":
            raise errors.not_emulated(f"the tool '{choice['type']}'")
        if choice["name"] not in names:
            raise errors.ApiError(
                f"Tool choice '{choice['name']}' not found in 'tools' parameter.", param="tool_choice"
            )
    elif choice == "required" and not tools:
        message = "Tool choice 'required' must be specified with 'tools' parameter."
        raise errors.ApiError(message, param="tool_choice")
    elif choice == "required" and not names:
        raise errors.not_emulated(f"the tool '{tools[0]['type']}'")
