"""Every endpoint, end to end: requests, answers, and dtypes in every outcome."""

from __future__ import annotations

import base64
import json
import struct
import warnings
from typing import NamedTuple

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import batchframe as bf
from batchframe._api.options import parse
from batchframe._endpoints.moderations import _CATEGORIES as CATEGORIES
from batchframe._endpoints.registry import ENDPOINTS, endpoint_of
from batchframe._results.answer_format import AnswerFormat
from batchframe._results.result_lines import ANSWER_SCHEMA, read_any
from batchframe.emulator import answer

pytestmark = pytest.mark.filterwarnings("ignore:.*did not succeed:batchframe.BatchframeWarning")

SCORES = pl.Struct(dict.fromkeys(CATEGORIES, pl.Float64))
MODERATION = pl.Struct(
    {"flagged": pl.Boolean, "categories": pl.Struct(dict.fromkeys(CATEGORIES, pl.Boolean)), "category_scores": SCORES}
)


class Case(NamedTuple):
    """Options of a call, and the expected dtypes of its answers."""

    options: dict
    response: pl.DataType
    finish_reason: pl.DataType = pl.String()


SHAPE = pl.Struct({"label": pl.Enum(["good", "bad"]), "stars": pl.Int64})
CASES = {
    "chat": Case({"model": "gpt-4o-mini"}, pl.String()),
    "chat, twice": Case({"model": "gpt-4o-mini", "n": 2}, pl.List(pl.String), pl.List(pl.String)),
    "chat, typed twice": Case(
        {"model": "gpt-4o-mini", "n": 2, "response_format": SHAPE}, pl.List(SHAPE), pl.List(pl.String)
    ),
    "responses": Case({"model": "gpt-4o-mini", "endpoint": "/v1/responses"}, pl.String()),
    "responses, typed": Case(
        {"model": "gpt-4o-mini", "endpoint": "/v1/responses", "response_format": SHAPE, "text": {"verbosity": "low"}},
        SHAPE,
    ),
    "completions": Case({"model": "gpt-3.5-turbo-instruct", "endpoint": "/v1/completions"}, pl.String()),
    "completions, twice": Case(
        {"model": "gpt-3.5-turbo-instruct", "endpoint": "/v1/completions", "n": 3},
        pl.List(pl.String),
        pl.List(pl.String),
    ),
    "embeddings": Case({"model": "text-embedding-3-small", "endpoint": "/v1/embeddings"}, pl.Array(pl.Float32, 1536)),
    "embeddings of a size": Case(
        {"model": "text-embedding-3-large", "endpoint": "/v1/embeddings", "dimensions": 8}, pl.Array(pl.Float32, 8)
    ),
    "embeddings as digits": Case(
        {
            "model": "text-embedding-3-small",
            "endpoint": "/v1/embeddings",
            "dimensions": 8,
            "encoding_format": "float",
        },
        pl.Array(pl.Float32, 8),
    ),
    "moderations": Case({"model": "omni-moderation-latest", "endpoint": "/v1/moderations"}, MODERATION),
}
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
# The plain case of each endpoint; the others are slow tests.
plain_cases = pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=name, marks=() if name.isalpha() else pytest.mark.slow) for name, case in CASES.items()],
)
FRAME = pl.DataFrame({"text": ["Great sound.", None, "It broke: I could kill you."]})


def codes(frame):
    return frame["error"].struct.field("code").to_list()


@cases
@pytest.mark.parametrize("dialect", ["openai", "azure"])
def test_answers_are_joined_by_row(case, dialect, emulate):
    with emulate(dialect) as emu:
        out = bf.run(FRAME, "{text}", client=emu.client(), poll_seconds=0.01, **case.options)
        assert emu.ledger(summary=True)["executions"] == 2
    assert out["response"].dtype == case.response
    assert out["finish_reason"].dtype == case.finish_reason
    assert codes(out) == [None, "null_input", None]
    assert out["response"].is_null().to_list() == [False, True, False]
    assert bf.result_schema(FRAME, "{text}", **case.options) == out.schema


