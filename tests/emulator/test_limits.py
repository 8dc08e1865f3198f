"""Enqueued tokens, storage, isolated callers, faults of files, slow calls, download transfers."""

from __future__ import annotations

import gzip
import time
import urllib.request

import openai
import pytest

from batchframe.emulator import answer
from batchframe.testing import emulator

from .conftest import body, create, jsonl, read, request, upload, wait
from .test_control import call

ROWS = [request(f"row-{i}", body(f"Text number {i} " + "x" * 400)) for i in range(10)]
TOKENS = sum(answer(row["body"])["usage"]["prompt_tokens"] for row in ROWS)
OPENAI_TEXT = (
    "Enqueued token limit reached for gpt-4o-mini in organization org-emulator. Limit: {:,} enqueued tokens. Please "
    "try again once some in_progress batches have been completed."
)
AZURE_TEXT = (
    "The number of enqueued tokens has surpassed the configured limit of {} for the deployment 'gpt-4o-mini'. Please "
    "either increase the limit or try again once the current jobs have finished."
)


# ---------------------------------------------------------------------------------------------------- enqueued tokens


def start(client, rows=ROWS):
    return create(client, upload(client, jsonl(*rows))).id


def test_token_limit_covers_unfinished_batches(client, service):
    service.configure(progression="stepped", enqueued_token_limit=2 * TOKENS)
    first, second, third = (start(client) for _ in range(3))
    service.step()
    statuses = [client.batches.retrieve(batch).status for batch in (first, second, third)]
    assert sorted(statuses) == ["failed", "in_progress", "in_progress"]
    failed = next(b for b in (first, second, third) if client.batches.retrieve(b).status == "failed")
    [error] = client.batches.retrieve(failed).errors.data
    assert (error.code, error.param, error.line) == ("token_limit_exceeded", None, None)
    assert error.message == OPENAI_TEXT.format(2 * TOKENS)
    again = start(client)
    service.step(4)
    assert client.batches.retrieve(again).status == "failed"
    # The others have ended by now, and have released their tokens.
    again = start(client)
    service.step(4)
    assert client.batches.retrieve(again).status == "completed"
    assert service.ledger()["executions"] == 30


@pytest.mark.parametrize(("limit", "status"), [(TOKENS, "completed"), (TOKENS - 1, "failed")])
def test_token_limit_counts_as_usage_does(client, service, limit, status):
    service.configure(enqueued_token_limit=limit)
    batch = wait(client, start(client))
    assert batch.status == status
    if status == "completed":
        assert batch.usage.input_tokens == TOKENS


def test_token_limits_by_model(client, service):
    service.configure(enqueued_token_limits={"gpt-4o": 1})
    assert wait(client, start(client)).status == "completed"
    rows = [{**row, "body": {**row["body"], "model": "gpt-4o"}} for row in ROWS]
    assert wait(client, start(client, rows)).errors.data[0].code == "token_limit_exceeded"


@pytest.mark.parametrize("end", ["cancel", "expire"])
def test_every_end_releases_tokens(client, service, end):
    service.configure(enqueued_token_limit=TOKENS)
    service.batch_fault(end)
    assert wait(client, start(client)).status in {"cancelled", "expired"}
    assert wait(client, start(client)).status == "completed"


def test_tokens_released_late(client, service):
    service.configure(enqueued_token_limit=TOKENS, token_release_seconds=0.5)
    assert wait(client, start(client)).status == "completed"
    assert wait(client, start(client)).status == "failed"
    time.sleep(0.6)
    assert wait(client, start(client)).status == "completed"


def test_refused_batches_can_hold_their_tokens(client, service):
    service.configure(enqueued_token_limit=TOKENS - 1, token_release_seconds=0.4, refused_hold_tokens=True)
    assert wait(client, start(client)).status == "failed"
    assert wait(client, start(client, ROWS[:1])).status == "failed"
    time.sleep(0.5)
    service.configure(refused_hold_tokens=False)
    assert wait(client, start(client, ROWS[:1])).status == "completed"


@pytest.mark.parametrize("limit", ["30K", "2M", "31"])
def test_azures_token_limit_sentence(limit):
    number = int(limit.replace("K", "000").replace("M", "000000"))
    rows = ROWS[:1] if number < 1_000_000 else [request(str(i), body("x" * 400_000)) for i in range(21)]
    rows = [request("a", body("x" * 130_000))] if limit == "30K" else rows
    with emulator("azure", enqueued_token_limit=number) as service:
        client = service.client()
        [error] = wait(client, start(client, rows)).errors.data
        assert (error.code, error.message, error.line) == ("token_limit_exceeded", AZURE_TEXT.format(limit), None)


