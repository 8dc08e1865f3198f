"""Keys, unknown paths, the control plane over HTTP, and batchframe.testing."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import warnings

import openai
import pytest
from starlette.testclient import TestClient

import batchframe as bf
import batchframe.emulator
from batchframe.emulator import Settings, body_digest, create_app
from batchframe.emulator._http import server
from batchframe.testing import emulator

from .conftest import body, create, ended, jsonl, request, upload, wait


def call(service, method, path, value=None, key=None):
    """Return status and JSON of a bare HTTP call."""
    host = service.base_url.removesuffix("/v1")
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    data = None if value is None else json.dumps(value).encode()
    http_request = urllib.request.Request(host + path, data=data, method=method, headers=headers)
    try:
        with urllib.request.urlopen(http_request) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.load(refused)


def test_missing_key_is_refused(service):
    status, reply = call(service, "GET", "/v1/batches")
    assert status == 401
    assert reply["error"]["message"].startswith("You didn't provide an API key.")
    assert (reply["error"]["type"], reply["error"]["code"]) == ("invalid_request_error", None)
    assert call(service, "GET", "/v1/batches", key="anything")[0] == 200


def test_wrong_key_is_refused_and_masked(service):
    service.configure(api_keys=["sk-right"])
    with pytest.raises(openai.AuthenticationError) as refused:
        service.client(api_key="sk-wrong-long-long").batches.list()
    assert refused.value.body == {
        "message": "Incorrect API key provided: sk-w***ong. You can find your API key at "
        "https://platform.openai.com/account/api-keys.",
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_api_key",
    }
    assert service.client(api_key="sk-right").batches.list().data == []


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/v1/nonsense", 404, "Invalid URL (GET /v1/nonsense)"),
        ("GET", "/", 404, "Invalid URL (GET /)"),
        ("DELETE", "/v1/batches/batch_x", 405, "Not allowed to DELETE on /v1/batches/batch_x."),
        ("POST", "/v1/chat/completions", 501, "the emulator does not execute POST /v1/chat/completions yet"),
        ("POST", "/v1/uploads", 501, "the emulator does not execute POST /v1/uploads yet"),
        ("GET", "/_emulator/nonsense", 404, "Invalid URL"),
    ],
)
def test_unknown_path_is_404_with_message(service, method, path, status, message):
    actual, reply = call(service, method, path, key="x")
    assert actual == status
    assert reply["error"]["message"].startswith(message)
    assert set(reply["error"]) == {"message", "type", "param", "code"}


def test_body_that_is_not_json(service):
    http_request = urllib.request.Request(
        service.base_url + "/batches", data=b"{oops", method="POST", headers={"Authorization": "Bearer x"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(http_request)
    with refused.value as reply:
        assert reply.code == 400
        assert json.load(reply)["error"]["message"].startswith("We could not parse the JSON body of your request.")


# --------------------------------------------------------------------------------------------------------- the ledger


def test_the_ledger_counts_executions_by_custom_id_and_by_body(client, service):
    twice = [request("a", body("one")), request("b", body("one")), request("c", body(foo=1))]
    ended(client, *twice)
    ended(client, request("a", body("two")))
    status, ledger = call(service, "GET", "/_emulator/ledger")
    assert status == 200
    one = json.dumps(body("one"), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert ledger == {
        "executions": 4,
        "billed": 3,
        "by_custom_id": {"a": 2, "b": 1, "c": 1},
        "by_body": {hashlib.sha256(one).hexdigest(): 2, body_digest(body("two")): 1, body_digest(body(foo=1)): 1},
        "billed_by_body": {body_digest(body("one")): 2, body_digest(body("two")): 1},
    }
    assert ledger == service.ledger()
    summary = {"executions": 4, "billed": 3, "custom_ids": 3, "bodies": 3, "max_by_custom_id": 2, "max_by_body": 2}
    summary["max_billed_by_body"] = 2
    assert call(service, "GET", "/_emulator/ledger?summary=1")[1] == summary == service.ledger(summary=True)


def test_calls_are_counted(client, service):
    file_id = upload(client, jsonl(request("a")))
    wait(client, create(client, file_id).id)
    client.files.content(file_id)
    client.batches.list()
    counted = call(service, "GET", "/_emulator/calls")[1]
    assert counted == service.calls()
    assert counted.pop("retrieve_batch") >= 1
    assert counted == {"create_file": 1, "create_batch": 1, "file_content": 1, "list_batches": 1}


# -------------------------------------------------------------------------------------------------- steering over HTTP


def test_health(service):
    assert call(service, "GET", "/_emulator/health") == (200, {"status": "ok"})


def test_settings_over_http(service):
    status, before = call(service, "GET", "/_emulator/settings")
    assert (status, before["progression"]) == (200, "timed")
    status, after = call(service, "PATCH", "/_emulator/settings", {"seconds": {"validating": 2.5}, "shuffle": False})
    assert status == 200
    assert after == {**before, "shuffle": False, "seconds": {**before["seconds"], "validating": 2.5}}
    for wrong in ({"nonsense": 1}, {"progression": "sometimes"}):
        status, reply = call(service, "PATCH", "/_emulator/settings", wrong)
        assert status == 400
        assert reply["error"]["message"]
    assert call(service, "GET", "/_emulator/settings")[1] == after


def test_steps_over_http(client, service):
    status, reply = call(service, "POST", "/_emulator/step")
    assert (status, "stepped" in reply["error"]["message"]) == (400, True)
    call(service, "PATCH", "/_emulator/settings", {"progression": "stepped"})
    batch = create(client, upload(client, jsonl(request("a"))))
    assert call(service, "POST", "/_emulator/step")[0] == 200
    assert client.batches.retrieve(batch.id).status == "in_progress"
    call(service, "POST", "/_emulator/step", {"steps": 5})
    assert client.batches.retrieve(batch.id).status == "completed"


def test_expire_over_http(client, service):
    service.configure(progression="stepped")
    batch = create(client, upload(client, jsonl(request("a"))))
    assert call(service, "POST", "/_emulator/expire", {"batch_id": batch.id}) == (200, {"expired": 1})
    assert wait(client, batch.id).status == "expired"


def test_faults_over_http(client, service):
    fault = {"call": "list_batches", "kind": "status", "status": 429, "retry_after": 0.5}
    status, waiting = call(service, "POST", "/_emulator/faults", fault)
    assert (status, len(waiting)) == (200, 1)
    assert fault.items() <= call(service, "GET", "/_emulator/faults")[1][0].items()
    with pytest.raises(openai.RateLimitError) as refused:
        client.batches.list()
    assert refused.value.response.headers["retry-after"] == "0.5"
    assert call(service, "GET", "/_emulator/faults")[1] == []
    call(service, "POST", "/_emulator/faults", fault)
    assert call(service, "DELETE", "/_emulator/faults") == (200, [])
    assert client.batches.list().data == []
    for wrong in ({**fault, "kind": "nonsense"}, {**fault, "kind": "late"}, {**fault, "at": 3}, {}):
        assert call(service, "POST", "/_emulator/faults", wrong)[0] == 400


def test_reset_drops_everything(client, service):
    service.configure(shuffle=False)
    service.fault("delete_file", "status")
    ended(client, request("a"))
    assert call(service, "POST", "/_emulator/reset") == (200, {"status": "ok"})
    assert (client.files.list().data, client.batches.list().data) == ([], [])
    assert service.ledger()["executions"] == 0
    assert service.calls() == {"list_files": 1, "list_batches": 1}
    assert call(service, "GET", "/_emulator/faults")[1] == []
    assert call(service, "GET", "/_emulator/settings")[1]["shuffle"] is True


def test_reset_while_batches_run(client, service):
    service.configure(seconds={"in_progress": 60.0})
    for _ in range(3):
        create(client, upload(client, jsonl(*(request(str(i)) for i in range(500)))))
    service.reset()
    assert client.batches.list().data == []
    assert ended(client, request("a")).status == "completed"


# ------------------------------------------------------------------------------------------------- batchframe.testing


def test_context_manager_leaves_no_files(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = set(threading.enumerate())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with emulator(seconds={"in_progress": 60.0}) as service:
            client = service.client()
            create(client, upload(client, jsonl(request("a"))))
            assert list(tmp_path.iterdir())
    assert set(threading.enumerate()) == before
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(openai.APIConnectionError):
        openai.OpenAI(api_key="x", base_url=service.base_url, max_retries=0).batches.list()


def test_shutdown_does_not_wait_for_a_tick(monkeypatch):
    """Waiting for a tick would exceed the time limit of the test."""
    monkeypatch.setattr(server, "_TICK_SECONDS", 1000.0)
    with emulator() as service:
        service.client().batches.list()


def test_shutdown_waits_for_calls_under_way():
    replies = []
    with emulator() as service:
        service.fault("list_batches", "delay", seconds=0.3)
        service.fault("list_files", "slow", bytes_per_second=500.0)
        client = openai.OpenAI(api_key="x", base_url=service.base_url, max_retries=0)
        calls = [lambda: client.batches.list().data, lambda: client.files.list().data]
        threads = [threading.Thread(target=lambda call=call: replies.append(call())) for call in calls]
        for thread in threads:
            thread.start()
        while sum(service.calls().values()) < len(calls):
            pass
    for thread in threads:
        thread.join()
    client.close()
    assert replies == [[], []]


def test_shutdown_does_not_wait_for_endless_calls(monkeypatch):
    monkeypatch.setattr(server, "_GRACE_SECONDS", 0.1)
    with emulator() as service:
        service.fault("list_batches", "delay", seconds=1000.0)
        with openai.OpenAI(api_key="x", base_url=service.base_url, max_retries=0) as client:
            failures = []

            def call():
                with pytest.raises(openai.APIError) as failed:
                    client.batches.list()
                failures.append(failed.value)

            thread = threading.Thread(target=call)
            thread.start()
            while not service.calls():
                pass
            # The shutdown starts here, while the thread still waits for its call.
            service._server.stop()
            thread.join()
    assert len(failures) == 1


def test_client_of_the_emulator_loads_no_certificates(monkeypatch):
    """It speaks plain HTTP, and loading certificates would take most of the time."""
    with emulator() as service, emulator("azure") as azure:
        monkeypatch.setattr(ssl, "create_default_context", lambda *_, **__: pytest.fail("certificates are read"))
        for each in (service, azure):
            client = each.client(timeout=7.0, max_retries=0)
            assert (client.timeout, client.with_options(timeout=3).timeout) == (7.0, 3)
            assert client.with_options(timeout=3).batches.list().data == []
            assert each.client().timeout == openai.DEFAULT_TIMEOUT
    assert client.is_closed()


def test_client_of_another_service_loads_certificates(service, monkeypatch):
    """A user's base URL may be on the internet, so its certificate is verified."""
    read, make = [], ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda *args, **kwargs: read.append(1) or make(*args, **kwargs))
    service.client(base_url="https://127.0.0.1:1/v1")
    assert read
    with openai.DefaultHttpxClient() as own:
        assert service.client(http_client=own)._client is own