@cases
def test_answer_matches_its_request(case, client):
    """The result equals the service's answer to the previewed request body."""
    rows = pl.DataFrame({"text": [f"Text {index} of violence and hate" for index in range(5)]})
    out = bf.run(rows, "{text}", client=client, poll_seconds=0.01, **case.options)
    for row, line in enumerate(bf.requests(rows, "{text}", **case.options)["request"]):
        request = json.loads(line)
        body = answer(request["body"], endpoint=request["url"])
        result_line = json.dumps({"custom_id": "row", "response": {"status_code": 200, "body": body}}).encode()
        many = case.options.get("n", 1) > 1
        _, expected = read_any(result_line, ENDPOINTS[request["url"]], many=many)
        shown = pl.DataFrame([expected[:8]], schema=list(ANSWER_SCHEMA)[1:9], orient="row")
        assert out["response"][row] is not None
        if case.response == pl.String():
            assert out["response"][row] == expected.response
        elif many:
            assert len(out["response"][row]) == case.options["n"] == len(json.loads(expected.response))
        assert out["usage"][row] == shown.select(pl.struct(*list(ANSWER_SCHEMA)[3:9])).item() or not body.get("usage")


@cases
@pytest.mark.parametrize(
    "rows",
    [pl.DataFrame({"text": []}, schema={"text": pl.String}), pl.DataFrame({"text": [None]}, {"text": pl.String})],
    ids=["no rows", "nothing sent"],
)
def test_dtypes_without_answers(case, rows, client):
    out = bf.run(rows, "{text}", client=client, poll_seconds=0.01, **case.options)
    assert out["response"].dtype == case.response
    assert out["finish_reason"].dtype == case.finish_reason


@cases
def test_dtypes_of_unfinished_and_failed_runs(case, emu, client):
    emu.row_fault("status", status=400, code="odd", attempts=None)
    emu.configure(progression="stepped")
    run = bf.submit(FRAME, "{text}", client=client, poll_seconds=0.01, **case.options)
    out = run.result()
    assert (out["response"].dtype, out["finish_reason"].dtype) == (case.response, case.finish_reason)
    assert codes(out) == ["pending", "null_input", "pending"]
    emu.configure(progression="timed")
    run.wait()
    out = run.result()
    assert (out["response"].dtype, out["finish_reason"].dtype) == (case.response, case.finish_reason)
    assert codes(out) == ["odd", "null_input", "odd"]
    reopened = bf.open_run(run.path).result()
    assert reopened.schema == out.schema


@plain_cases
def test_faults_are_retried(case, emu, client):
    rows = pl.DataFrame({"text": [f"text {index}" for index in range(40)]})
    emu.row_fault("server_error", share=0.2)
    emu.row_fault("malformed", share=0.1, at=0.8)
    emu.row_fault("no_body", share=0.1)
    emu.row_fault("body_as_text", share=0.2)
    emu.row_fault("missing", share=0.1)
    out = bf.run(rows, "{text}", client=client, poll_seconds=0.01, settle_seconds=0.05, **case.options)
    assert codes(out) == [None] * 40
    assert out["response"].null_count() == 0


@plain_cases
def test_repeated_call_is_not_billed(case, emu, client):
    first = bf.run(FRAME, "{text}", client=client, poll_seconds=0.01, **case.options)
    before = emu.ledger(summary=True)
    again = bf.run(FRAME.reverse(), "{text}", client=client, poll_seconds=0.01, **case.options)
    assert emu.ledger(summary=True) == before
    assert again["response"].reverse().to_list() == first["response"].to_list()


# -- one endpoint each


