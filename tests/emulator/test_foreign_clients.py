"""Clients by other people, unmodified from PyPI, each in an environment of its own, complete a batch."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from batchframe.emulator import answer, body_digest
from batchframe.testing import emulator

# Making an environment takes up to a minute, the first time.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SCRIPTS = Path(__file__).parent / "foreign"
# Each with the SDK that it is tested with. openai-batch imports httpx without requiring it; the SDK has brought
# another library since version 3.
SDKS = {
    "llm-batch-py==0.1.8": "openai==3.54.0",
    "openai-batch==0.3.3": "openai==2.54.0",
    "openai-batch==0.3.4": "openai==2.54.0",
    "chatlas==0.23.0": "openai==3.54.0",
}
CASES = [
    ("llm-batch-py==0.1.8", "structured", "openai"),
    ("llm-batch-py==0.1.8", "structured", "azure-v1"),
    ("llm-batch-py==0.1.8", "embeddings", "openai"),
    ("openai-batch==0.3.3", "chat", "openai"),
    ("openai-batch==0.3.3", "embeddings", "openai"),
    ("openai-batch==0.3.4", "written", "openai"),
    ("chatlas==0.23.0", "responses", "openai"),
    ("chatlas==0.23.0", "completions", "openai"),
    ("chatlas==0.23.0", "structured", "openai"),
]
# Each text occurs in one request only, and its answer repeats it.
PROMPTS = [f'Customer {n} says: "Das Gerät {n} läuft{" nicht" * (n % 2)}."\nZufrieden?' for n in range(20)]


def ran(*command, text="", folder=None, **variables):
    """Run a command with this environment's variables, which pip may need, but without our sources on its path."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        command,
        input=text,
        cwd=folder,
        env=inherited | variables,
        check=False,
        capture_output=True,
        encoding="utf-8",
        timeout=500,
    )


def make(path):
    """Make an environment and return its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", "--clear", path], check=True)
    return path / "bin" / "python"


def install(python, *requirements, **variables):
    """Install from PyPI; skip if pip cannot reach the index, except in CI."""
    command = [python, "-m", "pip", "install", *requirements]
    if ran(*command, **variables).returncode == 0:
        return
    # Run again, as only -vv shows why a page of the index could not be read.
    pip = ran(*command, "-vv", **variables)
    if pip.returncode == 0:
        return
    log = pip.stdout + pip.stderr
    unreachable = re.search(r"Could not fetch URL \S+: connection error: .*", log)
    if unreachable and "No matching distribution found" in log and not os.environ.get("CI"):
        pytest.skip(f"pip cannot reach the index: {unreachable[0]}")
    pytest.fail(f"pip install {' '.join(requirements)}\n{log[-5000:]}")


@pytest.fixture(scope="session")
def client(request, pytestconfig):
    """Return a client's name and its interpreter, made once for all workers and kept in pytest's cache."""
    requirements = [request.param, SDKS[request.param]]
    path = pytestconfig.cache.mkdir("foreign-clients") / f"{request.param}-python{sys.version.split()[0]}"
    made_of = path / "made-of"
    with FileLock(f"{path}.lock"):
        if not made_of.exists() or made_of.read_text() != " ".join(requirements):
            install(make(path), *requirements)
            made_of.write_text(" ".join(requirements))
    return request.param.split("==")[0], path / "bin" / "python"


def complete(client, kind, service, folder, *, is_azure=False):
    """Run a client on the prompts; its script leaves the answers in the folder."""
    name, python = client
    variables = {"OPENAI_BASE_URL": service.base_url, "OPENAI_API_KEY": "sk-emulator"}
    if is_azure:
        variables = {"AZURE_OPENAI_ENDPOINT": service.endpoint, "AZURE_OPENAI_API_KEY": "sk-emulator"}
    script = SCRIPTS / f"with_{name.replace('-', '_')}.py"
    return ran(python, script, kind, text=json.dumps(PROMPTS), folder=folder, **variables)


def requests_of(service):
    """Return the requests of the only batch, after checking that each was executed and billed once."""
    client = service.client()
    (batch,) = client.batches.list().data
    assert (batch.status, batch.request_counts.completed) == ("completed", len(PROMPTS))
    requests = [json.loads(line) for line in client.files.content(batch.input_file_id).content.splitlines()]
    ledger = service.ledger()
    assert ledger["by_custom_id"] == {request["custom_id"]: 1 for request in requests}
    assert ledger["by_body"] == ledger["billed_by_body"] == {body_digest(request["body"]): 1 for request in requests}
    assert len(ledger["by_body"]) == len(requests) == len(PROMPTS)
    return requests


def answer_to(prompt, requests, kind):
    """Return the answer to the request with a prompt, as the client should return it."""
    (request,) = [request for request in requests if json.dumps(prompt)[1:-1] in json.dumps(request["body"])]
    body = answer(request["body"], endpoint=request["url"])
    if request["url"] == "/v1/embeddings":
        return body["data"][0]["embedding"]
    if request["url"] == "/v1/responses":
        text = body["output"][0]["content"][0]["text"]
    else:
        text = body["choices"][0]["message"]["content"]
    return json.loads(text) if kind == "structured" else text


@pytest.mark.parametrize(("client", "kind", "dialect"), CASES, ids=map("-".join, CASES), indirect=["client"])
def test_a_batch(client, kind, dialect, tmp_path):
    with emulator(dialect) as service:
        script = complete(client, kind, service, tmp_path)
        assert script.returncode == 0, script.stdout + script.stderr
        requests = requests_of(service)
    answers = json.loads((tmp_path / "answers.json").read_text())
    assert answers == [answer_to(prompt, requests, kind) for prompt in PROMPTS]
    assert len({str(text) for text in answers}) == len(PROMPTS)


@pytest.mark.parametrize("client", ["chatlas==0.23.0"], indirect=True)
@pytest.mark.parametrize("kind", ["responses", "completions"])
def test_chatlas_wants_an_id_in_each_line_and_azure_writes_none(client, kind, tmp_path):
    with emulator("azure") as service:
        script = complete(client, kind, service, tmp_path, is_azure=True)
        assert "1 validation error for BatchResult\nid\n  Field required" in script.stderr
        # Everything before this point works.
        assert len(requests_of(service)) == len(PROMPTS)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """An interpreter without packages."""
    return make(tmp_path_factory.mktemp("bare"))


@pytest.mark.parametrize(
    ("index", "ci", "outcome"),
    [
        ("http://127.0.0.1:9/simple", "", pytest.skip.Exception),
        ("http://127.0.0.1:9/simple", "true", pytest.fail.Exception),
        ("file:///nowhere", "", pytest.fail.Exception),
    ],
    ids=["out of reach", "out of reach in CI", "without the package"],
)
def test_only_an_index_out_of_reach_is_an_excuse(bare, monkeypatch, index, ci, outcome):
    monkeypatch.setenv("CI", ci)
    only = {"PIP_INDEX_URL": index, "PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}
    with pytest.raises(outcome, match="chatlas"):
        install(bare, "chatlas==0.23.0", PIP_RETRIES="0", **only)