@pytest.mark.parametrize("dialect", ["azure", "azure-v1"])
def test_token_limit_at_create(dialect):
    with emulator(dialect, enqueued_token_limit=TOKENS, over_limit_at="create", progression="stepped") as service:
        client = service.client(max_retries=0)
        start(client)
        with pytest.raises(openai.BadRequestError) as refused:
            start(client)
        assert refused.value.code == "token_limit_exceeded"
        assert refused.value.response.json()["error"]["message"] == AZURE_TEXT.format(TOKENS)
        assert len(client.batches.list().data) == 1
        service.step(5)
        again = start(client)
        service.step(5)
        assert client.batches.retrieve(again).status == "completed"


# ---------------------------------------------------------------------------------------------------------- embeddings


def embeddings(*inputs):
    lines = [
        {**request(str(n)), "url": "/v1/embeddings", "body": {"model": "text-embedding-3-small", "input": value}}
        for n, value in enumerate(inputs)
    ]
    return jsonl(*lines)


def embed(client, *inputs):
    file_id = upload(client, embeddings(*inputs))
    return client.batches.create(input_file_id=file_id, endpoint="/v1/embeddings", completion_window="24h").id


def test_enqueued_requests_for_embeddings(client, service):
    """The limit counts requests, not inputs, and does not apply to chat."""
    service.configure(progression="stepped", enqueued_request_limit=6)
    full = [embed(client, *"abcd"), embed(client, ["e", "f", "g"], "h")]
    service.step()
    chat, over = start(client), embed(client, "i")
    service.step()
    assert {client.batches.retrieve(batch).status for batch in (*full, chat)} == {"in_progress"}
    refused = client.batches.retrieve(over)
    [error] = refused.errors.data
    assert (refused.status, error.code, error.param, error.line) == ("failed", "request_limit_exceeded", None, None)
    assert error.message.startswith(
        "Enqueued request limit reached for text-embedding-3-small in organization org-emulator. "
        "Limit: 6 enqueued requests. Please try again"
    )
    service.step(4)
    again = embed(client, *"abcdef")
    service.step()
    assert client.batches.retrieve(again).status == "in_progress"


@pytest.mark.parametrize(
    ("inputs", "status"), [(("a", "b", "c", "d"), "completed"), ((["a", "b", "c"], ["d", "e"]), "failed")]
)
def test_inputs_for_embeddings(client, service, inputs, status):
    service.configure(max_embedding_inputs=4)
    batch = wait(client, embed(client, *inputs))
    assert batch.status == status
    if status == "failed":
        assert "at most 4 over all its requests" in batch.errors.data[0].message


# ------------------------------------------------------------------------------------------------------ isolation


@pytest.mark.parametrize("isolate", ["project", "key"])
def test_isolated_callers_do_not_see_one_another(service, isolate):
    service.configure(isolate=isolate, enqueued_token_limit=TOKENS)
    options = [{"project": name} if isolate == "project" else {"api_key": name} for name in ("one", "two")]
    one, two = (service.client(max_retries=0, **option) for option in options)
    file_id = upload(one, jsonl(*ROWS))
    batch = wait(one, create(one, file_id).id)
    assert ([b.id for b in one.batches.list().data], two.batches.list().data) == ([batch.id], [])
    assert len(one.files.list().data) == 2
    assert two.files.list().data == []
    for see in (two.files.retrieve, two.files.content, two.files.delete):
        with pytest.raises(openai.NotFoundError):
            see(file_id)
    for see in (two.batches.retrieve, two.batches.cancel):
        with pytest.raises(openai.NotFoundError):
            see(batch.id)
    [error] = wait(two, create(two, file_id).id).errors.data
    assert "does not have access to it" in error.message
    assert len(read(one, batch.output_file_id)) == 10
    assert wait(two, start(two)).status == "completed"


def test_without_isolation_callers_share_everything(service):
    one, two = (service.client(project=name) for name in ("one", "two"))
    assert two.files.retrieve(upload(one, jsonl(*ROWS))).id


def test_full_storage(client, service):
    service.configure(storage_bytes=len(jsonl(*ROWS)) + 10)
    file_id = upload(client, jsonl(*ROWS))
    with pytest.raises(openai.BadRequestError, match="Organizations are limited to"):
        upload(client, jsonl(*ROWS))
    client.files.delete(file_id)
    upload(client, jsonl(*ROWS))


# -------------------------------------------------------------------------------------------------------------- files


