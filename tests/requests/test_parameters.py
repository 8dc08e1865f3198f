"""The table of request parameters, compared with the SDK, and the parameters that our options shadow."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import pytest

import batchframe as bf
from batchframe._api import options as _options
from batchframe._core.option_names import OPTION_NAMES
from batchframe._endpoints.parameter_table import PARAMETERS
from batchframe._endpoints.registry import ENDPOINTS
from batchframe._requests.parameters import NEVER

SCRIPT = Path(__file__).parents[2] / "scripts" / "generate_parameters.py"
# The SDK version that the table was generated with. For a newer SDK, regenerate the table and update this.
GENERATED_WITH = (3, 54)
INSTALLED = tuple(int(number) for number in version("openai").split(".")[:2])

# Our options that are also request parameters. Each has the same meaning, is passed by extra_body, or is never sent.
SHADOWED = {
    # The same meaning: set from the argument.
    "model": "/v1/chat/completions /v1/completions /v1/embeddings /v1/moderations /v1/responses",
    "response_format": "/v1/chat/completions",
    # Another meaning: extra_body passes the service's parameter.
    "metadata": "/v1/chat/completions /v1/responses",
    "include": "/v1/responses",
}
PROMPT_MEMBERS = {endpoint.prompt_member for endpoint in ENDPOINTS.values()}


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("generate_parameters", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def covers(known, generated):
    """Whether one table accepts everything that another does: names, kinds and texts."""
    if known is None or generated is None:
        return known is None
    if isinstance(known, tuple):
        return set(generated) <= set(known)
    return all(name in known and covers(known[name], kinds) for name, kinds in generated.items())


def test_parameter_table_covers_the_sdk(script):
    # What the installed SDK accepts must not be refused, so a newer SDK with new parameters fails here. An older SDK
    # has fewer names and narrower types, so equality is checked only with the SDK of the table.
    generated = script.parameters()
    assert generated.keys() == PARAMETERS.keys()
    for endpoint, known in PARAMETERS.items():
        for name, kinds in generated[endpoint].items():
            assert name in known, f"{endpoint} {name}: run scripts/generate_parameters.py"
            assert covers(known[name], kinds), f"{endpoint} {name}: run scripts/generate_parameters.py"
        if INSTALLED == GENERATED_WITH:
            assert generated[endpoint] == known, f"{endpoint}: run scripts/generate_parameters.py"


@pytest.mark.parametrize(
    ("known", "generated", "is_covered"),
    [
        ({"text": None}, {"text": ("a",)}, True),
        ({"text": ("a",)}, {"text": None}, False),
        ({"text": ("a", "b")}, {"text": ("b",)}, True),
        ({"text": ("a",)}, {"text": ("a", "b")}, False),
        ({"list": {"text": None}}, {"list": {"text": ("a",)}}, True),
        ({"list": {"text": None}}, {"list": {"text": None, "integer": None}}, False),
        ({"text": None}, {"object": None}, False),
    ],
)
def test_covers(known, generated, is_covered):
    assert covers(known, generated) is is_covered


def test_kinds_of_annotations(script):
    kinds = script._kinds
    assert kinds(float | None) == {"number": None}
    assert kinds(Literal["a"] | str) == {"text": None}  # noqa: PYI051
    assert kinds(Literal["a", "b"] | Literal["b", "c"] | None) == {"text": ("a", "b", "c")}  # noqa: PYI030
    assert kinds(str | Sequence[str] | Iterable[int] | Iterable[Iterable[int]]) == {
        "text": None,
        "list": {"text": None, "integer": None, "list": {"integer": None}},
    }
    assert kinds(dict[str, int]) == {"object": None}
    for unknown in (bytes | None, Literal[1], object, Any):
        with pytest.raises(TypeError, match="no kind of parameter is made for"):
            kinds(unknown)


def test_shadowed_parameters_are_the_listed_ones():
    shadowed = {
        name: " ".join(endpoint for endpoint in sorted(PARAMETERS) if name in PARAMETERS[endpoint])
        for name in sorted(OPTION_NAMES)
        if any(name in known for known in PARAMETERS.values())
    }
    assert shadowed == dict(sorted(SHADOWED.items()))


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_shadowed_parameters_pass_through_extra_body(endpoint):
    shadowed = {name for name, where in SHADOWED.items() if endpoint in where.split()} - {"model", "response_format"}
    for name in shadowed:
        options = _options.parse({"model": "m", "endpoint": endpoint, "extra_body": {name: {"a": "b"}}})
        assert options.body == {name: {"a": "b"}}


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("name", sorted(PROMPT_MEMBERS - {"prompt"}))
def test_prompt_members_are_refused(endpoint, name):
    with pytest.raises(bf.OptionError, match=name):
        _options.parse({"model": "m", "endpoint": endpoint, name: "x"})


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_all_other_parameters_are_accepted(endpoint):
    fixed = {"n", "dimensions"}  # they determine a dtype: positive integers only
    accepted = PARAMETERS[endpoint].keys() - OPTION_NAMES - PROMPT_MEMBERS - NEVER - fixed
    for name in accepted:
        for value in samples(PARAMETERS[endpoint][name]):
            assert _options.parse({"model": "m", "endpoint": endpoint, name: value}).body == {name: value}


def samples(kinds):
    """Return sample values of each kind."""
    simple = {"text": ["x"], "integer": [1], "number": [1, 0.5], "boolean": [True], "object": [{}, {"x": 1}]}
    values = []
    for kind, inside in kinds.items():
        if isinstance(inside, tuple):
            values += inside
        else:
            values += [[], samples(inside)] if isinstance(inside, dict) else simple[kind]
    return values
