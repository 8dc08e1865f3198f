"""A lost folder, another order, other limits, another machine: the account is asked, and the ledger does not move."""

from __future__ import annotations

import datetime as dt
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import warnings

import openai
import polars as pl
import pytest

import batchframe as bf
from batchframe._batches import adopt, loop

N = 40
FRAME = pl.DataFrame({"n": range(N)})
ARGUMENTS = {"model": "gpt-4o-mini", "poll_seconds": 0.02, "settle_seconds": 0.3}
SMALL = {"limits": bf.Limits(max_requests=10)}  # parts of 1, 10, 10, 10 and 9
ONE = {"limits": bf.Limits(max_requests=10, max_in_flight=1)}
HIT = [f"row-{n}" for n in (0, 7, 20, 39)]


@pytest.fixture(params=["openai", "azure"])
def service(request, emulate):
    with emulate(request.param) as emu:
        yield emu


@pytest.fixture
def lose(batchframe_home):
    """Lose all that is on this machine's disk."""
    return lambda: shutil.rmtree(batchframe_home)


def ask(service, frame=FRAME, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bf.BatchframeWarning)
        return bf.run(frame, "Repeat {n}", client=service.client(), **ARGUMENTS | options)


def submit(service, frame=FRAME, **options):
    """Submit, and leave the batches as they are when they were just created."""
    service.configure(progression="stepped")
    run = bf.submit(frame, "Repeat {n}", client=service.client(), **ARGUMENTS | options)
    service.configure(progression="instant")
    return run


def answers(frame):
    return [f"In short: Repeat {n}." for n in frame["n"]]


def is_whole(out, frame=FRAME):
    """Whether every row has its own answer, in the order of the frame."""
    return out["n"].equals(frame["n"]) and out["response"].to_list() == answers(frame)


def billed_once(service, rows=N):
    ledger = service.ledger()
    return set(ledger["by_body"].values()) == {1} and ledger["billed"] == ledger["executions"] == rows


# -- the same call


def test_a_run_that_ended_is_fetched_again(service, lose, caplog):
    first = ask(service)
    lose()
    with caplog.at_level(logging.INFO, logger="batchframe"):
        assert ask(service).equals(first)
    assert "found 1 batches of this run in the account, made on 20" in caplog.text
    assert "For fresh answers pass another name=" in caplog.text
    assert service.calls()["create_file"] == service.calls()["create_batch"] == 1
    assert service.calls()["list_batches"] == 2
    assert billed_once(service)


def test_a_run_that_is_in_flight_is_gone_on_with(service, lose):
    submit(service, **SMALL)
    lose()
    assert is_whole(ask(service, **SMALL))
    assert service.calls()["create_batch"] == 5
    assert billed_once(service)


def test_what_was_not_submitted_yet_is_submitted(service, lose):
    submit(service, **ONE)
    assert service.calls()["create_batch"] == 1
    lose()
    assert is_whole(ask(service, **SMALL))
    assert service.calls()["create_batch"] == 5
    assert billed_once(service)


def test_the_account_is_asked_once_and_by_runs_that_submit_something(service):
    ask(service, FRAME.clear())
    ask(service, FRAME.select(n=pl.lit(None, pl.Int64)))
    assert service.calls() == {}
    ask(service)
    assert service.calls()["list_batches"] == 1
    assert ask(service)["error"].null_count() == N
    assert service.calls()["list_batches"] == 1


def test_another_name_asks_for_fresh_answers(service, lose):
    ask(service)
    lose()
    ask(service, name="again")
    assert service.ledger()["executions"] == 2 * N


@pytest.mark.slow
@pytest.mark.parametrize("turned", [False, True])
def test_further_attempts_are_found_too(service, lose, turned):
    service.row_fault("rate_limited", custom_ids=HIT)
    ask(service, **SMALL)
    assert service.calls()["create_batch"] == 6
    lose()
    frame = FRAME.reverse() if turned else FRAME
    run = bf.submit(frame, "Repeat {n}", client=service.client(), **ARGUMENTS, **SMALL)
    assert run.wait().succeeded == N
    assert is_whole(run.result(), frame)
    assert sorted(run.batches()["attempt"]) == [1, 1, 1, 1, 1, 2]
    assert service.calls()["create_batch"] == 6
    assert service.ledger()["billed"] == N