def test_a_pending_file(client, service):
    service.file_fault("pending", polls=2)
    file = client.files.create(file=("a.jsonl", jsonl(*ROWS)), purpose="batch")
    assert file.status == "uploaded"
    statuses = [client.files.retrieve(file.id).status for _ in range(3)]
    assert statuses == ["uploaded", "uploaded", "processed"]
    # Only one upload is hit.
    assert client.files.create(file=("a.jsonl", jsonl(*ROWS)), purpose="batch").status == "processed"


def test_a_file_whose_processing_fails(client, service):
    service.file_fault("error", polls=1)
    file_id = upload(client, jsonl(*ROWS))
    assert [client.files.retrieve(file_id).status for _ in range(3)] == ["uploaded", "error", "error"]


def test_a_file_without_a_status(client, service):
    service.file_fault("null_status")
    file_id = upload(client, jsonl(*ROWS))
    assert [client.files.retrieve(file_id).status for _ in range(2)] == [None, None]
    assert wait(client, create(client, file_id).id).status == "completed"


def test_file_not_found_by_some_batches(client, service):
    service.file_fault("cannot_find", polls=2)
    file_id = upload(client, jsonl(*ROWS))
    batches = [wait(client, create(client, file_id).id) for _ in range(3)]
    assert [batch.status for batch in batches] == ["failed", "failed", "completed"]
    assert batches[0].errors.data[0].message.startswith(f"Cannot find file {file_id}, or organization")


def test_file_is_gone_for_some_retrieves(client, service):
    service.file_fault("gone", polls=1)
    file_id = upload(client, jsonl(*ROWS))
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file_id)
    assert client.files.retrieve(file_id).id == file_id


def test_file_stored_in_part(client, service):
    service.file_fault("short", at=0.5, skip=1)
    content = jsonl(*ROWS)
    assert client.files.retrieve(upload(client, content)).bytes == len(content)
    assert client.files.retrieve(upload(client, content)).bytes == len(content) // 2


def test_file_faults_over_http(client, service):
    fault = {"kind": "null_status", "times": None}
    assert call(service, "POST", "/_emulator/file-faults", fault)[0] == 200
    assert client.files.retrieve(upload(client, jsonl(*ROWS))).status is None
    assert call(service, "DELETE", "/_emulator/file-faults") == (200, [])
    assert call(service, "POST", "/_emulator/file-faults", {"kind": "short", "at": 1})[0] == 400
    with pytest.raises(TypeError, match="teleport"):
        service.file_fault("teleport")


# ---------------------------------------------------------------------------------------------------------- the calls


@pytest.mark.parametrize("direction", ["upload", "download"])
def test_a_slow_call(client, service, direction):
    content = jsonl(*ROWS)
    file_id = upload(client, content)
    service.fault("create_file" if direction == "upload" else "file_content", "slow", bytes_per_second=len(content) * 2)
    started = time.monotonic()
    result = upload(client, content) if direction == "upload" else client.files.content(file_id).content
    assert time.monotonic() - started >= 0.5
    assert result.startswith("file-") if direction == "upload" else result == content


def test_extra_headers_of_a_status_fault(client, service):
    service.fault("list_batches", "status", headers={"x-should-retry": "false"})
    with pytest.raises(openai.InternalServerError) as refused:
        client.batches.list()
    assert refused.value.response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("how", ["chunked", "gzip"])
def test_download_transfers(client, service, how):
    file_id = upload(client, jsonl(*ROWS))
    service.configure(download=how)
    reply = client.files.with_raw_response.content(file_id)
    assert reply.headers.get("content-length") is None
    assert reply.headers.get("content-encoding") == ("gzip" if how == "gzip" else None)
    assert reply.content == jsonl(*ROWS)
    http_request = urllib.request.Request(
        f"{service.base_url}/files/{file_id}/content", headers={"Authorization": "Bearer x"}
    )
    with urllib.request.urlopen(http_request) as bare:
        assert bare.read() == jsonl(*ROWS)
    http_request.add_header("Accept-Encoding", "gzip")
    with urllib.request.urlopen(http_request) as bare:
        content = bare.read()
    assert (gzip.decompress(content) if how == "gzip" else content) == jsonl(*ROWS)


@pytest.mark.parametrize("how", ["chunked", "gzip"])
def test_truncated_download_in_every_transfer(client, service, how):
    file_id = upload(client, jsonl(*ROWS))
    service.configure(download=how)
    service.fault("file_content", "truncate", at=0.5)
    with pytest.raises(Exception, match=r"(?i)peer closed|connection|incomplete"):
        client.files.content(file_id)
    assert client.files.content(file_id).content == jsonl(*ROWS)
