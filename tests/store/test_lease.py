"""One process works on a run at a time, and nothing is billed twice if that fails: real processes, real HTTP."""

from __future__ import annotations

import datetime as dt
import errno
import json
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import filelock
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import batchframe as bf
from another_process import reopened
from batchframe._api import options as _options
from batchframe._api.checked_call import run_of
from batchframe._core import events
from batchframe._core.clock import Clock, using
from batchframe._core.exceptions import LeaseLostError
from batchframe._results import assemble, parsed_answers
from batchframe._results.answer_format import AnswerFormat
from batchframe._results.result_blocks import final_blocks, successful_requests
from batchframe._runs import run as _run
from batchframe._runs import run_reader
from batchframe._store import lease as _lease
from batchframe._store.filesystem import make_private
from batchframe._store.lease import Lease, LeaseRecord
from batchframe._store.run_folder import RunFolder

N = 60
FRAME = pl.DataFrame({"n": range(N)})
ARGUMENTS = {"model": "gpt-4o-mini", "poll_seconds": 0.05, "settle_seconds": 0.3}
LIMITS = {"limits": bf.Limits(max_requests=40)}  # parts of 4, 40 and 16
UTC = dt.timezone.utc
posix = pytest.mark.skipif(os.name == "nt", reason="signals")


def once_each(emu):
    return emu.ledger()["by_custom_id"] == {f"row-{n}": 1 for n in range(N)}


def submit(client, **options):
    return bf.submit(FRAME, "Repeat {n}", client=client, **ARGUMENTS | LIMITS | options)


def wait_until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


# -- processes


HEAD = """
    import logging, os, signal, sys, time, openai, polars as pl, batchframe as bf
    from batchframe._core import events
    from batchframe._store import lease as _lease
    _lease.LEASE_SECONDS = {lease_seconds}
    logging.basicConfig(format="%(message)s")
    logging.getLogger("batchframe").setLevel("INFO")
    call = dict(model="gpt-4o-mini", poll_seconds=0.05, settle_seconds=0.3, run_dir={run_dir!r},
                client=openai.OpenAI(api_key="sk-x", base_url={base_url!r}), limits=bf.Limits(max_requests=40))

    def run():
        print("pid", os.getpid(), file=sys.stderr)
        out = bf.run(pl.DataFrame({{"n": range(60)}}), "Repeat {{n}}", **call)
        print(out.height, out["error"].null_count())
"""


@pytest.fixture
def start(emu, tmp_path):
    """Start processes that run some code; those still running after the test are killed."""
    started = []

    def begin(body, *, lease_seconds=600.0):
        head = HEAD.format(lease_seconds=lease_seconds, run_dir=os.fspath(tmp_path / "run"), base_url=emu.base_url)
        code = textwrap.dedent(head) + textwrap.dedent(body)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen([sys.executable, "-c", code], **pipes))
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def finish(process):
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return out.strip(), errors


def stopped(process):
    """Wait until a process has suspended itself."""
    status = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    assert status.si_code == os.CLD_STOPPED, process.communicate()


STOP = """
    stops = iter([True])
    events.set_trigger({point!r}, lambda: next(stops, None) and os.kill(os.getpid(), signal.SIGSTOP))
    run()
"""
# Creates by both processes: three parts, and a create whose intent was on disk is neither repeated nor forgotten.
POINTS = {"before_upload": 3, "after_upload_call": 3, "after_upload": 3, "before_create": 3, "after_create_call": 3,
          "after_create": 3, "after_ended": 3, "after_download": 3}  # fmt: skip
FEW = ("before_upload", "after_create_call")


@posix
@pytest.mark.parametrize(
    "point", [point if point in FEW else pytest.param(point, marks=pytest.mark.slow) for point in POINTS]
)
def test_suspended_process_submits_nothing_after_losing_its_lease(emu, start, point):
    first = start(STOP.format(point=point), lease_seconds=1.0)
    stopped(first)
    out, errors = finish(start("run()", lease_seconds=1.0))
    assert out == f"{N} {N}"
    assert f"process {first.pid} on {socket.gethostname()} is gone or stopped: going on in its place" in errors
    calls = emu.calls()
    first.send_signal(signal.SIGCONT)
    out, errors = finish(first)
    assert out == f"{N} {N}"
    assert "another process took this run over, and has released it since. Nothing more was submitted here" in errors
    changing = ("create_file", "create_batch", "cancel_batch", "delete_file")
    assert [emu.calls().get(call) for call in changing] == [calls.get(call) for call in changing]
    assert emu.calls()["create_batch"] == POINTS[point]
    assert once_each(emu)


