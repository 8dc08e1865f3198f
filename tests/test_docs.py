"""The examples of the public docstrings, run against the emulator."""

from __future__ import annotations

import doctest
from pathlib import Path

import polars as pl
import pytest

import batchframe as bf
from batchframe import testing
from batchframe._runs import run

DOCS = Path(__file__).parents[1] / "docs"
FINDER = doctest.DocTestFinder(exclude_empty=True)
PUBLIC = {f"bf.{name}": getattr(bf, name) for name in bf.__all__} | {
    f"testing.{name}": getattr(testing, name) for name in testing.__all__
}
DOCTESTS = [
    found
    for name, value in PUBLIC.items()
    # Of whatever module: public names report the package, and their methods the module they are in.
    for found in FINDER.find(value, name, module=False, globs={})
    if found.examples
]


@pytest.mark.parametrize("found", DOCTESTS, ids=lambda found: found.name)
def test_example(found, client, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found.globs = {"bf": bf, "pl": pl, "client": client}
    said = []
    with pl.Config(restore_defaults=True):
        results = doctest.DocTestRunner(verbose=False).run(found, out=said.append, clear_globs=False)
    assert results.attempted
    assert not results.failed, "".join(said)


@pytest.mark.parametrize(
    "name", ["run", "submit", "requests", "result_schema", "run_parquet", "open_run", "batches", "read_batch"]
)
def test_every_call_has_an_example(name):
    assert f"bf.{name}" in {found.name for found in DOCTESTS}


@pytest.mark.filterwarnings("ignore:.*did not succeed:batchframe.BatchframeWarning")
def test_the_page_of_endpoints(emu, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_BASE_URL", str(emu.base_url))
    monkeypatch.setenv("OPENAI_API_KEY", "unused")
    for name in ("_BRIEF_SECONDS", "_MIN_POLL_SECONDS", "_MAX_POLL_SECONDS"):
        monkeypatch.setattr(run, name, 0.02)
    with pl.Config(restore_defaults=True):
        page = (DOCS / "endpoints.md").read_text(encoding="utf-8")
        examples = doctest.DocTestParser().get_doctest(page, {}, "endpoints.md", "endpoints.md", 0)
        said = []
        results = doctest.DocTestRunner(verbose=False).run(examples, out=said.append)
    assert results.attempted > 20
    assert not results.failed, "".join(said)
