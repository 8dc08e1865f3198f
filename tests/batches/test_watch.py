"""A list that does not tell how a batch stands: cached, late, or still until a batch is asked for by id."""

from __future__ import annotations

import datetime as dt
import shutil

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import batchframe as bf
from another_process import reopened
from batchframe._batches.watch import FEW, is_behind, note_news, to_ask
from batchframe._core.remote import RemoteBatch
from batchframe._store.records import SubmissionRecord

N = 40
FRAME = pl.DataFrame({"n": range(N)})
ARGUMENTS = {"model": "gpt-4o-mini", "poll_seconds": 0.02, "settle_seconds": 0.3}
TEN = {"limits": bf.Limits(max_requests=4)}  # ten parts of 4, and one of 1 before them
STILL = [pytest.param({}, id="still until asked"), pytest.param({"polls": 0}, id="still for ever")]
NOW = dt.datetime(2026, 11, 1, tzinfo=dt.timezone.utc)


@pytest.fixture(params=["openai", pytest.param("azure", marks=pytest.mark.slow)])
def service(request, emulate):
    with emulate(request.param) as emu:
        yield emu


def submit(service, **options):
    """Submit ten batches and one; each is in progress as the list will tell, and ends at once."""
    service.configure(progression="stepped")
    run = bf.submit(FRAME, "Repeat {n}", client=service.client(), **ARGUMENTS | TEN | options)
    run.advance()
    service.configure(progression="instant")
    return run


def calls_of(service, step):
    before = service.calls()
    step()
    after = service.calls()
    return {name: after.get(name, 0) - before.get(name, 0) for name in ("list_batches", "retrieve_batch")}


@pytest.mark.parametrize("how", STILL)
def test_a_run_ends_although_the_list_does_not_move(service, how):
    service.batch_fault("list_still", times=None, **how)
    out = bf.run(FRAME, "Repeat {n}", client=service.client(), **ARGUMENTS, **TEN)
    assert out["error"].null_count() == N
    assert service.ledger(summary=True)["executions"] == N


@pytest.mark.parametrize("how", STILL)
def test_a_pass_asks_for_a_few_by_id_and_for_none_that_moved_lately(emu, clock, how):
    emu.batch_fault("list_still", times=None, **how)
    run = submit(emu, poll_seconds=None)
    begun = clock.passed
    for _ in range(4):
        assert calls_of(emu, run.advance) == {"list_batches": 1, "retrieve_batch": 0}
        clock.advance(60)
    clock.advance(60)
    assert calls_of(emu, run.advance) == {"list_batches": 1, "retrieve_batch": FEW}
    assert run.status(refresh=False).batches["completed"] == FEW
    status = run.wait()
    assert (status.succeeded, status.batches) == (N, {"completed": 11})
    assert clock.passed - begun < 900


def test_processes_that_make_one_pass_each_take_turns_too(emu, clock):
    emu.batch_fault("list_still", times=None, polls=0)
    begun = submit(emu, poll_seconds=None)
    passes = 0
    while not reopened(begun).advance().done:
        clock.advance(600)
        passes += 1
    assert passes <= 5


def test_stale_list_does_not_undo_a_known_status(emu, clock):
    emu.batch_fault("list_still", times=None, polls=0)
    emu.configure(progression="stepped")
    run = bf.submit(FRAME, "Repeat {n}", client=emu.client(), **ARGUMENTS, **TEN)
    emu.step()
    clock.advance(1)
    run, seen = reopened(run), []
    for _ in range(12):
        seen.append(run.advance().batches.get("in_progress", 0))
        clock.advance(1)
    assert seen[0] == FEW
    assert seen == sorted(seen)


def test_a_cancelled_run_ends_although_the_list_does_not_move(emu):
    emu.batch_fault("list_still", times=None, polls=0)
    emu.batch_fault("stuck", times=None)
    emu.configure(progression="instant")
    run = bf.submit(FRAME, "Repeat {n}", client=emu.client(), **ARGUMENTS, **TEN)
    assert run.cancel().pending == 0


@pytest.mark.parametrize("how", STILL)
@pytest.mark.parametrize("order", [FRAME, FRAME.reverse()], ids=["same", "turned"])
def test_a_lost_folder_is_found_although_the_list_does_not_move(service, batchframe_home, how, order):
    service.batch_fault("list_still", times=None, **how)
    submit(service)
    shutil.rmtree(batchframe_home)
    out = bf.run(order, "Repeat {n}", client=service.client(), **ARGUMENTS, **TEN)
    assert out["response"].to_list() == [f"In short: Repeat {n}." for n in order["n"]]
    assert service.ledger(summary=True)["executions"] == N


def test_unreachable_batch_does_not_delay_the_others(emu, clock):
    """The three that were not asked for the longest are gone; the others have their turn all the same."""
    emu.batch_fault("gone", polls=10_000, times=3)
    emu.batch_fault("list_still", times=None, polls=0)
    run = submit(emu, poll_seconds=None, settle_seconds=100_000)
    with pytest.raises(bf.RunPendingError):
        run.wait(1_500)
    assert run.status(refresh=False).batches == {"completed": 8, "validating": 3}


# -- pure parts


def submission(number, told=None, status="in_progress", done=0):
    found = SubmissionRecord(number, stage="submitted", batch_id=f"b{number}", status=status)
    found.batch = {"status": status, "request_counts": {"completed": done, "failed": 0}}
    if told is not None:
        note_news(found, NOW + dt.timedelta(seconds=told))
    return found


def batch(number, status="in_progress", done=0):
    raw = {"status": status, "request_counts": {"completed": done, "failed": 0}}
    return RemoteBatch(f"b{number}", status, raw=raw)


@given(st.lists(st.integers(-1_000, 1_000), max_size=250))
def test_batches_polled_longest_ago_come_first(told):
    submissions = [submission(number, seconds) for number, seconds in enumerate(told)]
    listed = {f"b{number}": batch(number) for number in range(len(told))}
    chosen = to_ask(submissions, listed, NOW, 300)
    may = sorted(seconds for seconds in told if not -300 < seconds <= 0)
    assert len(chosen) == min(len(may), FEW * -(-len(told) // 100))
    assert sorted(told[int(name[1:])] for name in chosen) == may[: len(chosen)]


def test_batches_that_the_list_updates_are_not_polled_by_id():
    submissions = [submission(number, -1_000) for number in range(5)]
    listed = {"b0": batch(0, "completed"), "b1": batch(1, "finalizing"), "b2": batch(2, done=1), "b3": batch(3)}
    assert to_ask(submissions, listed, NOW, 300) == {"b3"}


@pytest.mark.parametrize(
    ("listed", "known", "expected"),
    [
        (("validating", 0), ("in_progress", 0), True),
        (("in_progress", 9), ("completed", 9), True),
        (("in_progress", 1), ("in_progress", 2), True),
        (("in_progress", 2), ("in_progress", 2), False),
        (("in_progress", 3), ("in_progress", 2), False),
        (("cancelling", 0), ("in_progress", 2), False),
        (("queued", 0), ("in_progress", 2), False),
        (("validating", 0), ("queued", 0), False),
    ],
)
def test_later_of_two_batch_objects_is_known(listed, known, expected):
    assert is_behind(batch(1, *listed), batch(1, *known)) is expected
    status, done = known
    assert is_behind(batch(1, *listed), submission(1, status=status, done=done)) is expected
