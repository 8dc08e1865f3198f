"""The openai client: every error of the SDK and its transports is mapped, and odd replies are handled."""

from __future__ import annotations

import http.server
import importlib
import io
import json
import threading

import openai
import pytest

import batchframe as bf
from batchframe._providers import openai as _openai
from batchframe._providers.client import InputFile
from batchframe._providers.openai import map_error
from batchframe._providers.service import Service

transport = importlib.import_module("httpx2" if importlib.util.find_spec("httpx2") else "httpx")  # the SDK's own
TRANSPORTS = [importlib.import_module(name) for name in ("httpx2", "httpx") if importlib.util.find_spec(name)]


def subclasses(kind):
    return {kind}.union(*(subclasses(inner) for inner in kind.__subclasses__()))


def status_error(kind, status, body=None, headers=None):
    request = transport.Request("POST", "http://x/v1/files")
    return kind("said", response=transport.Response(status, request=request, headers=headers), body=body)


def test_every_error_of_the_sdk_is_mapped():
    request = transport.Request("POST", "http://x")
    for kind in subclasses(openai.OpenAIError):
        if issubclass(kind, openai.APIStatusError):
            error = status_error(openai.APIStatusError, 418)
            error.__class__ = kind  # some take other arguments
        elif issubclass(kind, openai.APITimeoutError) or issubclass(kind, openai.APIConnectionError):
            error = kind(request=request)
        else:
            error = kind.__new__(kind)
            Exception.__init__(error, "said")
        mapped = map_error(error, "upload")
        assert isinstance(mapped, bf.APICallError), kind
        assert mapped.call == "upload"


@pytest.mark.parametrize("transport", TRANSPORTS, ids=lambda module: module.__name__)
def test_every_error_of_the_transports_is_caught_and_mapped(transport):
    kinds = {
        error
        for error in vars(transport).values()
        if isinstance(error, type) and issubclass(error, Exception) and not issubclass(error, Warning)
    }
    ignored = {transport.CookieConflict}  # about a client's own cookie jar
    assert len(kinds) > 20
    for kind in kinds - ignored:
        assert issubclass(kind, _openai._TRANSPORT_ERRORS), kind
        error = kind.__new__(kind)
        Exception.__init__(error, "said")
        mapped = map_error(error, "download")
        assert isinstance(mapped, bf.ConnectionFailedError | bf.InvalidCallError), kind
        assert "said" in str(mapped)


STATUSES = {
    400: (bf.InvalidCallError, False, False),
    401: (bf.AuthenticationError, False, False),
    403: (bf.AuthenticationError, False, False),
    404: (bf.NotVisibleError, False, False),
    408: (bf.ServiceError, True, True),
    409: (bf.ServiceError, True, True),
    413: (bf.InvalidCallError, False, False),
    422: (bf.InvalidCallError, False, False),
    429: (bf.RateLimitError, True, False),
    500: (bf.ServiceError, True, True),
    503: (bf.ServiceError, True, True),
    529: (bf.ServiceError, True, True),
}


@pytest.mark.parametrize("status", STATUSES)
def test_statuses(status):
    kind, is_transient, is_in_doubt = STATUSES[status]
    body = {"message": "said", "code": "why", "type": "kind"}
    mapped = map_error(status_error(openai.APIStatusError, status, body, {"x-request-id": "req_1"}), "create_batch")
    assert type(mapped) is kind
    assert (mapped.is_transient, mapped.is_in_doubt) == (is_transient, is_in_doubt)
    assert (mapped.status_code, mapped.code, mapped.request_id) == (status, "why", "req_1")
    assert str(mapped).startswith(f"create_batch: the service answered {status} why: said")


RETRY_AFTER = {
    "7": 7.0,
    "0.5": 0.5,
    "-1": None,
    "0": None,
    "inf": None,
    "nonsense": None,
    "Thu, 01 Jan 1970 00:00:00 GMT": None,
    "9999999": None,
}


@pytest.mark.parametrize("header", RETRY_AFTER)
def test_retry_after(header):
    error = map_error(status_error(openai.RateLimitError, 429, None, {"retry-after": header}), "upload")
    assert error.retry_after_seconds == RETRY_AFTER[header]


def test_retry_after_in_milliseconds():
    assert (
        map_error(status_error(openai.RateLimitError, 429, None, {"retry-after-ms": "250"}), "x").retry_after_seconds
        == 0.25
    )


def test_keys_are_removed_from_messages():
    error = status_error(openai.AuthenticationError, 401, {"message": "Incorrect key: sk-abc. Try"})
    assert "sk-abc" not in str(map_error(error, "upload", "sk-abc"))


