"""Hours of bad weather, in a time that the test makes: nothing waits, nothing is given up, nothing is hurried."""

from __future__ import annotations

import polars as pl
import pytest

import batchframe as bf
from made_up_time import Time

FRAME = pl.DataFrame({"n": range(6)})


@pytest.fixture
def weather(emu):
    """A run whose batch is at the service, in a time of its own."""
    emu.configure(progression="stepped")
    client = emu.client(max_retries=0)
    begun = bf.submit(FRAME, "Repeat {n}", client=client, model="gpt-4o-mini", settle_seconds=60)
    emu.configure(progression="instant")
    time = Time()
    return emu, time.run(begun), time


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
def test_hours_of_it_are_survived(weather, call, fault):
    emu, run, time = weather
    emu.fault(call, times=200, **fault)
    assert run.wait().succeeded == 6
    assert time.passed > 3 * 3600
    assert emu.ledger(summary=True)["executions"] == 6
    # A second at first, then 5 s that grow to a minute, each with up to a fifth more, so that many do not call at once.
    assert 1 <= time.slept[0] < 2
    assert all(5 <= seconds <= 72 for seconds in time.slept[1:])
    assert len(set(time.slept[20:])) > 50
    assert sum(time.slept[-50:]) > 50 * 60


def test_the_service_says_how_long(weather):
    emu, run, time = weather
    emu.fault("retrieve_batch", "status", status=429, retry_after=600, times=3)
    assert run.wait().succeeded == 6
    assert time.slept[:3] == [600, 600, 600]


def test_a_fixed_interval_is_kept_but_for_what_the_service_says(weather):
    emu, run, time = weather
    emu.fault("retrieve_batch", "status", status=500, times=5)
    emu.fault("retrieve_batch", "status", status=429, retry_after=90, times=1)
    assert time.run(run, poll_seconds=2.0).wait().succeeded == 6
    assert time.slept == [2.0] * 5 + [90]


def test_time_that_is_up_cancels_nothing(weather):
    emu, run, time = weather
    emu.fault("retrieve_batch", "status", status=500, times=None)
    with pytest.raises(bf.RunPendingError, match="not finished after 1000 seconds"):
        run.wait(timeout_seconds=1000)
    assert 1000 <= time.passed < 1001
    assert emu.calls().get("cancel_batch", 0) == 0
    emu.clear_faults()
    assert run.wait().succeeded == 6
