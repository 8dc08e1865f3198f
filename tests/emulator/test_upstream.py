"""Requests answered by another server, over HTTP."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import openai
import polars as pl
import pytest

import batchframe as bf
import batchframe.emulator._batches.upstream as upstream_module
from batchframe.emulator import create_app
from batchframe.emulator._batches.execution import Execution
from batchframe.emulator._config.backing import Backing
from batchframe.testing import emulator

from .conftest import body, create, ended, jsonl, read, request, upload, wait
from .upstream_server import UNREADABLE, UpstreamServer

KEY = "sk-very-secret-upstream"


@pytest.fixture
def upstream():
    with UpstreamServer().running() as server:
        yield server


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Short pauses and few attempts; the emulator under test runs in this process."""
    monkeypatch.setattr(upstream_module, "_ATTEMPTS", 4)
    monkeypatch.setattr(upstream_module, "_backoff", lambda state: 0.01)
    monkeypatch.setattr(upstream_module, "_jitter", lambda state: 0.0)


@pytest.fixture
def fronted(upstream):
    with emulator(upstream=upstream.url, upstream_key=KEY, concurrency=4) as service:
        yield service


@pytest.fixture
def client(fronted):
    return fronted.client(max_retries=0)


def lines(client, file_id):
    return {line["custom_id"]: line for line in read(client, file_id)}


def test_the_upstreams_answers_are_the_results(client, upstream, fronted):
    odd = body("one", model="my/model:latest", guided_choice=["a"], temperature=7)
    batch = ended(client, request("a", odd), request("b", body("two", model="another")))
    assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("completed", 2, 0)
    assert (batch.model, batch.usage.input_tokens, batch.usage.output_tokens) == ("my/model:latest", 6, 4)
    got = lines(client, batch.output_file_id)
    assert set(got) == {"a", "b"}
    assert set(got["a"]) == {"id", "custom_id", "response", "error"}
    response = got["a"]["response"]
    assert (response["status_code"], response["request_id"], got["a"]["error"]) == (200, "up-one", None)
    assert response["body"]["choices"][0]["message"]["content"] == "one"
    # Bodies are not checked, and arrive byte for byte.
    assert upstream.bodies["one"] == json.dumps(odd).encode()
    assert upstream.keys == {f"Bearer {KEY}"}
    ledger = fronted.ledger()
    assert (ledger["executions"], ledger["billed"], ledger["by_custom_id"]) == (2, 2, {"a": 1, "b": 1})


