"""Batches for every endpoint, over HTTP: lines, usage, errors, faults, and Azure's differences."""

from __future__ import annotations

import pytest
from openai.types import Completion, CreateEmbeddingResponse, ModerationCreateResponse
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from batchframe.emulator import answer, body_digest
from batchframe.emulator._endpoints.base import Endpoint
from batchframe.emulator._endpoints.registry import ENDPOINTS
from batchframe.emulator._errors import ApiError
from batchframe.testing import emulator

from .conftest import jsonl, read, upload, wait
from .test_endpoint_checks import CHAT, COMPLETIONS, EMBEDDINGS, FORM, MINIMAL, MODERATIONS, RESPONSES, TOOL

TYPES = {
    CHAT: ChatCompletion,
    RESPONSES: Response,
    EMBEDDINGS: CreateEmbeddingResponse,
    COMPLETIONS: Completion,
    MODERATIONS: ModerationCreateResponse,
}
LOVE = "Classify the sentiment: I love it"
BODIES = {
    RESPONSES: [
        {"model": "gpt-5-mini", "input": LOVE, "reasoning": {"effort": "low", "summary": "auto"}},
        {"model": "gpt-5-mini", "input": [{"role": "user", "content": [{"type": "input_text", "text": LOVE}]}]},
        {"model": "gpt-5-mini", "input": LOVE, "max_output_tokens": 16},
        {"model": "gpt-5-mini", "input": LOVE, "text": {"format": FORM, "verbosity": "low"}, "metadata": {"a": "b"}},
        {"model": "gpt-5-mini", "input": LOVE, "tools": [TOOL], "tool_choice": {"type": "function", "name": "look"}},
        {"model": "gpt-5-mini", "input": LOVE, "include": ["message.output_text.logprobs"], "top_logprobs": 2},
    ],
    EMBEDDINGS: [
        {"model": "text-embedding-3-small", "input": "hello world"},
        {"model": "text-embedding-3-small", "input": ["a", "b"], "dimensions": 8},
        {"model": "text-embedding-3-small", "input": [[1, 2], [3]]},
    ],
    COMPLETIONS: [
        {"model": "gpt-3.5-turbo-instruct", "prompt": LOVE},
        {"model": "gpt-3.5-turbo-instruct", "prompt": ["Once", "Twice"], "n": 2, "logprobs": 2, "max_tokens": 1},
    ],
    MODERATIONS: [
        {"model": "omni-moderation-latest", "input": "I will kill you"},
        {"model": "omni-moderation-latest", "input": ["hello", "you idiot"]},
    ],
    CHAT: [MINIMAL[CHAT]],
}


def lines(url, *bodies):
    return [{"custom_id": str(n), "method": "POST", "url": url, "body": body} for n, body in enumerate(bodies)]


def ended(client, endpoint, *given):
    file_id = upload(client, jsonl(*given))
    made = client.batches.create(input_file_id=file_id, endpoint=endpoint, completion_window="24h")
    return wait(client, made.id)


def answers(client, batch):
    got = {line["custom_id"]: line["response"]["body"] for line in read(client, batch.output_file_id)}
    return [got[key] for key in sorted(got, key=int)]


@pytest.mark.parametrize("endpoint", BODIES)
def test_a_batch_of_each_endpoint(client, service, endpoint):
    bodies = BODIES[endpoint]
    batch = ended(client, endpoint, *lines(endpoint, *bodies))
    assert (batch.status, batch.request_counts.completed, batch.error_file_id) == ("completed", len(bodies), None)
    got = answers(client, batch)
    for body, body_of_line in zip(bodies, got, strict=True):
        created = body_of_line.get("created", body_of_line.get("created_at", 0))
        assert body_of_line == {**answer(body, endpoint=endpoint, created=created), **completed_at(body_of_line)}
        TYPES[endpoint].model_validate(body_of_line, strict=False)
    usages = [body_of_line.get("usage", {}) for body_of_line in got]
    assert batch.usage.input_tokens == sum(u.get("prompt_tokens", u.get("input_tokens", 0)) for u in usages)
    assert batch.usage.output_tokens == sum(u.get("completion_tokens", u.get("output_tokens", 0)) for u in usages)
    assert batch.usage.total_tokens == sum(u.get("total_tokens", 0) for u in usages)
    assert (batch.usage.total_tokens == 0) == (endpoint == MODERATIONS)
    assert {body_digest(body) for body in bodies} == set(service.ledger()["by_body"])


def completed_at(body_of_line):
    return {"completed_at": body_of_line["completed_at"]} if "completed_at" in body_of_line else {}


NAMES = {
    CHAT: {"prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details"},
    RESPONSES: {"input_tokens", "input_tokens_details", "output_tokens", "output_tokens_details", "total_tokens"},
    EMBEDDINGS: {"prompt_tokens", "total_tokens"},
    COMPLETIONS: {"prompt_tokens", "completion_tokens", "total_tokens"},
}


@pytest.mark.parametrize("endpoint", NAMES)
def test_the_names_of_usage(endpoint):
    assert set(answer(MINIMAL[endpoint], endpoint=endpoint)["usage"]) == NAMES[endpoint]


