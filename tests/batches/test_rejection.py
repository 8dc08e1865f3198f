"""An input file that the service refuses: lines that it names are left out, what concerns all of them stops the run."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import batchframe as bf
from batchframe._batches.rejected_lines import rejected_lines
from batchframe._core.events import set_trigger

N = 30
FRAME = pl.DataFrame({"n": range(N)})
ARGUMENTS = {"model": "gpt-4o-mini", "poll_seconds": 0.02}
REASON = "Messages parameter is required."


@pytest.fixture(params=["openai", "azure"])
def service(request, emulate):
    with emulate(request.param) as emu:
        yield emu


def ask(service, **options):
    return bf.run(FRAME, "Repeat {n}", client=service.client(), **ARGUMENTS | options)


def refuse(service, *lines, code="invalid_request", **options):
    service.batch_fault("fail", code=code, message=REASON, lines=lines, **options)


def test_the_lines_that_were_named_are_left_out_and_the_rest_is_sent(service):
    refuse(service, 1, 8, 30)
    with pytest.warns(bf.BatchframeWarning, match="3 of 30 rows did not succeed: 3 input_rejected"):
        out = ask(service)
    failed = out.filter(pl.col("error").is_not_null())
    assert failed["n"].to_list() == [0, 7, 29]
    assert failed["error"].to_list() == [{"code": "input_rejected", "message": f"invalid_request: {REASON}"}] * 3
    assert out["response"].drop_nulls().to_list() == [f"In short: Repeat {n}." for n in range(N) if n not in (0, 7, 29)]
    assert service.ledger(summary=True)["executions"] == N - 3


def test_a_file_may_be_refused_again_and_a_finished_run_stays_finished(service):
    refuse(service, 1)
    refuse(service, 1, 2, skip=1)  # of what is left: the rows 1 and 2
    for _ in range(2):
        with pytest.warns(bf.BatchframeWarning, match="3 input_rejected"):
            out = ask(service)
    assert out.filter(pl.col("error").is_not_null())["n"].to_list() == [0, 1, 2]
    assert service.ledger(summary=True)["executions"] == N - 3
    assert service.calls()["create_batch"] == 3


def test_while_the_rest_is_under_way_only_it_is_pending(emu):
    refuse(emu, 3, 4)
    emu.configure(progression="stepped")
    run = bf.submit(FRAME, "Repeat {n}", client=emu.client(), **ARGUMENTS)
    emu.step()
    run.advance()
    status = run.status(refresh=False)
    assert (status.failed, status.pending, status.state) == (2, N - 2, "running")
    codes = run.result()["error"].struct.field("code")
    assert [codes[n] for n in (1, 2, 3, 4)] == ["pending", "input_rejected", "input_rejected", "pending"]


def test_lines_of_another_attempt_are_mapped_back_too(emu):
    emu.row_fault("rate_limited", custom_ids=[f"row-{n}" for n in (4, 11, 23)])
    refuse(emu, 2, skip=1)
    with pytest.warns(bf.BatchframeWarning, match="1 of 30 rows did not succeed: 1 input_rejected"):
        out = ask(emu)
    assert out.filter(pl.col("error").is_not_null())["n"].to_list() == [11]


def test_with_ids_of_the_users_own(emu):
    refuse(emu, 2)
    frame = FRAME.with_columns(("ä\u2028" + pl.col("n").cast(pl.String)).alias("id"))
    with pytest.warns(bf.BatchframeWarning, match="1 input_rejected"):
        out = bf.run(frame, "Repeat {n}", client=emu.client(), custom_id="id", **ARGUMENTS)
    assert out.filter(pl.col("error").is_not_null())["n"].to_list() == [1]


@pytest.mark.parametrize("code", ["model_not_found", "mismatched_model", "invalid_url", "url_mismatch"])
def test_what_is_the_same_in_all_lines_stops_the_run(emu, code):
    refuse(emu, 1, code=code)
    with pytest.raises(bf.InputFileRejectedError, match=f"line 1: {code}: {REASON}"):
        ask(emu)
    assert emu.ledger(summary=True)["executions"] == 0
    assert ask(emu)["error"].null_count() == N  # resumable


def test_when_every_line_is_named_the_run_stops(emu):
    refuse(emu, *range(1, N + 1))
    with pytest.raises(bf.InputFileRejectedError, match="30 lines from line 1: invalid_request"):
        ask(emu)


def test_a_service_that_names_one_line_after_the_other_is_not_followed_to_the_end(emu):
    refuse(emu, 1, times=None)
    with pytest.raises(bf.InputFileRejectedError, match=r"part 10 \(20 requests"):
        ask(emu)


@pytest.mark.parametrize("point", ["after_ended", "after_part_input", "after_part_record"])
def test_a_crash_while_lines_are_left_out(emu, point):
    refuse(emu, 5)

    def crash():
        set_trigger(point, None)
        raise KeyboardInterrupt

    set_trigger(point, crash)
    with pytest.raises(KeyboardInterrupt):
        ask(emu)
    with pytest.warns(bf.BatchframeWarning, match="1 of 30 rows did not succeed: 1 input_rejected"):
        ask(emu)
    assert emu.ledger(summary=True)["executions"] == N - 1
    assert emu.calls()["create_batch"] == 2


def test_the_record_says_what_was_left_out(emu, tmp_path):
    refuse(emu, 2)
    with pytest.warns(bf.BatchframeWarning):
        ask(emu, run_dir=tmp_path / "run")
    told = (tmp_path / "run/parts/0001/part.json").read_text()
    assert '"split_from": 0' in told
    assert '"custom_id": "row-1"' in told
    assert REASON in told


@given(
    st.lists(st.tuples(st.none() | st.integers(-2, 12), st.sampled_from(["a", "b"]), st.text(max_size=3))),
    st.integers(1, 10),
)
def test_lines_are_left_out_only_when_all_of_them_are_known_and_some_stay(errors, requests):
    found = rejected_lines(errors, requests)
    known = {line for line, _, _ in errors}
    if known and all(line is not None and 1 <= line <= requests for line in known) and len(known) < requests:
        assert found.keys() == known
    else:
        assert not found
