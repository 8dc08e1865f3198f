"""Batches: creation, life cycle, lists, cancel, expiry."""

from __future__ import annotations

import time

import openai
import pytest

from batchframe.emulator import answer
from batchframe.testing import emulator

from .conftest import CHAT, body, create, ended, jsonl, read, request, upload, wait

ROWS = [request(f"row-{i}", body(f"Text number {i}")) for i in range(10)]


@pytest.fixture
def stepped(service):
    service.configure(progression="stepped")
    return service


def counts(batch):
    return (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed)


def stamps(batch):
    names = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
    return {name for name in names if getattr(batch, f"{name}_at") is not None}


def test_life_of_a_batch_step_by_step(client, stepped):
    bad = request("bad", body(temperature="hot"))
    file_id = upload(client, jsonl(*ROWS, bad))
    batch = create(client, file_id, metadata={"a": "b"})
    assert batch.id.startswith("batch_")
    assert len(batch.id) == 38
    assert (batch.object, batch.endpoint, batch.completion_window) == ("batch", CHAT, "24h")
    assert (batch.input_file_id, batch.metadata) == (file_id, {"a": "b"})
    assert batch.expires_at == batch.created_at + 86_400
    assert (batch.output_file_id, batch.error_file_id, batch.errors, batch.usage) == (None,) * 4
    history = []
    for _ in range(5):
        history.append((batch.status, counts(batch), stamps(batch)))
        stepped.step()
        batch = client.batches.retrieve(batch.id)
    assert history == [
        ("validating", (0, 0, 0), set()),
        ("in_progress", (11, 0, 0), {"in_progress"}),
        ("in_progress", (11, 6, 0), {"in_progress"}),
        ("finalizing", (11, 10, 1), {"in_progress", "finalizing"}),
        ("completed", (11, 10, 1), {"in_progress", "finalizing", "completed"}),
    ]
    assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at <= time.time()
    assert batch.model == "gpt-4o-mini-2024-07-18"
    output, error = (client.files.retrieve(name) for name in (batch.output_file_id, batch.error_file_id))
    assert (output.filename, error.filename) == (f"{batch.id}_output.jsonl", f"{batch.id}_error.jsonl")
    assert (output.purpose, error.purpose) == ("batch_output", "batch_output")


def test_output_lines_are_shuffled_and_answer_their_rows(client):
    rows = [request(f"row-{i}", body(f"Text number {i}")) for i in range(300)]
    batch = ended(client, *rows)
    assert (batch.status, batch.error_file_id) == ("completed", None)
    lines = read(client, batch.output_file_id)
    assert [line["custom_id"] for line in lines] != [row["custom_id"] for row in rows]
    by_id = {line["custom_id"]: line for line in lines}
    assert len(by_id) == len(lines) == 300
    for row in rows:
        line = by_id[row["custom_id"]]
        assert list(line) == ["id", "custom_id", "response", "error"]
        assert line["id"].startswith("batch_req_")
        assert line["error"] is None
        assert line["response"]["status_code"] == 200
        assert len(line["response"]["request_id"]) == 32
        got = line["response"]["body"]
        assert got == answer(row["body"], created=got["created"])
    usages = [line["response"]["body"]["usage"] for line in lines]
    assert batch.usage.input_tokens == sum(usage["prompt_tokens"] for usage in usages)
    assert batch.usage.output_tokens == sum(usage["completion_tokens"] for usage in usages)
    assert batch.usage.total_tokens == sum(usage["total_tokens"] for usage in usages)
    content = client.files.content(batch.output_file_id).content
    assert content.endswith(b"}\n")


def test_without_shuffle_the_order_is_kept_and_a_seed_repeats_everything():
    def order(**settings):
        with emulator(**settings) as service:
            client = service.client()
            batch = ended(client, *ROWS)
            return batch.id, [line["custom_id"] for line in read(client, batch.output_file_id)]

    assert order(shuffle=False)[1] == [row["custom_id"] for row in ROWS]
    assert order(seed=3) == order(seed=3)
    assert order(seed=3) != order(seed=4)


def test_a_small_batch_ends_within_a_second(client):
    started = time.monotonic()
    assert ended(client, *ROWS).status == "completed"
    assert time.monotonic() - started < 1.0


