"""The options of a call, checked, and the request parameters that go into the body instead."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import polars as pl

from batchframe._api.option_table import OPTIONS, Options
from batchframe._core.exceptions import OptionError, suggestion
from batchframe._core.json_values import json_value
from batchframe._endpoints import parameter_checks
from batchframe._endpoints.embeddings import EMBEDDINGS, dimensions_of
from batchframe._endpoints.parameter_table import PARAMETERS
from batchframe._endpoints.registry import DEFAULT, ENDPOINTS
from batchframe._providers.limits import Limits
from batchframe._results.answer_format import Form
from batchframe._schemas.response_format import AnswerType, type_asked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batchframe._endpoints.base import Endpoint

__all__ = ["INCLUDES", "NAMES", "Options", "include_columns", "options_of", "parse"]

INCLUDES = ("model", "request_id", "batch_id", "logprobs", "tool_calls", "content_filter", "reused", "raw")

# Promised by the public interface and not there yet: refused by name, never silently ignored.
_NOT_YET = frozenset(
    {
        "max_cost",
        "prices",
        "keep",
        "base_model",
        "storage_options",
    }
)
_NOT_YET_INCLUDED = frozenset({"cost", "attempts"})
_FROM_PROMPT = frozenset(endpoint.prompt_member for endpoint in ENDPOINTS.values())
# What a batch cannot do, whatever the endpoint: streaming has no reader, and a batch is the background already.
_NEVER = frozenset({"stream", "stream_options", "background"})
# What is said to a client when it is made. A hint to send it in the body would write keys to disk.
_OF_OPENAI = frozenset({"api_key", "base_url", "organization", "project", "max_retries", "default_headers"})
_OF_AZURE = frozenset({"azure_endpoint", "api_version", "azure_ad_token", "azure_ad_token_provider"})
# OpenAI's API specification; Azure wants 14 days at least, and says so itself.
_MIN_EXPIRES_AFTER, _MAX_EXPIRES_AFTER = 3_600, 2_592_000
# openai.types.responses.ImageDetail, and what chat completions take (3.54.0).
_DETAILS = ("low", "high", "auto", "original")
# Whether an endpoint has a use for an option, for those that not all have.
_USES: dict[str, Callable[[Endpoint], bool]] = {
    "system": lambda endpoint: bool(endpoint.roles),
    "response_format": lambda endpoint: endpoint.format_parameter is not None,
    "images": lambda endpoint: endpoint.max_images > 0,
    "image_detail": lambda endpoint: endpoint.has_image_detail,
}
# And for a column of ``include``.
_TELLS: dict[str, Callable[[Endpoint], bool]] = {
    "tool_calls": lambda endpoint: endpoint.tool_calls is not None,
    "logprobs": lambda endpoint: endpoint.logprobs is not None,
}


NAMES = frozenset(option.name for option in OPTIONS) | _NOT_YET


def options_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options and the request parameters among the arguments of a call.

    Parameters
    ----------
    arguments
        The ``locals()`` of the call before it does anything: every option by its name, and the request parameters in
        ``parameters``.
    """
    return {option.name: arguments[option.name] for option in OPTIONS} | dict(arguments["parameters"])


def parse(given: dict[str, Any]) -> Options:
    """Part the keyword arguments of a call into options and body parameters, and check both.

    Raises
    ------
    OptionError
        A name that is neither (with the nearest right one), or a value that cannot be.
    """
    ours = {name: value for name, value in given.items() if name in NAMES}
    body = {name: value for name, value in given.items() if name not in NAMES}
    _check_names(ours, body, ours.get("endpoint") or DEFAULT.path)
    checked = _checked(ours)
    _check_fit(checked)
    typed = type_asked(checked.get("response_format"))
    options = Options(**checked, body=_body(body, checked, typed))
    _check_body(options)
    parameter_checks.check_values(options.endpoint, options.parameters)
    if "logprobs" in options.include:
        _check_logprobs(options)
    return dataclasses.replace(options, form=_form(options, typed))


