"""Every way the service refuses an input file."""

from __future__ import annotations

import json

import pytest

from .conftest import body, create, ended, jsonl, request, upload, wait

NO_MODEL = {"messages": [{"role": "user", "content": "x"}]}
GOOD = request("good")


def without(name):
    return {key: value for key, value in request("x").items() if key != name}


# (the second line of the file, code, part of the message, param)
LINES = [
    (b"{not json", "invalid_json_line", "This line is not parseable as valid JSON.", None),
    (b"[1, 2]", "invalid_json_line", "This line is not parseable as valid JSON.", None),
    (b'{"custom_id": NaN}', "invalid_json_line", "This line is not parseable as valid JSON.", None),
    (b'{"custom_id": "\xff"}', "invalid_json_line", "This line is not parseable as valid JSON.", None),
    (b"[" * 100_000, "invalid_json_line", "This line is not parseable as valid JSON.", None),
    (without("custom_id"), "missing_required_parameter", "Missing required parameter: 'custom_id'.", "custom_id"),
    (without("method"), "missing_required_parameter", "Missing required parameter: 'method'.", "method"),
    (without("url"), "missing_required_parameter", "Missing required parameter: 'url'.", "url"),
    (without("body"), "missing_required_parameter", "Missing required parameter: 'body'.", "body"),
    (request(7), "invalid_type", "expected a string", "custom_id"),
    (
        request("good"),
        "duplicate_custom_id",
        "The custom_id 'good' for this request is a duplicate of another request. The custom_id parameter must be u",
        "custom_id",
    ),
    (
        request("x", url="/v1/embeddings"),
        "invalid_url",
        "The URL provided for this request does not match the batch endpoint.",
        "url",
    ),
    (request("x", method="GET"), "invalid_value", "Invalid value: 'GET'. Supported values are: 'POST'", "method"),
    (
        request("x", {**body(), "model": "nonexistent-model-xyz"}),
        "model_not_found",
        "The provided model 'nonexistent-model-xyz' is not supported by the Batch API.",
        "body.model",
    ),
    (
        request("x", {**body(), "model": "gpt-4o"}),
        "mismatched_model",
        "does not match the rest of the batch. Each batch must contain requests for a single model.",
        "body.model",
    ),
    (request("x", NO_MODEL), "invalid_request", "Model parameter is required.", "body.model"),
    (request("x", {"model": "gpt-4o-mini"}), "invalid_request", "Messages parameter is required.", "body.messages"),
    (
        request("x", body(stream=True)),
        "streaming_unsupported",
        "Chat Completions: Streaming is not supported in the Batch API.",
        "body.stream",
    ),
]


@pytest.mark.parametrize(("line", "code", "message", "param"), LINES, ids=[f"{x[1]}-{x[3]}" for x in LINES])
def test_bad_line_fails_the_batch_with_its_number(client, line, code, message, param):
    batch = ended(client, GOOD, line)
    assert batch.status == "failed"
    assert batch.failed_at >= batch.created_at
    assert (batch.in_progress_at, batch.output_file_id, batch.error_file_id) == (None, None, None)
    [error] = batch.errors.data
    assert (error.code, error.param, error.line) == (code, param, 2)
    assert message in error.message


def test_line_numbers_start_at_1_and_count_blank_lines(client):
    content = b"\n" + jsonl(GOOD) + b"   \r\n" + b"{broken\n"
    batch = wait(client, create(client, upload(client, content)).id)
    assert [(error.code, error.line) for error in batch.errors.data] == [("invalid_json_line", 4)]


def test_blank_lines_and_a_missing_last_newline_are_fine(client):
    content = jsonl(GOOD) + b"\r\n\n" + json.dumps(request("other")).encode()
    batch = wait(client, create(client, upload(client, content)).id)
    assert (batch.status, batch.request_counts.total, batch.request_counts.completed) == ("completed", 2, 2)


def test_validation_goes_on_after_the_first_error(client):
    batch = ended(client, GOOD, without("url"), request("z"), b"{", request("z"))
    assert [(error.line, error.code) for error in batch.errors.data] == [
        (2, "missing_required_parameter"),
        (4, "invalid_json_line"),
        (5, "duplicate_custom_id"),
    ]
    assert batch.errors.object == "list"


def test_list_of_errors_is_limited(client, service):
    service.configure(max_errors=7)
    assert len(ended(client, GOOD, *[b"{"] * 20).errors.data) == 7


def test_byte_order_mark_makes_line_1_invalid(client):
    batch = wait(client, create(client, upload(client, b"\xef\xbb\xbf" + jsonl(GOOD))).id)
    assert [(error.code, error.line) for error in batch.errors.data] == [("invalid_json_line", 1)]


def test_a_file_of_blank_lines_is_empty(client):
    [error] = wait(client, create(client, upload(client, b"\n\n")).id).errors.data
    assert (error.code, error.line, error.param) == ("empty_file", None, None)
    assert "Please ensure that the batch contains at least one request." in error.message


def test_too_many_requests(client, service):
    service.configure(max_requests=3)
    [error] = ended(client, *(request(str(i)) for i in range(4))).errors.data
    assert error.code == "batch_request_limit_exceeded"
    assert "at most 3" in error.message
    assert ended(client, *(request(str(i)) for i in range(3))).status == "completed"


@pytest.mark.parametrize("deleted", [True, False])
def test_missing_input_file_fails_the_batch_later(client, service, deleted):
    service.configure(progression="stepped")
    file_id = "file-doesnotexist"
    if deleted:
        file_id = upload(client, jsonl(GOOD))
    batch = create(client, file_id)
    assert batch.status == "validating"
    if deleted:
        client.files.delete(file_id)
    service.step()
    batch = client.batches.retrieve(batch.id)
    assert batch.status == "failed"
    [error] = batch.errors.data
    assert (error.code, error.param, error.line) == ("invalid_request", "file_id", None)
    assert error.message == f"Cannot find file {file_id}, or organization org-emulator does not have access to it."
    assert service.ledger()["executions"] == 0


def test_file_of_another_purpose_is_not_executed(client, service):
    file = client.files.create(file=("input.jsonl", jsonl(GOOD)), purpose="user_data")
    [error] = wait(client, create(client, file.id).id).errors.data
    assert (error.code, error.param) == ("invalid_request", "file_id")
    assert service.ledger()["executions"] == 0


def test_settings_may_add_models(client, service):
    lines = [request("a", {**body(), "model": "my-own-model"})]
    assert ended(client, *lines).errors.data[0].code == "model_not_found"
    service.configure(models=["my-own-model"])
    batch = ended(client, *lines)
    assert (batch.status, batch.model) == ("completed", "my-own-model")
