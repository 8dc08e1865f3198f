"""An endpoint is one module here, and one in the emulator: both are made up in this file.

The endpoint takes a text and ``times``, and answers ``{"object": "reversal", "reversed": …}``.
"""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest

import batchframe as bf
from batchframe import emulator
from batchframe._endpoints.base import Answer, Endpoint, unreadable
from batchframe._endpoints.registry import ENDPOINTS
from batchframe.emulator._endpoints import base, registry
from batchframe.emulator._endpoints import parameter_kinds as kinds

# One that the service takes batches for, and batchframe does not know: what it answers is made up.
PATH = "/v1/images/edits"
MODEL = "ft:gpt-4o-mini:us::1"  # of fine-tuned models it is not known what they refuse

# -- what would be the module batchframe/_endpoints/reversals.py


def _read(body: dict[str, Any]) -> Answer:
    text = body.get("reversed")
    return Answer(response=text, finish_reason="stop") if isinstance(text, str) else unreadable("no reversed text")


REVERSALS = Endpoint(
    path=PATH,
    prompt_member="input",
    answer_member="reversed",
    object_name="reversal",
    parameters={"input": {"text": None}, "times": {"integer": None}},
    read=_read,
)

# -- what would be the module batchframe/emulator/_endpoints/reversals.py


def _check(body: dict[str, Any], model: Any) -> int:
    known = {"input": kinds.string, "model": kinds.string, "times": kinds.integer(1, 9)}
    kinds.parameters(body, known, required=("input",), not_null={"input": "a string", "model": "a string"})
    return len(body["input"])


def _respond(body: dict[str, Any], digest: bytes, tokens: int, created: int, model: Any) -> dict[str, Any]:
    text = body["input"][::-1] if body.get("times", 1) % 2 else body["input"]
    usage = {"prompt_tokens": tokens, "completion_tokens": 1, "total_tokens": tokens + 1}
    return {"object": "reversal", "model": body["model"], "reversed": text, "usage": usage}


EMULATED = base.Endpoint(
    path=PATH,
    required="input",
    model_kinds=("chat",),
    azure_operation="reversals",
    count=lambda body: len(body["input"]),
    check=_check,
    respond=_respond,
    used_tokens=lambda answer: (answer["usage"]["prompt_tokens"], 1, 0),
)


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setitem(ENDPOINTS, PATH, REVERSALS)
    monkeypatch.setitem(registry.ENDPOINTS, PATH, EMULATED)


FRAME = pl.DataFrame({"text": ["abc", "de", None], "n": [1, 2, 1]})


@pytest.mark.usefixtures("toy")
def test_a_new_endpoint_is_asked_and_read(client):
    options = {"model": MODEL, "endpoint": PATH, "client": client, "poll_seconds": 0.02, "include": "model"}
    with pytest.warns(bf.BatchframeWarning, match="1 null_input"):
        out = bf.run(FRAME, "{text}", times=pl.col("n"), **options)
    assert out["response"].to_list() == ["cba", "de", None], out["error"].to_list()
    assert out["usage"].struct.field("input_tokens").to_list() == [3, 2, None]
    assert out["model"].to_list() == [MODEL, MODEL, None]


@pytest.mark.usefixtures("toy")
def test_its_parameters_and_options_are_checked():
    for wrong, message in (
        ({"times": "two"}, "times must be a whole number"),
        ({"tines": 2}, "Did you mean 'times'"),
        ({"system": "Be kind"}, f"{PATH} does not support system"),
        ({"include": "tool_calls"}, f"answers of {PATH} have no tool_calls"),
    ):
        with pytest.raises(bf.OptionError, match=message):
            bf.requests(FRAME, "{text}", model="m", endpoint=PATH, **wrong)


@pytest.mark.usefixtures("toy")
def test_result_files_of_it_are_known_by_their_object():
    body = emulator.answer({"model": "gpt-4o-mini", "input": "abc"}, endpoint=PATH)
    assert bf.read_batch(line(body)).item(0, "response") == "cba"


def line(body: dict[str, Any]) -> bytes:
    return json.dumps({"custom_id": "a", "response": {"status_code": 200, "body": body}}).encode()