SLIP = """
    from batchframe._providers.openai import OpenAIClient
    call_it, stops = OpenAIClient.{call}, iter([True])

    def slow(self, *arguments):
        if next(stops, None):
            os.kill(os.getpid(), signal.SIGSTOP)
        return call_it(self, *arguments)

    OpenAIClient.{call} = slow
    run()
"""


@pytest.mark.slow
@posix
@pytest.mark.parametrize(("call", "calls"), [("create", "create_batch"), ("upload", "create_file")])
def test_call_after_the_last_lease_check_is_not_billed(emu, client, start, call, calls):
    """Correctness does not depend on the lease: the input file of that create is deleted, or the upload is not used."""
    first = start(SLIP.format(call=call), lease_seconds=1.0)
    stopped(first)
    assert finish(start("run()", lease_seconds=1.0))[0] == f"{N} {N}"
    assert emu.calls()[calls] == 3
    first.send_signal(signal.SIGCONT)
    out, errors = finish(first)
    assert out == f"{N} {N}"
    assert "another process took this run over" in errors
    assert emu.calls()[calls] == 4
    wait_until(lambda: {batch.status for batch in client.batches.list()} <= {"completed", "failed"})
    assert once_each(emu)


@pytest.mark.slow
@posix
def test_process_without_lease_waits_for_the_holder(emu, start):
    emu.configure(progression="stepped")
    first = start(STOP.format(point="after_create"), lease_seconds=1.0)
    stopped(first)
    second = start("run()", lease_seconds=1.0)
    wait_until(lambda: emu.calls().get("create_batch", 0) == 3)
    first.send_signal(signal.SIGCONT)
    time.sleep(0.5)
    emu.configure(progression="instant")
    out, errors = finish(first)
    assert out == f"{N} {N}"
    assert f"process {second.pid} on {socket.gethostname()} took this run over at " in errors
    assert finish(second)[0] == f"{N} {N}"
    assert emu.calls()["create_batch"] == 3
    assert once_each(emu)


@posix
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_three_processes_suspended_at_random_execute_each_row_once(emu, start, seed):
    """Leases shorter than the suspensions are lost often, so only the checks beyond the lease remain."""
    chance = random.Random(seed)
    processes = [start("run()", lease_seconds=0.2) for _ in range(3)]
    end = time.monotonic() + 60
    while any(process.poll() is None for process in processes) and time.monotonic() < end:
        process = chance.choice(processes)
        if process.poll() is None:
            process.send_signal(signal.SIGSTOP)
            time.sleep(chance.uniform(0, 0.5))
            process.send_signal(signal.SIGCONT)
        time.sleep(chance.uniform(0, 0.1))
    assert [finish(process)[0] for process in processes] == [f"{N} {N}"] * 3
    assert once_each(emu)


def of_parts(folder):
    return sum(parsed_answers.best_of_part(folder, part, ["again"]).height for part in folder.parts())


def of_successes(folder):
    return sum(block.height for block in successful_requests(folder))


@pytest.mark.parametrize(("module", "read"), [(parsed_answers, of_parts), (assemble, of_successes)])
def test_finished_process_keeps_files_that_another_reads(client, monkeypatch, module, read):
    run = submit(client)
    run.wait()
    (run.path / "results.json").unlink(missing_ok=True)
    removing = []

    def remove():
        with run._folder.assembling():
            run._folder.remove_parsed_answers()

    def then_removed(*args, **options):
        paths = part_answers(*args, **options)
        removing.append(threading.Thread(target=remove))
        removing[-1].start()
        removing[-1].join(0.2)
        return paths

    part_answers = module.part_answers
    monkeypatch.setattr(module, "part_answers", then_removed)
    assert read(run._folder) == N
    for thread in removing:
        thread.join()
    assert len(removing) >= 3
    assert not list(run.path.glob("results/.answers*"))


