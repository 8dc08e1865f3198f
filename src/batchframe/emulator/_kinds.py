"""The kinds of parameters a body has, each with its check."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from batchframe.emulator import _errors as errors

Check = Callable[[str, Any], None]
_NAME = re.compile(r"[a-zA-Z0-9_-]+")
_NAME_LENGTH = 64
_STOP_SEQUENCES = 4
_METADATA_PAIRS = 16


def decimal(low: float, high: float) -> Check:
    """Take a number from `low` to `high`."""

    def check(param: str, value: Any) -> None:
        if type(value) is not float and type(value) is not int:
            raise errors.wrong_type(param, "a decimal", value)
        if not low <= value <= high:
            raise errors.out_of_range(param, float(value), high if value > high else low, above=value > high)

    return check


def integer(low: float, high: float) -> Check:
    """Take a whole number from `low` to `high`."""

    def check(param: str, value: Any) -> None:
        if type(value) is not int:
            raise errors.wrong_type(param, "an integer", value)
        if not low <= value <= high:
            raise errors.out_of_range(param, value, high if value > high else low, above=value > high)

    return check


def boolean(param: str, value: Any) -> None:
    """Take true and false."""
    if type(value) is not bool:
        raise errors.wrong_type(param, "a boolean", value)


def string(param: str, value: Any) -> None:
    """Take a string."""
    if type(value) is not str:
        raise errors.wrong_type(param, "a string", value)


def mapping(param: str, value: Any) -> None:
    """Take an object."""
    if type(value) is not dict:
        raise errors.wrong_type(param, "an object", value)


def one_of(*supported: str) -> Check:
    """Take one of some strings."""

    def check(param: str, value: Any) -> None:
        if type(value) is not str:
            raise errors.wrong_type(param, f"one of {errors.listed(supported)}", value)
        if value not in supported:
            raise errors.wrong_value(param, value, supported)

    return check


def array_of(expected: str, check_item: Check, *, least: int = 0, most: int | None = None) -> Check:
    """Take an array, each item by its own check."""

    def check(param: str, value: Any) -> None:
        if type(value) is not list:
            raise errors.wrong_type(param, f"an array of {expected}", value)
        if len(value) < least:
            raise errors.array_length(param, len(value), least, above=False)
        if most is not None and len(value) > most:
            raise errors.array_length(param, len(value), most, above=True)
        for position, item in enumerate(value):
            check_item(f"{param}[{position}]", item)

    return check


def texts_or_tokens(check_text: Check, *, most: int | None = None) -> Check:
    """Take a text, an array of up to `most` texts, the tokens of one text, or an array of such."""
    tokens = array_of("integers", integer(0, float("inf")), least=1)

    def check(param: str, value: Any) -> None:
        if type(value) is str:
            check_text(param, value)
        elif type(value) is not list:
            raise errors.wrong_type(param, "one of a string or array", value)
        elif value and type(value[0]) is int:
            tokens(param, value)
        else:
            is_of_tokens = value and type(value[0]) is list
            array_of("strings", tokens if is_of_tokens else check_text, least=1, most=most)(param, value)

    return check


def stop(param: str, value: Any) -> None:
    """Take a string or up to four of them."""
    if type(value) is not str:
        array_of("strings", string, least=1, most=_STOP_SEQUENCES)(param, value)


def logit_bias(param: str, value: Any) -> None:
    """Take a bias for each token."""
    mapping(param, value)
    for key, bias in value.items():
        decimal(-100, 100)(f"{param}.{key}", bias)


def metadata(param: str, value: Any) -> None:
    """Take a few pairs of strings."""
    mapping(param, value)
    if len(value) > _METADATA_PAIRS:
        raise errors.too_many_keys(param, len(value), _METADATA_PAIRS)
    for key, text in value.items():
        string(f"{param}.{key}", text)


def name(param: str, value: Any) -> None:
    """Take a name of a function or a schema."""
    string(param, value)
    if len(value) > _NAME_LENGTH:
        raise errors.too_long(param, value, _NAME_LENGTH)
    if not _NAME.fullmatch(value):
        message = (
            f"Invalid '{param}': string does not match pattern. "
            "Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'."
        )
        raise errors.ApiError(message, param=param, code="invalid_value")


def needs(param: str, value: Any, required: Sequence[str], allowed: Sequence[str]) -> None:
    """Take an object with all of `required` and none but `allowed`."""
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
    """Check a body by the table of its endpoint; `not_null` says what is expected where null is not taken."""
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