def test_refused_connections_are_not_in_doubt(emu):
    with openai.OpenAI(api_key="sk-x", base_url="http://127.0.0.1:1/v1") as client:
        with pytest.raises(bf.ConnectionFailedError) as raised:
            Service(client).client.upload(io.BytesIO(b"{}\n"), "a.jsonl", None)
    assert not raised.value.was_sent
    assert not raised.value.is_in_doubt
    assert "cannot be reached" in str(raised.value)


@pytest.mark.parametrize("kind", ["reset_before", "reset_after"])
def test_lost_replies_are_in_doubt(emu, client, kind):
    emu.fault("create_file", kind)
    with pytest.raises(bf.ConnectionFailedError) as raised:
        Service(client).client.upload(io.BytesIO(b'{"a": 1}\n'), "a.jsonl", None)
    assert raised.value.is_in_doubt
    assert emu.calls()["create_file"] == 1


@pytest.mark.parametrize("call", ["create_file", "create_batch"])
def test_uploads_and_creates_are_sent_once(emu, client, call):
    emu.fault(call, "status", status=503, times=None)
    ours = Service(client).client
    calls = {
        "create_file": lambda: ours.upload(io.BytesIO(b'{"a": 1}\n'), "a.jsonl", None),
        "create_batch": lambda: ours.create(InputFile("file-x", io.BytesIO), "/v1/chat/completions", "24h", {}, None),
    }
    with pytest.raises(bf.ServiceError):
        calls[call]()
    assert emu.calls()[call] == 1


def test_cut_downloads_are_connection_errors(emu, client):
    file = client.files.create(file=("a.jsonl", b'{"a": 1}\n' * 500_000), purpose="batch")
    emu.fault("file_content", "truncate", at=0.5)
    received = io.BytesIO()
    with pytest.raises(bf.ConnectionFailedError, match="download: the connection broke"):
        Service(client).client.download(file.id, received)
    assert 0 < received.tell() < 4_500_000
    received = io.BytesIO()
    Service(client).client.download(file.id, received)
    assert received.getvalue() == b'{"a": 1}\n' * 500_000


class FixedReply:
    """A service that sends one fixed reply."""

    def __init__(self, content, content_type="application/json"):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)

    def __enter__(self):
        self.thread.start()
        host, port = self.server.server_address[:2]
        self.sdk = openai.OpenAI(api_key="k", base_url=f"http://{host}:{port}/v1", max_retries=0)
        return Service(self.sdk).client

    def __exit__(self, *_):
        self.sdk.close()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.mark.parametrize("content", [b"<html>login</html>", b"[]", b"{}", b'{"id": ""}', b""])
def test_unreadable_replies_are_service_errors(content):
    with FixedReply(content) as client, pytest.raises(bf.ServiceError, match="sent a reply that is no JSON object"):
        client.retrieve("batch_1")


def test_malformed_members_of_a_batch():
    odd = {
        "id": "b",
        "status": "Validating",
        "errors": [{"code": "x", "line": "3"}, 5],
        "created_at": "2024-07-19T17:13:57.249+00:00",
        "output_file_id": "",
        "request_counts": {"completed": None},
    }
    with FixedReply(json.dumps(odd).encode()) as client:
        batch = client.retrieve("b")
    assert batch.status == "validating"
    assert batch.errors == [(None, "x", "")]
    assert batch.created_at.year == 2024
    assert batch.output_file_id is None
    assert batch.completed_requests == 0


def test_invalid_clients():
    for client, message in (
        (openai.AsyncOpenAI(api_key="k"), r"AsyncOpenAI: pass the sync one, client=openai\.OpenAI"),
        (
            openai.AsyncAzureOpenAI(api_key="k", api_version="1", azure_endpoint="https://x"),
            r"client=openai\.AzureOpenAI",
        ),
        ("sk-key", r"must be an openai\.OpenAI, got builtins\.str"),
    ):
        with pytest.raises(bf.OptionError, match=message):
            Service(client).client.close()


def test_client_from_the_environment(monkeypatch):
    with pytest.raises(bf.OptionError, match="no API key: set OPENAI_API_KEY"):
        Service().client.close()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    assert Service().client.account.base_url == "https://api.openai.com/v1"
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://x.openai.azure.com")
    with pytest.raises(bf.OptionError, match="names two services: OPENAI_API_KEY and AZURE_OPENAI_ENDPOINT"):
        Service().client.close()


def test_the_account_holds_no_credentials():
    client = openai.OpenAI(
        api_key="sk-x", base_url="https://user:secret@host:8443/v1/?token=abc", organization="o", project="p"
    )
    account = Service(client).client.account
    assert account.base_url == "https://host:8443/v1"
    assert (account.organization, account.project) == ("o", "p")


def test_the_users_client_is_not_changed(client):
    before = client.max_retries
    Service(client).client.close()
    assert client.max_retries == before
