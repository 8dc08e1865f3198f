"""The same call goes on with its run, or returns the finished one; another call never gets its answers."""

from __future__ import annotations

import json
import logging
import signal
import socket
import subprocess
import sys
import textwrap
import time

import openai
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import batchframe as bf
from batchframe import testing
from batchframe._core import events
from batchframe.emulator import answer

ARGUMENTS = {"model": "gpt-4o-mini", "poll_seconds": 0.05, "settle_seconds": 0.3}


def own_answers(frame, prompt):
    lines = bf.requests(frame, prompt, model="gpt-4o-mini")["request"]
    return [answer(json.loads(line)["body"])["choices"][0]["message"]["content"] for line in lines]


def test_a_finished_run_is_returned_with_the_server_stopped():
    frame = pl.DataFrame({"t": ["a", "b"]})
    with testing.emulator() as emu:
        base_url = emu.base_url
        out = bf.run(frame, "Repeat {t}", client=emu.client(), **ARGUMENTS)
    with openai.OpenAI(api_key="another", base_url=base_url) as client:
        again = bf.run(frame, "Repeat {t}", client=client, **ARGUMENTS)
    assert_frame_equal(again, out)


def test_another_order_is_the_same_run_aligned_by_content(emu, client):
    frame = pl.DataFrame({"t": [f"text {n}" for n in range(30)]})
    bf.run(frame, "Repeat {t}", client=client, **ARGUMENTS)
    turned = frame.reverse().with_columns(more=pl.lit(1))
    out = bf.run(turned, "Repeat {t}", client=client, **ARGUMENTS)
    assert_frame_equal(out.select("t", "more"), turned)
    assert out["response"].to_list() == own_answers(turned, "Repeat {t}")
    assert out["custom_id"].to_list() == [f"row-{n}" for n in range(30)]
    lazy = bf.run(turned.lazy(), "Repeat {t}", client=client, **ARGUMENTS).collect()
    assert_frame_equal(lazy, out)
    assert emu.ledger()["executions"] == 30


@pytest.mark.filterwarnings("ignore::batchframe.BatchframeWarning")
def test_equal_requests_are_matched_by_occurrence_and_nulls_do_not_count(emu, client):
    frame = pl.DataFrame({"t": ["x", "y", "x", None]})
    first = bf.run(frame, "Repeat {t}", client=client, **ARGUMENTS)
    out = bf.run(pl.DataFrame({"t": ["x", None, "x", "y"]}), "Repeat {t}", client=client, **ARGUMENTS)
    assert out["error"].struct.field("code").to_list() == [None, "null_input", None, None]
    assert out["response"].to_list() == [first["response"][0], None, first["response"][2], first["response"][1]]
    assert emu.ledger()["executions"] == 3


CHANGES = {
    "a row": {"frame": pl.DataFrame({"t": ["a", "c"]})},
    "a row more": {"frame": pl.DataFrame({"t": ["a", "b", "b"]})},
    "the prompt": {"prompt": "Say {t}"},
    "the model": {"model": "gpt-4o"},
    "a parameter": {"temperature": 0.5},
    "the system prompt": {"system": "Be brief"},
    "the name": {"name": "again"},
}


@pytest.mark.parametrize("change", CHANGES)
def test_different_requests_are_another_run(emu, client, change):
    call = {"frame": pl.DataFrame({"t": ["a", "b"]}), "prompt": "Repeat {t}", "client": client, **ARGUMENTS}
    bf.run(**call)
    executions = emu.ledger()["executions"]
    bf.run(**call | CHANGES[change])
    assert emu.ledger()["executions"] == executions + CHANGES[change].get("frame", call["frame"]).height


def test_another_service_gets_nothing_of_the_first(emu, client, emulate):
    frame = pl.DataFrame({"t": ["a"]})
    bf.run(frame, "Repeat {t}", client=client, **ARGUMENTS)
    with emulate() as other:
        bf.run(frame, "Repeat {t}", client=other.client(), **ARGUMENTS)
        assert other.ledger()["executions"] == 1
    bf.run(frame, "Repeat {t}", client=emu.client(project="proj_2"), **ARGUMENTS)
    assert emu.ledger()["executions"] == 2