def test_responses_messages_and_parameters(client):
    options = {"model": "gpt-5-mini", "endpoint": "/v1/responses", "system": "Answer in {language}."}
    rows = pl.DataFrame({"text": ["Hi"], "language": ["French"], "effort": ["low"]})
    body = json.loads(
        bf.requests(
            rows,
            "{text}",
            max_output_tokens=200,
            reasoning=pl.struct(effort="effort"),
            response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}},
            **options,
        )["request"][0]
    )["body"]
    assert body["input"] == [
        {"role": "system", "content": "Answer in French."},
        {"role": "user", "content": "Hi"},
    ]
    assert body["reasoning"] == {"effort": "low"}
    assert body["text"] == {"format": {"type": "json_schema", "name": "a", "schema": {"type": "object"}}}
    out = bf.run(rows, "{text}", client=client, poll_seconds=0.01, max_output_tokens=2_000, **options)
    assert out["finish_reason"].to_list() == ["completed"]
    assert out["usage"][0]["reasoning_tokens"] > 0


def test_incomplete_response(client):
    rows = pl.DataFrame({"text": ["Say something long about everything there is."]})
    options = {"endpoint": "/v1/responses", "client": client, "poll_seconds": 0.01}
    cut = bf.run(rows, "{text}", model="gpt-4o-mini", max_output_tokens=16, **options)
    assert cut["finish_reason"].to_list() in (["max_output_tokens"], ["completed"])
    nothing = bf.run(rows, "{text}", model="gpt-5-mini", max_output_tokens=16, reasoning={"effort": "high"}, **options)
    assert codes(nothing) == ["max_output_tokens"]
    assert "raise max_output_tokens" in nothing["error"][0]["message"]


def test_azure_responses_batch_uses_the_chat_completions_endpoint(emulate):
    with emulate("azure") as emu:
        bf.run(FRAME, "{text}", model="gpt-4o-mini", endpoint="/v1/responses", client=emu.client(), poll_seconds=0.01)
        (batch,) = emu.client().batches.list().data
    assert batch.endpoint == "/chat/completions"


def test_base64_embeddings_equal_float_embeddings(client):
    rows = pl.DataFrame({"text": ["one", "two"]})
    options = {"endpoint": "/v1/embeddings", "model": "text-embedding-3-small", "client": client, "poll_seconds": 0.01}
    packed = bf.run(rows, "{text}", **options)
    digits = bf.run(rows, "{text}", encoding_format="float", **options)
    assert packed["response"].to_list() == digits["response"].to_list()
    line = json.loads(bf.requests(rows, "{text}", **{**options, "client": None})["request"][0])
    assert line["body"]["encoding_format"] == "base64"
    norms = packed.select(pl.col("response").arr.eval(pl.element() ** 2).arr.sum()).to_series()
    assert norms.round(2).to_list() == [1.0, 1.0]


def test_embeddings_of_an_unknown_deployment_are_lists(emulate):
    with emulate("azure", deployments={"ours": "text-embedding-3-small"}) as emu:
        out = bf.run(FRAME, "{text}", model="ours", endpoint="/v1/embeddings", client=emu.client(), poll_seconds=0.01)
    assert out["response"].dtype == pl.List(pl.Float32)
    assert out["response"].list.len().to_list() == [1536, None, 1536]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "text-embedding-3-small"}, 'pass endpoint="/v1/embeddings"'),
        ({"model": "omni-moderation-latest", "endpoint": "/v1/responses"}, 'pass endpoint="/v1/moderations"'),
        ({"model": "text-embedding-3-small", "endpoint": "/v1/embeddings", "dimensions": 1537}, "at most 1536"),
        (
            {"model": "text-embedding-ada-002", "endpoint": "/v1/embeddings", "dimensions": 8},
            "1536, which cannot be changed",
        ),
    ],
)
def test_unsupported_model_options_are_refused(options, message):
    with pytest.raises(bf.OptionError, match=message):
        bf.requests(FRAME, "{text}", **options)


def test_empty_text_is_not_embedded(emu, client):
    rows = pl.DataFrame({"text": ["", None, "x"]})
    options = {"endpoint": "/v1/embeddings", "model": "text-embedding-3-small", "dimensions": 4}
    out = bf.run(rows, "{text}", client=client, on_null="render", poll_seconds=0.01, **options)
    assert codes(out) == ["invalid_input", "invalid_input", None]
    assert emu.ledger(summary=True)["executions"] == 1


