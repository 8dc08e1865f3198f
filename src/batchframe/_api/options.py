"""Split the keyword arguments of a call into options and request parameters, and check both."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import polars as pl

from batchframe._api.option_table import OPTIONS, Options
from batchframe._core.checks import is_count, is_text_dict
from batchframe._core.exceptions import OptionError, suggestion
from batchframe._core.option_names import NOT_YET, OPTION_NAMES
from batchframe._endpoints.registry import DEFAULT, ENDPOINTS
from batchframe._providers.limits import Limits
from batchframe._requests.parameters import (
    body_members,
    check_extra_body,
    check_logprobs_requested,
    check_model,
    check_names,
)
from batchframe._results.answer_format import AnswerFormat
from batchframe._results.extra_columns import EXTRA_COLUMNS
from batchframe._schemas.response_format import AnswerType, requested_answer_type

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from batchframe._endpoints.base import Endpoint

_NOT_YET_INCLUDED = frozenset({"cost", "attempts"})
# OpenAI's API specification. Azure requires at least 14 days; its profile has that limit.
_MIN_EXPIRES_AFTER, _MAX_EXPIRES_AFTER = 3_600, 2_592_000
# Sources: openai.types.responses.ImageDetail; chat completions accept the same values (3.54.0).
_DETAILS = ("low", "high", "auto", "original")
# For options that some endpoints do not support: whether an endpoint does.
_SUPPORTS: dict[str, Callable[[Endpoint], bool]] = {
    "system": lambda endpoint: bool(endpoint.roles),
    "images": lambda endpoint: endpoint.max_images > 0,
    "image_detail": lambda endpoint: endpoint.has_image_detail,
}


def options_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options and the request parameters among the arguments of a call.

    Parameters
    ----------
    arguments
        The ``locals()`` of the call at its start: every option by name, and the request parameters in ``parameters``.
    """
    return {option.name: arguments[option.name] for option in OPTIONS} | dict(arguments["parameters"])


def parse(arguments: dict[str, Any]) -> Options:
    """Split the keyword arguments of a call into options and body parameters, and check both.

    Raises
    ------
    OptionError
        A name is neither (the message suggests the nearest name), or a value is invalid.
    """
    options = {name: value for name, value in arguments.items() if name in OPTION_NAMES}
    parameters = {name: value for name, value in arguments.items() if name not in OPTION_NAMES}
    planned = sorted(NOT_YET & options.keys())
    if planned:
        msg = f"{planned[0]} is not available in this version of batchframe: leave it out"
        raise OptionError(msg)
    endpoint = options.get("endpoint") or DEFAULT.path
    _check_endpoint(endpoint)
    check_names(parameters, endpoint)
    check_model(options.get("model"), endpoint)
    checked = _checked(options)
    _check_support(checked, endpoint)
    answer_type = requested_answer_type(checked.get("response_format"))
    extra_body = checked.get("extra_body") or {}
    body = body_members(endpoint, parameters, extra_body, checked.get("response_format"), answer_type)
    if "logprobs" in checked.get("include", ()):
        check_logprobs_requested(body, endpoint)
    return Options(**checked, body=body, answer_format=_answer_format(checked["model"], endpoint, body, answer_type))


def _check_endpoint(endpoint: Any) -> None:
    if not isinstance(endpoint, str) or endpoint not in ENDPOINTS:
        near = suggestion(str(endpoint), ENDPOINTS)
        msg = f"unknown endpoint {endpoint!r}.{near} Available: {', '.join(ENDPOINTS)}"
        raise OptionError(msg)


def _answer_format(model: str, endpoint: str, body: dict[str, Any], answer_type: AnswerType | None) -> AnswerFormat:
    dimensions_of = ENDPOINTS[endpoint].dimensions_of
    dimensions = None if dimensions_of is None else dimensions_of(model, body.get("dimensions"))
    return AnswerFormat(endpoint, body.get("n") or 1, dimensions, answer_type)


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    """Return the checked options. None means the default and is left out."""
    checked = {name: value for name, value in options.items() if value is not None}
    for name in ("custom_id", "name", "prefix", "completion_window"):
        if name in checked and not isinstance(checked[name], str):
            msg = f"{name} must be text, got {checked[name]!r}"
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


def include_columns(name: str, value: Any, known: Collection[str] = EXTRA_COLUMNS) -> tuple[str, ...]:
    """Return the requested extra columns, in the order in which they are added.

    Raises
    ------
    OptionError
        A name is unknown.
    """
    if not isinstance(value, (str, list, tuple, set, frozenset)):
        msg = f'{name} must be a list of names, such as ["model", "raw"], got {value!r}'
        raise OptionError(msg)
    names = [value] if isinstance(value, str) else list(value)
    for column in names:
        if not isinstance(column, str) or column not in known:
            available = f"Available: {', '.join(known)}"
            if isinstance(column, str) and column in _NOT_YET_INCLUDED:
                msg = f"{name}={column!r} is not available in this version of batchframe. {available}"
            else:
                msg = f"{name} has no column {column!r}.{suggestion(str(column), known)} {available}"
            raise OptionError(msg)
    return tuple(column for column in known if column in names)


def _metadata(name: str, value: Any) -> dict[str, str]:
    # 16 pairs, keys up to 64 and values up to 512 characters: OpenAI's API specification. Batchframe uses seven pairs.
    reserved = 7
    if not is_text_dict(value) or not all(isinstance(text, str) for text in value.values()):
        msg = f"{name} must be a dict of text to text, got {value!r}"
        raise OptionError(msg)
    if len(value) > 16 - reserved or any(len(key) > 64 or len(text) > 512 for key, text in value.items()):  # noqa: PLR2004
        msg = (
            f"{name} must have at most {16 - reserved} pairs, keys up to 64 and values up to 512 characters, "
            f"got {value!r}"
        )
        raise OptionError(msg)
    if any(key.startswith("batchframe_") for key in value):
        msg = f"{name} keys that start with batchframe_ are reserved: rename them"
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
    if not is_count(value):
        msg = f"{name} must be a whole number of at least 1 (1 means no retry), got {value!r}"
        raise OptionError(msg)
    return value


def _pilot(name: str, value: Any) -> int:
    if not is_count(value):
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
        msg = f"{name} must be True, False, or None (progress in terminals and notebooks only), got {value!r}"
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
        msg = f"{name} must be a local folder in this version of batchframe, got {path!r}"
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
    "extra_body": check_extra_body,
    "expires_after": _expires_after,
    "run_dir": _run_dir,
}


def _check_support(options: dict[str, Any], path: str) -> None:
    """Refuse options that the endpoint does not support."""
    endpoint = ENDPOINTS[path]
    for name, supports in _SUPPORTS.items():
        if name in options and not supports(endpoint):
            msg = f"{path} does not support {name}: leave it out. Endpoints with {name}: {', '.join(_paths(supports))}"
            raise OptionError(msg)
    if "image_detail" in options and "images" not in options:
        msg = "image_detail needs images: pass images too, or leave image_detail out"
        raise OptionError(msg)
    for name in options.get("include", ()):
        column = EXTRA_COLUMNS[name]
        if not column.fits(endpoint):
            paths = ", ".join(_paths(column.fits))
            msg = f"answers of {path} have no {name}: leave out include={name!r}. Endpoints with {name}: {paths}"
            raise OptionError(msg)


def _paths(fits: Callable[[Endpoint], bool]) -> list[str]:
    return [path for path, endpoint in ENDPOINTS.items() if fits(endpoint)]