@pytest.mark.parametrize("count", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_concurrent_processes_wait_for_the_one_that_works(emu, start, tmp_path, count):
    emu.configure(progression="timed", seconds={"in_progress": 1.0})
    body = """
        home = os.path.dirname(call["run_dir"])
        open(f"{home}/ready-{os.getpid()}", "w").close()
        while not os.path.exists(f"{home}/go"):
            time.sleep(0.001)
        run()
    """
    processes = [start(body) for _ in range(count)]
    wait_until(lambda: len(list(tmp_path.glob("ready-*"))) == count, 60)
    (tmp_path / "go").touch()
    outputs = {process.pid: finish(process) for process in processes}
    assert [out for out, _ in outputs.values()] == [f"{N} {N}"] * count
    (worker,) = [pid for pid, (_, errors) in outputs.items() if "waiting for process" not in errors]
    for pid, (_, errors) in outputs.items():
        assert pid == worker or errors.count(f"waiting for process {worker} on {socket.gethostname()}, ") == 1
    assert emu.calls()["create_batch"] == 3
    assert once_each(emu)
    assert not (tmp_path / "run" / "lease.json").exists()


@posix
def test_lease_of_a_zombie_is_taken_at_once(emu, client, start, tmp_path):
    killed = start("""
        events.set_trigger("after_create", lambda: os.kill(os.getpid(), signal.SIGKILL))
        run()
    """)
    os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie, whose id is in use
    assert json.loads((tmp_path / "run" / "lease.json").read_text())["pid"] == killed.pid
    assert bf.open_run(tmp_path / "run", client=client).wait(20).succeeded == N
    assert emu.calls()["create_batch"] == 3
    assert once_each(emu)


@posix
def test_ctrl_c_releases_the_lease(emu, client, start, tmp_path):
    emu.configure(progression="stepped")
    first = start("run()")
    wait_until(lambda: emu.calls().get("retrieve_batch", 0) > 3)
    assert (tmp_path / "run" / "lease.json").exists()
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=30)
    assert not (tmp_path / "run" / "lease.json").exists()
    emu.configure(progression="instant")
    assert bf.open_run(tmp_path / "run", client=client).wait().succeeded == N


@posix
def test_other_process_can_cancel(emu, client, start, tmp_path):
    emu.configure(progression="stepped")
    first = start("run()")
    wait_until(lambda: emu.calls().get("retrieve_batch", 0) > 3)
    run = bf.open_run(tmp_path / "run", client=client)
    emu.configure(progression="instant")
    emu.batch_fault("stuck", at=0.5)
    assert run.cancel().state in {"stopped", "finished"}
    finish(first)
    assert emu.calls()["create_batch"] == 3


# -- in one process


def test_cancel_during_a_pass_stops_the_next_create(emu, client, tmp_path):
    """The cancelling process may find the run finished at once, so nothing may be created after that."""
    emu.configure(progression="stepped")
    states = []

    def cancel():
        events.set_trigger("after_upload", None)
        other = bf.open_run(tmp_path / "run", client=client)
        monkey.setattr(_run, "_CANCEL_SECONDS", 0.0)
        states.append(other.cancel())

    with pytest.MonkeyPatch.context() as monkey:
        events.set_trigger("after_upload", cancel)
        try:
            run = submit(client, run_dir=tmp_path / "run")
        finally:
            events.set_trigger("after_upload", None)
    assert run.status().state == "stopped"
    assert emu.calls().get("create_batch", 0) == 0
    assert run.result()["error"].struct.field("code").unique().to_list() == ["not_submitted"]


