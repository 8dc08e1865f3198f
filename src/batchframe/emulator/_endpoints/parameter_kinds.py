"""The kinds of body parameters, each with its check."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from batchframe.emulator import _errors as errors

Check = Callable[[str, Any], None]
_NAME = re.compile(r"[a-zA-Z0-9_-]+")
_MAX_NAME_LENGTH = 64
_MAX_STOP_SEQUENCES = 4
_MAX_METADATA_PAIRS = 16


def decimal(low: float, high: float) -> Check:
    """Accept a number from `low` to `high`."""

    def check(param: str, value: Any) -> None:
        if type(value) is not float and type(value) is not int:
            raise errors.wrong_type(param, "a decimal", value)
        if not low <= value <= high:
            raise errors.out_of_range(param, float(value), high if value > high else low, above=value > high)

    return check


def integer(low: float, high: float) -> Check:
    """Accept an integer from `low` to `high`."""

    def check(param: str, value: Any) -> None:
        if type(value) is not int:
            raise errors.wrong_type(param, "an integer", value)
        if not low <= value <= high:
            raise errors.out_of_range(param, value, high if value > high else low, above=value > high)

    return check


def boolean(param: str, value: Any) -> None:
    """Accept a boolean."""
    if type(value) is not bool:
        raise errors.wrong_type(param, "a boolean", value)


def string(param: str, value: Any) -> None:
    """Accept a string."""
    if type(value) is not str:
        raise errors.wrong_type(param, "a string", value)


def mapping(param: str, value: Any) -> None:
    """Accept an object."""
    if type(value) is not dict:
        raise errors.wrong_type(param, "an object", value)


def one_of(*supported: str) -> Check:
    """Accept one of the `supported` strings."""

    def check(param: str, value: Any) -> None:
        if type(value) is not str:
            raise errors.wrong_type(param, f"one of {errors.quoted_list(supported)}", value)
        if value not in supported:
            raise errors.wrong_value(param, value, supported)

    return check


def format_type(param: str, value: Any) -> str:
    """Accept an object with the type of a response format, and return that type."""
    mapping(param, value)
    if "type" not in value:
        raise errors.missing(f"{param}.type")
    one_of("json_object", "json_schema", "text")(f"{param}.type", value["type"])
    kind: str = value["type"]
    return kind


def array_of(expected: str, check_item: Check, *, min_items: int = 0, max_items: int | None = None) -> Check:
    """Accept an array whose items pass `check_item`."""

    def check(param: str, value: Any) -> None:
        if type(value) is not list:
            raise errors.wrong_type(param, f"an array of {expected}", value)
        if len(value) < min_items:
            raise errors.array_length(param, len(value), min_items, above=False)
        if max_items is not None and len(value) > max_items:
            raise errors.array_length(param, len(value), max_items, above=True)
        for position, item in enumerate(value):
            check_item(f"{param}[{position}]", item)

    return check


def texts_or_tokens(check_text: Check, *, max_items: int | None = None) -> Check:
    """Accept a text, the tokens of a text, or an array of up to `max_items` of either."""
    tokens = array_of("integers", integer(0, float("inf")), min_items=1)

    def check(param: str, value: Any) -> None:
        if type(value) is str:
            check_text(param, value)
        elif type(value) is not list:
            raise errors.wrong_type(param, "one of a string or array", value)
        elif value and type(value[0]) is int:
            tokens(param, value)
        else:
            is_of_tokens = value and type(value[0]) is list
            array_of("strings", tokens if is_of_tokens else check_text, min_items=1, max_items=max_items)(param, value)

    return check


def stop(param: str, value: Any) -> None:
    """Accept a string, or up to four of them."""
    if type(value) is not str:
        array_of("strings", string, min_items=1, max_items=_MAX_STOP_SEQUENCES)(param, value)


def logit_bias(param: str, value: Any) -> None:
    """Accept an object of biases, by token."""
    mapping(param, value)
    for key, bias in value.items():
        decimal(-100, 100)(f"{param}.{key}", bias)


def metadata(param: str, value: Any) -> None:
    """Accept an object of up to 16 strings."""
    mapping(param, value)
    if len(value) > _MAX_METADATA_PAIRS:
        raise errors.too_many_keys(param, len(value), _MAX_METADATA_PAIRS)
    for key, text in value.items():
        string(f"{param}.{key}", text)


def name(param: str, value: Any) -> None:
    """Accept the name of a function or a schema."""
    string(param, value)
    if len(value) > _MAX_NAME_LENGTH:
        raise errors.too_long(param, value, _MAX_NAME_LENGTH)
    if not _NAME.fullmatch(value):
        message = (
            f"Invalid '{param}': string does not match pattern. "
            "Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'."
        )
        raise errors.ApiError(message, param=param, code="invalid_value")


def needs(param: str, value: Any, required: Sequence[str], allowed: Sequence[str]) -> None:
    """Accept an object with all `required` members, and no members but those `allowed`."""
    mapping(param, value)
    for name in required:
        if name not in value:
            raise errors.missing(f"{param}.{name}")
    for name in value:
        if name not in allowed:
            raise errors.unknown(f"{param}.{name}")


def parameters(
    body: dict[str, Any], table: Mapping[str, Check], *, required: Sequence[str], not_null: Mapping[str, str]
) -> None:
    """Check a body by the table of its endpoint.

    `not_null`: the parameters that do not take null, and the type that the error says is expected.
    """
    for name, value in body.items():
        check = table.get(name)
        if check is None:
            raise errors.unknown(name)
        if value is None:
            if name in not_null:
                raise errors.wrong_type(name, not_null[name], value)
        else:
            check(name, value)
    for name in required:
        if name not in body:
            raise errors.missing(name)
