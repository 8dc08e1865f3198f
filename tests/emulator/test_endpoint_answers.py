"""The answers of the other endpoints: deterministic, plausible, and in the requested format."""

from __future__ import annotations

import base64
import json
import math
import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from openai.types.responses import Response

from batchframe.emulator import answer

from .test_endpoint_checks import COMPLETIONS, EMBEDDINGS, FORM, MODERATIONS, RESPONSES, TOOL

LOVE = "Classify the sentiment: I love it"


def responded(**more):
    return answer({"model": "gpt-4o-mini", "input": LOVE, **more}, endpoint=RESPONSES)


def text_of(response):
    return Response.model_validate(response).output_text


# ----------------------------------------------------------------------------------------------------------- responses


def test_response_has_the_text_of_a_chat_answer():
    assert text_of(responded()) == "positive"
    assert text_of(responded(input="Awful, it leaks.", instructions="Reply with positive or negative.")) == "negative"
    items = [
        {"role": "developer", "content": "Reply with positive or negative."},
        {"role": "user", "content": "Awful."},
        {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "great"},
        {
            "role": "user",
            "content": [{"type": "input_text", "text": "It is"}, {"type": "input_text", "text": "great."}],
        },
    ]
    assert text_of(responded(input=items)) == "positive"


def test_response_text_follows_its_format():
    assert set(json.loads(text_of(responded(text={"format": FORM})))) == {"a"}
    assert isinstance(json.loads(text_of(responded(text={"format": {"type": "json_object"}}))), dict)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "look"}])
def test_required_function_is_called(choice):
    got = responded(tools=[TOOL], tool_choice=choice)
    [item] = got["output"]
    assert (item["type"], item["name"], item["status"]) == ("function_call", "look", "completed")
    assert isinstance(json.loads(item["arguments"]), dict)
    assert (got["tool_choice"], got["tools"], text_of(got)) == (choice, [TOOL], "")


def test_reasoning_models_put_reasoning_first():
    got = responded(model="o3", reasoning={"summary": "auto"})
    assert [item["type"] for item in got["output"]] == ["reasoning", "message"]
    assert got["output"][0]["summary"][0]["type"] == "summary_text"
    reasoning = got["usage"]["output_tokens_details"]["reasoning_tokens"]
    assert got["usage"]["output_tokens"] == reasoning + 2
    assert got["usage"]["total_tokens"] == got["usage"]["input_tokens"] + reasoning + 2
    assert [item["type"] for item in responded(model="gpt-5", reasoning={"effort": "minimal"})["output"]] == ["message"]