def test_an_endpoint_that_is_not_executed():
    with pytest.raises(ValueError, match="it executes /v1/chat/completions, /v1/responses"):
        answer({}, endpoint="/v1/videos")


def test_a_new_endpoint_needs_only_its_own_definition(client, service, monkeypatch):
    """Its checks, answers, tokens, faults and models are all in the `Endpoint`: the registry is all that knows it."""

    def refuse_empty(body, _model):
        if not body["prompt"]:
            raise ApiError("'prompt' is too short.", param="prompt")
        return len(body["prompt"])

    def alter(answer, hits):
        answer["data"] = [hit.kind for hit in hits]

    images = Endpoint(
        path="/v1/images/generations",
        required="prompt",
        model_kinds=("image",),
        azure_operation="imageGenerations",
        count=lambda body: len(body["prompt"]),
        check=refuse_empty,
        respond=lambda body, _digest, tokens, created, model: {"data": [body["prompt"]], "model": model.snapshot},
        used_tokens=lambda answer: (3, 4, 0),
        alter=alter,
    )
    monkeypatch.setitem(ENDPOINTS, images.path, images)
    service.configure(models=["painter"])
    service.row_fault("refusal", custom_ids=["1"])
    bodies = [{"model": "painter", "prompt": prompt} for prompt in ("a cat", "a dog", "")]
    batch = ended(client, images.path, *lines(images.path, *bodies))
    assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("completed", 2, 1)
    assert [body["data"] for body in answers(client, batch)] == [["a cat"], ["refusal"]]
    assert (batch.usage.input_tokens, batch.usage.output_tokens) == (6, 8)
    (failed,) = read(client, batch.error_file_id)
    assert failed["response"]["body"]["error"]["message"] == "'prompt' is too short."
    wrong = ended(client, images.path, *lines(images.path, {"model": "gpt-4o", "prompt": "a cat"}))
    (refused,) = read(client, wrong.error_file_id)
    expected = "The model 'gpt-4o' is not supported in the v1/images/generations endpoint."
    assert refused["response"]["body"]["error"]["message"] == expected


# ---------------------------------------------------------------------------------------------------------- validation


@pytest.mark.parametrize(
    ("endpoint", "name", "text"),
    [
        (CHAT, "messages", "Messages parameter is required."),
        (RESPONSES, "input", "Input parameter is required."),
        (EMBEDDINGS, "input", "Input parameter is required."),
        (COMPLETIONS, "prompt", "Prompt parameter is required."),
        (MODERATIONS, "input", "Input parameter is required."),
    ],
)
def test_required_parameters(client, endpoint, name, text):
    batch = ended(client, endpoint, *lines(endpoint, {"model": MINIMAL[endpoint]["model"]}))
    [error] = batch.errors.data
    assert (error.code, error.param, error.line, error.message) == ("invalid_request", f"body.{name}", 1, text)


@pytest.mark.parametrize(
    ("endpoint", "name"), [(CHAT, "Chat Completions"), (RESPONSES, "Responses"), (COMPLETIONS, "Completions")]
)
def test_streaming_is_refused(client, endpoint, name):
    [error] = ended(client, endpoint, *lines(endpoint, {**MINIMAL[endpoint], "stream": True})).errors.data
    assert (error.code, error.param) == ("streaming_unsupported", "body.stream")
    assert error.message == f"{name}: Streaming is not supported in the Batch API."


def test_stream_is_unknown_to_endpoints_without_streaming(client):
    batch = ended(client, EMBEDDINGS, *lines(EMBEDDINGS, {**MINIMAL[EMBEDDINGS], "stream": True}))
    [line] = read(client, batch.error_file_id)
    assert line["response"]["body"]["error"]["code"] == "unknown_parameter"


@pytest.mark.parametrize("inputs", [50_000, 50_001])
def test_inputs_per_batch_are_limited(client, service, inputs):
    service.configure(progression="stepped")
    bodies = [
        {"model": "text-embedding-3-small", "input": ["x"] * min(2000, inputs - n)} for n in range(0, inputs, 2000)
    ]
    new_batch = client.batches.create(
        input_file_id=upload(client, jsonl(*lines(EMBEDDINGS, *bodies))), endpoint=EMBEDDINGS, completion_window="24h"
    )
    service.step(1)
    batch = client.batches.retrieve(new_batch.id)
    if inputs == 50_000:
        assert batch.status == "in_progress"
    else:
        [error] = batch.errors.data
        assert (batch.status, error.code, error.line) == ("failed", "batch_input_limit_exceeded", None)


def test_model_of_another_endpoint_fails_its_rows(client, service):
    batch = ended(client, EMBEDDINGS, *lines(EMBEDDINGS, {"model": "gpt-4o", "input": "x"}))
    [line] = read(client, batch.error_file_id)
    assert (batch.status, batch.output_file_id, batch.request_counts.failed) == ("completed", None, 1)
    assert line["response"]["status_code"] == 403
    assert line["response"]["body"]["error"]["message"] == "You are not allowed to generate embeddings from this model"
    assert service.ledger()["billed"] == 0