SAYS = {
    "the model": ({"model": "gpt-4o"}, r"model was 'gpt-4o-mini', is 'gpt-4o'"),
    "the prompt": ({"prompt": "Say {t}"}, r"prompt was 'Repeat \{t\}', is 'Say \{t\}'"),
    "a parameter": ({"temperature": 0.5}, r"temperature was not set, is 0\.5"),
    "the name": ({"name": "again"}, r"name was None, is 'again'"),
    "a text": ({"frame": pl.DataFrame({"t": ["a", "c"]})}, r"the texts of some rows"),
    "the height": ({"frame": pl.DataFrame({"t": ["a"]})}, r"it had 2 requests, this call has 1"),
}


@pytest.mark.parametrize("change", SAYS)
def test_a_folder_of_another_run_is_refused_saying_what_differs(client, tmp_path, change):
    call = {"frame": pl.DataFrame({"t": ["a", "b"]}), "prompt": "Repeat {t}", "client": client, **ARGUMENTS}
    bf.run(run_dir=tmp_path / "run", **call)
    changed, says = SAYS[change]
    with pytest.raises(bf.RunMismatchError, match=says):
        bf.run(run_dir=tmp_path / "run", **call | changed)
    names = sorted(path.name for path in (tmp_path / "run").iterdir() if path.suffix != ".lock")
    assert names == [
        ".gitignore",
        "account.json",
        "parts",
        "results",
        "results.json",
        "retries.json",
        "rows",
        "run.json",
    ]


def test_another_account_is_refused_in_a_named_folder(client, tmp_path, emulate):
    frame = pl.DataFrame({"t": ["a"]})
    run = bf.submit(frame, "Repeat {t}", client=client, run_dir=tmp_path / "run", **ARGUMENTS)
    with emulate() as other:
        with pytest.raises(bf.RunMismatchError, match="base_url was"):
            bf.run(frame, "Repeat {t}", client=other.client(), run_dir=tmp_path / "run", **ARGUMENTS)
        with pytest.raises(bf.RunMismatchError, match="belongs to another account: base_url was"):
            bf.open_run(run.path, client=other.client()).wait()
    run.wait()