def _check_names(ours: dict[str, Any], body: dict[str, Any], endpoint: Any) -> None:
    later = sorted(_NOT_YET & ours.keys())
    if later:
        msg = f"{later[0]} is not available in this version of batchframe: leave it out"
        raise OptionError(msg)
    if not isinstance(endpoint, str) or endpoint not in ENDPOINTS:
        near = suggestion(str(endpoint), ENDPOINTS)
        msg = f"endpoint {endpoint!r} is not an endpoint.{near} Available: {', '.join(ENDPOINTS)}"
        raise OptionError(msg)
    known_names = (PARAMETERS[endpoint].keys() | NAMES) - _NEVER - _NOT_YET
    for name in body:
        if name in _NEVER:
            msg = f"{name} is refused: a batch cannot stream, and it runs in the background by itself. Leave it out"
            raise OptionError(msg)
        if name in _FROM_PROMPT:
            msg = f"{name} is made from the prompt: pass it as the prompt argument"
            raise OptionError(msg)
        if name in _OF_OPENAI | _OF_AZURE:
            kind = "AzureOpenAI" if name in _OF_AZURE else "OpenAI"
            msg = f"{name} is said to the client: pass client=openai.{kind}({name}=…)"
            raise OptionError(msg)
        if name not in known_names:
            near = parameter_checks.elsewhere(endpoint, name) or suggestion(name, known_names)
            msg = f"{name!r} is neither an option of batchframe nor a parameter of {endpoint}.{near}"
            raise OptionError(f"{msg} To send it all the same: extra_body={{{name!r}: …}}")


def _checked(ours: dict[str, Any]) -> dict[str, Any]:
    """Check each option's value; what is None means the default."""
    checked = {name: value for name, value in ours.items() if value is not None}
    for name in ("model", "custom_id", "name", "prefix", "completion_window"):
        if name in checked and not isinstance(checked[name], str):
            one = ": one run has one model" if name == "model" else ""
            msg = f"{name} must be text, got {checked[name]!r}{one}"
            raise OptionError(msg)
    if not checked.get("model", "").strip():
        msg = f"model must be a model id or deployment name, got {ours['model']!r}"
        raise OptionError(msg)
    for name, check in _CHECKS.items():
        if name in checked:
            checked[name] = check(name, checked[name])
    return checked


def _on_null(name: str, value: Any) -> str:
    if not isinstance(value, str) or value not in {"skip", "render", "raise"}:
        msg = f'{name} must be "skip", "render" or "raise", got {value!r}'
        raise OptionError(msg)
    return value


def _limits(name: str, value: Any) -> Limits:
    if not isinstance(value, Limits):
        msg = f"{name} must be a bf.Limits(...), such as bf.Limits(max_requests=1_000), got {value!r}"
        raise OptionError(msg)
    return value


def _seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
        msg = f"{name} must be a number of seconds, 0 or more, got {value!r}"
        raise OptionError(msg)
    return value


def _extra_body(name: str, value: Any) -> dict[str, Any]:
    if not _is_text_dict(value):
        msg = f"{name} must be a dict of parameters, got {value!r}"
        raise OptionError(msg)
    return cast("dict[str, Any]", value)


def _expires_after(name: str, value: Any) -> int:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or not _MIN_EXPIRES_AFTER <= value <= _MAX_EXPIRES_AFTER:
        msg = f"{name} must be a whole number of seconds from 3600 (an hour) to 2592000 (30 days), got {value!r}"
        raise OptionError(msg)
    return cast("int", value)


def _run_dir(name: str, value: Any) -> Any:
    if not isinstance(value, str) and not hasattr(value, "__fspath__"):
        msg = f"{name} must be the path of a folder, got {value!r}"
        raise OptionError(msg)
    return value