@pytest.mark.parametrize("endpoint", ["/v1/embeddings", "/v1/completions", "/v1/moderations"])
def test_single_text_endpoints_refuse_messages(endpoint):
    rows = pl.DataFrame({"text": ["a"], "texts": [["a", "b"]]})
    for prompt in ([{"role": "user", "content": "{text}"}], pl.col("texts")):
        with pytest.raises(bf.OptionError, match=r"takes one text per row, got .* explode the frame"):
            bf.requests(rows, prompt, model="m", endpoint=endpoint)
    with pytest.raises(
        bf.OptionError, match=rf"{endpoint} does not support system: .*: /v1/chat/completions, /v1/responses$"
    ):
        bf.requests(rows, "{text}", model="m", endpoint=endpoint, system="x")
    with pytest.raises(bf.OptionError, match="does not support response_format"):
        bf.requests(rows, "{text}", model="m", endpoint=endpoint, response_format=SHAPE)


def test_moderations(client):
    out = bf.run(
        FRAME, "{text}", model="omni-moderation-latest", endpoint="/v1/moderations", client=client, poll_seconds=0.01
    )
    assert out["response"].struct.field("flagged").to_list() == [False, None, True]
    scores = out["response"].struct.field("category_scores").struct.field("violence")
    assert scores[2] > 0.5 > scores[0]
    assert out["usage"].null_count() == 3


def test_invalid_choice_fails_its_row():
    answers = pl.DataFrame(
        {
            "response": [json.dumps(['{"label":"good","stars":1}', '{"label":"ugly","stars":2}']), None],
            "finish_reason": ['["stop","stop"]', None],
            "code": [None, "odd"],
            "message": [None, "message"],
        },
        schema_overrides={"code": pl.String, "message": pl.String},
    )
    typed = parse({"model": "m", "n": 2, "response_format": SHAPE}).answer_format
    decoded = typed.decoded(answers)
    assert decoded["code"].to_list() == ["invalid_response", "odd"]
    assert decoded["message"][0].startswith("choice 1: $.label")
    assert decoded["finish_reason"].to_list() == [["stop", "stop"], None]


# -- unreadable answers


def line(body):
    return json.dumps({"custom_id": "a", "response": {"status_code": 200, "body": body}}).encode()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"data": []}, "0 embeddings instead of one"),
        ({"data": [{"embedding": [1.0, "x"]}]}, "not of numbers"),
        ({"data": [{"embedding": [1e300]}]}, "not of numbers"),
        ({"data": [{}]}, "no embedding"),
        ({"data": [{"embedding": [1.0, 2.0]}]}, "has 8 bytes, but expected 4 for each of 3 dimensions"),
        ({"data": [{"embedding": "!!!"}]}, "not base64"),
        ({"data": [{"embedding": base64.b64encode(b"abc").decode()}]}, "has 3 bytes"),
    ],
)
def test_invalid_embeddings_fail_their_row(body, message):
    _, found = read_any(line(body), ENDPOINTS["/v1/embeddings"])
    answers = pl.DataFrame([("a", *found)], schema=ANSWER_SCHEMA, orient="row")
    decoded = AnswerFormat("/v1/embeddings", dimensions=3).decoded(answers)
    assert decoded["code"].to_list() == ["invalid_response"]
    assert message in decoded["message"][0]
    assert decoded["response"].dtype == pl.Array(pl.Float32, 3)


def test_embeddings_of_different_sizes():
    texts = [base64.b64encode(struct.pack(f"<{size}f", *range(size))).decode() for size in (1, 3, 1)]
    answers = pl.DataFrame({"response": [*texts, None], "code": None, "message": None, "finish_reason": None})
    found = AnswerFormat("/v1/embeddings").decoded(answers.cast(pl.String))
    assert found["response"].to_list() == [[0.0], [0.0, 1.0, 2.0], [0.0], None]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def mangled(value, draw, share):
    """Return a JSON value with some of its contents replaced or removed."""
    if draw(st.integers(0, share)) == 0:
        return draw(JSON)
    if isinstance(value, dict):
        return {key: mangled(inner, draw, share) for key, inner in value.items() if draw(st.integers(0, share))}
    if isinstance(value, list):
        return [mangled(inner, draw, share) for inner in value[:3]]
    return value


