"""Replies that can never be read, the last error on disk, and runs that are dead and must not look alive."""

from __future__ import annotations

import datetime as dt
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import openai
import polars as pl
import pytest

import batchframe as bf
from another_process import reopened
from batchframe._batches.trouble import forget_trouble, keep_trouble, read_trouble
from batchframe._core.clock import using
from batchframe._runs import run as _run
from batchframe._store.records import UnreadReply
from batchframe.cli import main
from odd_replies import PAGE, OddReplies

N = 6
FRAME = pl.DataFrame({"n": range(N)})
ARGUMENTS = {"model": "gpt-4o-mini", "poll_seconds": 0.02, "settle_seconds": 0.3}
PATIENT = ARGUMENTS | {"poll_seconds": None}
PROMPT = "Repeat {n}"
WRONG = [
    pytest.param(([], "JSON object.*: 200 application/json: \\[\\]"), id="array"),
    pytest.param(({"job": {"id": "b"}}, 'with an id: .*{"job":{"id":"b"}}'), id="wrapped"),
    pytest.param(({}, "with an id: .*{}"), id="empty"),
]
CHECK = "Check the base URL"


@pytest.fixture
def odd():
    return OddReplies()


@pytest.fixture
def queued(emu, odd, tmp_path, clock):
    """A run whose batch waits at the service, which takes a step when it is asked for it."""
    emu.configure(progression="stepped")
    return bf.submit(FRAME, PROMPT, client=odd.client(emu), run_dir=tmp_path / "run", **PATIENT)


@pytest.fixture
def begun(emu, queued):
    """A run whose batch is at the service, which finishes it at once."""
    emu.configure(progression="instant")
    return queued


@pytest.fixture
def unsent(odd, emu, tmp_path, monkeypatch, clock):
    """A run of which nothing is at the service."""
    odd.answer("list", PAGE)
    with monkeypatch.context() as patch:
        patch.setattr(_run, "_UNREACHABLE_SECONDS", 0.0)
        with pytest.raises(bf.ServiceError):
            bf.run(FRAME, PROMPT, client=odd.client(emu), run_dir=tmp_path / "run", **PATIENT)
    odd.stop()
    return bf.open_run(tmp_path / "run", client=odd.client(emu))


def once_each(emu):
    return emu.ledger()["by_custom_id"] == {f"row-{n}": 1 for n in range(N)}


# -- before the first accepted call


@pytest.mark.parametrize(
    ("reply", "came"),
    [
        ([], r"no JSON object: 200 application/json: \[\]"),
        ({"job": {}}, r'no JSON object with a list of objects with ids: {"job":{}}'),
        ({"data": [{"job": {"id": "b"}}]}, r'list of objects with ids: {"data":\[{"job"'),
        (PAGE, "no JSON object: 200 text/html: <html><title>Sign in"),
    ],
    ids=["array", "object", "wrapped", "page"],
)
def test_unreadable_replies_at_the_start_are_an_error_within_a_minute(unsent, odd, reply, came, clock):
    odd.answer("list", reply)
    with pytest.raises(bf.ServiceError, match=f"list_batches: .*{came}.*{CHECK}"):
        unsent.wait()
    assert clock.passed <= 60
    assert odd.answered > 3
    status = unsent.status(refresh=False)
    assert (status.state, status.done, status.pending) == ("not_submitted", False, N)
    assert came.split("no ")[-1].split(":")[0] in status.trouble
    odd.stop()
    status = unsent.wait()
    assert (status.state, status.trouble, status.succeeded) == ("finished", "", N)


def test_how_long_the_service_asks_to_wait_is_waited_also_at_the_beginning(unsent, emu, clock):
    emu.fault("list_batches", "status", status=429, retry_after=50, times=1)
    assert unsent.wait().succeeded == N
    assert clock.waits[0] == 50


# -- after it


@pytest.mark.parametrize("wrong", WRONG)
def test_json_of_the_wrong_shape_is_an_error_after_five_minutes(begun, odd, emu, clock, wrong):
    reply, came = wrong
    odd.answer("retrieve", reply)
    told = f"retrieve_batch: .*{came}.*{CHECK}.* was answered so [0-9]+ times in [56] minutes"
    with pytest.raises(bf.ServiceError, match=told):
        begun.wait()
    assert 300 <= clock.passed < 400
    assert "retrieve_batch" in begun.status(refresh=False).trouble
    # The same call goes on, and says it at once as long as nothing changed.
    with pytest.raises(bf.ServiceError, match=told):
        begun.wait()
    assert clock.passed < 400
    odd.stop()
    assert begun.wait().succeeded == N
    assert read_trouble(begun._folder) is None
    assert once_each(emu)


