"""The members of a request body beside the prompt: which names an endpoint takes, and what is sent for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from batchframe._core.exceptions import OptionError, suggestion
from batchframe._core.json_values import json_value
from batchframe._core.option_names import NOT_YET, OPTION_NAMES
from batchframe._endpoints import parameter_checks
from batchframe._endpoints.registry import ENDPOINTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from batchframe._schemas.response_format import AnswerType

# What a batch cannot do, whatever the endpoint: streaming has no reader, and a batch is the background already.
NEVER = frozenset({"stream", "stream_options", "background"})
# Settings of a client. A hint to send them in the body would write keys to disk.
_OF_OPENAI = frozenset({"api_key", "base_url", "organization", "project", "max_retries", "default_headers"})
_OF_AZURE = frozenset({"azure_endpoint", "api_version", "azure_ad_token", "azure_ad_token_provider"})


def is_from_prompt(name: str) -> bool:
    """Whether a member of a body is what the prompt becomes, at some endpoint."""
    return any(name == endpoint.prompt_member for endpoint in ENDPOINTS.values())


def check_names(names: Iterable[str], endpoint: str) -> None:
    """Refuse what is no request parameter of an endpoint.

    Raises
    ------
    OptionError
        Names the nearest right one, or where it belongs.
    """
    known = (ENDPOINTS[endpoint].parameters.keys() | OPTION_NAMES) - NEVER - NOT_YET
    for name in names:
        if name in NEVER:
            msg = f"{name} is refused: a batch cannot stream, and it runs in the background by itself. Leave it out"
            raise OptionError(msg)
        if is_from_prompt(name):
            msg = f"{name} is made from the prompt: pass it as the prompt argument"
            raise OptionError(msg)
        if name in _OF_OPENAI | _OF_AZURE:
            kind = "AzureOpenAI" if name in _OF_AZURE else "OpenAI"
            msg = f"{name} is a client setting: pass client=openai.{kind}({name}=…)"
            raise OptionError(msg)
        if name not in known:
            near = parameter_checks.elsewhere(endpoint, name) or suggestion(name, known)
            msg = f"{name!r} is neither an option of batchframe nor a parameter of {endpoint}.{near}"
            raise OptionError(f"{msg} To send it anyway: extra_body={{{name!r}: …}}")


def check_model(model: Any, endpoint: str) -> None:
    """Refuse what is no name of a model, and a model whose name is known to be another endpoint's."""
    if model is not None and not isinstance(model, str):
        msg = f"model must be text, got {model!r}: one run has one model"
        raise OptionError(msg)
    if model is None or not model.strip():
        msg = f"model must be a model id or deployment name, got {model!r}"
        raise OptionError(msg)
    for other in ENDPOINTS.values():
        if other.path != endpoint and model.startswith(other.own_models):
            msg = f'model {model!r} is for {other.path}, and the endpoint is {endpoint}: pass endpoint="{other.path}"'
            raise OptionError(msg)


def check_extra_body(name: str, value: Any) -> dict[str, Any]:
    """Return ``extra_body``, if it is a dict of parameters."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
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
    """Return the members of the body, sorted: the order of keyword arguments makes no other run.

    Parameters
    ----------
    endpoint
        The path of the endpoint.
    parameters
        By name, values or per-row expressions; None stands for a parameter that is not given.
    extra_body
        Parameters that are sent unchecked; they win over ``parameters``.
    response_format
        The option, where it is the service's own form.
    answer_type
        What ``response_format`` means, where it is a model, a schema or a dtype.

    Raises
    ------
    OptionError
        A value has no JSON, two parameters contradict each other, or a value does not fit the endpoint's parameter.
    """
    members = {name: value for name, value in parameters.items() if value is not None} | dict(extra_body)
    members = {
        name: value if isinstance(value, pl.Expr) else json_value(value, name) for name, value in members.items()
    }
    form = answer_type.response_format() if answer_type is not None else response_format
    if form is not None:
        _check_takes_format(endpoint)
        form = json_value(form, "response_format")
        if ENDPOINTS[endpoint].format_parameter == "text":
            members["text"] = _text_with(form, members.get("text"))
        elif "response_format" in members:
            msg = "response_format is passed by itself and in extra_body: leave one of them out"
            raise OptionError(msg)
        else:
            members["response_format"] = _nested(form)
    members = dict(sorted(members.items()))
    _check_members(members, endpoint)
    checked = {name: value for name, value in members.items() if name not in extra_body}
    parameter_checks.check_values(endpoint, checked)
    return members


def _check_takes_format(endpoint: str) -> None:
    if ENDPOINTS[endpoint].format_parameter is None:
        supporting = ", ".join(path for path, other in ENDPOINTS.items() if other.format_parameter is not None)
        msg = f"{endpoint} does not support response_format: leave it out. Endpoints with response_format: {supporting}"
        raise OptionError(msg)


def _text_with(form: dict[str, Any], text: Any) -> dict[str, Any]:
    """Return the parameter ``text`` of the responses endpoint, with what chat completions call ``response_format``."""
    if not isinstance(text, (dict, type(None))) or "format" in (text or {}):
        msg = f"response_format is sent as the format of text, and text is {text!r}: leave one of them out"
        raise OptionError(msg)
    inner = form.get("json_schema")
    flat = {"type": "json_schema", **inner} if isinstance(inner, dict) else form
    return {**(text or {}), "format": flat}


def _nested(form: dict[str, Any]) -> dict[str, Any]:
    """Return a ``response_format``, also where it is spelled as in ``text.format`` of the responses endpoint."""
    if form.get("type") != "json_schema" or "schema" not in form:
        return form
    return {"type": "json_schema", "json_schema": {name: value for name, value in form.items() if name != "type"}}


def _check_members(members: dict[str, Any], endpoint: str) -> None:
    for name, effect in (("n", "response a List"), ("dimensions", "response an Array of them")):
        count = members.get(name, 1)
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            shown = "an expression" if isinstance(count, pl.Expr) else repr(count)
            msg = f"{name} must be one whole number for all rows, since it makes the {effect}; got {shown}"
            raise OptionError(msg)
    never = sorted(name for name in NEVER & members.keys() if members[name] is not False)
    if never:
        msg = f"extra_body holds {never[0]}, which a batch cannot do: leave it out"
        raise OptionError(msg)
    for name, source in (("model", "model"), (ENDPOINTS[endpoint].prompt_member, "prompt")):
        if name in members:
            msg = f"extra_body holds {name}, which comes from the {source} argument: leave it out there"
            raise OptionError(msg)


def check_logprobs_requested(members: Mapping[str, Any], endpoint: str) -> None:
    """Refuse ``include="logprobs"`` where the requests ask for none: the column would be null in every paid row."""
    request = ENDPOINTS[endpoint].logprobs_request
    assert request is not None
    name, wanted, line = request
    value = members.get(name)
    # Completions take a number, of which 0 asks for no alternatives.
    is_requested = wanted in value if isinstance(value, list) else value is not None and value is not False
    if not is_requested:
        msg = f'include="logprobs" needs {line}: without it the service returns no logprobs'
        raise OptionError(msg)