def test_another_endpoint(client, upstream):
    line = {"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {"model": "e5", "input": "hi"}}
    file_id = upload(client, jsonl(line))
    batch = client.batches.create(input_file_id=file_id, endpoint="/v1/embeddings", completion_window="24h")
    assert wait(client, batch.id).request_counts.completed == 1
    assert upstream.paths == {"/v1/embeddings": 1}


def test_a_line_of_another_endpoint_is_still_refused(client, upstream):
    batch = ended(client, request("a", url="/v1/embeddings"))
    assert (batch.status, batch.errors.data[0].line) == ("failed", 1)
    assert not upstream.seen


def test_busy_upstream_is_retried_after_retry_after(client, upstream, fronted):
    batch = ended(client, request("a", body("busy")), request("b", body("fine")))
    assert batch.request_counts.completed == 2
    assert upstream.seen == {"busy": 3, "fine": 1}
    first, second, third = upstream.at["busy"]
    assert second - first >= 0.3
    assert third - second >= 0.3
    assert fronted.ledger(summary=True)["executions"] == 2


def test_errors_become_error_lines(client, upstream, fronted):
    prompts = {"bad": 400, "broken": 500, "down": 503}
    batch = ended(client, request("ok"), *(request(prompt, body(prompt)) for prompt in prompts))
    assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("completed", 1, 3)
    got = lines(client, batch.error_file_id)
    assert {name: line["response"]["status_code"] for name, line in got.items()} == prompts
    assert all(line["error"] is None for line in got.values())
    assert got["bad"]["response"]["body"]["error"]["message"] == "no such thing"
    # A proxy's page, for instance.
    assert got["down"]["response"]["body"]["error"]["message"] == "<html>down</html>"
    assert upstream.seen == {"ok": 1, "bad": 1, "broken": 4, "down": 4}
    # As with the service: permanent refusals count as executed, failures do not.
    assert fronted.ledger()["by_custom_id"] == {"ok": 1, "bad": 1}
    assert fronted.ledger()["billed"] == 1


def test_unreadable_answer_is_not_requested_again(client, upstream, fronted):
    """Each answer was paid for, so its text becomes the body."""
    batch = ended(client, *(request(what, body(what)) for what in UNREADABLE))
    assert (batch.status, batch.request_counts.completed, batch.error_file_id) == ("completed", len(UNREADABLE), None)
    assert upstream.seen == dict.fromkeys(UNREADABLE, 1)
    got = lines(client, batch.output_file_id)
    assert {line["response"]["status_code"] for line in got.values()} == {200}
    bodies = {what: line["response"]["body"] for what, line in got.items()}
    assert "could not be read" in bodies.pop("no-gzip")
    assert "empty" in bodies.pop("nothing")
    assert bodies.pop("latin-1") == '{"content": "\N{REPLACEMENT CHARACTER}"}'
    assert bodies == {what: UNREADABLE[what][0].decode() for what in bodies}
    ledger = fronted.ledger()
    assert ledger["by_custom_id"] == dict.fromkeys(UNREADABLE, 1)
    assert ledger["billed"] == len(UNREADABLE)


def test_batchframe_does_not_request_it_again_either(client, upstream):
    frame = pl.DataFrame({"what": list(UNREADABLE)})
    with pytest.warns(bf.BatchframeWarning, match="invalid_response"):
        out = bf.run(frame, "{what}", model="local", client=client, poll_seconds=0.02)
    assert upstream.seen == dict.fromkeys(UNREADABLE, 1)
    assert set(out["error"].struct.field("code")) == {"invalid_response"}


def test_unreachable_upstream():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with emulator(upstream=f"http://127.0.0.1:{port}/v1") as service:
        client = service.client()
        batch = ended(client, request("a"))
        (line,) = read(client, batch.error_file_id)
    assert (batch.status, batch.request_counts.failed, line["response"]) == ("completed", 1, None)
    assert line["error"]["code"] == "upstream_unreachable"
    assert "Connect" in line["error"]["message"]


def test_concurrency_is_used_and_limited_over_all_batches(client, upstream):
    upstream.seconds = 0.05
    batches = [
        create(client, upload(client, jsonl(*(request(f"{batch}-{number}") for number in range(20)))))
        for batch in range(3)
    ]
    assert all(wait(client, batch.id).request_counts.completed == 20 for batch in batches)
    assert upstream.most == 4
    assert len(upstream.seen) == sum(upstream.seen.values()) == 60


def test_only_the_lines_under_way_are_in_memory(client, upstream, monkeypatch):
    lines_read = []
    following = Execution._next
    monkeypatch.setattr(Execution, "_next", lambda self: lines_read.append(following(self)) or lines_read[-1])
    batch = create(client, upload(client, jsonl(*(request(f"hold {number}") for number in range(50)))))
    wait(client, batch.id, lambda _: upstream.now == 4)
    time.sleep(0.1)
    assert len(lines_read) == 4
    upstream.release.set()
    assert wait(client, batch.id).request_counts.completed == 50


@pytest.mark.parametrize("how", ["cancel", "expire"])
def test_stop_keeps_answers_and_starts_no_request(client, upstream, fronted, how):
    rows = [request(f"ok-{number}") for number in range(3)] + [request(f"hold {number}") for number in range(20)]
    batch = create(client, upload(client, jsonl(*rows)))
    wait(client, batch.id, lambda now: now.request_counts.completed == 3 and upstream.now == 4)
    client.batches.cancel(batch.id) if how == "cancel" else fronted.expire(batch.id)
    time.sleep(0.15)
    upstream.release.set()
    batch = wait(client, batch.id)
    assert batch.status == {"cancel": "cancelled", "expire": "expired"}[how]
    answered, unanswered = lines(client, batch.output_file_id), lines(client, batch.error_file_id)
    # Three were answered before the stop, four during it.
    assert (len(answered), batch.request_counts.completed, sum(upstream.seen.values())) == (7, 7, 7)
    assert set(answered) | set(unanswered) == {row["custom_id"] for row in rows}
    assert not set(answered) & set(unanswered)
    assert {line["error"]["code"] for line in unanswered.values()} == {
        {"cancel": "batch_cancelled", "expire": "batch_expired"}[how]
    }


def test_stop_does_not_wait_for_a_pause(client, upstream, monkeypatch):
    monkeypatch.setattr(upstream_module, "_backoff", lambda state: 60.0)
    batch = create(client, upload(client, jsonl(*(request(str(n), body(f"broken {n}")) for n in range(6)))))
    wait(client, batch.id, lambda _: len(upstream.seen) == 4)
    client.batches.cancel(batch.id)
    batch = wait(client, batch.id, seconds=5)
    assert sum(upstream.seen.values()) == 4
    assert {line["error"]["code"] for line in read(client, batch.error_file_id)} == {"batch_cancelled"}
    assert len(read(client, batch.error_file_id)) == 6


def test_stopped_batch_waiting_for_a_slot_starts_no_request(client, upstream):
    first = create(client, upload(client, jsonl(*(request(f"hold {number}") for number in range(4)))))
    wait(client, first.id, lambda _: upstream.now == 4)
    second = create(client, upload(client, jsonl(*(request(f"late {number}") for number in range(10)))))
    wait(client, second.id, lambda now: now.status == "in_progress")
    client.batches.cancel(second.id)
    time.sleep(0.15)
    upstream.release.set()
    second = wait(client, second.id)
    assert (second.status, second.output_file_id) == ("cancelled", None)
    assert len(read(client, second.error_file_id)) == 10
    assert not [prompt for prompt in upstream.seen if prompt.startswith("late")]
    assert wait(client, first.id).request_counts.completed == 4


def test_azure_lines_keep_their_form(upstream):
    with emulator("azure-v1", upstream=upstream.url) as service:
        client = service.client()
        batch = ended(client, request("a", body("one", model="local"), url="/chat/completions"))
        (line,) = read(client, batch.output_file_id)
    assert set(line) == {"custom_id", "response", "error"}
    assert line["response"]["request_id"] == "up-one"
    assert upstream.paths == {"/v1/chat/completions": 1}


def test_upstream_key_is_never_shown(client, upstream, fronted, caplog):
    with caplog.at_level(logging.DEBUG):
        batch = ended(client, request("a"), request("bad"))
    shown = urllib.request.urlopen(fronted.endpoint + "/_emulator/settings").read().decode()
    files = client.files.content(batch.output_file_id).text + client.files.content(batch.error_file_id).text
    assert upstream.keys == {f"Bearer {KEY}"}
    for text in (shown, files, caplog.text, repr(Backing(upstream=upstream.url, upstream_key=KEY))):
        assert text
        assert KEY not in text


@pytest.mark.parametrize(
    "wrong", [{"upstream": "127.0.0.1:8000"}, {"upstream_key": KEY}, {"upstream": "http://x/v1", "concurrency": 0}]
)
def test_bad_upstream_options_are_refused_at_the_start(wrong):
    with pytest.raises(ValueError, match=r"upstream|concurrency") as refused:
        create_app(**wrong)
    assert KEY not in str(refused.value)


@pytest.mark.parametrize(
    ("header", "seconds"), [(None, None), ("2", 2), ("-1", 0), ("soon", None), ("Wed, 21 Oct 2015 07:28:00 GMT", 0)]
)
def test_retry_after(header, seconds):
    assert upstream_module._seconds(header) == seconds


def test_serve(upstream):
    script = f"import batchframe.emulator as e; e.serve(port=0, upstream={upstream.url!r}, concurrency=2)"
    with subprocess.Popen([sys.executable, "-W", "error", "-c", script], stderr=subprocess.PIPE, text=True) as process:
        try:
            url = process.stderr.readline().removeprefix("batchframe emulator: ").strip()
            with openai.OpenAI(api_key="x", base_url=url, max_retries=0) as client:
                assert ended(client, request("a"), request("b")).request_counts.completed == 2
        finally:
            process.terminate()
        assert process.stderr.read() == ""
