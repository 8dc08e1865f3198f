"""A run that submits no more: cancelled, or stopped since its pilot or its first batches failed alike."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import warnings

import polars as pl
import pytest

import batchframe as bf

N = 40
FRAME = pl.DataFrame({"n": range(N)})
ARGUMENTS = {"model": "gpt-4o-mini", "poll_seconds": 0.02, "settle_seconds": 0.3}
ONE_BY_ONE = {"limits": bf.Limits(max_requests=10, max_in_flight=1)}  # parts of 1, 10, 10, 10 and 9


def ask(service, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bf.BatchframeWarning)
        return bf.run(FRAME, "Repeat {n}", client=service.client(), **ARGUMENTS | options)


def codes(frame):
    return dict(frame["error"].struct.field("code").value_counts().rows())


# -- stop-loss


def test_when_the_first_batches_fail_alike_nothing_more_is_submitted(emu):
    emu.row_fault("status", status=400, code="unsupported_value", message="No such value.", attempts=None)
    with pytest.raises(bf.RunStoppedError, match=r"all 11 rows of the first 2 batches .* unsupported_value") as caught:
        ask(emu, **ONE_BY_ONE)
    assert "The other 29 were not submitted" in str(caught.value)
    run = caught.value.run
    assert codes(run.result()) == {"unsupported_value": 11, "not_submitted": 29}
    status = run.status()
    assert (status.state, status.failed, status.not_sent, status.done) == ("stopped", 11, 29, True)
    assert emu.ledger(summary=True)["executions"] == 11


def test_the_same_call_of_a_stopped_run_says_the_same_and_sends_nothing(emu):
    emu.row_fault("status", status=400, attempts=None)
    for _ in range(2):
        with pytest.raises(bf.RunStoppedError):
            ask(emu, **ONE_BY_ONE)
    assert emu.ledger(summary=True)["executions"] == 11


def test_a_stopped_run_goes_on_when_that_is_asked_for(emu):
    emu.row_fault("status", status=400, attempts=None)
    with pytest.raises(bf.RunStoppedError) as caught:
        ask(emu, **ONE_BY_ONE)
    emu.clear_faults()
    run = caught.value.run
    assert run.retry(codes="not_submitted").wait().succeeded == 29
    assert run.retry().wait().succeeded == N
    assert emu.ledger(summary=True)["executions"] == N + 11


@pytest.mark.parametrize(
    ("faults", "why"),
    [
        ([{"kind": "rate_limited", "attempts": 1}], "worth another attempt"),
        ([{"kind": "status", "status": 400, "custom_ids": [f"row-{n}" for n in range(1, N)]}], "one succeeded"),
        (
            [
                {"kind": "status", "status": 400, "code": "a", "every": 2},
                {"kind": "status", "status": 400, "code": "b", "custom_ids": ["row-0", "row-2", "row-3"]},
            ],
            "not all the same",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_run_goes_on_when_it_may_get_better(emu, faults, why):
    for fault in faults:
        emu.row_fault(**fault)
    out = ask(emu, **ONE_BY_ONE)
    assert "not_submitted" not in codes(out), why


def test_stop_loss_ignores_small_samples(emu):
    emu.row_fault("status", status=400, custom_ids=["row-0", "row-1"])
    assert ask(emu, limits=bf.Limits(max_requests=2, max_in_flight=1))["error"].null_count() == N - 2


# -- pilot


def test_the_pilot_is_a_batch_of_its_own_and_comes_first(emu):
    emu.configure(progression="stepped")
    run = bf.submit(FRAME, "Repeat {n}", client=emu.client(), pilot=7, **ARGUMENTS)
    for _ in range(3):
        assert "pilot" in run.advance().waiting_for
    assert run.batches()["requests"].to_list() == [7]
    emu.configure(progression="instant")
    assert run.wait().succeeded == N
    assert run.batches()["requests"].to_list() == [7, 33]
    assert ask(emu)["error"].null_count() == N  # the same run without a pilot
    assert emu.ledger(summary=True)["executions"] == N


def test_when_all_rows_of_the_pilot_fail_the_run_stops(emu):
    emu.row_fault("status", status=400, code="unsupported_value", attempts=None)
    with pytest.raises(bf.RunStoppedError, match="all 3 rows of the pilot failed: unsupported_value") as caught:
        ask(emu, pilot=3)
    assert codes(caught.value.run.result()) == {"unsupported_value": 3, "not_submitted": N - 3}
    assert emu.ledger(summary=True)["executions"] == 3


def test_one_good_row_of_the_pilot_is_enough(emu):
    emu.row_fault("status", status=400, custom_ids=["row-0", "row-1"])
    assert ask(emu, pilot=3)["error"].null_count() == N - 2


def test_a_pilot_whose_file_was_refused_in_part(emu):
    emu.batch_fault("fail", code="invalid_request", message="No.", lines=(1,))
    assert codes(ask(emu, pilot=3)) == {None: N - 1, "input_rejected": 1}
    assert emu.calls()["create_batch"] == 3


@pytest.mark.parametrize(("pilot", "parts"), [(N, [N]), (N + 5, [N]), (1, [1, 39])])
def test_pilots_of_all_sizes(emu, tmp_path, pilot, parts):
    ask(emu, pilot=pilot, run_dir=tmp_path / "run")
    assert bf.open_run(tmp_path / "run").batches()["requests"].to_list() == parts


def test_the_pilot_counts_rows_and_not_requests(emu, tmp_path):
    frame = FRAME.with_columns(pl.when(pl.col("n") > 2).then("n").alias("n"))
    with pytest.warns(bf.BatchframeWarning, match="3 null_input"):
        bf.run(frame, "Repeat {n}", client=emu.client(), pilot=5, run_dir=tmp_path / "run", **ARGUMENTS)
    assert bf.open_run(tmp_path / "run").batches()["requests"].to_list() == [2, N - 5]


@pytest.mark.parametrize("pilot", [0, -1, 1.5, True, "ten"])
def test_invalid_pilot_is_refused(emu, pilot):
    with pytest.raises(bf.OptionError, match="pilot must be a whole number of rows"):
        ask(emu, pilot=pilot)


# -- cancel


@pytest.fixture(params=["openai", "azure"])
def stepped(request, emulate):
    with emulate(request.param, progression="stepped") as emu:
        yield emu


def stepping(service, times=20):
    """Step on while the test waits."""
    stop = threading.Event()

    def go():
        while not stop.wait(0.03):
            service.step()

    thread = threading.Thread(target=go, daemon=True)
    thread.start()
    return stop


def test_cancel_keeps_what_was_answered_and_says_which_rows_were_not(stepped):
    stepped.batch_fault("stuck", at=0.5)
    run = bf.submit(FRAME, "Repeat {n}", client=stepped.client(), **ONE_BY_ONE, **ARGUMENTS)
    stop = stepping(stepped)
    while not run.status().batches.get("in_progress"):
        pass
    status = run.cancel()
    stop.set()
    assert (status.state, status.pending, status.done) == ("stopped", 0, True)
    assert status.succeeded + status.failed + status.not_sent == N
    assert status.not_sent >= N - 11
    executed = stepped.ledger(summary=True)["executions"]
    assert status.succeeded == executed
    assert ask(stepped)["error"].null_count() == executed  # the same call returns it
    assert stepped.ledger(summary=True)["executions"] == executed


def test_what_was_cancelled_can_be_asked_again(emu):
    emu.batch_fault("stuck", at=0.5)
    run = bf.submit(FRAME, "Repeat {n}", client=emu.client(), **ARGUMENTS)
    while emu.ledger(summary=True)["executions"] < N // 2:
        pass
    assert run.cancel().succeeded == N // 2
    assert codes(run.result()) == {None: N // 2, "batch_cancelled": N // 2}
    assert run.retry().wait().succeeded == N
    assert emu.ledger(summary=True)["executions"] == N


def test_a_finished_run_is_not_cancelled(emu):
    run = bf.submit(FRAME, "Repeat {n}", client=emu.client(), **ARGUMENTS)
    run.wait()
    assert run.cancel().state == "finished"
    assert emu.calls().get("cancel_batch", 0) == 0


def test_a_create_in_doubt_is_found_and_cancelled(emu):
    emu.configure(progression="stepped")
    emu.fault("create_batch", "reset_after")
    run = bf.submit(FRAME, "Repeat {n}", client=emu.client(), **ARGUMENTS)
    emu.configure(progression="instant")
    status = run.cancel()
    assert status.done
    assert status.succeeded == emu.ledger(summary=True)["executions"]
    assert emu.calls()["create_batch"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("point", ["after_stop", "before_cancel", "after_cancel_call", "after_ended", "after_download"])
def test_killed_during_a_cancel(emu, tmp_path, point):
    emu.batch_fault("stuck", at=0.5, times=None)
    program = textwrap.dedent(f"""
        import os, signal, openai, batchframe as bf
        from batchframe._core import events
        events.set_trigger({point!r}, lambda: os.kill(os.getpid(), signal.SIGKILL))
        client = openai.OpenAI(api_key="k", base_url={emu.base_url!r})
        bf.open_run({os.fspath(tmp_path / "run")!r}, client=client).cancel()
    """)
    run = bf.submit(FRAME, "Repeat {n}", client=emu.client(), run_dir=tmp_path / "run", **ARGUMENTS,
                    limits=bf.Limits(max_requests=20, max_in_flight=2))  # fmt: skip
    while emu.ledger(summary=True)["executions"] < 11:
        pass
    killed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    status = bf.open_run(run.path, client=emu.client()).wait()
    assert (status.state, status.pending) == ("stopped", 0)
    assert status.succeeded == emu.ledger(summary=True)["executions"]
    assert emu.calls()["create_batch"] == 2
