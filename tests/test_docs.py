"""The examples of the public docstrings, run against the emulator."""

from __future__ import annotations

import doctest
import inspect

import polars as pl
import pytest

import batchframe as bf
from batchframe import testing

FINDER = doctest.DocTestFinder(exclude_empty=True)
PUBLIC = {f"bf.{name}": getattr(bf, name) for name in bf.__all__} | {
    f"testing.{name}": getattr(testing, name) for name in testing.__all__
}
DOCTESTS = [
    found
    for name, value in PUBLIC.items()
    for found in FINDER.find(value, name, module=inspect.getmodule(value), globs={})
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
