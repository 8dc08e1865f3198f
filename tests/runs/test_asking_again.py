"""Rows that the user has asked again, what the record of it is worth, and what is told of a row."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap

import polars as pl
import pytest

import batchframe as bf

N = 30
FRAME = pl.DataFrame({"n": range(N)})
ARGUMENTS = {"model": "gpt-4o-mini", "poll_seconds": 0.02, "settle_seconds": 0.3}
HIT = ["row-3", "row-8", "row-20"]


def submitted(service, frame=FRAME, **options):
    run = bf.submit(frame, "Repeat {n}", client=service.client(), **ARGUMENTS | options)
    run.wait()
    return run


def failing(service, **options):
    service.row_fault("status", status=400, code="bad_luck", message="Bad luck.", custom_ids=HIT)
    return submitted(service, **options)


def bodies(run, row):
    return [json.loads(line)["body"] for line in run.explain(row).requests]


def test_retry_submits_failed_rows_by_default(emu):
    run = failing(emu)
    assert run.retry() is run
    assert run.wait().succeeded == N
    assert emu.ledger(summary=True)["executions"] == N + 3
    assert run.result()["response"].to_list() == [f"In short: Repeat {n}." for n in range(N)]


def test_the_same_call_again_pays_nothing_whatever_came_of_it(emu):
    emu.row_fault("status", status=400, code="bad_luck", custom_ids=HIT, attempts=None)
    run = submitted(emu)
    for _ in range(3):
        assert bf.open_run(run.path, client=emu.client()).retry(codes="bad_luck", temperature=0).wait().failed == 3
    assert emu.ledger(summary=True)["executions"] == N + 3
    run.retry(codes="bad_luck", temperature=0, name="once more").wait()
    run.retry(codes="bad_luck", temperature=0.5).wait()
    assert emu.ledger(summary=True)["executions"] == N + 9


def test_constant_condition_selects_all_rows_or_none(emu):
    run = failing(emu)
    assert run.retry(pl.lit(value=False)).wait().succeeded == N - 3
    assert run.retry(pl.col("n").max() < N, temperature=pl.col("n").min()).wait().succeeded == N
    assert [bodies(run, row)[-1]["temperature"] for row in (0, N - 1)] == [0, 0]
    assert emu.ledger(summary=True)["executions"] == 2 * N


def test_a_wider_choice_leaves_out_what_went_before(emu):
    run = failing(emu)
    run.retry(pl.col("n") == 3).wait()
    run.retry(pl.col("n") < 10).wait()  # all of them, but for the one that went already
    found = emu.ledger()["by_custom_id"]
    assert {name: found[name] for name in found if found[name] > 1} == {f"row-{n}": 2 for n in range(10)}


def test_answers_that_were_cut_are_asked_for_with_more_room(emu):
    run = submitted(emu, max_tokens=2)
    cut = run.result().filter(pl.col("finish_reason") == "length").height
    assert cut == N
    run.retry((pl.col("finish_reason") == "length") & (pl.col("n") < 5), max_tokens=100).wait()
    out = run.result()
    assert out["finish_reason"].to_list() == ["stop"] * 5 + ["length"] * (N - 5)
    assert out["response"][0] == "In short: Repeat 0."
    assert emu.ledger(summary=True)["executions"] == N + 5
    assert [body["max_tokens"] for body in bodies(run, 0)] == [2, 100]
    assert bf.run(FRAME, "Repeat {n}", client=emu.client(), max_tokens=2, **ARGUMENTS).equals(out)


def test_a_failure_does_not_take_the_place_of_a_success(emu):
    run = submitted(emu)
    emu.row_fault("status", status=400, custom_ids=["row-0"], attempts=None)
    run.retry(pl.col("n") < 2, temperature=1).wait()
    assert run.status(refresh=False).succeeded == N
    assert run.result()["response"][0] == "In short: Repeat 0."


def test_what_is_asked_again_may_go_again_by_itself(emu):
    run = failing(emu)
    emu.row_fault("rate_limited", custom_ids=["row-8"])
    assert run.retry().wait().succeeded == N
    assert run.batches().select("requests", "attempt").rows() == [(N, 1), (3, 1), (1, 2)]


def test_parameters_are_changed_added_and_left_out(emu):
    run = failing(emu, temperature=0.7, top_p=0.5)
    run.retry(codes=["bad_luck"], temperature=None, max_tokens=pl.col("n") + 10, model="gpt-4o").wait()
    before, after = bodies(run, 8)
    assert before["temperature"] == 0.7
    del before["temperature"]
    assert after == before | {"model": "gpt-4o", "max_tokens": 18}
    assert run.explain("row-8").outcome["error"] is None


def test_of_rows_that_share_an_answer_one_is_asked(emu):
    frame = pl.DataFrame({"n": [1, 1, 2]})
    emu.row_fault("status", status=400, custom_ids=["row-0"])
    run = submitted(emu, frame, dedupe=True)
    assert run.retry().wait().succeeded == 3
    assert emu.ledger(summary=True)["executions"] == 3


def test_rows_in_another_order_are_asked_by_their_own_place(emu):
    run = failing(emu)
    turned = bf.submit(FRAME.reverse(), "Repeat {n}", client=emu.client(), **ARGUMENTS)
    assert turned.path == run.path
    turned.retry(pl.col("n") == 20).wait()
    out = turned.result()
    assert out.filter(pl.col("error").is_not_null())["n"].sort().to_list() == [3, 8]
    assert emu.ledger()["by_custom_id"]["row-20"] == 2


def test_rows_without_a_request_are_passed_over(emu):
    frame = pl.DataFrame({"n": [1, None, 3]})
    emu.row_fault("status", status=400, custom_ids=["row-0"])
    run = submitted(emu, frame)
    assert run.retry().wait().not_sent == 1
    assert emu.ledger(summary=True)["executions"] == 3
    assert run.retry(codes="null_input").wait().not_sent == 1
    assert emu.ledger(summary=True)["executions"] == 3


def test_a_run_that_goes_on_is_not_asked_again(emu):
    emu.configure(progression="stepped")
    run = bf.submit(FRAME, "Repeat {n}", client=emu.client(), **ARGUMENTS)
    with pytest.raises(bf.RunPendingError, match="not finished"):
        run.retry()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"where": "n > 3"}, "where must be an expression"),
        ({"where": pl.col("m") > 3}, "where does not fit the result: .*Columns: 'n'"),
        ({"where": pl.col("n") + 3}, "where must give one Boolean column, got Int64"),
        ({"where": pl.col("n").head(2) > 0}, "where or the expression for temperature does not fit the result: "),
        ({"temperature": pl.col("m")}, "the expression for temperature does not fit the result: .*Columns: 'n'"),
        ({"codes": 400}, "codes must be a code or a list of them"),
        ({"max_token": 5}, "Did you mean 'max_tokens'"),
        ({"limits": bf.Limits()}, "limits cannot be changed by retry"),
        ({"n": 2}, "n cannot be changed by retry: the type of response depends on it"),
        ({"extra_body": {"n": 2}}, "n cannot be changed by retry: the type of response depends on it"),
        ({"stream": True}, "stream is not supported"),
    ],
)
def test_invalid_retry_is_refused(emu, arguments, said):
    run = failing(emu)
    with pytest.raises(bf.OptionError, match=said):
        run.retry(**{"temperature": 1, **arguments} if "where" in arguments else arguments)
    assert emu.calls()["create_batch"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "point",
    ["before_retry_record", "after_retry_record", "after_part_input", "after_part_record", "before_settle",
     "before_upload", "after_upload", "before_create", "after_create_call", "after_create", "after_download"],
)  # fmt: skip
def test_killed_while_rows_are_asked_again(emu, tmp_path, point):
    run = failing(emu, run_dir=tmp_path / "run")
    program = textwrap.dedent(f"""
        import os, signal, sys, openai, polars as pl, batchframe as bf
        from batchframe._core import events
        if len(sys.argv) > 1:
            events.set_trigger({point!r}, lambda: os.kill(os.getpid(), signal.SIGKILL))
        client = openai.OpenAI(api_key="k", base_url={emu.base_url!r})
        run = bf.open_run({os.fspath(run.path)!r}, client=client)
        try:
            run.retry(pl.col("n") == 8, max_tokens=100)
        except bf.RunPendingError:
            pass
        run.wait()
        run.retry(pl.col("n") == 8, max_tokens=100).wait()
    """)
    killed = subprocess.run([sys.executable, "-c", program, "kill"], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    again = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    found = bf.open_run(run.path)
    assert emu.ledger()["billed"] == N - 3 + 1
    assert found.status(refresh=False).succeeded == N - 2


# -- what is told of a row


def test_explain_shows_request_submissions_and_lines(emu):
    emu.row_fault("rate_limited", custom_ids=["row-8"])
    run = submitted(emu)
    told = run.explain(8)
    assert (told.row, told.custom_id, told.outcome["error"]) == (8, "row-8", None)
    assert [found["attempt"] for found in told.submissions] == [1, 2]
    statuses = [json.loads(found["lines"][0])["response"]["status_code"] for found in told.submissions]
    assert statuses == [429, 200]
    assert "429" in str(told)
    assert run.explain("row-8") == told
    assert run.explain(-1).row == N - 1


@pytest.mark.parametrize("row", [N, -N - 1, "row-99", 1.5, None])
def test_explain_refuses_unknown_rows(emu, row):
    run = submitted(emu)
    with pytest.raises(bf.OptionError, match="custom_id"):
        run.explain(row)


def test_explain_of_a_row_that_was_not_sent(emu):
    run = submitted(emu, pl.DataFrame({"n": [1, None]}))
    told = run.explain(1)
    assert (told.custom_id, told.requests, told.submissions) == (None, [], [])
    assert told.outcome["error"]["code"] == "null_input"


def test_raise_for_errors(emu):
    run = failing(emu)
    with pytest.raises(bf.RowsFailedError, match="3 of 30 rows did not succeed: 3 bad_luck") as caught:
        run.raise_for_errors()
    assert caught.value.run is run
    run.retry().wait()
    run.raise_for_errors()


# -- result files that are gone


def test_an_output_that_expired_is_told_and_not_paid_for_again(emu):
    emu.batch_fault("outputs_expired")
    out = None
    for _ in range(2):
        with pytest.warns(bf.BatchframeWarning) as told:
            out = bf.run(FRAME, "Repeat {n}", client=emu.client(), **ARGUMENTS)
        assert any("30 output_expired" in str(found.message) for found in told)
    assert set(out["error"].struct.field("code")) == {"output_expired"}
    assert emu.ledger(summary=True)["executions"] == N
    run = bf.submit(FRAME, "Repeat {n}", client=emu.client(), **ARGUMENTS)
    assert run.retry(codes="output_expired").wait().succeeded == N
    assert emu.ledger(summary=True)["executions"] == 2 * N


def test_results_that_will_soon_be_gone_are_told_of(emu):
    emu.configure(progression="stepped")
    run = bf.submit(FRAME, "Repeat {n}", client=emu.client(), **ARGUMENTS)
    record = run.path / "parts/0000/submissions/0.json"
    told = json.loads(record.read_text())
    told["batch"]["created_at"] -= 28 * 86_400
    record.write_text(json.dumps(told))
    emu.configure(progression="instant")
    with pytest.warns(
        bf.BatchframeWarning, match="the results of 1 batches are not fetched yet, and the service deletes"
    ):
        assert bf.open_run(run.path, client=emu.client()).wait().succeeded == N


def test_an_output_that_is_gone_before_its_time_stops_the_run_and_is_looked_for_again(emu):
    emu.configure(progression="stepped")
    run = bf.submit(FRAME, "Repeat {n}", client=emu.client(), **ARGUMENTS)
    emu.configure(progression="instant")
    emu.fault("file_content", "status", status=404, times=None)
    with pytest.raises(bf.ResultsError, match="does not show"):
        run.wait()
    emu.clear_faults()
    assert run.wait().succeeded == N
    assert emu.ledger(summary=True)["executions"] == N