def include_columns(name: str, value: Any, known: tuple[str, ...] = INCLUDES) -> tuple[str, ...]:
    """Return the extra columns that are asked for, in the order in which they are added.

    Raises
    ------
    OptionError
        A name is none of those known.
    """
    if not isinstance(value, (str, list, tuple, set, frozenset)):
        msg = f'{name} must be a list of names, such as ["model", "raw"], got {value!r}'
        raise OptionError(msg)
    names = [value] if isinstance(value, str) else list(value)
    for column in names:
        if column not in known:
            available = f"Available: {', '.join(known)}"
            if isinstance(column, str) and column in _NOT_YET_INCLUDED:
                msg = f"{name}={column!r} is not available in this version of batchframe. {available}"
            else:
                msg = f"{name} has no column {column!r}.{suggestion(str(column), known)} {available}"
            raise OptionError(msg)
    return tuple(column for column in known if column in names)


def _metadata(name: str, value: Any) -> dict[str, str]:
    # 16 pairs, keys to 64 and values to 512 characters: OpenAI's API specification. Seven pairs are batchframe's own.
    own = 7
    if not _is_text_dict(value) or not all(isinstance(text, str) for text in value.values()):
        msg = f"{name} must be a dict of text to text, got {value!r}"
        raise OptionError(msg)
    if len(value) > 16 - own or any(len(key) > 64 or len(text) > 512 for key, text in value.items()):  # noqa: PLR2004
        msg = f"{name} takes at most {16 - own} pairs of yours, keys to 64 characters and values to 512, got {value!r}"
        raise OptionError(msg)
    if any(key.startswith("batchframe_") for key in value):
        msg = f"{name} keys that start with batchframe_ are batchframe's own: rename yours"
        raise OptionError(msg)
    return cast("dict[str, str]", value)


def _images(name: str, value: Any) -> tuple[str | pl.Expr, ...]:
    images = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    for image in images:
        if not isinstance(image, (str, pl.Expr)):
            msg = f"{name} must be the name of a column, an expression, or a list of these, got {image!r}"
            raise OptionError(msg)
    return images


def _image_detail(name: str, value: Any) -> str:
    if not isinstance(value, str) or value not in _DETAILS:
        msg = f"{name} must be one of {', '.join(map(repr, _DETAILS))}, got {value!r}"
        raise OptionError(msg)
    return value


