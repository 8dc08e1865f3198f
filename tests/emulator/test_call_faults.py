"""Each fault of API calls, as the SDK sees it."""

from __future__ import annotations

import time

import openai
import pytest

try:  # the transport of today's SDK, and of older ones
    import httpx2 as httpx
except ImportError:
    import httpx

from .conftest import create, ended, jsonl, request, upload

CONTENT = jsonl(*(request(f"row-{i}") for i in range(2000)))


def appears(list_, seconds=5):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if data := list_().data:
            return data
        time.sleep(0.02)
    return []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_status_is_returned_without_acting(client, service, status):
    service.fault("create_batch", "status", status=status, retry_after=2)
    with pytest.raises(openai.APIStatusError) as refused:
        create(client, "file-x")
    assert refused.value.status_code == status
    assert refused.value.response.headers["retry-after"] == "2"
    assert client.batches.list().data == []
    assert create(client, "file-x").status == "validating"


def test_status_for_an_upload_read_to_its_end(client, service):
    service.fault("create_file", "status", status=500)
    with pytest.raises(openai.InternalServerError):
        upload(client, CONTENT * 10)
    assert client.files.list().data == []


def test_times_and_skip(client, service):
    service.fault("list_batches", "status", times=2, skip=1)
    statuses = []
    for _ in range(5):
        try:
            client.batches.list()
            statuses.append(200)
        except openai.InternalServerError as refused:  # noqa: PERF203 - five times
            statuses.append(refused.status_code)
    assert statuses == [200, 503, 503, 200, 200]
    service.fault("list_batches", "status", times=None)
    for _ in range(4):
        with pytest.raises(openai.InternalServerError):
            client.batches.list()
    service.clear_faults()
    assert client.batches.list().data == []


@pytest.mark.parametrize("call", ["create_batch", "create_file"])
def test_reset_before(client, service, call):
    service.fault(call, "reset_before")
    with pytest.raises(openai.APIConnectionError):
        create(client, "file-x") if call == "create_batch" else upload(client, CONTENT)
    assert client.batches.list().data == []
    assert client.files.list().data == []
    assert service.calls()[call] == 1


@pytest.mark.parametrize("call", ["create_batch", "create_file"])
def test_reset_after(client, service, call):
    service.fault(call, "reset_after")
    with pytest.raises(openai.APIConnectionError):
        create(client, "file-x") if call == "create_batch" else upload(client, CONTENT)
    assert len((client.batches if call == "create_batch" else client.files).list().data) == 1


@pytest.mark.parametrize("call", ["create_batch", "create_file"])
def test_late(client, service, call):
    service.fault(call, "late", seconds=0.4)
    with pytest.raises(openai.APIConnectionError):
        create(client, "file-x") if call == "create_batch" else upload(client, CONTENT)
    listed = client.batches.list if call == "create_batch" else client.files.list
    assert listed().data == []
    assert len(appears(listed)) == 1


def test_a_late_create_whose_file_was_deleted_does_not_execute(client, service):
    file_id = upload(client, CONTENT)
    service.fault("create_batch", "late", seconds=0.3)
    with pytest.raises(openai.APIConnectionError):
        create(client, file_id)
    client.files.delete(file_id)
    [batch] = appears(client.batches.list)
    while batch.status != "failed":
        batch = client.batches.retrieve(batch.id)
    assert service.ledger()["executions"] == 0


def test_delay(client, service):
    service.fault("retrieve_batch", "delay", seconds=0.3)
    batch = create(client, "file-x")
    started = time.monotonic()
    assert client.batches.retrieve(batch.id).id == batch.id
    assert time.monotonic() - started >= 0.3


@pytest.mark.parametrize("at", [0.0, 0.5, 0.99])
def test_truncate_cuts_a_download(client, service, at):
    file_id = upload(client, CONTENT)
    service.fault("file_content", "truncate", at=at)
    content = b""
    with (  # noqa: PT012 - the stream breaks where it will
        pytest.raises((openai.APIConnectionError, httpx.TransportError)),
        client.files.with_streaming_response.content(file_id) as reply,
    ):
        assert int(reply.headers["content-length"]) == len(CONTENT)
        for piece in reply.iter_bytes():
            content += piece
    assert len(content) <= int(len(CONTENT) * at)
    assert CONTENT.startswith(content)
    assert client.files.content(file_id).content == CONTENT


def test_truncate_cuts_any_reply(client, service):
    service.fault("list_batches", "truncate")
    with pytest.raises((openai.APIConnectionError, httpx.TransportError)):
        client.batches.list()


def test_faults_do_not_affect_other_calls(client, service):
    service.fault("list_files", "delay", seconds=30)
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.3).files.list()
    assert ended(client, request("a")).status == "completed"


def test_refused_late_call_loses_its_reply_too(client, service):
    service.fault("create_batch", "late", seconds=0)
    with pytest.raises(openai.APIConnectionError):
        client.batches.create(input_file_id="file-x", endpoint="/nonsense", completion_window="24h")
    assert client.batches.list().data == []
