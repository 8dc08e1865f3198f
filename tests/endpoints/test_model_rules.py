"""Warnings about parameters that a model is known to refuse, and none about those that may work."""

from __future__ import annotations

import re
import warnings

import polars as pl
import pytest

import batchframe as bf
from batchframe._endpoints.model_rules import refusals
from batchframe.emulator._endpoints.registry import ENDPOINTS
from batchframe.emulator._errors import ApiError
from batchframe.emulator._model.model_table import SNAPSHOTS, model_named

FRAME = pl.DataFrame({"n": [1, 2]})
CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
ARGUMENTS = {"poll_seconds": 0.02, "max_attempts": 1}


def reported(model, endpoint=CHAT, **body):
    return list(refusals(model, endpoint, body))


REFUSED = [
    ("o3-mini", {"max_tokens": 5}, "max_tokens is refused: pass max_completion_tokens"),
    ("o3-mini-2025-01-31", {"max_tokens": 5}, "max_completion_tokens"),
    ("gpt-5-nano", {"max_tokens": pl.col("cap")}, "max_completion_tokens"),
    ("gpt-5.5-2026-04-23", {"max_tokens": 5}, "max_completion_tokens"),
    ("o4-mini", {"temperature": 0}, "temperature is refused at any value but 1: leave it out"),
    ("gpt-5-2025-08-07", {"top_p": 0.5}, "top_p is refused"),
    ("o1", {"presence_penalty": 1}, "presence_penalty is refused: leave it out"),
    ("o3", {"frequency_penalty": -1}, "frequency_penalty is refused"),
    ("gpt-5-mini", {"logprobs": True}, "logprobs is refused"),
    ("gpt-5-mini", {"logit_bias": {"5": 1}}, "logit_bias is refused"),
    (
        "gpt-5.1",
        {"temperature": 0, "reasoning_effort": "low"},
        'with reasoning_effort="low": .* reasoning_effort="none"',
    ),
    ("gpt-4o", {"reasoning_effort": "low"}, "reasoning_effort is refused, since the model does not reason"),
]


@pytest.mark.parametrize(("model", "body", "expected"), REFUSED)
def test_unsupported_parameter_is_reported(model, body, expected):
    (message,) = reported(model, **body)
    assert re.search(expected, message)


@pytest.mark.parametrize(
    ("model", "body"),
    [
        ("o3-mini", {"temperature": 1, "top_p": 1.0, "logprobs": False, "logit_bias": {}, "presence_penalty": 0}),
        ("o3-mini", {"temperature": pl.col("t")}),  # may be 1 or null
        ("o3-mini", {"max_completion_tokens": 5, "reasoning_effort": "low"}),
        ("gpt-5.1", {"temperature": 0}),  # the default effort is none
        ("gpt-5.2", {"temperature": 0, "top_p": 0.1, "reasoning_effort": "none"}),
        ("gpt-5.4", {"temperature": 0, "reasoning_effort": pl.col("effort")}),
        ("gpt-5.5", {"temperature": 0}),
        ("gpt-6-sol", {"temperature": 0, "max_tokens": 5}),
        ("gpt-5-chat", {"temperature": 0}),
        ("gpt-5-search-api", {"temperature": 0}),
        ("gpt-4o", {"temperature": 0, "max_tokens": 5}),
        ("gpt-4o-2024-11-20", {"max_tokens": 5}),
        ("ft:gpt-4o-mini-2024-07-18:us::1", {"reasoning_effort": "low"}),
        ("o3-mini-of-mine", {"max_tokens": 5}),
        ("my-o3-mini", {"max_tokens": 5}),
        ("openai/o3-mini", {"max_tokens": 5}),
    ],
)
def test_possibly_supported_parameter_is_not_reported(model, body):
    assert reported(model, **body) == []


@pytest.mark.parametrize(
    ("model", "endpoint", "expected"),
    [
        ("o3-pro", CHAT, f"o3-pro is not served at {CHAT}: pass endpoint='{RESPONSES}', or another model"),
        ("gpt-5-pro-2025-10-06", CHAT, RESPONSES),
        ("gpt-3.5-turbo-instruct", CHAT, "/v1/completions"),
        ("gpt-4o", "/v1/completions", CHAT),
        ("gpt-5-mini", "/v1/embeddings", CHAT),
        ("gpt-5.1-codex-max", RESPONSES, "gpt-5.1-codex-max is not listed as a model with batches"),
        ("gpt-5-chat-latest", CHAT, "is not listed as a model with batches"),
        ("gpt-realtime-mini", CHAT, "is not listed as a model with batches"),
    ],
)
def test_model_of_another_endpoint_or_without_batches_is_reported(model, endpoint, expected):
    (message,) = reported(model, endpoint, temperature=0)  # the parameters are not reported too
    assert expected in message


