"""Copies and pickles of a Run: another handle of the same folder, without a client."""

from __future__ import annotations

import copy
import gc
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import polars as pl
import pytest

import batchframe as bf

FRAME = pl.DataFrame({"text": ["one", "two", None], "n": [1, 2, 3]})
pytestmark = pytest.mark.filterwarnings("ignore:.*did not succeed:batchframe.BatchframeWarning")


def submitted(emu, frame=FRAME, **options):
    return bf.submit(frame, "{text}", model="gpt-4o-mini", client=emu.client(), poll_seconds=0.02, **options)


def finished(emu, frame=FRAME, **options):
    run = submitted(emu, frame, **options)
    run.wait()
    return run


def by_pickle(run):
    return pickle.loads(pickle.dumps(run))


WAYS = pytest.mark.parametrize("copied", [by_pickle, copy.copy, copy.deepcopy])


@WAYS
def test_a_copy_reads_the_same(emu, copied):
    run = finished(emu, include=["model"], prefix="p_", response_format=pl.Struct({"a": pl.String}))
    other = copied(run)
    assert type(other) is bf.Run
    assert other is not run
    assert (other.path, other.id, repr(other)) == (run.path, run.id, repr(run))
    assert other.result().equals(run.result())
    assert other.status(refresh=False) == run.status(refresh=False)


@WAYS
def test_a_copy_has_the_rows_and_columns_of_the_call(emu, copied):
    """They are not those of the folder: the same requests came in another order, with other columns."""
    first = finished(emu)
    again = finished(emu, FRAME.reverse().with_columns(more=pl.lit("x")), include=["raw"])
    assert again.path == first.path
    assert copied(again).result().equals(again.result())
    assert copied(again).result()["n"].to_list() == [3, 2, 1]
    assert copied(first).result().equals(first.result())
    typed = first.reparse(response_format=pl.Struct({"a": pl.String}))
    assert copied(typed).result().equals(typed.result())
    assert copied(typed).result()["response"].dtype == pl.Struct({"a": pl.String})


@WAYS
def test_a_copy_uses_the_client_of_the_environment(emu, monkeypatch, copied):
    run = submitted(emu)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    other = copied(run)
    assert other.status(refresh=False).rows == 3
    with pytest.raises(bf.BatchframeError, match="OPENAI_API_KEY"):
        other.wait()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-emulator")
    monkeypatch.setenv("OPENAI_BASE_URL", str(emu.base_url))
    assert copied(run).wait().succeeded == 2
    assert emu.ledger()["executions"] == 2


def test_no_key_is_in_a_pickle(emu):
    client = emu.client(api_key="sk-secret-of-mine", default_headers={"x-of-mine": "hidden"})
    run = bf.submit(FRAME, "{text}", model="gpt-4o-mini", client=client, poll_seconds=0.02)
    run.wait()
    pickled = pickle.dumps(run)
    assert b"sk-secret-of-mine" not in pickled
    assert b"hidden" not in pickled
    assert b"batchframe" in pickled


def test_a_copy_of_a_deleted_run(emu):
    run = finished(emu)
    pickled = pickle.dumps(run)
    run.delete()
    with pytest.raises(bf.RunNotFoundError):
        pickle.loads(pickled)


def test_errors_that_hold_a_run_can_be_pickled(emu):
    emu.row_fault("status", status=400, code="bad")
    run = finished(emu)
    with pytest.raises(bf.RowsFailedError) as caught:
        run.raise_for_errors()
    error = by_pickle(caught.value)
    assert (type(error), str(error)) == (bf.RowsFailedError, str(caught.value))
    assert error.run.result().equals(run.result())


def succeeded(run):
    """Return how many rows succeeded, in a process of its own."""
    return run.wait().succeeded, run


@pytest.mark.slow
def test_a_pool_of_processes(emu, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-emulator")
    monkeypatch.setenv("OPENAI_BASE_URL", str(emu.base_url))
    runs = [submitted(emu, FRAME.with_columns(text=pl.col("text") + name)) for name in "ab"]
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        for run, (count, other) in zip(runs, pool.map(succeeded, runs), strict=True):
            assert count == 2
            assert other.result().equals(run.result())


def test_a_run_that_nobody_holds_leaves_no_connection_open(emu, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-emulator")
    monkeypatch.setenv("OPENAI_BASE_URL", str(emu.base_url))
    run = bf.submit(FRAME, "Repeat {text}", model="gpt-4o-mini", poll_seconds=0.02)
    run.wait()
    made = run._service.client._client
    assert not made.is_closed()
    del run
    gc.collect()
    assert made.is_closed()
