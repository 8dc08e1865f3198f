"""The examples, run as a new user runs them, and the data they use."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from batchframe import testing
from batchframe.cli import _demo

EXAMPLES = Path(__file__).parents[1] / "examples"
DATA = EXAMPLES / "data" / "jargon.parquet"
TOPICS = {"people", "software", "hardware", "culture"}


@pytest.fixture(params=["embedded", "environment"])
def service(request, emu):
    """The environment of an example: with its own emulator, or with a service as with the real one."""
    if request.param == "embedded":
        return {"BATCHFRAME_EXAMPLE_EMULATOR": "1"}
    return {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": emu.base_url}


def run(name: str, *args: str, cwd: Path, env: dict[str, str]) -> str:
    # PYTHONIOENCODING: the frame that is printed must not depend on the machine's locale.
    environment = os.environ | env | {"PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-W", "error", EXAMPLES / name, *args]
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


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


def test_without_a_key_an_example_says_so(tmp_path):
    command = [sys.executable, EXAMPLES / "analytics.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "OPENAI_API_KEY" in done.stderr.splitlines()[-1]


def test_the_data():
    terms = pl.read_parquet(DATA)
    assert terms.schema == {"term": pl.String, "definition": pl.String}
    assert terms.height == 300
    assert terms["term"].is_unique().all()
    assert terms["definition"].str.len_chars().is_between(100, 600).all()
    # No markup of the dictionary, no line ends, no control characters.
    assert not terms["definition"].str.contains(r"[{}\x00-\x1f\x7f]|  |^\s|\s$").any()
    assert DATA.stat().st_size < 150_000
    assert _demo.texts().equals(terms)


def test_azure_with_entra_id(monkeypatch, capsys):
    """The example's own client makes the calls; only the credential is not that of a person."""
    identity = pytest.importorskip("azure.identity")
    asked = []

    def provider(credential, scope):
        return lambda: asked.append(scope) or "entra-token"

    monkeypatch.setattr(identity, "DefaultAzureCredential", lambda: "somebody")
    monkeypatch.setattr(identity, "get_bearer_token_provider", provider)
    spec = importlib.util.spec_from_file_location("azure_entra", EXAMPLES / "azure_entra.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    with testing.emulator("azure", deployments={"mine": "gpt-4o-mini"}) as emu:
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", emu.base_url.partition("/openai")[0])
        with example.entra_client() as client:
            example.main("mine", client)
    assert set(asked) == {"https://cognitiveservices.azure.com/.default"}
    shown = capsys.readouterr().out
    assert "shape: (20, 3)" in shown
    assert "content_filter_re" in shown