def test_reasoning_effort_of_the_responses_endpoint():
    (message,) = reported("gpt-5.2", RESPONSES, temperature=0, reasoning={"effort": "high"})
    assert 'with reasoning={"effort": "high"}: leave it out, or pass reasoning={"effort": "none"}' in message
    assert reported("gpt-5.2", RESPONSES, temperature=0, reasoning={"summary": "auto"}) == []
    assert reported("gpt-4.1", RESPONSES, reasoning={"effort": "low"}) != []


@pytest.mark.parametrize("model", SNAPSHOTS)
def test_snapshot_has_the_rules_of_its_model(model):
    body = {"max_tokens": 5, "temperature": 0, "reasoning_effort": "low"}
    for endpoint in (CHAT, RESPONSES, "/v1/embeddings"):
        of_snapshot, of_model = ([text.replace(name, "…") for text in reported(name, endpoint, **body)]
                        for name in (model, SNAPSHOTS[model]))  # fmt: skip
        assert of_snapshot == of_model


MODELS = (
    *SNAPSHOTS, "gpt-5.4", "o1-pro", "o3-pro", "o3-deep-research", "gpt-5-pro", "gpt-5.5-pro", "davinci-002",
    "gpt-3.5-turbo-instruct", "omni-moderation-latest", "text-embedding-3-large",
)  # fmt: skip
BODIES = [
    (endpoint, parameters)
    for endpoint, effort in ((CHAT, {"reasoning_effort": "low"}), (RESPONSES, {"reasoning": {"effort": "low"}}))
    for parameters in ({"temperature": 0}, {"top_p": 0.5}, {"temperature": 0} | effort, effort)
] + [(CHAT, {name: value}) for name, value in {"max_tokens": 5, "logprobs": True, "presence_penalty": 1,
                                               "frequency_penalty": 1, "logit_bias": {"5": 1}}.items()]  # fmt: skip


def is_refused(model, endpoint, parameters):
    prompt = {CHAT: {"messages": [{"role": "user", "content": "x"}]}, RESPONSES: {"input": "x"}}[endpoint]
    body = {"model": model, **prompt, **parameters}
    try:
        ENDPOINTS[endpoint].admit(body, model_named(model), is_azure=False)
    except ApiError:
        return True
    return False


@pytest.mark.parametrize(("endpoint", "parameters"), BODIES)
def test_emulator_refuses_what_the_rules_report(endpoint, parameters):
    for model in MODELS:
        assert is_refused(model, endpoint, parameters) or not reported(model, endpoint, **parameters), model
    assert not is_refused("gpt-4o", endpoint, {})


# -- in a call


def caught(call, *arguments, **options):
    with warnings.catch_warnings(record=True) as records:
        warnings.simplefilter("always")
        out = call(*arguments, **options)
    return (
        [str(record.message) for record in records if issubclass(record.category, bf.BatchframeWarning)],
        out,
        records,
    )


def test_run_warns_once_and_sends_unchanged_requests(emu, client):
    messages, out, records = caught(
        bf.run, FRAME, "Repeat {n}", model="o3-mini", max_tokens=5, temperature=0, client=client, **ARGUMENTS
    )
    assert [text for text in messages if "as far as is known" in text] == [
        (
            "the service will refuse every row, as far as is known of o3-mini: max_tokens is refused: pass "
            "max_completion_tokens, which includes the reasoning tokens; temperature is refused at any value but 1: "
            "leave it out. The requests are sent as they are"
        )
    ]
    assert records[0].filename == __file__
    # The warning was right: the service, which has its own tables, refuses every row.
    assert out["error"].struct.field("code").to_list() == ["unsupported_parameter"] * 2
    assert emu.calls()["create_batch"] == 1


@pytest.mark.parametrize("name", ["submit", "requests", "result_schema"])
def test_calls_that_build_requests_warn(name, emu, client):
    messages, *_ = caught(getattr(bf, name), FRAME, "{n}", model="o3-mini", max_tokens=5, client=client)
    assert len([text for text in messages if "pass max_completion_tokens" in text]) == 1


def test_run_parquet_warns(tmp_path, client):
    FRAME.write_parquet(tmp_path / "in.parquet")
    options = {"model": "o3-mini", "max_tokens": 5, "client": client, **ARGUMENTS}
    messages, *_ = caught(bf.run_parquet, tmp_path / "in.parquet", tmp_path / "out.parquet", "{n}", **options)
    assert "pass max_completion_tokens" in messages[0]


def test_warning_as_error_stops_before_submission(emu, client):
    with pytest.raises(bf.BatchframeWarning, match="pass max_completion_tokens"):
        bf.run(FRAME, "{n}", model="o3-mini", max_tokens=5, client=client)
    assert emu.calls() == {}


@pytest.mark.parametrize("provider", ["azure", "groq", bf.Provider(name="mine")])
def test_model_names_of_other_services_are_not_checked(provider, client):
    """An Azure deployment may have any name, and so may a model of another service."""
    assert bf.requests(FRAME, "{n}", model="o3-mini", max_tokens=5, client=client, provider=provider).height == 2