def _max_attempts(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        msg = f"{name} must be a whole number of at least 1 (no row is asked again), got {value!r}"
        raise OptionError(msg)
    return value


def _pilot(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        msg = f"{name} must be a whole number of rows, at least 1, got {value!r}"
        raise OptionError(msg)
    return value


def _dedupe(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        msg = f"{name} must be True (equal requests are sent once) or False, got {value!r}"
        raise OptionError(msg)
    return value


def _progress(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        msg = f"{name} must be True or False; left out, it is on in terminals and notebooks; got {value!r}"
        raise OptionError(msg)
    return value


def _reuse(name: str, value: Any) -> Path | Literal["all"]:
    if value == "all" and isinstance(value, str):
        return "all"
    path = getattr(value, "path", value)  # of a Run
    if not isinstance(path, str) and not hasattr(path, "__fspath__"):
        msg = f'{name} must be a run, the folder of one, or "all", got {value!r}'
        raise OptionError(msg)
    if "://" in str(path):
        msg = f"{name} must be a folder of this machine in this version of batchframe, got {path!r}"
        raise OptionError(msg)
    return Path(path)


def _cleanup(name: str, value: Any) -> str:
    if not isinstance(value, str) or value not in {"when_done", "never"}:
        msg = f'{name} must be "when_done" (delete the files at the service) or "never", got {value!r}'
        raise OptionError(msg)
    return value


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "on_null": _on_null,
    "images": _images,
    "image_detail": _image_detail,
    "limits": _limits,
    "max_attempts": _max_attempts,
    "pilot": _pilot,
    "cleanup": _cleanup,
    "dedupe": _dedupe,
    "progress": _progress,
    "reuse": _reuse,
    "poll_seconds": _seconds,
    "settle_seconds": _seconds,
    "timeout_seconds": _seconds,
    "include": include_columns,
    "metadata": _metadata,
    "extra_body": _extra_body,
    "expires_after": _expires_after,
    "run_dir": _run_dir,
}


def _check_fit(ours: dict[str, Any]) -> None:
    """Refuse a model that is another endpoint's, and options that the endpoint has no use for."""
    path = ours.get("endpoint", DEFAULT.path)
    endpoint = ENDPOINTS[path]
    for other in ENDPOINTS.values():
        if other is not endpoint and ours["model"].startswith(other.own_models):
            msg = (
                f'model {ours["model"]!r} is for {other.path}, and the endpoint is {path}: pass endpoint="{other.path}"'
            )
            raise OptionError(msg)
    for name, has_use in _USES.items():
        if name in ours and not has_use(endpoint):
            msg = f"{name} is for {' and '.join(_paths(has_use))}, and {path} takes none: leave it out"
            raise OptionError(msg)
    if "image_detail" in ours and "images" not in ours:
        msg = "image_detail says how closely images are looked at, and there are none: pass images too"
        raise OptionError(msg)
    for column, tells in _TELLS.items():
        if column in ours.get("include", ()) and not tells(endpoint):
            msg = f"include={column!r} is for {', '.join(_paths(tells))}, and answers of {path} have none: leave it out"
            raise OptionError(msg)


def _paths(fits: Callable[[Endpoint], bool]) -> list[str]:
    return [path for path, endpoint in ENDPOINTS.items() if fits(endpoint)]


def _body(body: dict[str, Any], ours: dict[str, Any], typed: AnswerType | None) -> dict[str, Any]:
    """Return the parameters of the body, sorted, so that the order of keyword arguments does not make another run."""
    given = {name: value for name, value in body.items() if value is not None}
    given |= ours.get("extra_body") or {}
    given = {name: value if isinstance(value, pl.Expr) else json_value(value, name) for name, value in given.items()}
    form = typed.response_format() if typed is not None else ours.get("response_format")
    if form is not None:
        form = json_value(form, "response_format")
        parameter = ENDPOINTS[ours.get("endpoint", DEFAULT.path)].format_parameter
        if parameter == "text":
            given["text"] = _text_with(form, given.get("text"))
        elif "response_format" in given:
            msg = "response_format is passed by itself and in extra_body: leave one of them out"
            raise OptionError(msg)
        else:
            given["response_format"] = _nested(form)
    return dict(sorted(given.items()))


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


def _form(options: Options, typed: AnswerType | None) -> Form:
    dimensions = None
    if options.endpoint == EMBEDDINGS.path:
        dimensions = dimensions_of(options.model, options.body.get("dimensions"))
    return Form(options.endpoint, options.body.get("n") or 1, dimensions, typed)


def _check_body(options: Options) -> None:
    for name, makes in (("n", "response a List"), ("dimensions", "response an Array of them")):
        count = options.body.get(name, 1)
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            shown = "an expression" if isinstance(count, pl.Expr) else repr(count)
            msg = f"{name} must be one whole number for all rows, since it makes the {makes}; got {shown}"
            raise OptionError(msg)
    never = sorted(name for name in _NEVER & options.body.keys() if options.body[name] is not False)
    if never:
        msg = f"extra_body holds {never[0]}, which a batch cannot do: leave it out"
        raise OptionError(msg)
    for name, source in (("model", "model"), (ENDPOINTS[options.endpoint].prompt_member, "prompt")):
        if name in options.body:
            msg = f"extra_body holds {name}, which comes from the {source} argument: leave it out there"
            raise OptionError(msg)


def _check_logprobs(options: Options) -> None:
    """Refuse a column of what the service is not asked for: it would be null in every row that is paid for."""
    request = ENDPOINTS[options.endpoint].logprobs_request
    assert request is not None
    name, wanted, line = request
    asked = options.body.get(name)
    # Completions take a number, of which 0 asks for no alternatives.
    asks = wanted in asked if isinstance(asked, list) else asked is not None and asked is not False
    if not asks:
        msg = f'include="logprobs" shows what the service was asked for, and this call does not ask: add {line}'
        raise OptionError(msg)


def _is_text_dict(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)