BODIES = {
    "/v1/chat/completions": {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "x"}], "n": 2},
    "/v1/responses": {"model": "gpt-5-mini", "input": "x"},
    "/v1/embeddings": {"model": "text-embedding-3-small", "input": "x", "dimensions": 3},
    "/v1/completions": {"model": "gpt-3.5-turbo-instruct", "prompt": "x", "n": 2},
    "/v1/moderations": {"model": "omni-moderation-latest", "input": "x"},
}


@pytest.mark.parametrize("path", ENDPOINTS)
@given(data=st.data(), many=st.booleans())
def test_any_body_gives_one_outcome(path, data, many):
    body = mangled(answer(BODIES[path], endpoint=path), data.draw, 12)
    result_line = json.dumps({"custom_id": "a", "response": {"status_code": 200, "body": body}}).encode()
    custom_id, found = read_any(result_line, ENDPOINTS[path], many=many)
    assert custom_id == "a"
    form = AnswerFormat(path, choices=2 if many else 1, dimensions=3)
    frame = pl.DataFrame([("a", *found)], schema=ANSWER_SCHEMA, orient="row")
    decoded = form.decoded(frame)
    assert decoded["response"].dtype == form.response
    assert decoded["code"][0] is None or decoded["response"][0] is None


# -- read_batch


@pytest.mark.parametrize("path", ENDPOINTS)
def test_read_batch_detects_the_endpoint(path, tmp_path):
    body = answer(BODIES[path], endpoint=path)
    assert endpoint_of(body).path == path
    (tmp_path / "out.jsonl").write_bytes(b'{"custom_id": "b", "error": {"code": "batch_expired"}}\n' + line(body))
    found = bf.read_batch(tmp_path / "out.jsonl")
    assert codes(found) == ["batch_expired", None]
    dtypes = {"/v1/embeddings": pl.List(pl.Float32), "/v1/moderations": MODERATION}
    assert found["response"].dtype == dtypes.get(path, pl.String())
    assert found["response"][1] is not None


def test_read_batch_refuses_two_endpoints():
    sources = [line(answer(BODIES[path], endpoint=path)) for path in ("/v1/embeddings", "/v1/moderations")]
    with pytest.raises(bf.InputError, match=r"of /v1/moderations in the bytes, but earlier .* of /v1/embeddings"):
        bf.read_batch(sources)


def test_read_batch_of_embeddings_by_id(client):
    with warnings.catch_warnings():
        out = bf.run(
            FRAME, "{text}", model="text-embedding-3-small", endpoint="/v1/embeddings", client=client,
            poll_seconds=0.01, include=["batch_id"],
        )  # fmt: skip
    batch_id = out["batch_id"].drop_nulls()[0]
    found = bf.read_batch(batch_id, FRAME, client=client)
    assert found["response"].cast(pl.Array(pl.Float32, 1536)).to_list() == out["response"].to_list()


def test_explain_shortens_embeddings_when_printed(client):
    run = bf.submit(
        FRAME, "{text}", model="text-embedding-3-small", endpoint="/v1/embeddings", client=client, poll_seconds=0.01
    )
    run.wait()
    explanation = run.explain(0)
    assert explanation == run.explain("row-0")
    assert len(explanation.outcome["response"]) == 1536
    assert len(explanation.submissions[0]["lines"][0]) > 8_000
    assert max(map(len, str(explanation).splitlines())) < 4_100


def test_reparse_refuses_answers_without_text(client):
    run = bf.submit(
        FRAME, "{text}", model="omni-moderation-latest", endpoint="/v1/moderations", client=client, poll_seconds=0.01
    )
    run.wait()
    with pytest.raises(bf.OptionError, match="no texts that could be read"):
        run.reparse(response_format=SHAPE)
    with pytest.raises(bf.OptionError, match="dimensions cannot be changed by retry"):
        run.retry(dimensions=4)
