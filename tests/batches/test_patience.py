"""Hours of bad weather, in a time that the test makes: nothing waits, nothing is given up, nothing is hurried."""

from __future__ import annotations

import polars as pl
import pytest

import batchframe as bf
from another_process import reopened

FRAME = pl.DataFrame({"n": range(6)})


@pytest.fixture
def run(emu, clock):
    """A run whose batch is at the service."""
    emu.configure(progression="stepped")
    client = emu.client(max_retries=0)
    run = bf.submit(FRAME, "Repeat {n}", client=client, model="gpt-4o-mini", settle_seconds=60)
    emu.configure(progression="instant")
    clock.waits.clear()
    return run


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"kind": "status", "status": 500}, marks=pytest.mark.slow),
        {"kind": "status", "status": 429},
        pytest.param({"kind": "reset_before"}, marks=pytest.mark.slow),
        {"kind": "reset_after"},
    ],
    ids=["500", "429", "reset before", "reset after"],
)
@pytest.mark.parametrize("call", ["retrieve_batch", "file_content"])
def test_runs_survive_hours_of_service_trouble(emu, run, clock, call, fault):
    emu.fault(call, times=200, **fault)
    assert run.wait().succeeded == 6
    assert clock.passed > 3 * 3600
    assert emu.ledger(summary=True)["executions"] == 6
    # A second at first, then 5 s that grow to a minute, each with up to a fifth more, so that many do not call at once.
    assert 1 <= clock.waits[0] < 2
    assert all(5 <= seconds <= 72 for seconds in clock.waits[1:])
    assert len(set(clock.waits[20:])) > 50
    assert sum(clock.waits[-50:]) > 50 * 60


def test_the_service_says_how_long(emu, run, clock):
    emu.fault("retrieve_batch", "status", status=429, retry_after=600, times=3)
    assert run.wait().succeeded == 6
    assert clock.waits[:3] == [600, 600, 600]


def test_a_fixed_interval_is_kept_but_for_what_the_service_says(emu, run, clock):
    emu.fault("retrieve_batch", "status", status=500, times=5)
    emu.fault("retrieve_batch", "status", status=429, retry_after=90, times=1)
    assert reopened(run, poll_seconds=2.0).wait().succeeded == 6
    assert clock.waits == [2.0] * 5 + [90]


def test_time_that_is_up_cancels_nothing(emu, run, clock):
    emu.fault("retrieve_batch", "status", status=500, times=None)
    with pytest.raises(bf.RunPendingError, match="not finished after 1000 seconds"):
        run.wait(timeout_seconds=1000)
    assert clock.passed == pytest.approx(1000)
    assert emu.calls().get("cancel_batch", 0) == 0
    emu.clear_faults()
    assert run.wait().succeeded == 6