def test_when_all_requests_fail_the_batch_is_completed_without_an_output(client):
    batch = ended(client, *(request(str(i), body(foo=1)) for i in range(3)))
    assert (batch.status, batch.output_file_id, counts(batch)) == ("completed", None, (3, 0, 3))
    assert (batch.usage.input_tokens, batch.usage.total_tokens) == (0, 0)
    for line in read(client, batch.error_file_id):
        assert line["error"] is None
        assert line["response"]["status_code"] == 400
        assert line["response"]["body"] == {
            "error": {
                "message": "Unknown parameter: 'foo'.",
                "type": "invalid_request_error",
                "param": "foo",
                "code": "unknown_parameter",
            }
        }


# ------------------------------------------------------------------------------------------------------------ create

ENDPOINTS = "'/v1/responses', '/v1/chat/completions', '/v1/embeddings'"
CREATES = [
    ({"endpoint": "/v1/invalid/endpoint"}, "invalid_value", "endpoint", f"Supported values are: {ENDPOINTS}"),
    ({"completion_window": "48h"}, "invalid_value", "completion_window", "'24h'"),
    ({"endpoint": None}, "invalid_type", "endpoint", "expected a string, but got null instead."),
    ({"metadata": "x"}, "invalid_type", "metadata", "expected an object, but got a string instead."),
    (
        {"metadata": {"tags": ["a"]}},
        "invalid_type",
        "metadata.tags",
        "Invalid type for 'metadata.tags': expected a string, but got an array instead.",
    ),
    ({"metadata": {str(i): "" for i in range(17)}}, "object_above_max_properties", "metadata", "at most 16"),
    ({"metadata": {"k" * 65: ""}}, "string_above_max_length", "metadata", "maximum length 64"),
    ({"metadata": {"k": "v" * 513}}, "string_above_max_length", "metadata.k", "maximum length 512"),
    (
        {"output_expires_after": {"anchor": "created_at", "seconds": 10}},
        "integer_below_min_value",
        "output_expires_after.seconds",
        ">= 3600",
    ),
    ({"extra_body": {"foo": 1}}, "unknown_parameter", "foo", "Unknown parameter: 'foo'."),
]


@pytest.mark.parametrize(("changes", "code", "param", "message"), CREATES, ids=[f"{x[1]}-{x[2]}" for x in CREATES])
def test_create_refuses_bad_parameters(client, changes, code, param, message):
    options = {"input_file_id": "file-x", "endpoint": CHAT, "completion_window": "24h", **changes}
    with pytest.raises(openai.BadRequestError) as refused:
        client.batches.create(**options)
    assert (refused.value.code, refused.value.param, refused.value.type) == (code, param, "invalid_request_error")
    assert message in str(refused.value)
    assert client.batches.list().data == []


def test_largest_metadata_is_accepted(client):
    metadata = {f"{i:064}": "v" * 512 for i in range(16)}
    assert create(client, "file-x", metadata=metadata).metadata == metadata


def test_videos_endpoint_only_at_azure():
    parameters = {"input_file_id": "file-x", "endpoint": "/v1/videos", "completion_window": "24h"}
    for dialect, refusal in (("openai", openai.BadRequestError), ("azure-v1", openai.InternalServerError)):
        with emulator(dialect) as service, pytest.raises(refusal) as refused:
            service.client(max_retries=0).batches.create(**parameters)
        assert refused.value.status_code == (400 if dialect == "openai" else 501)


@pytest.mark.parametrize("endpoint", ["/v1/images/generations", "/v1/images/edits"])
def test_unexecuted_endpoints_get_501(client, endpoint):
    with pytest.raises(openai.InternalServerError) as refused:
        client.batches.create(input_file_id="file-x", endpoint=endpoint, completion_window="24h")
    assert refused.value.status_code == 501
    assert refused.value.body["message"] == f"the emulator does not execute {endpoint} yet"


def test_output_expires_after(client):
    after = {"anchor": "created_at", "seconds": 7200}
    batch = wait(client, create(client, upload(client, jsonl(*ROWS)), output_expires_after=after).id)
    file = client.files.retrieve(batch.output_file_id)
    assert file.expires_at == file.created_at + 7200


def test_batches_per_hour(client, service):
    service.configure(batches_per_hour=2)
    for _ in range(2):
        create(client, "file-x")
    with pytest.raises(openai.RateLimitError):
        create(client, "file-x")


# ------------------------------------------------------------------------------------------------- list and retrieve


def test_lists_are_newest_first_and_come_in_pages(client):
    ids = [create(client, "file-x").id for _ in range(25)][::-1]
    page = client.batches.list()
    assert [batch.id for batch in page.data] == ids[:20]
    assert (page.first_id, page.last_id, page.has_more) == (ids[0], ids[19], True)
    assert [batch.id for batch in client.batches.list(limit=7)] == ids
    last = client.batches.list(after=ids[19])
    assert ([batch.id for batch in last.data], last.has_more) == (ids[20:], False)
    for limit, code in ((0, "integer_below_min_value"), (101, "integer_above_max_value")):
        with pytest.raises(openai.BadRequestError) as refused:
            client.batches.list(limit=limit)
        assert (refused.value.code, refused.value.param) == (code, "limit")


