"""Write src/batchframe/_endpoints/parameter_table.py from the request types of the installed openai SDK.

Then run generate_signatures.py, which writes the types of these parameters into the signatures.
"""
# ruff: noqa: INP001  (a script, not a package)

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import openai
from openai.types import completion_create_params, embedding_create_params, moderation_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import response_create_params
from typing_extensions import get_type_hints, is_typeddict

TYPES = {
    "/v1/chat/completions": chat_create_params.CompletionCreateParamsBase,
    "/v1/completions": completion_create_params.CompletionCreateParamsBase,
    "/v1/embeddings": embedding_create_params.EmbeddingCreateParams,
    "/v1/moderations": moderation_create_params.ModerationCreateParams,
    "/v1/responses": response_create_params.ResponseCreateParamsBase,
}
TARGET = Path(__file__).parents[1] / "src" / "batchframe" / "_endpoints" / "parameter_table.py"
_SIMPLE = {str: "text", int: "integer", float: "number", bool: "boolean"}
_WIDTH = 120
_HEAD = f'''"""The parameters of each endpoint in openai {openai.__version__}. Written by a script, not by hand.

What a parameter takes is one or more of the kinds ``text``, ``integer``, ``number`` (an integer is one), ``boolean``,
``list`` and ``object``. With a kind stands what it is restricted to: the texts there are, the kinds of a list's items,
or None. What is inside an object is not told: the service may know more keys than the SDK. Nor is null: it leaves a
parameter out.
"""

from __future__ import annotations

from typing import TypeAlias

Kinds: TypeAlias = "dict[str, tuple[str, ...] | Kinds | None]"

'''


def generate() -> str:
    """Return the module's source."""
    annotation = "PARAMETERS: dict[str, dict[str, Kinds]] = "
    return _HEAD + annotation + _written(parameters(), "", len(annotation)) + "\n"


def parameters() -> dict[str, dict[str, Any]]:
    """Return the kinds of each parameter, by endpoint and name."""
    return {endpoint: dict(sorted(_kinds_by_name(type_).items())) for endpoint, type_ in TYPES.items()}


def _kinds_by_name(type_: type) -> dict[str, dict[str, Any]]:
    kinds = {name: _kinds(hint) for name, hint in get_type_hints(type_).items()}
    # The SDK declares stream in subclasses, one for each kind of reply.
    return kinds | ({"stream": {"boolean": None}} if "stream_options" in kinds else {})


def _kinds(hint: Any) -> dict[str, Any]:
    """Return the kinds of values that a type accepts."""
    origin = get_origin(hint)
    if origin in {Union, types.UnionType}:
        kinds: dict[str, Any] = {}
        for part in get_args(hint):
            kinds = _united(kinds, _kinds(part))
        return kinds
    if origin is Literal and all(isinstance(text, str) for text in get_args(hint)):
        return {"text": get_args(hint)}
    if hint is type(None):
        return {}
    if hint in _SIMPLE:
        return {_SIMPLE[hint]: None}
    bare = origin or hint
    if isinstance(bare, type) and (is_typeddict(bare) or issubclass(bare, Mapping)):
        return {"object": None}
    if isinstance(bare, type) and issubclass(bare, Iterable) and origin is not None:
        return {"list": _kinds(*get_args(hint))}
    msg = f"no kind of parameter is made for {hint} yet"
    raise TypeError(msg)


def _united(kinds: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Return kinds that accept the values of either. A kind that one side does not restrict stays unrestricted."""
    united = kinds | more
    for kind in kinds.keys() & more.keys():
        one, other = kinds[kind], more[kind]
        if one is None or other is None:
            united[kind] = None
        else:
            united[kind] = _united(one, other) if isinstance(one, dict) else tuple(dict.fromkeys(one + other))
    return united


def _written(value: Any, indent: str, taken: int = 0) -> str:
    """Return a value's source as the formatter writes it: on one line, or with one item per line."""
    closing = taken + len(",")
    if len(indent) + len(repr(value)) + closing <= _WIDTH and not _is_table(value):
        return repr(value).replace("'", '"')
    inner = indent + "    "
    if isinstance(value, dict):
        items = [f'"{key}": {_written(item, inner, len(key) + 4)}' for key, item in value.items()]
    else:
        items = [_written(item, inner) for item in value]
    opening, end = "{}" if isinstance(value, dict) else "()"
    return "\n".join([opening, *(f"{inner}{item}," for item in items), indent + end])


def _is_table(value: Any) -> bool:
    """Whether a value holds dictionaries by parameter, which get a line each however short they are."""
    return isinstance(value, dict) and not value.keys() <= {"text", "integer", "number", "boolean", "list", "object"}


if __name__ == "__main__":
    TARGET.write_text(generate(), encoding="utf-8")