def test_unknown_options_are_type_errors():
    with pytest.raises(TypeError, match="klingon"), emulator("klingon"):
        pass
    with pytest.raises(TypeError, match="nonsense"), emulator(nonsense=1):
        pass
    with emulator() as service, pytest.raises(TypeError, match="teleport"):
        service.fault("create_batch", "teleport")


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    for start, kind in (
        (batchframe.emulator.serve, ImportError),
        (create_app, ImportError),
        (lambda: emulator().__enter__(), bf.MissingExtraError),
    ):
        with pytest.raises(kind, match=r'pip install "batchframe\[emulator\]" .*uvicorn'):
            start()


def test_importing_the_package_does_not_import_the_extra_or_the_client():
    script = (
        "import sys, batchframe.emulator as e; "
        "print(sorted({'starlette', 'uvicorn', 'openai', 'polars'} & set(sys.modules)), sorted(e.__all__) == e.__all__)"
    )
    # batchframe itself may import polars; the emulator must be importable without its extra.
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "starlette" not in shown
    assert "uvicorn" not in shown
    assert shown.strip().endswith("True")


def test_the_application_runs_under_another_server():
    """Under another server, connection faults are refused with a message."""
    with TestClient(create_app(Settings(progression="instant"))) as other:
        assert other.get("/_emulator/health").json() == {"status": "ok"}
        other.post("/_emulator/faults", json={"call": "list_batches", "kind": "reset_before"})
        reply = other.get("/v1/batches", headers={"Authorization": "Bearer x"})
        assert reply.status_code == 501
        assert "serve()" in reply.json()["error"]["message"]


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_replies_are_not_delayed_by_nagle():
    """Unless the socket names its protocol, asyncio leaves Nagle's algorithm on: 40 ms for a reply of two pieces."""
    with server.listen("127.0.0.1", 0) as sock:
        assert sock.proto == socket.IPPROTO_TCP


def test_serve_prints_its_url_and_ends_cleanly_on_ctrl_c():
    script = "import batchframe.emulator as e; e.serve(port=0)"
    with subprocess.Popen([sys.executable, "-W", "error", "-c", script], stderr=subprocess.PIPE, text=True) as process:
        line = process.stderr.readline()
        url = line.removeprefix("batchframe emulator: ").strip()
        with openai.OpenAI(api_key="x", base_url=url) as client:
            assert client.batches.list().data == []
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert (process.wait(10), rest) == (0, "")
