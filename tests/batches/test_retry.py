"""Rows that may succeed later are asked again, only those, and only as often as was allowed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import warnings

import polars as pl
import pytest

import batchframe as bf
from batchframe._providers.openai import OpenAIClient

N = 40
FRAME = pl.DataFrame({"n": range(N)})
HIT = [f"row-{n}" for n in (0, 7, 20, 39)]
ARGUMENTS = {"model": "gpt-4o-mini", "poll_seconds": 0.02, "settle_seconds": 0.3}


@pytest.fixture(params=["openai", "azure"])
def service(request, emulate):
    with emulate(request.param) as emu:
        yield emu


def ask(service, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bf.BatchframeWarning)
        return bf.run(FRAME, "Repeat {n}", client=service.client(), **ARGUMENTS | options)


def executions(service):
    found = service.ledger()["by_custom_id"]
    return {count: sorted(name for name in found if found[name] == count) for count in set(found.values())}


NOT_EXECUTED = {
    "status 0": {"kind": "status", "status": 0, "body": "null"},
    "408": {"kind": "status", "status": 408},
    "409": {"kind": "status", "status": 409},
    "429": {"kind": "rate_limited"},
    "503": {"kind": "status", "status": 503},
}


@pytest.mark.parametrize("fault", NOT_EXECUTED)
def test_only_unexecuted_rows_are_retried(service, fault):
    service.row_fault(**NOT_EXECUTED[fault], custom_ids=HIT)
    assert ask(service)["error"].null_count() == N
    assert service.calls()["create_batch"] == 2
    assert service.ledger()["billed"] == N


@pytest.mark.parametrize("kind", ["missing", "malformed", "no_body"])
def test_unreadable_answers_are_retried(service, kind):
    service.row_fault(kind, custom_ids=HIT)
    assert ask(service)["error"].null_count() == N
    # These were executed, and billed, and nothing can be read of it.
    assert executions(service)[2] == sorted(HIT)


FINAL = {
    "400": {"kind": "status", "status": 400, "code": "bad_thing"},
    "404": {"kind": "status", "status": 404},
    "refusal": {"kind": "refusal"},
    "content filter": {"kind": "content_filter"},
}


@pytest.mark.parametrize("fault", FINAL)
def test_permanent_failures_are_not_retried(service, fault):
    service.row_fault(**FINAL[fault], custom_ids=HIT)
    ask(service)
    assert service.calls()["create_batch"] == 1
    assert set(service.ledger()["by_custom_id"].values()) <= {1}


@pytest.mark.parametrize("attempts", [1, 2, 3, 5])
def test_no_more_often_than_allowed(service, attempts):
    service.row_fault("rate_limited", custom_ids=HIT, attempts=None)
    out = ask(service, max_attempts=attempts)
    assert service.calls()["create_batch"] == attempts
    failed = out.filter(pl.col("error").is_not_null())
    assert failed["custom_id"].to_list() == HIT
    assert set(failed["error"].struct.field("code")) == {"rate_limit_exceeded"}


def test_more_attempts_may_be_allowed_later(service):
    service.row_fault("rate_limited", custom_ids=HIT, attempts=1)
    assert ask(service, max_attempts=1)["error"].null_count() == N - 4
    assert ask(service)["error"].null_count() == N
    assert executions(service) == {1: sorted(f"row-{n}" for n in range(N))}
    calls = service.calls()
    assert ask(service)["error"].null_count() == N
    assert service.calls() == calls


@pytest.mark.parametrize("unexecuted", ["error_lines", "nowhere"])
def test_an_expired_batch_is_finished_and_nothing_is_paid_twice(service, unexecuted):
    service.batch_fault("expire", at=0.5, unexecuted=unexecuted)
    assert ask(service)["error"].null_count() == N
    assert executions(service) == {1: sorted(f"row-{n}" for n in range(N))}


@pytest.mark.parametrize("unexecuted", ["error_lines", "nowhere"])
def test_a_batch_that_somebody_cancelled_stays_so(service, unexecuted):
    service.batch_fault("cancel", at=0.5, unexecuted=unexecuted)
    assert ask(service)["error"].null_count() == N // 2
    assert service.calls()["create_batch"] == 1


def test_missing_rows_are_looked_for_in_a_second_copy_first(service, tmp_path):
    """The first download lost its end without a word; the second copy is whole, so nothing is paid again."""
    download = OpenAIClient.download
    short = [True]

    def cut(self, file_id, handle):
        download(self, file_id, handle)
        if short:
            short.clear()
            handle.seek(handle.tell() // 2)
            handle.truncate()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OpenAIClient, "download", cut)
        out = ask(service, run_dir=tmp_path / "r")
    assert out["error"].null_count() == N
    assert service.calls()["create_batch"] == 1
    kept = sorted(path.name for path in (tmp_path / "r" / "parts" / "0000" / "submissions").glob("0.output*"))
    assert kept == ["0.output.again.jsonl", "0.output.jsonl"]


def test_retries_of_several_parts_share_a_file(service):
    service.row_fault("rate_limited", custom_ids=HIT)
    out = ask(service, limits=bf.Limits(max_requests=10))
    assert out["error"].null_count() == N
    # Parts of 1, 10, 10, 10 and 9 rows; one file holds the four rows that failed in them.
    assert service.calls()["create_batch"] == 6


def test_retries_keep_to_the_limits(service):
    service.row_fault("rate_limited")
    out = ask(service, limits=bf.Limits(max_requests=10))
    assert out["error"].null_count() == N
    assert service.calls()["create_batch"] == 5 + 4


def test_rows_in_another_order_and_a_view_after_retries(service):
    service.row_fault("rate_limited", custom_ids=HIT)
    ask(service)
    turned = FRAME.reverse()
    out = bf.run(turned, "Repeat {n}", client=service.client(), **ARGUMENTS)
    assert out["n"].to_list() == turned["n"].to_list()
    assert out["response"].str.contains(pl.Series([rf"\b{n}\b" for n in turned["n"]])).all()
    assert service.calls()["create_batch"] == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "point", ["after_part_input", "after_part_record", "before_settle", "after_upload", "after_create"]
)
def test_killed_during_a_retry(emu, point):
    emu.row_fault("rate_limited", custom_ids=HIT)
    script = f"""
        import os, signal, sys, warnings, openai, polars as pl, batchframe as bf
        from batchframe._core import events
        left = [int(sys.argv[1])]
        def maybe():
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        events.set_trigger({point!r}, maybe)
        client = openai.OpenAI(api_key="k", base_url={emu.base_url!r})
        out = bf.run(pl.DataFrame({{"n": range({N})}}), "Repeat {{n}}", client=client, model="gpt-4o-mini",
                     poll_seconds=0.02, settle_seconds=0.3, limits=bf.Limits(max_requests=12, max_bytes=100_000))
        print(out["error"].null_count())
    """
    # Two attempts are allowed: the one that is cut off is the last.
    script = script.replace("settle_seconds=0.3,", "settle_seconds=0.3, max_attempts=2,")
    # With 40 rows in 5 files, the first upload and create of a retry are the sixth.
    nth = {"after_upload": 6, "after_create": 6}.get(point, 1)
    program = [sys.executable, "-c", textwrap.dedent(script)]
    killed = subprocess.run([*program, str(nth)], capture_output=True, text=True, check=False, env=os.environ)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = subprocess.run([*program, "-1"], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == str(N)
    assert executions(emu) == {1: sorted(f"row-{n}" for n in range(N))}