def test_wrong_shape_is_an_error_after_three_replies_only(begun, odd):
    odd.answer("retrieve", [])
    with pytest.raises(bf.ServiceError, match=r"3 times in 20 minutes"):
        reopened(begun, poll_seconds=600).wait()
    assert odd.answered == 3


def test_processes_of_one_pass_each_come_to_it_too(begun, odd, clock):
    odd.answer("retrieve", [])
    for _ in range(2):
        assert "retrieve_batch" in reopened(begun).advance().trouble
        clock.advance(600)
    with pytest.raises(bf.ServiceError, match="3 times in 20 minutes"):
        reopened(begun).advance()


def test_readable_reply_resets_the_count_of_unreadable_ones(begun, odd, emu, clock):
    emu.configure(progression="stepped")
    for _ in range(4):
        odd.answer("retrieve", [], times=2)
        for _ in range(3):
            begun.advance()
            clock.advance(200)
    assert begun.status(refresh=False).trouble == ""


def test_what_was_answered_is_forgotten_while_another_call_has_yet_to_be_made_again(begun):
    folder, now = begun._leased_folder, dt.datetime.now(dt.timezone.utc)
    unread = {name: UnreadReply(now, now, 2) for name in ("retrieve a", "retrieve b")}
    error = bf.ServiceError("sorry")
    with begun._lease:
        begun._lease.take()
        keep_trouble(folder, error, unread, None, now)
        del unread["retrieve a"]
        forget_trouble(folder, unread, read_trouble(folder), now)
        assert read_trouble(folder).unread == unread
        forget_trouble(folder, unread, read_trouble(folder), now + dt.timedelta(hours=2))
    assert read_trouble(folder) is None


def test_another_call_of_the_kind_does_not_hide_it(emu, odd, clock):
    """Of two batches one can never be read; the other is."""
    emu.configure(progression="stepped")
    run = bf.submit(FRAME, PROMPT, client=odd.client(emu), limits=bf.Limits(max_requests=5), **ARGUMENTS)
    odd.answer("retrieve", [], containing=run.batches()["batch_id"][1])
    with pytest.raises(bf.ServiceError, match="was answered so"):
        reopened(run, poll_seconds=None).wait()
    assert 300 <= clock.passed < 400


def test_one_that_is_asked_for_now_and_then_comes_to_it_too(emu, odd, clock):
    emu.batch_fault("list_still", times=None, polls=0)
    run = bf.submit(FRAME, PROMPT, client=odd.client(emu), limits=bf.Limits(max_requests=1), **ARGUMENTS)
    odd.answer("retrieve", [], containing=run.batches()["batch_id"][0])
    with pytest.raises(bf.ServiceError, match=r"was answered so \d times"):
        reopened(run, poll_seconds=None).wait(7_200)


def test_a_page_is_waited_out_with_a_warning(begun, odd, emu, caplog):
    odd.answer("retrieve", PAGE)
    with caplog.at_level(logging.INFO, logger="batchframe"), pytest.raises(bf.RunPendingError) as raised:
        begun.wait(4 * 3600)
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.getMessage().split(":")[0] for record in warnings] == ["retrieve_batch"]
    assert "Its last trouble: retrieve_batch: the service sent a reply that is no JSON" in str(raised.value)
    assert odd.answered > 100
    status = bf.open_run(begun.path).status(refresh=False)
    assert (status.state, status.waiting_for) == ("running", "its batches to end")
    assert "Sign in" in status.trouble
    odd.stop()
    assert begun.wait().trouble == ""
    assert not (begun.path / "trouble.json").exists()
    assert once_each(emu)


@pytest.mark.parametrize("reply", [PAGE, {"job": {"id": "x"}}], ids=["page", "wrapped"])
@pytest.mark.parametrize("acts", [True, False], ids=["acts", "does not act"])
def test_an_unreadable_reply_to_a_create_is_a_lost_one(emu, odd, reply, acts):
    odd.answer("create", reply, acts=acts, times=1)
    out = bf.run(FRAME, PROMPT, client=odd.client(emu), **ARGUMENTS)
    assert out["error"].null_count() == N
    assert emu.calls()["create_batch"] == 1
    assert once_each(emu)


def test_a_create_is_never_given_up(emu, odd, unsent):
    odd.answer("create", {"job": {}})
    with pytest.raises(bf.RunPendingError, match=r"create_batch: .*no JSON object with an id"):
        unsent.wait(3600)
    odd.stop()
    assert unsent.wait().succeeded == N
    assert once_each(emu)


def test_an_upload_that_can_never_be_read_is_given_up(emu, odd, unsent, clock):
    odd.answer("upload", {"file": {"id": "x"}})
    with pytest.raises(bf.ServiceError, match=r"upload: .*with an id.*was answered so"):
        unsent.wait()
    assert 300 <= clock.passed < 400
    assert unsent.status(refresh=False).state == "not_submitted"