def test_a_folder_that_is_no_run_is_left_alone(client, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(bf.RunMismatchError, match=r"is not a run: it holds 'thesis.txt'"):
        bf.run(pl.DataFrame({"t": ["a"]}), "{t}", client=client, run_dir=tmp_path, **ARGUMENTS)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_run_can_be_moved(emu, client, tmp_path):
    frame = pl.DataFrame({"t": ["a", "b"]})
    run = bf.submit(frame, "Repeat {t}", client=client, run_dir=tmp_path / "here", **ARGUMENTS)
    run.path.rename(tmp_path / "there")
    out = bf.run(frame, "Repeat {t}", client=client, run_dir=tmp_path / "there", **ARGUMENTS)
    assert out["error"].null_count() == 2
    assert emu.ledger()["executions"] == 2


def test_a_lazy_result_survives_another_call_with_other_columns(client):
    frame = pl.LazyFrame({"t": ["a", "b"]})
    first = bf.run(frame, "Repeat {t}", client=client, **ARGUMENTS)
    second = bf.run(frame, "Repeat {t}", client=client, prefix="x_", include="raw", **ARGUMENTS)
    assert first.collect()["response"].to_list() == second.collect()["x_response"].to_list()


@pytest.mark.parametrize("change", ["another type", "other answers"])
def test_a_lazy_result_survives_results_that_take_the_place_of_its_own(client, change):
    """Polars keeps where the columns of the first file begin, and would look for them there in the second."""
    call = {"client": client, **ARGUMENTS}
    first = bf.run(pl.LazyFrame({"n": range(300)}), "Repeat {n}", **call)
    before = first.collect()
    other = bf.open_run(bf.list_runs()["path"][0], client=client)
    if change == "another type":
        assert other.reparse(response_format=pl.Struct({"text": pl.String})).result().height == 300
        assert_frame_equal(first.collect(), before)
        assert_frame_equal(bf.run(pl.LazyFrame({"n": range(300)}), "Repeat {n}", **call).collect(), before)
        return
    other.retry(pl.col("n") < 200, max_tokens=1).wait()
    assert_frame_equal(first.collect(), other.result())
    assert first.collect()["finish_reason"].to_list() == ["length"] * 200 + ["stop"] * 100


def script(base_url, body):
    head = f"""
        import os, signal, sys, openai, polars as pl, batchframe as bf
        from batchframe._core import events
        client = openai.OpenAI(api_key="sk-x", base_url={base_url!r})
        frame = pl.DataFrame({{"n": range(120)}})
        call = dict(model="gpt-4o-mini", poll_seconds=0.05, settle_seconds=0.3, client=client,
                    limits=bf.Limits(max_requests=50))
    """
    return textwrap.dedent(head) + textwrap.dedent(body)


# All points, and more of them, with troubles beside: tests/runs/test_kill_matrix.py.
@pytest.mark.parametrize("point", ["before_commit", "after_upload", "after_create_call", "after_download"])
def test_killed_at_any_point_each_row_is_executed_once(emu, client, point):
    """kill -9 at a named point between two writes or calls; the same call in another process, this one, finishes."""
    body = f"""
        events.set_trigger({point!r}, lambda: os.kill(os.getpid(), signal.SIGKILL))
        bf.run(frame, "Repeat {{n}}", **call)
    """
    program = [sys.executable, "-c", script(emu.base_url, body)]
    killed = subprocess.run(program, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    frame = pl.DataFrame({"n": range(120)})
    out = bf.run(frame, "Repeat {n}", client=client, limits=bf.Limits(max_requests=50), **ARGUMENTS)
    assert out["error"].null_count() == 120
    assert out["response"].to_list() == own_answers(frame, "Repeat {n}")
    ledger = emu.ledger()["by_custom_id"]
    assert ledger == {f"row-{n}": 1 for n in range(120)}


def test_ctrl_c_detaches_and_the_same_call_goes_on(emu, client):
    emu.configure(progression="timed", seconds={"in_progress": 60.0})
    body = """
        bf.run(frame, "Repeat {n}", progress=True, **call)
    """
    program = subprocess.Popen([sys.executable, "-c", script(emu.base_url, body)], stderr=subprocess.PIPE, text=True)
    wait_until(lambda: emu.calls().get("create_batch", 0) == 4 and emu.calls()["list_batches"] > 3)
    program.send_signal(signal.SIGINT)
    _, said = program.communicate(timeout=30)
    assert program.returncode != 0
    assert "interrupted, and nothing was cancelled; 4 batches are still running. Resume by repeating the call" in said
    assert "bf.open_run(" in said
    assert emu.calls().get("cancel_batch", 0) == 0
    emu.configure(progression="instant")
    frame = pl.DataFrame({"n": range(120)})
    out = bf.run(frame, "Repeat {n}", client=client, limits=bf.Limits(max_requests=50), **ARGUMENTS)
    assert out["error"].null_count() == 120
    assert emu.ledger()["by_custom_id"] == {f"row-{n}": 1 for n in range(120)}


def wait_until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_scratch_folder_of_a_dead_process_is_removed(client, tmp_path, monkeypatch):
    monkeypatch.setenv("BATCHFRAME_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    dead = tmp_path / "home" / f".new-{socket.gethostname()}-999999999-abcd"
    foreign = tmp_path / "home" / ".new-elsewhere-1-abcd"
    dead.mkdir()
    foreign.mkdir()
    run = bf.submit(pl.DataFrame({"t": ["a"]}), "{t}", client=client, **ARGUMENTS)
    run.wait()
    assert not dead.exists()
    assert foreign.exists()
    assert run.path.parent == tmp_path / "home"


def test_the_root_is_private_and_out_of_gits_reach(client, tmp_path, monkeypatch):
    monkeypatch.setenv("BATCHFRAME_HOME", str(tmp_path / "home"))
    bf.run(pl.DataFrame({"t": ["a"]}), "{t}", client=client, **ARGUMENTS)
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "home" / ".gitignore").read_text() == "*\n"


def test_no_key_reaches_the_disk(emu, tmp_path):
    secret = "sk-very-secret-0123456789"
    run = bf.submit(
        pl.DataFrame({"t": ["a"]}), "{t}", client=emu.client(api_key=secret), run_dir=tmp_path / "r", **ARGUMENTS
    )
    run.wait()
    run.result()
    files = [path for path in (tmp_path / "r").rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path for path in files if secret.encode() in path.read_bytes()]
    assert secret not in repr(run)


def test_a_newer_schema_is_refused_by_name(client, tmp_path):
    frame = pl.DataFrame({"t": ["a"]})
    bf.run(frame, "{t}", client=client, run_dir=tmp_path / "r", **ARGUMENTS)
    path = tmp_path / "r" / "run.json"
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 7'))
    with pytest.raises(bf.StoreVersionError, match="schema version 7, and this batchframe reads up to 1"):
        bf.open_run(tmp_path / "r")


def test_opening_a_folder_without_a_run(tmp_path):
    with pytest.raises(bf.RunNotFoundError, match=r"has no run\.json"):
        bf.open_run(tmp_path)


def test_timeout_leaves_the_batches_running(emu, client):
    emu.configure(progression="stepped")
    frame = pl.DataFrame({"t": ["a"]})
    with pytest.raises(
        bf.RunPendingError, match=r"not finished after 0\.2 seconds; 1 batch is still running"
    ) as raised:
        bf.run(frame, "Repeat {t}", client=client, timeout_seconds=0.2, **ARGUMENTS)
    emu.configure(progression="instant")
    assert raised.value.run.wait(60).done


def test_a_finished_run_that_is_returned_says_so(client, caplog):
    frame = pl.DataFrame({"t": ["a"]})
    with caplog.at_level(logging.INFO, logger="batchframe"):
        bf.run(frame, "Repeat {t}", client=client, **ARGUMENTS)
        assert "is finished: its answers are returned" not in caplog.text
        bf.run(frame, "Repeat {t}", client=client, **ARGUMENTS)
    assert f"at {str(client.base_url).rstrip('/')} and is finished: its answers are returned" in caplog.text


def test_a_lazy_result_does_not_depend_on_the_working_folder(client, tmp_path, monkeypatch):
    monkeypatch.delenv("BATCHFRAME_HOME")
    monkeypatch.chdir(tmp_path)
    out = bf.run(pl.LazyFrame({"t": ["a"]}), "Repeat {t}", client=client, **ARGUMENTS)
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    assert out.collect().height == 1
    assert (tmp_path / ".batchframe" / ".gitignore").exists()


def test_an_empty_folder_becomes_the_run(client, tmp_path):
    (tmp_path / "r").mkdir()
    run = bf.submit(pl.DataFrame({"t": ["a"]}), "Repeat {t}", client=client, run_dir=tmp_path / "r", **ARGUMENTS)
    assert run.path == tmp_path / "r"
    assert run.wait().succeeded == 1


def test_two_calls_that_render_the_same_run_at_once_make_one(emu, client, tmp_path):
    """The second finds, when it is about to commit, that the first did; it must not take the first one's files away."""
    frame = pl.DataFrame({"t": ["a", "b"]})
    call = {"frame": frame, "prompt": "Repeat {t}", "client": client, "run_dir": tmp_path / "r", **ARGUMENTS}

    def meanwhile():
        events.set_trigger("before_commit", None)
        bf.submit(**call)

    events.set_trigger("before_commit", meanwhile)
    try:
        out = bf.run(**call)
    finally:
        events.set_trigger("before_commit", None)
    assert out["error"].null_count() == 2
    assert emu.ledger()["by_custom_id"] == {"row-0": 1, "row-1": 1}
    assert emu.calls()["create_batch"] == 1
    assert not list(tmp_path.glob(".new-*"))
