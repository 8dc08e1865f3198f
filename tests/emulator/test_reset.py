"""What a reset ends: calls that wait for a fault, late creates, batches under way; nothing of it acts later."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from batchframe.testing import emulator

from .conftest import create, ended, jsonl, request, upload


@pytest.fixture
def own():
    """Give an emulator whose calls nobody else makes."""
    with emulator() as service:
        yield service


def left(service):
    client = service.client(max_retries=0)
    return len(client.batches.list().data), len(client.files.list().data)


@pytest.mark.parametrize("call", ["create_file", "create_batch"])
def test_a_call_that_is_delayed_is_refused_and_not_carried_out(own, call):
    client = own.client(max_retries=0)
    file_id = upload(client, jsonl(request("a")))
    own.fault(call, "delay", seconds=60)
    calls = own.calls().get(call, 0)
    with ThreadPoolExecutor(1) as pool:
        make, what = (upload, b"{}\n") if call == "create_file" else (create, file_id)
        made = pool.submit(make, client, what)
        while own.calls().get(call, 0) == calls:
            pass
        own.reset()
        with pytest.raises(openai.InternalServerError, match="was reset or stopped"):
            made.result()
    assert left(own) == (0, 0)


@pytest.mark.parametrize("kind", ["delay", "late"])
def test_a_create_that_waits_is_not_carried_out_afterwards(own, kind):
    for call in ("create_file", "create_batch"):
        client = own.client(max_retries=0, timeout=0.2)
        file_id = upload(client, jsonl(request("a")))
        own.fault(call, kind, seconds=60)
        make, what = (upload, b"{}\n") if call == "create_file" else (create, file_id)
        with pytest.raises(openai.APIConnectionError):
            make(client, what)
        own.reset()
        assert left(own) == (0, 0), call
        assert own.calls() == {"list_batches": 1, "list_files": 1}
        assert left(own) == (0, 0), call


def test_a_slow_upload_is_not_finished_afterwards(own):
    client = own.client(max_retries=0, timeout=0.2)
    own.fault("create_file", "slow", bytes_per_second=1)
    with pytest.raises(openai.APIConnectionError):
        upload(client, jsonl(request("a")))
    own.reset()
    assert left(own) == left(own) == (0, 0)


def test_batches_and_settings_of_before_do_not_touch_those_of_afterwards(own):
    own.configure(enqueued_token_limit=1_000, token_release_seconds=0.01, seconds={"in_progress": 30})
    client = own.client(max_retries=0)
    create(client, upload(client, jsonl(*(request(f"{n}") for n in range(20)))))
    own.row_fault("status", attempts=None)
    own.batch_fault("stuck", times=None)
    own.file_fault("gone", times=None)
    own.reset()
    batch = ended(client, request("a"))
    assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("completed", 1, 0)
    assert own.ledger()["by_custom_id"] == {"a": 1}