def test_html_page_is_not_taken_for_a_deletion(emu, odd):
    """A create that got no answer may come late as long as its file is there."""
    emu.fault("create_batch", "late", seconds=1.0)
    odd.answer("delete", PAGE)
    out = bf.run(FRAME, PROMPT, client=odd.client(emu), **ARGUMENTS)
    assert out["error"].null_count() == N
    assert emu.calls()["create_batch"] == 1
    assert once_each(emu)


def test_html_page_is_not_taken_for_a_result_file(begun, odd, emu):
    odd.answer("download", PAGE)
    with pytest.raises(bf.RunPendingError, match=r"download: .*no file of JSON lines: 200 text/html: <html>"):
        begun.wait(1800)
    odd.stop()
    assert begun.wait().succeeded == N
    assert once_each(emu)


def test_an_object_without_a_list_is_no_empty_account(emu, odd, batchframe_home, monkeypatch):
    client = odd.client(emu)
    bf.run(FRAME, PROMPT, client=client, **ARGUMENTS)
    shutil.rmtree(batchframe_home)
    odd.answer("list", {"object": "error", "message": "sorry"})
    with monkeypatch.context() as patch:
        patch.setattr(_run, "_UNREACHABLE_SECONDS", 0.1)
        with pytest.raises(bf.ServiceError, match="sorry"):
            bf.run(FRAME, PROMPT, client=client, **ARGUMENTS)
    with pytest.raises(bf.ServiceError, match="sorry"):
        bf.batches(client)
    odd.stop()
    assert bf.run(FRAME, PROMPT, client=client, **ARGUMENTS)["error"].null_count() == N
    assert once_each(emu)


# -- runs that are dead


def refused(emu, tmp_path):
    """A run whose only batch failed its validation."""
    with pytest.raises(bf.InputFileRejectedError):
        bf.run(FRAME, PROMPT, client=emu.client(), run_dir=tmp_path / "root" / "run", **ARGUMENTS | {"model": "gpt-no"})
    return tmp_path / "root" / "run"


def test_a_refused_run_is_blocked(emu, tmp_path):
    path = refused(emu, tmp_path)
    status = bf.open_run(path).status(refresh=False)
    assert (status.state, status.done, status.pending) == ("blocked", False, N)
    assert "the service refused the input file of part 0" in status.trouble
    assert status.waiting_for == "someone to resume it: none of its batches is running"
    (row,) = bf.list_runs(tmp_path / "root").select("state", "trouble").rows()
    assert row == ("blocked", status.trouble)
    # To ask the service changes nothing of it; to go on does.
    assert bf.open_run(path, client=emu.client()).status() == status
    emu.configure(models=["gpt-no"])
    status = bf.open_run(path, client=emu.client()).wait()
    assert (status.state, status.trouble) == ("finished", "")
    assert bf.list_runs(tmp_path / "root")["trouble"].to_list() == [None]


def test_further_passes_of_the_same_process_do_not_forget_it(emu, tmp_path):
    run = bf.open_run(refused(emu, tmp_path), client=emu.client())
    with pytest.raises(bf.InputFileRejectedError):
        run.wait()
    for _ in range(3):
        assert run.advance().state == "blocked"


def test_a_create_that_was_refused_for_good_blocks(emu, tmp_path):
    emu.fault("create_batch", "status", status=400, times=None)
    with pytest.raises(bf.InvalidCallError):
        bf.run(FRAME, PROMPT, client=emu.client(), run_dir=tmp_path / "run", **ARGUMENTS)
    status = bf.open_run(tmp_path / "run").status(refresh=False)
    assert status.state == "blocked"
    assert "create_batch" in status.trouble


def test_a_create_that_was_refused_for_now_has_nothing_at_the_service(emu, tmp_path):
    emu.fault("create_batch", "status", status=429, times=None)
    with pytest.raises(bf.RunPendingError, match="Its last trouble: create_batch: the service answered 429"):
        bf.run(FRAME, PROMPT, client=emu.client(), run_dir=tmp_path / "run", timeout_seconds=0.1, **ARGUMENTS)
    status = bf.open_run(tmp_path / "run").status(refresh=False)
    assert (status.state, "429" in status.trouble) == ("not_submitted", True)


def test_a_wrong_key_submits_nothing(emu, tmp_path):
    emu.configure(api_keys=["sk-right"])
    with pytest.raises(bf.AuthenticationError):
        bf.run(FRAME, PROMPT, client=emu.client(api_key="sk-wrong"), run_dir=tmp_path / "run", **ARGUMENTS)
    status = bf.open_run(tmp_path / "run").status(refresh=False)
    assert (status.state, "401" in status.trouble) == ("not_submitted", True)
    assert "sk-wrong" not in (tmp_path / "run" / "trouble.json").read_text()