def test_two_threads_with_separate_handles(emu, caplog):
    caplog.set_level("INFO", "batchframe")
    emu.configure(progression="timed", seconds={"in_progress": 0.5})
    outs = []
    clients = [emu.client(), emu.client()]

    def ask(client):
        outs.append(bf.run(FRAME, "Repeat {n}", client=client, **ARGUMENTS | LIMITS))

    threads = [threading.Thread(target=ask, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [out["error"].null_count() for out in outs] == [N, N]
    assert caplog.text.count(f"waiting for process {os.getpid()} on ") == 1
    assert emu.calls()["create_batch"] == 3
    assert once_each(emu)


def test_error_releases_the_lease(emu, client, tmp_path):
    emu.fault("create_batch", "status", status=403)
    with pytest.raises(bf.AuthenticationError):
        submit(client, run_dir=tmp_path / "run")
    assert not (tmp_path / "run" / "lease.json").exists()
    run = submit(client, run_dir=tmp_path / "run")
    assert not (tmp_path / "run" / "lease.json").exists()
    assert run.wait().succeeded == N


def test_handles_take_turns(emu, client, tmp_path):
    emu.configure(progression="stepped")
    run = submit(client, run_dir=tmp_path / "run")
    for _ in range(12):
        emu.step()
        status = bf.open_run(run.path, client=client).advance()
    assert status.succeeded == N
    assert once_each(emu)


def foreign(path, *, age=0.0, host="elsewhere", pid=7):
    at = dt.datetime.now(UTC) - dt.timedelta(seconds=age)
    record = {"host": host, "pid": pid, "token": "another", "since": at.isoformat(), "renewed_at": at.isoformat()}
    (path / "lease.json").write_text(json.dumps(record))


def test_lease_of_another_host_expires(emu, client, monkeypatch):
    emu.configure(progression="stepped")
    run = submit(client)
    emu.configure(progression="instant")
    foreign(run.path)
    calls = emu.calls()
    held = "process 7 on elsewhere, which has been working on this run since "
    other = bf.open_run(run.path, client=client)
    for status in (other.advance(), other.status(), other.status(refresh=False)):
        assert status.waiting_for.startswith(held)
        assert status.pending == N
    with pytest.raises(bf.RunPendingError, match=f"not finished after 0.2 seconds; so far it is {held}"):
        other.wait(0.2)
    with pytest.raises(bf.RunPendingError, match=f"worked on by {held}"):
        other.retry()
    monkeypatch.setattr(_run, "_CANCEL_SECONDS", 0.1)
    assert emu.calls() == calls
    foreign(run.path, age=_lease.LEASE_SECONDS - 5)
    assert bf.open_run(run.path, client=client).advance().waiting_for.startswith(held)
    foreign(run.path, age=_lease.LEASE_SECONDS + 1)
    assert bf.open_run(run.path, client=client).wait().succeeded == N
    assert once_each(emu)


def test_cancel_of_a_held_run_is_recorded_for_the_holder(emu, client, monkeypatch):
    emu.configure(progression="stepped")
    run = submit(client)
    foreign(run.path)
    monkeypatch.setattr(_run, "_CANCEL_SECONDS", 0.1)
    status = bf.open_run(run.path, client=client).cancel()
    assert (status.state, status.waiting_for[:22]) == ("running", "process 7 on elsewhere")
    assert emu.calls().get("cancel_batch", 0) == 0
    (run.path / "lease.json").unlink()
    emu.configure(progression="instant")
    assert run.wait().state in {"stopped", "finished"}


@pytest.mark.parametrize("text", ["", "{", "null", '{"host": "a"}'])
def test_unreadable_lease_is_ignored(client, text):
    run = submit(client)
    (run.path / "lease.json").write_text(text)
    assert run.wait().succeeded == N


def test_restarted_container_takes_its_old_lease(client):
    run = submit(client)
    foreign(run.path, host=socket.gethostname(), pid=os.getpid())
    record = json.loads((run.path / "lease.json").read_text()) | {"pids": _lease._pid_namespace()}
    (run.path / "lease.json").write_text(json.dumps(record))
    assert run.wait(5).succeeded == N


def test_advance_reports_a_process_suspended_in_the_lock(emu, client, monkeypatch):
    monkeypatch.setattr(_lease, "_LOCK_SECONDS", 0.1)
    run = submit(client)
    with filelock.FileLock(run.path / ".lease.lock"):
        assert run.advance().waiting_for == "another process, which was suspended while it held .lease.lock"
    assert run.wait().succeeded == N


def test_create_behind_a_long_held_lock_is_found_later(emu, client, monkeypatch, tmp_path):
    """Another process is suspended in the lock during a create: the batch is found later, and created once."""
    monkeypatch.setattr(_lease, "_WRITE_SECONDS", 0.1)
    monkeypatch.setattr(_lease, "_LOCK_SECONDS", 0.1)
    lock = filelock.FileLock(tmp_path / "run" / ".lease.lock", thread_local=False)
    timer = threading.Timer(0.5, lock.release)

    def hold():
        events.set_trigger("after_create_call", None)
        threading.Thread(target=lock.acquire).start()
        wait_until(lambda: lock.is_locked)
        timer.start()

    events.set_trigger("after_create_call", hold)
    try:
        run = submit(client, run_dir=tmp_path / "run")
    finally:
        events.set_trigger("after_create_call", None)
    assert run.wait().succeeded == N
    assert emu.calls()["create_batch"] == 3
    assert once_each(emu)


def test_cancel_behind_a_long_held_lock_raises(client, monkeypatch):
    run = submit(client)
    monkeypatch.setattr(_lease, "_WRITE_SECONDS", 0.1)
    with filelock.FileLock(run.path / ".lease.lock"):
        with pytest.raises(bf.RunError, match="a process was suspended while it held"):
            run.cancel()


@pytest.mark.parametrize("error", [OSError(errno.ENOLCK, "no locks"), NotImplementedError("no flock")])
def test_lease_works_without_file_locks(emu, client, monkeypatch, error):
    def refuse(*arguments, **more):
        raise error

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    assert submit(client).wait().succeeded == N
    assert once_each(emu)


def test_reading_a_finished_run_takes_no_lease_and_writes_nothing(client, tmp_path):
    run = submit(client, run_dir=tmp_path / "run")
    run.wait()
    (run.path / ".lease.lock").unlink()
    (run.path / ".results.lock").unlink(missing_ok=True)
    before = sorted(tmp_path.rglob("*"))
    for path in [*before, tmp_path]:
        path.chmod(0o500 if path.is_dir() else 0o400)
    try:
        reader = bf.open_run(run.path)
        assert reader.result().height == reader.scan().collect().height == N
        assert reader.status().done
        assert reader.wait().succeeded == N
        assert reader.advance().succeeded == N
    finally:
        for path in [tmp_path, *before]:
            path.chmod(0o700 if path.is_dir() else 0o600)
    assert sorted(tmp_path.rglob("*")) == before


def test_results_assembled_before_a_retry_are_not_final(emu, client):
    """One process finds the run finished, another retries rows, then the first one writes its results."""
    emu.row_fault("status", status=400, custom_ids=["row-5"])
    run = submit(client)
    run.wait()
    slow = bf.open_run(run.path, client=client)
    assert slow.is_finished
    assert run.retry().wait().succeeded == N
    (run.path / "results.json").unlink()
    final_blocks(slow._folder, None, form=AnswerFormat(), parts=slow._finished[1], is_watched=False)
    assert slow.result()["error"].null_count() == N
    assert run.status().succeeded == N


def test_run_that_advances_during_the_check_is_not_finished(emu, client, monkeypatch):
    """The next attempt is prepared between reading the parts and checking for remaining work."""
    emu.row_fault("status", status=500, custom_ids=["row-5"])
    run = submit(client)
    wait_until(lambda: set(run.status().batches) == {"completed"})
    part_states = run_reader.part_states

    def then_it_goes_on(folder):
        states = part_states(folder)
        monkeypatch.undo()
        run.advance()
        return states

    monkeypatch.setattr(run_reader, "part_states", then_it_goes_on)
    assert not bf.open_run(run.path, client=client).is_finished
    assert run.wait().succeeded == N


def test_threads_that_share_a_handle_take_turns(emu, client):
    """Otherwise a pass of one thread would mistake the unfinished work of another for that of a crash."""
    run = submit(client, limits=bf.Limits(max_requests=7))
    acts = [run.wait, run.wait, run.advance, run.status, run.status, run.result, run.errors]
    barrier, trouble = threading.Barrier(len(acts)), []

    def work(act):
        barrier.wait()
        try:
            for _ in range(5):
                act()
        except Exception as error:  # noqa: BLE001
            trouble.append(error)

    threads = [threading.Thread(target=work, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert trouble == []
    assert run.status().succeeded == N
    assert emu.calls()["create_batch"] == 10
    assert once_each(emu)
    assert not (run.path / "lease.json").exists()


def test_moved_folder_is_not_recreated(client, tmp_path):
    run = submit(client, run_dir=tmp_path / "here")
    run.path.rename(tmp_path / "there")
    for act in (run.advance, run.cancel, run.wait):
        with pytest.raises(bf.RunNotFoundError):
            act()
    assert not (tmp_path / "here").exists()
    assert bf.open_run(tmp_path / "there", client=client).wait().succeeded == N


def test_many_threads_read_the_same_reordered_frame(client):
    submit(client).wait()
    turned, outs = FRAME.reverse(), []
    threads = [
        threading.Thread(target=lambda: outs.append(bf.run(turned, "Repeat {n}", client=client, **ARGUMENTS)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [out["n"].to_list() for out in outs] == [turned["n"].to_list()] * 4
    assert [out["error"].null_count() for out in outs] == [N] * 4


# -- the clock


class Jumping:
    """A clock that is set back or forward by a day while the monotonic one continues."""

    def __init__(self, seed):
        self.chance = random.Random(seed)
        self.offset = dt.timedelta()
        self.clock = Clock(now=lambda: dt.datetime.now(UTC) + self.offset)

    def jump(self):
        self.offset = dt.timedelta(days=self.chance.choice([-1, 0, 1]))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("fault", ["late", "reset_before", "reset_after", None])
@pytest.mark.parametrize("is_fresh", [False, True], ids=["one process", "cron"])
def test_clock_jumps_between_passes(emu, client, fault, seed, is_fresh):
    if fault:
        emu.fault("create_batch", fault, seconds=0.2, skip=1)
    jumping = Jumping(seed)
    options = _options.parse(ARGUMENTS | LIMITS | {"client": client, "settle_seconds": 0.6})
    with using(jumping.clock):
        run = run_of(FRAME, "Repeat {n}", options)
        end = time.monotonic() + 30
        while not run.advance().done:
            assert time.monotonic() < end
            time.sleep(0.05)
            jumping.jump()
            run = reopened(run) if is_fresh else run
    assert run.status().succeeded == N
    assert once_each(emu)
    if fault in {"late", "reset_after"} and not is_fresh:
        # The settle time is measured by the monotonic clock: the batch is found, and its file not deleted.
        assert (emu.calls()["create_batch"], emu.calls().get("delete_file", 0)) == (3, 0)


@pytest.mark.parametrize("days", [-1, 1])
def test_clock_jump_does_not_expire_an_observed_lease(tmp_path, days):
    worker, waiter = Party(tmp_path), Party(tmp_path)
    assert worker.lease.take() is None
    assert waiter.lease.take().pid == os.getpid()
    waiter.offset = worker.offset = days * 86_400.0
    worker.elapsed = waiter.elapsed = 60.0
    worker.lease.take()
    assert waiter.lease.take() is not None
    waiter.elapsed += 599
    assert waiter.lease.take() is not None
    waiter.elapsed += 2
    assert waiter.lease.take() is None
    with pytest.raises(LeaseLostError, match=f"process {os.getpid()} on .* took this run over at"):
        worker.lease.check()
    waiter.close()


def test_hosts_with_different_clocks_do_not_swap_the_lease(tmp_path):
    here, there = Party(tmp_path), Party(tmp_path)
    there.offset = 3_600.0
    assert here.lease.take() is None
    assert there.lease.take() is None  # an hour old by its own clock: wrong once
    with pytest.raises(LeaseLostError):
        here.lease.take()
    for _ in range(20):
        here.elapsed += 60
        there.elapsed += 60
        assert there.lease.take() is None
        assert here.lease.take() is not None
    there.close()


# -- the lease itself


class Party:
    """A possible holder of the lease, with its own clocks."""

    def __init__(self, path):
        self.path = path
        self.offset = self.elapsed = 0.0
        begin = dt.datetime(2026, 1, 1, tzinfo=UTC)
        self.lease = Lease(path, lambda: begin + dt.timedelta(seconds=self.elapsed + self.offset), lambda: self.elapsed)
        self.folder = RunFolder(path, self.lease.fence)

    def close(self):
        with self.lease:
            pass


@given(age=st.floats(0, 1e9), is_dead=st.booleans())
def test_may_take(age, is_dead):
    assert _lease.may_take(age=age, is_dead=is_dead) == (is_dead or age >= 600)


STEPS = st.lists(
    st.tuples(
        st.integers(0, 2), st.sampled_from(["take", "check", "write", "release", "wait", "jump"]),
        st.sampled_from([1.0, 60.0, 599.0, 601.0, 86_400.0, -86_400.0]),
    ),
    max_size=40,
)  # fmt: skip


class Table:
    """Three parties, and the holder: the last that took the lease and has not released it."""

    def __init__(self, path):
        self.path = path
        self.parties = [Party(path) for _ in range(3)]
        self.holder = None

    def take(self, who, _):
        try:
            other = self.parties[who].lease.take()
        except LeaseLostError:
            assert self.holder != who
            return
        assert other is None or self.holder not in {None, who}
        self.holder = who if other is None else self.holder

    def release(self, who, _):
        self.parties[who].close()
        self.holder = None if self.holder == who else self.holder

    def jump(self, who, seconds):
        self.parties[who].offset += seconds

    def wait(self, _, seconds):
        for party in self.parties:
            party.elapsed += abs(seconds)

    def check(self, who, _):
        self._only_the_holder(who, self.parties[who].lease.check)

    def write(self, who, _):
        self._only_the_holder(who, lambda: self.parties[who].folder.write_note("note", who))
        assert not list(self.path.glob(".note*"))

    def _only_the_holder(self, who, act):
        if self.holder == who:
            act()
        else:
            with pytest.raises(LeaseLostError):
                act()


@given(steps=STEPS)
def test_only_the_holder_writes(tmp_path_factory, steps):
    """At any time on their clocks."""
    table = Table(tmp_path_factory.mktemp("run"))
    for who, what, seconds in steps:
        getattr(table, what)(who, seconds)
    for who in range(3):
        table.release(who, 0)
    assert not (table.path / "lease.json").exists()


def test_lease_is_renewed_while_its_holder_is_busy(tmp_path, monkeypatch):
    monkeypatch.setattr(_lease, "LEASE_SECONDS", 0.5)
    lease, other = [Lease(tmp_path, lambda: dt.datetime.now(UTC), time.monotonic) for _ in range(2)]
    with lease:
        assert lease.take() is None
        for _ in range(20):
            time.sleep(0.05)
            assert other.take() is not None
        lease.check()
    assert other.take() is None
    with other:
        assert [thread.name for thread in threading.enumerate()].count("batchframe-lease") <= 2
    wait_until(lambda: "batchframe-lease" not in [thread.name for thread in threading.enumerate()])


def test_fork_does_not_inherit_the_lease(tmp_path):
    party = Party(tmp_path)
    party.lease.take()
    record = json.loads((tmp_path / "lease.json").read_text())
    assert record["token"] == party.lease._own.token
    record["pid"] += 1
    (tmp_path / "lease.json").write_text(json.dumps(record))
    with pytest.raises(LeaseLostError):
        party.lease.check()


def test_lease_text_names_process_host_and_time():
    at = dt.datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
    record = LeaseRecord("host-x", 123, "token", at, at)
    assert str(record) == "process 123 on host-x, which has been working on this run since 2026-03-04 05:06:07 UTC"


def test_lease_folder_is_private(client, batchframe_home):
    modes = []
    events.set_trigger("before_create", lambda: modes.append(batchframe_home.stat().st_mode & 0o777))
    try:
        run = submit(client)
    finally:
        events.set_trigger("before_create", None)
    assert set(modes) == {0o700}
    assert Path(batchframe_home / ".gitignore").read_text() == "*\n"
    run.wait()


def test_concurrent_creation_of_the_root(tmp_path):
    barrier, trouble = threading.Barrier(4), []

    def make():
        for number in range(100):
            barrier.wait()
            try:
                make_private(tmp_path / str(number) / "runs")
            except OSError as error:
                trouble.append(error)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert trouble == []
    assert (tmp_path / "99" / "runs" / ".gitignore").read_text(encoding="utf-8") == "*\n"
