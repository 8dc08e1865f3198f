"""Every validation code of the reference, in each dialect: code, param, line, and the sentence's beginning."""

from __future__ import annotations

import json

import pytest

from batchframe.testing import emulator

from .conftest import body, create, jsonl, request, upload, wait

GOOD = request("good")
NO_MODEL = {"messages": [{"role": "user", "content": "x"}]}
BAD_MODEL = {**body(), "model": "nonexistent-model-xyz"}
SCHEMA = "The schema of the input line is invalid or the deployment SKU is invalid."
EXTRACTED = "Validation failed: A valid model deployment name couldn't be extracted from the input file."
BOM = b"\xef\xbb\xbf" + json.dumps(GOOD).encode()


def without(name):
    return {key: value for key, value in request("x").items() if key != name}


# what: (lines of the file, settings, OpenAI's (code, param, line, text), Azure's)
CODES = {
    "json": (
        [GOOD, b"{"],
        {},
        ("invalid_json_line", None, 2, "This line is not parseable as valid JSON."),
        ("invalid_json_line", None, 2, "A line (or multiple) in your input file wasn't able to be parsed"),
    ),
    **{
        f"no {name}": (
            [GOOD, without(name)],
            {},
            ("missing_required_parameter", name, 2, f"Missing required parameter: '{name}'."),
            ("invalid_request", None, 2, SCHEMA),
        )
        for name in ("custom_id", "method", "url", "body")
    },
    "duplicate": (
        [GOOD, GOOD],
        {},
        ("duplicate_custom_id", "custom_id", 2, "The custom_id 'good' for this request is a duplicate of another"),
        ("duplicate_custom_id", None, 2, "The custom ID for this request is a duplicate"),
    ),
    "url": (
        [GOOD, request("x", url="/v1/embeddings")],
        {},
        ("invalid_url", "url", 2, "The URL provided for this request does not match the batch endpoint."),
        ("url_mismatch", None, 2, "Either a row in your input file has a URL that doesn't match"),
    ),
    "method": (
        [GOOD, request("x", method="GET")],
        {},
        ("invalid_value", "method", 2, "Invalid value: 'GET'. Supported values are: 'POST'"),
        ("invalid_request", None, 2, SCHEMA),
    ),
    "unknown model": (
        [request("x", BAD_MODEL)],
        {},
        ("model_not_found", "body.model", 1, "The provided model 'nonexistent-model-xyz' is not supported by the B"),
        ("model_not_found", None, 1, "The Azure OpenAI model deployment name that was specified"),
    ),
    "another model": (
        [GOOD, request("x", {**body(), "model": "gpt-4o"})],
        {},
        ("mismatched_model", "body.model", 2, "The model 'gpt-4o' for this request does not match the rest of the"),
        ("model_mismatch", None, 2, "The Azure OpenAI model deployment name that was specified"),
    ),
    "no model": (
        [request("x", NO_MODEL)],
        {},
        ("invalid_request", "body.model", 1, "Model parameter is required."),
        ("invalid_request", None, 1, EXTRACTED),
    ),
    "no messages": (
        [request("x", {"model": "gpt-4o-mini"})],
        {},
        ("invalid_request", "body.messages", 1, "Messages parameter is required."),
        ("invalid_request", None, 1, SCHEMA),
    ),
    "stream": (
        [request("x", body(stream=True))],
        {},
        ("streaming_unsupported", "body.stream", 1, "Chat Completions: Streaming is not supported in the Batch API."),
        ("invalid_request", None, 1, SCHEMA),
    ),
    "byte order mark": (
        [BOM],
        {},
        ("invalid_json_line", None, 1, "This line is not parseable as valid JSON."),
        ("invalid_request", None, None, EXTRACTED),
    ),
    "too many": (
        [GOOD, request("b"), request("c")],
        {"max_requests": 2},
        ("batch_request_limit_exceeded", None, None, "The batch has more requests than allowed."),
        ("too_many_tasks", None, None, "The number of requests in the input file exceeds the maximum allowed value"),
    ),
    "empty": (
        [b""],
        {},
        ("empty_file", None, None, "The input file is empty. Please ensure that the batch contains at least one req"),
        ("empty_file", None, None, "The input file is empty. Please ensure that the batch contains at least one req"),
    ),
    "file": (
        None,
        {},
        ("invalid_request", "file_id", None, "Cannot find file file-x, or organization org-emulator does not have"),
        ("invalid_request", "file_id", None, "Cannot find file file-x, or organization org-emulator does not have"),
    ),
}


@pytest.fixture(scope="module", params=["openai", "azure", "azure-v1"])
def spoken(request):
    with emulator(request.param) as service:
        yield request.param, service


@pytest.mark.parametrize("what", CODES)
def test_validation_code(spoken, what):
    dialect, service = spoken
    service.reset()
    lines, settings, openais, azures = CODES[what]
    service.configure(**settings)
    client = service.client()
    batch = wait(client, create(client, "file-x" if lines is None else upload(client, jsonl(*lines))).id)
    assert batch.status == "failed"
    [error] = batch.errors.data
    code, param, line, text = openais if dialect == "openai" else azures
    assert (error.code, error.param, error.line) == (code, param, line)
    assert error.message.startswith(text)
    assert service.ledger()["executions"] == 0


def test_bad_window_fails_the_batch_at_azure():
    with emulator("azure") as service:
        client = service.client()
        new_batch = client.batches.create(
            input_file_id=upload(client, jsonl(GOOD)), endpoint="/chat/completions", completion_window="48h"
        )
        [error] = wait(client, new_batch.id).errors.data
        assert (error.code, "48h" in error.message) == ("invalid_request", True)