def test_enqueued_tokens_are_counted(client, service):
    service.configure(enqueued_token_limit=100)
    body = {"model": "text-embedding-3-small", "input": ["x" * 400]}
    assert ended(client, EMBEDDINGS, *lines(EMBEDDINGS, body)).status == "completed"
    [error] = ended(client, EMBEDDINGS, *lines(EMBEDDINGS, body, body)).errors.data
    assert error.code == "token_limit_exceeded"


# -------------------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("kind", "end", "part"),
    [
        ("length", ("incomplete", {"reason": "max_output_tokens"}), {"type": "output_text", "text": "posi"}),
        ("content_filter", ("incomplete", {"reason": "content_filter"}), {"type": "output_text", "text": ""}),
        ("refusal", ("completed", None), {"type": "refusal", "refusal": "I'm sorry, I can't assist with that."}),
    ],
)
def test_faults_of_a_response(client, service, kind, end, part):
    service.row_fault(kind)
    [got] = answers(client, ended(client, RESPONSES, *lines(RESPONSES, {"model": "gpt-4o-mini", "input": LOVE})))
    Response.model_validate(got)
    assert (got["status"], got["incomplete_details"]) == end
    assert part.items() <= got["output"][0]["content"][0].items()
    text = part.get("text", part.get("refusal"))
    assert got["usage"]["output_tokens"] == -(-len(text) // 4)


@pytest.mark.parametrize(("kind", "text"), [("length", "posi"), ("content_filter", "")])
def test_faults_of_a_completion(client, service, kind, text):
    service.row_fault(kind)
    [got] = answers(client, ended(client, COMPLETIONS, *lines(COMPLETIONS, BODIES[COMPLETIONS][0])))
    assert (got["choices"][0]["text"], got["choices"][0]["finish_reason"]) == (text, kind)


@pytest.mark.parametrize("endpoint", [EMBEDDINGS, MODERATIONS])
def test_text_faults_do_not_touch_answers_without_text(client, service, endpoint):
    service.row_fault("refusal")
    [got] = answers(client, ended(client, endpoint, *lines(endpoint, MINIMAL[endpoint])))
    assert got == answer(MINIMAL[endpoint], endpoint=endpoint)


# --------------------------------------------------------------------------------------------------------------- Azure


@pytest.fixture(scope="module", params=["azure", "azure-v1"])
def azure(request):
    with emulator(request.param) as service:
        yield service


@pytest.mark.slow
@pytest.mark.parametrize("endpoint", ["/chat/completions", "/v1/chat/completions", "/responses", "/v1/responses"])
@pytest.mark.parametrize("url", ["/responses", "/v1/responses", "/chat/completions"])
def test_azure_reads_the_endpoint_from_the_lines(azure, endpoint, url):
    azure.reset()
    azure.configure(deployments={"mine": "gpt-4o-mini"})
    client = azure.client()
    body = {**MINIMAL[RESPONSES if "responses" in url else CHAT], "model": "mine"}
    batch = ended(client, endpoint, *lines(url, body))
    [got] = answers(client, batch)
    assert (batch.status, batch.endpoint) == ("completed", endpoint)
    if "responses" in url:
        assert (got["object"], got["model"], type(got["created_at"])) == ("response", "mine", float)
        assert [each["blocked"] for each in got["content_filters"]] == [False, False]
        assert got["output"][0]["content"][0]["text"] == "In short: Say hello."
        Response.model_validate(got)
    else:
        assert (got["object"], got["model"]) == ("chat.completion", "gpt-4o-mini-2024-07-18")


def test_azure_rows_must_name_one_endpoint(azure):
    azure.reset()
    mixed = [lines("/responses", MINIMAL[RESPONSES])[0], {**lines(CHAT, MINIMAL[CHAT])[0], "custom_id": "b"}]
    [error] = ended(azure.client(), "/chat/completions", *mixed).errors.data
    assert (error.code, error.line) == ("url_mismatch", 2)


def test_openai_uses_the_endpoint_of_the_batch(client):
    [error] = ended(client, CHAT, *lines(RESPONSES, MINIMAL[RESPONSES])).errors.data
    assert error.code == "invalid_url"


@pytest.mark.parametrize("endpoint", ["/embeddings", "/v1/embeddings"])
def test_azure_embeds(azure, endpoint):
    azure.reset()
    client = azure.client()
    [got] = answers(client, ended(client, endpoint, *lines(endpoint, MINIMAL[EMBEDDINGS])))
    assert len(got["data"][0]["embedding"]) == 1536


def test_azures_sentence_for_a_model_of_another_operation(azure):
    azure.reset()
    client = azure.client()
    batch = ended(client, "/embeddings", *lines("/embeddings", {"model": "gpt-4o", "input": "x"}))
    [line] = read(client, batch.error_file_id)
    error = line["response"]["body"]["error"]
    assert (line["response"]["status_code"], error["code"]) == (400, "OperationNotSupported")
    assert error["message"].startswith("The embeddings operation does not work with the specified model, gpt-4o.")