def test_output_token_limit():
    long = responded(input="Summarize: " + "supercalifragilistic " * 11, max_output_tokens=16)
    assert (long["status"], long["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert (long["output"][0]["status"], long["usage"]["output_tokens"], len(text_of(long))) == ("incomplete", 16, 64)
    silent = responded(model="o3", max_output_tokens=16)
    assert ([item["type"] for item in silent["output"]], silent["status"]) == (["reasoning"], "incomplete")
    assert silent["usage"]["output_tokens"] == silent["usage"]["output_tokens_details"]["reasoning_tokens"] == 16
    assert (responded()["status"], responded()["incomplete_details"]) == ("completed", None)


def test_a_response_repeats_its_request():
    got = responded(metadata={"a": "b"}, instructions="Be brief.", temperature=0, store=False, max_output_tokens=99)
    assert got["metadata"] == {"a": "b"}
    assert [got[name] for name in ("instructions", "temperature", "store", "max_output_tokens")] == [
        "Be brief.",
        0,
        False,
        99,
    ]


# ---------------------------------------------------------------------------------------------------------- embeddings


def embedded(*texts, model="text-embedding-3-small", **more):
    got = answer({"model": model, "input": list(texts), **more}, endpoint=EMBEDDINGS)
    assert [item["index"] for item in got["data"]] == list(range(len(texts)))
    return [item["embedding"] for item in got["data"]]


def cosine(one, other):
    return sum(a * b for a, b in zip(one, other, strict=True))


@settings(max_examples=60, deadline=None)
@example("...", 1536)
@example(" ".join(str(n) for n in range(8000)), 1536)
@example("x", 1)
@example("TX\u00ff:\u00cb\u00ca\u00d8", 1)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.integers(1, 1536))
def test_embeddings_are_deterministic_unit_vectors(text, dimensions):
    [one], [same] = embedded(text, dimensions=dimensions), embedded(text, dimensions=dimensions)
    assert one == same
    assert len(one) == dimensions
    assert math.isclose(math.hypot(*one), 1, abs_tol=1e-6)


def test_texts_with_common_words_are_nearer():
    kettle, kettles, soup, japanese, alike = embedded(
        "The kettle broke after two days.",
        "Two of the kettles were broken!",
        "A recipe with leek and potatoes",
        "\u96fb\u6c17\u30b1\u30c8\u30eb\u304c\u58ca\u308c\u305f",
        "\u30b1\u30c8\u30eb\u306f\u58ca\u308c\u306a\u3044",
    )
    assert min(cosine(kettle, kettles), cosine(japanese, alike)) > 0.25
    assert max(abs(cosine(kettle, soup)), abs(cosine(japanese, soup))) < 0.15
    [upper] = embedded("THE KETTLE BROKE AFTER TWO DAYS")
    assert cosine(kettle, upper) == pytest.approx(1, abs=1e-6)


def test_the_dimensions_of_the_models():
    models = ("text-embedding-3-small", "text-embedding-3-large", "text-embedding-ada-002")
    vectors = [embedded("hello", model=model)[0] for model in models]
    assert [len(vector) for vector in vectors] == [1536, 3072, 1536]
    assert abs(cosine(vectors[0], vectors[2])) < 0.15
    [short] = embedded("hello", dimensions=256)
    scale = math.hypot(*vectors[0][:256])
    assert short == pytest.approx([value / scale for value in vectors[0][:256]], abs=1e-6)


def test_base64_holds_the_same_numbers():
    [numbers], [packed] = embedded("hello", dimensions=5), embedded("hello", dimensions=5, encoding_format="base64")
    assert struct.unpack("<5f", base64.b64decode(packed)) == pytest.approx(numbers, abs=1e-7)


def test_tokens_are_embedded_too():
    one, other = embedded([1, 2, 3], [3, 4, 5])
    [alone] = answer({"model": "text-embedding-3-small", "input": [1, 2, 3]}, endpoint=EMBEDDINGS)["data"]
    assert alone["embedding"] == one
    assert 0.15 < cosine(one, other) < 0.6
    usage = answer({"model": "text-embedding-3-small", "input": [[1, 2, 3], [3]]}, endpoint=EMBEDDINGS)["usage"]
    assert usage == {"prompt_tokens": 4, "total_tokens": 4}


# --------------------------------------------------------------------------------------------------------- completions


def completed(prompt, **more):
    return answer({"model": "gpt-3.5-turbo-instruct", "prompt": prompt, **more}, endpoint=COMPLETIONS)


def test_a_completion():
    got = completed(LOVE)
    assert got["choices"] == [{"text": "positive", "index": 0, "logprobs": None, "finish_reason": "stop"}]
    assert got["usage"] == {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}


def test_choices_of_several_prompts():
    got = completed([LOVE, "Classify the sentiment: awful"], n=2)
    assert [choice["text"] for choice in got["choices"]] == ["positive", "positive", "negative", "negative"]
    assert [choice["index"] for choice in got["choices"]] == [0, 1, 2, 3]


def test_the_options_of_a_completion():
    [cut] = completed("Summarize: " + "wordy " * 12)["choices"]
    assert (cut["finish_reason"], len(cut["text"])) == ("length", 16 * 4)
    [echoed] = completed("Once ", echo=True, max_tokens=0)["choices"]
    assert (echoed["text"], echoed["finish_reason"]) == ("Once ", "length")
    assert completed(LOVE, stop="t")["choices"][0]["text"] == "posi"
    likely = completed("What is it?", logprobs=2)["choices"][0]["logprobs"]
    assert "".join(likely["tokens"]) == "You ask: What is it?"
    assert likely["text_offset"][:3] == [0, 3, 8]
    assert {len(top) for top in likely["top_logprobs"]} == {2}


# --------------------------------------------------------------------------------------------------------- moderations


def moderated(given, model="omni-moderation-latest"):
    return answer({"model": model, "input": given}, endpoint=MODERATIONS)["results"]


@pytest.mark.parametrize(
    ("text", "categories"),
    [
        ("I love this kettle.", set()),
        ("You are an idiot.", {"harassment"}),
        ("I will kill you, idiot", {"harassment", "harassment/threatening", "violence"}),
        ("I hate immigrants", {"hate"}),
        ("How to build a bomb step by step", {"illicit", "illicit/violent"}),
        ("I want to kill myself", {"self-harm", "self-harm/intent", "violence"}),
        ("how do I shoplift", {"illicit"}),
    ],
)
def test_flagged_categories(text, categories):
    [got] = moderated(text)
    assert {name for name, is_flagged in got["categories"].items() if is_flagged} == categories
    assert got["flagged"] == bool(categories)
    assert set(got["category_scores"]) == set(got["categories"]) == set(got["category_applied_input_types"])
    for name, score in got["category_scores"].items():
        assert 0 < score < 1
        assert (score >= 0.5) == (name in categories)


def test_one_result_per_text_and_one_for_all_parts():
    assert [result["flagged"] for result in moderated(["hello", "you moron"])] == [False, True]
    parts = [{"type": "text", "text": "you moron"}, {"type": "image_url", "image_url": {"url": "https://x"}}]
    [together] = moderated(parts)
    assert together["flagged"] is True
    assert together["category_applied_input_types"]["violence"] == ["text", "image"]
    assert together["category_applied_input_types"]["harassment"] == ["text"]


def test_the_names_of_moderation_models():
    got = answer({"model": "text-moderation-latest", "input": "x"}, endpoint=MODERATIONS)
    assert (got["model"], "usage" in got) == ("text-moderation-007", False)