@pytest.mark.slow
@pytest.mark.parametrize("turned", [False, True])
def test_transient_failures_of_an_adopted_batch_are_retried(service, lose, turned):
    service.row_fault("rate_limited", custom_ids=HIT)
    ask(service, **SMALL, max_attempts=1)
    lose()
    frame = FRAME.reverse() if turned else FRAME
    assert is_whole(ask(service, frame, **SMALL), frame)
    assert service.calls()["create_batch"] == 6
    assert service.ledger()["billed"] == N


def test_attempts_are_counted_on(service, lose):
    service.row_fault("rate_limited", custom_ids=HIT, attempts=None)
    ask(service, max_attempts=2)
    lose()
    assert ask(service)["error"].null_count() == N - 4
    assert service.calls()["create_batch"] == 3
    lose()
    assert ask(service, FRAME.reverse())["error"].null_count() == N - 4
    assert service.calls()["create_batch"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("unexecuted", ["error_lines", "nowhere"])
@pytest.mark.parametrize("turned", [False, True])
def test_an_expired_batch_gives_what_it_has(service, lose, unexecuted, turned):
    service.batch_fault("expire", at=0.5, unexecuted=unexecuted)
    ask(service, max_attempts=1)
    lose()
    frame = FRAME.reverse() if turned else FRAME
    assert is_whole(ask(service, frame), frame)
    assert billed_once(service)


@pytest.mark.parametrize("turned", [False, True])
def test_a_cancelled_batch_gives_what_it_has_and_stays_cancelled(service, lose, turned):
    service.batch_fault("cancel", at=0.5)
    ask(service)
    lose()
    frame = FRAME.reverse() if turned else FRAME
    out = ask(service, frame)
    assert set(out["error"].struct.field("code").drop_nulls()) == {"batch_cancelled"}
    assert out["response"].null_count() == N // 2
    assert is_whole(out.drop_nulls("response"), frame.filter(out["response"].is_not_null()))
    assert service.calls()["create_batch"] == 1


def test_a_batch_that_was_cancelled_before_it_began_is_left_alone(emu, lose):
    emu.configure(progression="stepped")
    run = bf.submit(FRAME, "Repeat {n}", client=emu.client(), **ARGUMENTS)
    emu.batch_fault("absent_id", spelling="null")
    emu.client().batches.cancel(run.batches()["batch_id"][0])
    emu.step(5)
    (batch,) = emu.client().batches.list()
    assert (batch.status, batch.output_file_id) == ("cancelled", None)
    emu.configure(progression="instant")
    lose()
    out = ask(emu)
    expected = N if batch.error_file_id is None else 0
    assert out["error"].null_count() == expected


def test_a_batch_that_failed_is_no_batch_of_ours(service, lose):
    service.batch_fault("fail", message="Something is wrong with it.")
    with pytest.raises(bf.InputFileRejectedError):
        ask(service)
    lose()
    assert is_whole(ask(service))
    assert billed_once(service)


def test_lines_that_were_refused_are_not_sent_again(service, lose):
    service.batch_fault("fail", message="Messages parameter is required.", lines=(1, 8, 40))
    first = ask(service)
    lose()
    assert ask(service).equals(first)
    assert first["error"].struct.field("code").drop_nulls().to_list() == ["input_rejected"] * 3
    assert service.calls()["create_batch"] == 2


def test_a_pilot_and_no_pilot_are_one_run(service, lose):
    ask(service, pilot=5)
    lose()
    assert is_whole(ask(service))
    lose()
    assert is_whole(ask(service, pilot=7))
    assert service.calls()["create_batch"] == 2
    assert billed_once(service)


# -- matched by content


@pytest.mark.slow
@pytest.mark.parametrize("limits", [bf.Limits(), bf.Limits(max_requests=7)], ids=["one file", "many"])
@pytest.mark.parametrize("state", ["in flight", "ended"])
def test_rows_in_another_order_get_their_own_answers(service, lose, state, limits):
    ask(service, **SMALL) if state == "ended" else submit(service, **SMALL)
    lose()
    frame = FRAME.sample(fraction=1, shuffle=True, seed=1)
    assert is_whole(ask(service, frame, limits=limits), frame)
    assert service.calls()["create_batch"] == 5
    assert billed_once(service)


@pytest.mark.slow
@pytest.mark.parametrize("limits", [bf.Limits(), bf.Limits(max_requests=7)], ids=["one file", "many"])
def test_only_the_rest_is_submitted_in_another_order(service, lose, limits):
    run = submit(service, **ONE)
    run.advance()
    run.advance()
    lose()
    frame = FRAME.sample(fraction=1, shuffle=True, seed=2)
    assert is_whole(ask(service, frame, limits=limits), frame)
    assert billed_once(service)


def test_the_same_order_within_other_limits(service, lose):
    submit(service, **SMALL)
    lose()
    assert is_whole(ask(service, limits=bf.Limits(max_requests=15)))
    assert service.calls()["create_batch"] == 5
    assert billed_once(service)


@pytest.mark.slow
def test_equal_requests_are_as_many_as_they_were(service, lose):
    frame = pl.DataFrame({"n": [n % 7 for n in range(N)]})
    service.row_fault("rate_limited", custom_ids=HIT)
    submit(service, frame, **ONE)
    lose()
    for seed in range(3):
        turned = frame.sample(fraction=1, shuffle=True, seed=seed)
        assert is_whole(ask(service, turned, **SMALL), turned)
        assert service.ledger()["billed"] == N
        lose()


def test_an_id_column_and_none(service, lose):
    frame = FRAME.with_columns(key=pl.col("n") + 1000)
    ask(service, frame, custom_id="key")
    lose()
    assert is_whole(ask(service, frame))
    lose()
    turned = frame.reverse()
    run = bf.submit(turned, "Repeat {n}", client=service.client(), custom_id="key", **ARGUMENTS)
    run.wait()
    assert is_whole(run.result(), turned)
    assert run.result()["custom_id"].to_list() == [str(key) for key in turned["key"]]
    assert billed_once(service)


def test_ids_that_need_escapes_or_look_like_a_line(service, lose):
    odd = ['a"b', "ü\\n", '"body":{}', "\u2028", "row-0"]
    frame = pl.DataFrame({"n": range(5), "key": odd})
    ask(service, frame, custom_id="key")
    lose()
    turned = frame.with_columns(key=pl.col("key").reverse())
    assert is_whole(ask(service, turned, custom_id="key"), frame)
    assert billed_once(service, 5)


def test_a_row_is_explained_by_its_lines_in_a_batch_of_other_ids(service, lose):
    ask(service)
    lose()
    run = bf.submit(FRAME.reverse(), "Repeat {n}", client=service.client(), **ARGUMENTS)
    run.wait()
    told = run.explain(0)
    assert told.custom_id == "row-0"
    assert ['"custom_id":"row-0"' in line and "Repeat 39" in line for line in told.requests] == [True]
    (submission,) = told.submissions
    assert ["In short: Repeat 39." in line for line in submission["lines"]] == [True]


@pytest.mark.slow
def test_a_run_that_was_paid_for_twice_is_paid_for_no_third_time(service, lose, monkeypatch):
    """Two machines made the same call at the same moment; both folders are lost, then the call is made again."""
    with monkeypatch.context() as patch:
        patch.setattr(loop, "is_new", lambda _: False)
        service.row_fault("rate_limited", custom_ids=HIT)
        ask(service, **SMALL, max_attempts=1)
        lose()
        ask(service, FRAME.reverse())
        lose()
    billed = service.ledger()["billed"]
    for frame in (FRAME, FRAME.reverse(), FRAME.sample(fraction=1, shuffle=True, seed=3)):
        assert is_whole(ask(service, frame, **SMALL), frame)
        assert service.ledger()["billed"] == billed
        lose()


def test_what_run_retry_asked_for_is_found_where_the_call_asks_for_it(service, lose, caplog):
    service.row_fault("status", status=400, code="bad_luck", custom_ids=HIT)
    run = bf.submit(FRAME, "Repeat {n}", client=service.client(), **ARGUMENTS)
    run.wait()
    run.retry(codes="bad_luck").wait()
    run.retry(pl.col("n") == 3, temperature=1).wait()
    executions = service.ledger()["executions"]
    lose()
    with caplog.at_level(logging.INFO, logger="batchframe"):
        assert is_whole(ask(service))
    assert "1 batches of this run in the account ask for what is not in this call" in caplog.text
    assert service.ledger()["executions"] == executions


def test_nothing_is_matched_before_it_is_validated(emu, lose):
    emu.configure(progression="stepped")
    bf.submit(FRAME, "Repeat {n}", client=emu.client(), **ARGUMENTS, **SMALL)
    lose()
    with pytest.raises(bf.RunPendingError) as raised:
        ask(emu, FRAME.reverse(), timeout_seconds=0.3)
    run = raised.value.run
    assert run.advance().waiting_for == "batches of this run, found in the account, to be validated"
    emu.configure(progression="instant")
    assert run.wait(60).succeeded == N
    assert is_whole(run.result(), FRAME.reverse())
    assert emu.calls()["create_batch"] == 5


def test_requests_that_nobody_knows_any_more_stop_the_run(service, lose):
    out = ask(service)
    client = service.client()
    (batch,) = client.batches.list()
    client.files.delete(batch.input_file_id)
    lose()
    frame = FRAME.reverse()
    for _ in range(2):
        with pytest.raises(bf.RunError, match=rf"{batch.id}\. Nothing was submitted\. bf\.read_batch\(id\) .* name="):
            ask(service, frame)
    assert service.calls()["create_file"] == 1
    lose()
    assert ask(service).equals(out)  # its own order needs no look into that file
    ask(service, frame, name="anew")
    assert service.ledger()["executions"] == 2 * N


# -- the account


def test_a_list_that_cannot_be_had_is_waited_for(service):
    service.fault("list_batches", "status", status=503, times=4)
    client = service.client(max_retries=0)
    with pytest.raises(bf.RunPendingError):
        bf.run(FRAME, "Repeat {n}", client=client, timeout_seconds=0, **ARGUMENTS)
    assert "create_file" not in service.calls()
    assert bf.run(FRAME, "Repeat {n}", client=client, **ARGUMENTS)["error"].null_count() == N
    assert service.calls()["list_batches"] == 5


def test_a_list_that_is_refused_is_an_error_and_nothing_is_sent(service):
    service.fault("list_batches", "status", status=403, times=None)
    with pytest.raises(bf.AuthenticationError, match="list_batches: the service answered 403"):
        ask(service)
    assert "create_file" not in service.calls()
    service.clear_faults()
    assert is_whole(ask(service))


def test_a_file_that_cannot_be_fetched_now_is_waited_for(service, lose):
    ask(service)
    lose()
    service.fault("file_content", "truncate", at=0.5, times=3)
    client = service.client(max_retries=0)
    frame = FRAME.reverse()
    assert is_whole(bf.run(frame, "Repeat {n}", client=client, **ARGUMENTS), frame)
    assert billed_once(service)


def crowd(service, batches):
    """Have others make many batches."""
    client = service.client()
    line = (
        b'{"custom_id":"1","method":"POST","url":"/v1/chat/completions","body":{"model":"gpt-4o-mini","messages":[]}}\n'
    )
    file = client.files.create(file=("other.jsonl", line), purpose="batch")
    for n in range(batches):
        more = {"metadata": {"batchframe_run": "another"}} if n % 2 else {}
        client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", **more)


def test_many_batches_of_others_are_looked_through(emu, lose):
    ask(emu)
    emu.configure(progression="stepped")
    crowd(emu, 230)
    emu.configure(progression="instant")
    lose()
    asked = emu.calls()["list_batches"]
    assert is_whole(ask(emu))
    assert emu.calls()["list_batches"] == asked + 3
    assert emu.ledger()["by_custom_id"]["row-0"] == 1


def test_account_list_is_read_to_a_limit(emu, lose, monkeypatch, caplog):
    monkeypatch.setattr(adopt, "_MOST_BATCHES", 100)
    ask(emu)
    crowd(emu, 101)
    lose()
    asked = emu.calls()["list_batches"]
    with caplog.at_level(logging.INFO, logger="batchframe"):
        assert is_whole(ask(emu))
    assert "the newest 100 were searched" in caplog.text
    assert emu.calls()["list_batches"] == asked + 1
    assert emu.calls()["create_file"] == 3


@pytest.mark.parametrize("days", [29, 31])
def test_batches_older_than_the_window_are_not_read(emu, lose, monkeypatch, days):
    emu.batch_fault("outputs_expired")  # which makes it 30 days older
    ask(emu)
    monkeypatch.setattr(adopt, "_LOOK_BACK", dt.timedelta(days=days))
    lose()
    out = ask(emu)
    assert emu.calls()["create_batch"] == (2 if days == 29 else 1)
    assert is_whole(out) if days == 29 else set(out["error"].struct.field("code")) == {"output_expired"}


@pytest.mark.parametrize("oddities", [("no_metadata",), ("no_metadata", "omit_nulls")], ids=" ".join)
def test_a_service_that_drops_metadata_shows_file_names(oddities, lose, emulate):
    with emulate(oddities=oddities) as emu:
        submit(emu, **SMALL)
        lose()
        frame = FRAME.reverse()
        assert is_whole(ask(emu, frame), frame)
        assert billed_once(emu)


def test_the_objects_of_old_azure(lose, emulate):
    with emulate("azure", oddities="all") as emu:
        submit(emu, **SMALL)
        for frame in (FRAME, FRAME.reverse()):
            lose()
            assert is_whole(ask(emu, frame, **SMALL), frame)
        assert billed_once(emu)


# -- another key


def test_a_batch_that_shows_late_is_waited_for_and_nothing_is_submitted(emu):
    emu.batch_fault("gone", polls=3)
    assert is_whole(ask(emu, **ONE | {"settle_seconds": 20}))
    assert billed_once(emu)


def test_a_batch_of_another_project_stops_the_run_and_nothing_is_submitted(emu):
    emu.configure(isolate="key")
    run = submit(emu, **ONE)
    batch_id = run.batches()["batch_id"][0]
    other = emu.client(api_key="sk-another")
    for _ in range(2):
        with pytest.raises(bf.RunError, match=rf"does not show batch {batch_id} .*another key or project"):
            bf.open_run(run.path, client=other).wait()
    calls = emu.calls()
    assert (calls["create_file"], calls["create_batch"]) == (1, 1)
    assert run.wait().succeeded == N
    assert billed_once(emu)


@pytest.mark.parametrize("stage", ["ended", "downloaded"])
def test_another_project_gets_no_file_of_a_batch_that_ended(emu, stage):
    emu.configure(isolate="key")
    run = submit(emu, **ARGUMENTS)
    if stage == "ended":
        emu.fault("file_content", "status", status=503, times=None)
        bf.open_run(run.path, client=emu.client(max_retries=0)).advance()
        emu.clear_faults()
        other = bf.open_run(run.path, client=emu.client(api_key="sk-another"))
        with pytest.raises(bf.ResultsError, match="belong to another key or project"):
            other.wait()
    else:
        run.wait()
    again = bf.open_run(run.path, client=emu.client(api_key="sk-another" if stage == "downloaded" else "sk-emulator"))
    assert again.wait().succeeded == N
    assert billed_once(emu)


# -- killed in between


KILL = """
    import os, signal, sys, openai, polars as pl, batchframe as bf
    from batchframe._core import events
    left = [int(sys.argv[2])]
    def maybe():
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    events.set_trigger(sys.argv[1], maybe)
    client = openai.OpenAI(api_key="k", base_url=sys.argv[3])
    call = dict(client=client, model="gpt-4o-mini", poll_seconds=0.02, settle_seconds=0.3)
"""
POINTS = [
    ("after_adopted", 1, False),
    ("after_adopted", 3, False),
    ("before_account_note", 1, False),
    ("after_adopted_input", 1, True),
    ("after_adopted", 1, True),
    ("after_adopted_part", 2, True),
    ("after_remainder", 1, True),
    ("after_remainder", 3, True),
    ("before_account_note", 1, True),
]


def program(body, point, nth, emu):
    return [sys.executable, "-c", textwrap.dedent(KILL) + textwrap.dedent(body), point, str(nth), emu.base_url]


@pytest.mark.slow
@pytest.mark.parametrize(("point", "nth", "turned"), POINTS)
def test_killed_while_it_adopts(emu, lose, point, nth, turned):
    run = submit(emu, **ONE)
    while emu.calls()["create_batch"] < 4:
        run.advance()
    lose()
    body = f"""
        frame = pl.DataFrame({{"n": range({N})}})
        frame = frame.reverse() if {turned} else frame
        out = bf.run(frame, "Repeat {{n}}", limits=bf.Limits(max_requests=10), **call)
        assert out["response"].to_list() == [f"In short: Repeat {{n}}." for n in frame["n"]]
        print(out["error"].null_count())
    """
    killed = subprocess.run(program(body, point, nth, emu), capture_output=True, text=True, check=False, env=os.environ)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = subprocess.run(program(body, point, -1, emu), capture_output=True, text=True, check=False, env=os.environ)
    assert done.stdout.strip() == str(N), done.stderr
    assert billed_once(emu)


@pytest.mark.slow
def test_a_group_by_that_keeps_no_order_is_killed_and_run_again(emu, lose):
    emu.configure(progression="stepped")
    body = """
        frame = pl.LazyFrame({"n": [n % 2_000 for n in range(6_000)]}).group_by("n").agg(pl.len().alias("times"))
        out = bf.run(frame, "Repeat {n}", limits=bf.Limits(max_requests=300), **call).collect()
        assert out["response"].to_list() == [f"In short: Repeat {n}." for n in out["n"]]
        print(out.height)
    """
    for nth in (3, 2, 1):
        killed = subprocess.run(
            program(body, "after_create", nth, emu), capture_output=True, check=False, env=os.environ
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        emu.configure(progression="instant")
        lose()
    done = subprocess.run(
        program(body, "after_create", -1, emu), capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.stdout.strip() == "2000", done.stderr
    assert billed_once(emu, 2_000)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_run_folder_may_be_lost_repeatedly(seed, lose, emulate):
    """Each time another order, other limits, another moment; equal rows, and rows that fail at first."""
    chance = random.Random(seed)
    frame = pl.DataFrame({"n": [chance.randrange(60) for _ in range(90)]})
    with emulate() as emu:
        emu.row_fault("rate_limited", share=0.2)
        for _ in range(4):
            turned = frame.sample(fraction=1, shuffle=True, seed=chance.randrange(100))
            limits = bf.Limits(max_requests=chance.randrange(8, 100), max_in_flight=chance.choice([None, 1, 2]))
            run = bf.submit(turned, "Repeat {n}", client=emu.client(), limits=limits, **ARGUMENTS)
            for _ in range(chance.randrange(6)):
                run.advance()
            lose()
        assert is_whole(ask(emu, frame), frame)
        assert emu.ledger()["billed"] == frame.height


def test_openai_and_azure_clients_of_one_account_are_two(emu):
    """The client of another service does not adopt, whatever it lists."""
    ask(emu)
    with openai.OpenAI(api_key="k", base_url=emu.base_url, project="other") as client:
        bf.run(FRAME, "Repeat {n}", client=client, **ARGUMENTS)
    assert emu.ledger()["executions"] == 2 * N
