"""The examples, run as a new user runs them, and their data."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

import batchframe as bf
from batchframe import testing
from batchframe.cli import _demo

EXAMPLES = Path(__file__).parents[1] / "examples"
DATA = EXAMPLES / "data" / "jargon.parquet"
TOPICS = {"people", "software", "hardware", "culture"}


@pytest.fixture(params=["embedded", pytest.param("environment", marks=pytest.mark.slow)])
def service(request, emu):
    """The environment of an example: its own emulator, or a service at an address, as the real one is."""
    if request.param == "embedded":
        return {"BATCHFRAME_EXAMPLE_EMULATOR": "1"}
    return {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": emu.base_url}


def run(name: str, *args: str, cwd: Path, env: dict[str, str]) -> str:
    # The printed frame must not depend on the locale of the machine.
    environment = os.environ | env | {"PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-W", "error", EXAMPLES / name, *args]
    process = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=60, check=False
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_analytics(service, tmp_path):
    printed = run("analytics.py", cwd=tmp_path, env=service)
    assert "shape: (300, 3)" in printed
    assert "shape: (4, 6)" in printed
    assert all(f" {topic} " in printed for topic in TOPICS)


def test_parquet_job(service, tmp_path):
    printed = run("parquet_job.py", str(DATA), "answers.parquet", cwd=tmp_path, env=service)
    assert printed.startswith("answers.parquet: 300 rows, 300 succeeded, ")
    answers = pl.read_parquet(tmp_path / "answers.parquet")
    terms = pl.read_parquet(DATA)
    assert answers.select(terms.columns).equals(terms)
    assert answers["error"].null_count() == 300
    assert answers["response"].str.starts_with("In short: ").all()
    assert int(printed.split(", ")[2].split()[0]) == answers["usage"].struct.field("total_tokens").sum()
    assert answers.columns[-2:] == ["model", "request_id"]


def test_cron(emu, tmp_path):
    env = {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": emu.base_url}
    emu.configure(progression="stepped")
    assert run("cron.py", "job", cwd=tmp_path, env=env).startswith("50 of 50 rows are pending; waiting for ")
    assert run("cron.py", "job", cwd=tmp_path, env=env).startswith("50 of 50 rows are pending; waiting for ")
    emu.configure(progression="instant")
    printed = ""
    while "succeeded" not in printed:
        printed = run("cron.py", "job", cwd=tmp_path, env=env)
    assert printed.endswith("50 of 50 rows succeeded\n")
    assert pl.read_parquet(tmp_path / "job" / "answers.parquet")["error"].null_count() == 50
    assert "already finished" in run("cron.py", "job", cwd=tmp_path, env=env)
    assert emu.calls()["create_batch"] == 1


def test_webhook(emu, tmp_path, monkeypatch):
    run = bf.submit(
        pl.DataFrame({"n": [1, 2]}), "Repeat {n}", model="gpt-4o-mini", client=emu.client(), run_dir=tmp_path / "run"
    )
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("OPENAI_BASE_URL", emu.base_url)
    secret = base64.b64encode(b"the test's secret").decode()
    monkeypatch.setenv("OPENAI_WEBHOOK_SECRET", f"whsec_{secret}")
    monkeypatch.setenv("RUN_DIR", os.fspath(run.path))
    spec = importlib.util.spec_from_file_location("webhook", EXAMPLES / "webhook.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)

    def call(event, key=b"the test's secret"):
        body = json.dumps({"id": "evt_1", "object": "event", "created_at": int(time.time()), "type": event,
                           "data": {"id": "batch_1"}})  # fmt: skip
        stamp = str(int(time.time()))
        signed = hmac.new(key, f"msg_1.{stamp}.{body}".encode(), hashlib.sha256).digest()
        headers = {"webhook-id": "msg_1", "webhook-timestamp": stamp,
                   "webhook-signature": f"v1,{base64.b64encode(signed).decode()}"}  # fmt: skip
        return asyncio.run(post(example.app, body.encode(), headers))

    assert call("batch.completed", key=b"another secret") == 400
    assert call("response.completed") == 204
    while not bf.open_run(run.path).status(refresh=False).done:
        assert call("batch.completed") == 200
    assert bf.open_run(run.path).result()["error"].null_count() == 2


async def post(app, body, headers):
    """Post a body to an ASGI application and return the status."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": "/",
             "raw_path": b"/", "query_string": b"", "scheme": "http", "server": ("test", 80), "client": ("test", 1),
             "headers": [(name.encode(), value.encode()) for name, value in headers.items()]}  # fmt: skip
    await app(scope, receive, send)
    return sent[0]["status"]


def test_example_without_a_key_names_the_variable(tmp_path):
    command = [sys.executable, EXAMPLES / "analytics.py"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert process.returncode == 1
    assert "OPENAI_API_KEY" in process.stderr.splitlines()[-1]


def test_data():
    terms = pl.read_parquet(DATA)
    assert terms.schema == {"term": pl.String, "definition": pl.String}
    assert terms.height == 300
    assert terms["term"].is_unique().all()
    assert terms["definition"].str.len_chars().is_between(100, 600).all()
    # Neither markup of the dictionary nor line ends nor control characters.
    assert not terms["definition"].str.contains(r"[{}\x00-\x1f\x7f]|  |^\s|\s$").any()
    assert DATA.stat().st_size < 150_000
    assert _demo.texts().equals(terms)


def test_azure_with_entra_id(monkeypatch, capsys):
    """The example's own client makes the calls; only the credential is a stand-in."""
    identity = pytest.importorskip("azure.identity")
    scopes = []

    def provider(credential, scope):
        return lambda: scopes.append(scope) or "entra-token"

    monkeypatch.setattr(identity, "DefaultAzureCredential", lambda: "somebody")
    monkeypatch.setattr(identity, "get_bearer_token_provider", provider)
    spec = importlib.util.spec_from_file_location("azure_entra", EXAMPLES / "azure_entra.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    with testing.emulator("azure", deployments={"mine": "gpt-4o-mini"}) as emu:
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", emu.base_url.partition("/openai")[0])
        with example.entra_client() as client:
            example.main("mine", client)
    assert set(scopes) == {"https://cognitiveservices.azure.com/.default"}
    printed = capsys.readouterr().out
    assert "shape: (20, 3)" in printed
    assert "content_filter_re" in printed
