"""The table of request parameters: what the SDK knows, and what our own options shadow."""

from __future__ import annotations

import importlib.util
from importlib.metadata import version
from pathlib import Path

import pytest

import batchframe as bf
from batchframe import _options
from batchframe._endpoints import ENDPOINTS
from batchframe._parameters import PARAMETERS

SCRIPT = Path(__file__).parents[1] / "scripts" / "generate_parameters.py"
# The SDK that the table was generated with; at a newer one generate it again, and write its version here.
GENERATED_WITH = (3, 54)
INSTALLED = tuple(int(number) for number in version("openai").split(".")[:2])

# Names of ours that are also request parameters. Each is the same thing, or is reached by extra_body, or never sent.
SHADOWED = {
    # The same thing: made from the argument.
    "model": "/v1/chat/completions /v1/completions /v1/embeddings /v1/moderations /v1/responses",
    "response_format": "/v1/chat/completions",
    # Another thing; extra_body passes the service's.
    "metadata": "/v1/chat/completions /v1/responses",
    "include": "/v1/responses",
}


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("generate_parameters", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_knows_what_the_sdk_knows(script):
    names: dict[str, dict[str, frozenset[str]]] = {}
    exec(script.generate().replace("from __future__ import annotations", ""), names)
    generated = names["PARAMETERS"]
    assert generated.keys() == PARAMETERS.keys()
    for endpoint, known in PARAMETERS.items():
        assert generated[endpoint] <= known, f"{endpoint}: run scripts/generate_parameters.py"
        if INSTALLED == GENERATED_WITH:
            assert generated[endpoint] == known, f"{endpoint}: run scripts/generate_parameters.py"


def test_our_names_shadow_only_what_is_known():
    shadowed = {
        name: " ".join(endpoint for endpoint in sorted(PARAMETERS) if name in PARAMETERS[endpoint])
        for name in sorted(_options.NAMES)
        if any(name in known for known in PARAMETERS.values())
    }
    assert shadowed == dict(sorted(SHADOWED.items()))


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_what_is_shadowed_goes_through_extra_body(endpoint):
    shadowed = {name for name, where in SHADOWED.items() if endpoint in where.split()} - {"model", "response_format"}
    for name in shadowed:
        options = _options.parse({"model": "m", "endpoint": endpoint, "extra_body": {name: {"a": "b"}}})
        assert options.body == {name: {"a": "b"}}


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("name", sorted(_options._FROM_PROMPT - {"prompt"}))
def test_what_the_prompt_makes_is_refused_by_name(endpoint, name):
    with pytest.raises(bf.OptionError, match=name):
        _options.parse({"model": "m", "endpoint": endpoint, name: "x"})


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_every_other_parameter_is_taken(endpoint):
    taken = PARAMETERS[endpoint] - _options.NAMES - _options._FROM_PROMPT - _options._NEVER - {"n", "dimensions"}
    for name in taken:
        assert _options.parse({"model": "m", "endpoint": endpoint, name: "x"}).body == {name: "x"}
