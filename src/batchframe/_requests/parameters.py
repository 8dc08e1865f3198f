"""The parameters in a request body: which names an endpoint accepts, and the value sent for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from batchframe._core.checks import is_count, is_text_dict
from batchframe._core.exceptions import OptionError, suggestion
from batchframe._core.json_values import json_value
from batchframe._core.option_names import NOT_YET, OPTION_NAMES
from batchframe._endpoints import parameter_checks
from batchframe._endpoints.registry import ENDPOINTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from batchframe._schemas.response_format import AnswerType

# A batch supports these at no endpoint: nobody reads a stream, and a batch always runs in the background.
NEVER = frozenset({"stream", "stream_options", "background"})
# Client settings. A hint to send them in extra_body would write API keys to disk.
_OF_OPENAI = frozenset({"api_key", "base_url", "organization", "project", "max_retries", "default_headers"})
_OF_AZURE = frozenset({"azure_endpoint", "api_version", "azure_ad_token", "azure_ad_token_provider"})


def is_from_prompt(name: str) -> bool:
    """Whether the prompt becomes this member of the body at some endpoint."""
    return any(name == endpoint.prompt_member for endpoint in ENDPOINTS.values())


def check_names(names: Iterable[str], endpoint: str) -> None:
    """Refuse names that are not request parameters of an endpoint.

    Raises
    ------
    OptionError
        A name is unknown. The error suggests the nearest known name, or where the setting belongs.
    """
    known = (ENDPOINTS[endpoint].parameters.keys() | OPTION_NAMES) - NEVER - NOT_YET
    for name in names:
        if name in NEVER:
            msg = f"{name} is not supported: a batch cannot stream, and always runs in the background. Leave it out"
            raise OptionError(msg)
        if is_from_prompt(name):
            msg = f"{name} comes from the prompt: pass it as the prompt argument"
            raise OptionError(msg)
        if name in _OF_OPENAI | _OF_AZURE:
            kind = "AzureOpenAI" if name in _OF_AZURE else "OpenAI"
            msg = f"{name} is a client setting: pass client=openai.{kind}({name}=…)"
            raise OptionError(msg)
        if name not in known:
            near = parameter_checks.elsewhere(endpoint, name) or suggestion(name, known)
            msg = f"{name!r} is neither a batchframe option nor a parameter of {endpoint}.{near}"
            raise OptionError(f"{msg} To send it anyway: extra_body={{{name!r}: …}}")


def check_model(model: Any, endpoint: str) -> None:
    """Refuse a value that is not a model name, and a model that is known to belong to another endpoint."""
    if model is not None and not isinstance(model, str):
        msg = f"model must be a string, got {model!r}: a run uses one model"
        raise OptionError(msg)
    if model is None or not model.strip():
        msg = f"model must be a model id or deployment name, got {model!r}"
        raise OptionError(msg)
    for other in ENDPOINTS.values():
        if other.path != endpoint and model.startswith(other.own_models):
            msg = (
                f'model {model!r} belongs to {other.path}, but the endpoint is {endpoint}: pass endpoint="{other.path}"'
            )
            raise OptionError(msg)


def check_extra_body(name: str, value: Any) -> dict[str, Any]:
    """Return ``extra_body`` after checking that it is a dict of parameters."""
    if not is_text_dict(value):
        msg = f"{name} must be a dict of parameters, got {value!r}"
        raise OptionError(msg)
    return value


def body_members(
    endpoint: str,
    parameters: Mapping[str, Any],
    extra_body: Mapping[str, Any],
    response_format: Any,
    answer_type: AnswerType | None,
) -> dict[str, Any]:
    """Return the members of the body, sorted, so that the order of keyword arguments does not change the run.

    Parameters
    ----------
    endpoint
        The path of the endpoint.
    parameters
        Values or per-row expressions, by name. None means that the parameter is not set.
    extra_body
        Parameters that are sent unchecked; they win over ``parameters``.
    response_format
        The option, if it is already in the service's format.
    answer_type
        The type that ``response_format`` describes, if it is a model, a schema or a dtype.

    Raises
    ------
    OptionError
        A value cannot be written as JSON, two parameters conflict, or a value has the wrong type for its parameter.
    """
    members = {name: value for name, value in parameters.items() if value is not None} | dict(extra_body)
    members = {
        name: value if isinstance(value, pl.Expr) else json_value(value, name) for name, value in members.items()
    }
    form = answer_type.response_format() if answer_type is not None else response_format
    if form is not None:
        _check_format_supported(endpoint)
        form = json_value(form, "response_format")
        if ENDPOINTS[endpoint].format_parameter == "text":
            members["text"] = _text_with(form, members.get("text"))
        elif "response_format" in members:
            msg = "response_format is passed both as an option and in extra_body: leave one of them out"
            raise OptionError(msg)
        else:
            members["response_format"] = _nested(form)
    members = dict(sorted(members.items()))
    _check_members(members, endpoint)
    checked = {name: value for name, value in members.items() if name not in extra_body}
    parameter_checks.check_values(endpoint, checked)
    return members


def _check_format_supported(endpoint: str) -> None:
    if ENDPOINTS[endpoint].format_parameter is None:
        supporting = ", ".join(path for path, other in ENDPOINTS.items() if other.format_parameter is not None)
        msg = f"{endpoint} does not support response_format: leave it out. Endpoints with response_format: {supporting}"
        raise OptionError(msg)


def _text_with(form: dict[str, Any], text: Any) -> dict[str, Any]:
    """Return the ``text`` parameter of the responses endpoint, with the ``response_format`` of chat as its format."""
    if not isinstance(text, (dict, type(None))) or "format" in (text or {}):
        msg = f"response_format sets text.format and conflicts with text={text!r}: leave one of them out"
        raise OptionError(msg)
    inner = form.get("json_schema")
    flat = {"type": "json_schema", **inner} if isinstance(inner, dict) else form
    return {**(text or {}), "format": flat}


def _nested(form: dict[str, Any]) -> dict[str, Any]:
    """Return a ``response_format`` as chat expects it; ``text.format`` of the responses endpoint is not nested."""
    if form.get("type") != "json_schema" or "schema" not in form:
        return form
    return {"type": "json_schema", "json_schema": {name: value for name, value in form.items() if name != "type"}}


def _check_members(members: dict[str, Any], endpoint: str) -> None:
    for name, effect in (("n", "response a List"), ("dimensions", "response an Array of this length")):
        count = members.get(name, 1)
        if not is_count(count):
            shown = "an expression" if isinstance(count, pl.Expr) else repr(count)
            msg = f"{name} must be one positive integer for all rows, because it makes the {effect}; got {shown}"
            raise OptionError(msg)
    unsupported = sorted(name for name in NEVER & members.keys() if members[name] is not False)
    if unsupported:
        msg = f"extra_body contains {unsupported[0]}, which a batch does not support: leave it out"
        raise OptionError(msg)
    for name, source in (("model", "model"), (ENDPOINTS[endpoint].prompt_member, "prompt")):
        if name in members:
            msg = f"extra_body contains {name}, which comes from the {source} argument: remove it from extra_body"
            raise OptionError(msg)


def check_logprobs_requested(members: Mapping[str, Any], endpoint: str) -> None:
    """Refuse ``include="logprobs"`` if the requests do not ask for logprobs: the column would be null in every row."""
    request = ENDPOINTS[endpoint].logprobs_request
    assert request is not None
    name, needed, line = request
    value = members.get(name)
    # Completions take a number: 0 asks for logprobs without alternatives.
    is_requested = needed in value if isinstance(value, list) else value is not None and value is not False
    if not is_requested:
        msg = f'include="logprobs" needs {line}: without it the service returns no logprobs'
        raise OptionError(msg)
