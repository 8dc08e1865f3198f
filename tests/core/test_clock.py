"""The test clock: waits pass without waiting, in all threads, and the machine's time is back afterwards."""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
import time

import polars as pl
import pytest

import batchframe as bf
from batchframe import testing
from batchframe._core.clock import current_clock

N = 6
FRAME = pl.DataFrame({"n": range(N)})
CALL = {"frame": FRAME, "prompt": "Repeat {n}", "model": "gpt-4o-mini"}


@pytest.fixture
def naps(monkeypatch):
    """What is really waited, instead of waiting."""
    waited = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


def test_a_batch_takes_a_step_per_poll(emu):
    emu.configure(progression="stepped")
    with testing.clock(on_wait=emu.step) as clock:
        out = bf.run(**CALL, client=emu.client())
    assert out["error"].null_count() == N
    # A second at first, then 5 s that grow to a minute, each with up to a fifth more.
    assert clock.waits[0] == 1
    assert 5 <= clock.waits[1] <= 6
    assert clock.waits == sorted(clock.waits)
    assert sum(clock.waits) == pytest.approx(clock.passed)


def test_equal_tests_take_equally_long(emulate):
    passed = []
    for _ in range(2):
        with emulate(progression="stepped") as service, testing.clock(service.step) as clock:
            bf.submit(**CALL, client=service.client(), run_dir=None, name=f"{len(passed)}").wait()
        passed.append(clock.passed)
    assert passed[0] == passed[1] > 10


def test_timeouts_and_fixed_intervals(emu, clock):
    emu.configure(progression="stepped")
    with pytest.raises(bf.RunPendingError, match="not finished after 86400 seconds"):
        bf.run(**CALL, client=emu.client(), poll_seconds=3_600, timeout_seconds=86_400)
    assert clock.waits == [3_600] * 24


def test_settling(emu, clock):
    """A create whose reply was lost, and which never shows, is given its time before it is made again."""
    emu.fault("create_batch", "reset_before")
    out = bf.run(**CALL, client=emu.client(max_retries=0), settle_seconds=7_200, poll_seconds=60)
    assert out["error"].null_count() == N
    assert 7_200 <= clock.passed < 7_800
    assert emu.ledger()["executions"] == N


def test_time_passes_between_the_passes_of_a_scheduled_job(emu, clock):
    run = bf.submit(**CALL, client=emu.client(), poll_seconds=60)
    clock.advance(86_400)
    assert bf.open_run(run.path, client=emu.client()).wait().succeeded == N
    assert clock.passed >= 86_400
    with pytest.raises(ValueError, match="only goes forward: expected 0 seconds or more, got -1"):
        clock.advance(-1)
    assert repr(clock).startswith("<TestClock: 864")


def test_all_threads_share_it(emu, clock):
    emu.configure(progression="stepped")
    ended = []

    def go(name):
        try:
            bf.run(**CALL, client=emu.client(), name=name, timeout_seconds=50_000, poll_seconds=1_000)
        except bf.RunPendingError:
            ended.append(name)

    threads = [threading.Thread(target=go, args=(name,)) for name in ("one", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ended) == ["one", "other"]
    assert sum(clock.waits) == pytest.approx(clock.passed)


def test_the_machine_s_time_is_back_whatever_happens():
    real = current_clock()
    with contextlib.suppress(ZeroDivisionError), testing.clock() as outer:
        with testing.clock() as inner:
            assert current_clock() is inner._clock
        assert current_clock() is outer._clock
        raise ZeroDivisionError
    assert current_clock() is real


def test_clocks_of_two_threads_end_in_any_order():
    real = current_clock()
    one, other = testing.clock(), testing.clock()
    one.__enter__()
    last = other.__enter__()
    one.__exit__(None, None, None)
    assert current_clock() is last._clock
    other.__exit__(None, None, None)
    assert current_clock() is real


def test_a_run_that_outlives_it_really_waits_and_does_not_go_back_in_time(emu, naps):
    emu.configure(progression="stepped")
    with testing.clock() as clock:
        run = bf.submit(**CALL, client=emu.client(max_retries=0), poll_seconds=60)
        with pytest.raises(bf.RunPendingError):
            run.wait(timeout_seconds=3_600)
    waits, now = list(clock.waits), run._clock.now()
    assert now - dt.datetime.now(dt.timezone.utc) > dt.timedelta(minutes=59)
    emu.configure(progression="instant")
    emu.fault("retrieve_batch", "status", status=500, times=3)
    assert run.wait().succeeded == N
    assert naps[:3] == [60] * 3
    assert clock.waits == waits
    assert run._clock.now() > now