def test_what_is_in_flight_runs_whatever_the_error(begun, emu):
    emu.fault("retrieve_batch", "status", status=403)
    with pytest.raises(bf.AuthenticationError):
        begun.wait()
    status = begun.status(refresh=False)
    assert (status.state, status.waiting_for, "403" in status.trouble) == ("running", "its batches to end", True)


def test_a_part_that_is_refused_beside_others_is_told_while_they_run(emu, tmp_path):
    emu.configure(progression="stepped")
    emu.batch_fault("fail", code="invalid_request", message="Something is wrong with it.")
    call = {"frame": FRAME, "prompt": PROMPT, "client": emu.client(), "limits": bf.Limits(max_requests=2), **ARGUMENTS}
    run = bf.submit(**call)
    run.advance()
    emu.step()
    with pytest.raises(bf.InputFileRejectedError):
        run.wait()
    status = bf.open_run(run.path, client=emu.client()).status()
    assert (status.state, "Something is wrong with it" in status.trouble) == ("running", True)


def test_a_run_that_another_process_works_on_is_running(unsent, emu):
    with unsent._lease:
        unsent._lease.take()
        other = bf.open_run(unsent.path).status(refresh=False)
        assert (other.state, other.waiting_for[:8]) == ("running", "process ")
    assert bf.open_run(unsent.path).status(refresh=False).state == "not_submitted"


def test_status_shows_that_the_run_was_cancelled(emu):
    emu.configure(progression="stepped")
    run = bf.submit(FRAME, PROMPT, client=emu.client(), **ARGUMENTS)
    emu.configure(progression="instant")
    status = run.cancel()
    assert (status.state, status.done) == ("stopped", True)
    assert status.trouble.startswith("the run was cancelled on ")


@pytest.mark.parametrize(
    ("name", "state"), [("half-done", "running"), ("before-retry", "running"), ("finished", "finished")]
)
def test_runs_of_0_1_0_read_as_before(tmp_path, name, state):
    folder = shutil.copytree(Path(__file__).parents[1] / "data" / "runs-of-0.1.0" / name, tmp_path / name)
    status = bf.open_run(folder).status(refresh=False)
    assert (status.state, status.trouble) == (state, "")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"message": 5}'])
def test_unreadable_trouble_note_counts_as_none(begun, content):
    (begun.path / "trouble.json").write_text(content)
    assert begun.status(refresh=False).trouble == ""
    assert begun.wait().succeeded == N


def test_status_and_runs_commands_show_the_trouble(emu, tmp_path, capsys, monkeypatch):
    path = refused(emu, tmp_path)
    assert main(["status", str(path)]) == 1
    out = capsys.readouterr().out
    assert "state      blocked\n" in out
    assert "trouble    the service refused the input file of part 0" in out
    assert main(["runs", "--root", str(tmp_path / "root")]) == 0
    out = capsys.readouterr().out
    assert "blocked" in out
    assert f"{path}: the service refused the input file of part 0" in out

    monkeypatch.setattr(_run, "_UNREACHABLE_SECONDS", 0.0)
    with openai.OpenAI(api_key="k", base_url="http://127.0.0.1:1/v1", max_retries=0) as client:
        with pytest.raises(bf.ConnectionFailedError):
            bf.run(FRAME, PROMPT, client=client, run_dir=tmp_path / "far", **ARGUMENTS)
    assert main(["status", str(tmp_path / "far")]) == 1
    out = capsys.readouterr().out
    assert "state      not_submitted\n" in out
    assert "cannot be reached" in out


# -- time


def test_time_that_passed_while_the_machine_slept_counts(queued, clock):
    naps = []

    def sleep(seconds):
        clock.advance(seconds)
        naps.append(dt.timedelta(hours=1))  # which the monotonic clock does not see

    made_up = clock._clock
    napping = replace(made_up, now=lambda: made_up.now() + sum(naps, dt.timedelta()), sleep=sleep)
    with using(napping), pytest.raises(bf.RunPendingError, match="not finished after 7200 seconds"):
        reopened(queued).wait(7_200)
    assert len(naps) == 2
    assert clock.passed < 60


def test_a_clock_that_is_set_back_makes_no_wait_longer(queued, clock):
    made_up = clock._clock
    set_back = replace(made_up, now=lambda: made_up.now() - dt.timedelta(seconds=100 * clock.passed))
    with using(set_back), pytest.raises(bf.RunPendingError):
        reopened(queued).wait(600)
    assert 600 <= clock.passed < 601