def test_an_unknown_batch_is_404(client):
    for call in (client.batches.retrieve, client.batches.cancel):
        with pytest.raises(openai.NotFoundError, match="No batch found with id 'batch_nope'") as refused:
            call("batch_nope")
        assert refused.value.body["type"] == "invalid_request_error"


# ------------------------------------------------------------------------------------------------- cancel and expiry


def test_cancel_while_validating(client, stepped):
    batch = create(client, upload(client, jsonl(*ROWS)))
    assert client.batches.cancel(batch.id).status == "cancelling"
    stepped.step()
    batch = client.batches.retrieve(batch.id)
    assert (batch.status, counts(batch), stamps(batch)) == ("cancelled", (0, 0, 0), {"cancelling", "cancelled"})
    assert (batch.output_file_id, batch.error_file_id) == (None, None)
    assert stepped.ledger()["executions"] == 0


def test_cancel_while_running_keeps_executed_rows(client, stepped):
    batch = create(client, upload(client, jsonl(*ROWS)))
    stepped.step(2)
    batch = client.batches.cancel(batch.id)
    assert (batch.status, batch.output_file_id, batch.error_file_id) == ("cancelling", None, None)
    assert client.batches.cancel(batch.id).status == "cancelling"
    stepped.step()
    batch = client.batches.retrieve(batch.id)
    assert (batch.status, counts(batch)) == ("cancelled", (10, 5, 0))
    assert stamps(batch) == {"in_progress", "cancelling", "cancelled"}
    done = {line["custom_id"] for line in read(client, batch.output_file_id)}
    stopped = read(client, batch.error_file_id)
    assert len(done) == len(stopped) == 5
    assert done | {line["custom_id"] for line in stopped} == {row["custom_id"] for row in ROWS}
    assert all(line["response"] is None and line["error"]["code"] == "batch_cancelled" for line in stopped)
    assert stepped.ledger()["billed"] == 5
    assert client.batches.cancel(batch.id).status == "cancelled"


def test_cancel_while_finalizing_finds_all_rows_executed(client, stepped):
    batch = create(client, upload(client, jsonl(*ROWS)))
    stepped.step(3)
    assert client.batches.retrieve(batch.id).status == "finalizing"
    client.batches.cancel(batch.id)
    stepped.step()
    batch = client.batches.retrieve(batch.id)
    assert (batch.status, counts(batch), batch.error_file_id) == ("cancelled", (10, 10, 0), None)


@pytest.mark.parametrize("status", ["completed", "failed", "expired"])
def test_ended_batch_cannot_be_cancelled(client, service, status):
    if status == "expired":
        service.configure(progression="stepped")
    batch = create(client, "file-x" if status == "failed" else upload(client, jsonl(*ROWS)))
    if status == "expired":
        service.expire()
    assert wait(client, batch.id).status == status
    with pytest.raises(openai.ConflictError) as refused:
        client.batches.cancel(batch.id)
    assert refused.value.body == {
        "message": f"Cannot cancel a batch with status '{status}'.",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }


def test_expired_batch_keeps_executed_rows(client, stepped):
    batch = create(client, upload(client, jsonl(*ROWS)))
    stepped.step(2)
    stepped.expire(batch.id)
    batch = wait(client, batch.id)
    assert (batch.status, counts(batch), stamps(batch)) == ("expired", (10, 5, 0), {"in_progress", "expired"})
    assert len(read(client, batch.output_file_id)) == 5
    for line in read(client, batch.error_file_id):
        assert (line["response"], line["error"]) == (
            None,
            {
                "code": "batch_expired",
                "message": "This request could not be executed before the completion window expired.",
            },
        )


def test_the_window_ends_by_the_clock(client, service):
    service.configure(seconds={"in_progress": 30.0}, window_seconds=0.5)
    batch = wait(client, create(client, upload(client, jsonl(*ROWS))).id)
    assert (batch.status, batch.request_counts.completed) == ("expired", 0)
    assert len(read(client, batch.error_file_id)) == 10


def test_changing_the_progression_frees_waiting_batches(client, stepped):
    batch = create(client, upload(client, jsonl(*ROWS)))
    stepped.step(2)
    stepped.configure(progression="instant")
    assert wait(client, batch.id).status == "completed"
