"""Every row ends in exactly one outcome: each fault of rows and of whole batches alone, through both services."""

from __future__ import annotations

import warnings

import polars as pl
import pytest

import batchframe as bf

N = 40
FRAME = pl.DataFrame({"n": range(N)})
ARGUMENTS = {"model": "gpt-4o-mini", "poll_seconds": 0.02, "settle_seconds": 0.5, "max_attempts": 1}
HIT = [f"row-{n}" for n in (0, 7, 20, 39)]


@pytest.fixture(params=["openai", "azure"])
def service(request, emulate):
    with emulate(request.param) as emu:
        yield emu


def ask(service, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bf.BatchframeWarning)
        out = bf.run(FRAME, "Repeat {n}", client=service.client(), **ARGUMENTS | options)
    assert out["n"].to_list() == list(range(N))
    assert out["custom_id"].to_list() == [f"row-{n}" for n in range(N)]
    # Whatever happened to others, a row with an answer has its own.
    answered = out.filter(pl.col("error").is_null() & (pl.col("finish_reason") == "stop"))
    wrong = answered.filter(~pl.col("response").str.contains(pl.format(r"\b{}\b", "n")))
    assert wrong.height == 0
    return out


def codes(out):
    return dict(zip(out["custom_id"], out["error"].struct.field("code"), strict=True))


FAULTS = {
    "status 0": ({"kind": "status", "status": 0, "body": "empty"}, "http_0"),
    "status 0 without a body": ({"kind": "status", "status": 0, "body": "null"}, "http_0"),
    "4xx": ({"kind": "status", "status": 400, "code": "bad_thing", "message": "said"}, "bad_thing"),
    "4xx without a body": ({"kind": "status", "status": 404, "body": "absent"}, "http_404"),
    "429": ({"kind": "rate_limited"}, "rate_limit_exceeded"),
    "5xx": ({"kind": "server_error"}, "server_error"),
    "missing": ({"kind": "missing"}, "missing"),
    "malformed": ({"kind": "malformed"}, "malformed_line"),
    "malformed early": ({"kind": "malformed", "at": 0.9}, "malformed_line"),
    "duplicate": ({"kind": "duplicate"}, None),
    "duplicate that failed": ({"kind": "duplicate", "copy": "error"}, None),
    "unknown id": ({"kind": "unknown_id"}, None),
    "body null": ({"kind": "no_body", "body": "null"}, "empty_response"),
    "body empty": ({"kind": "no_body", "body": "empty"}, "empty_response"),
    "body absent": ({"kind": "no_body", "body": "absent"}, "empty_response"),
    "body as text": ({"kind": "body_as_text"}, None),
    "failed line in the output file": ({"kind": "in_output_file", "status": 400, "code": "bad_thing"}, "bad_thing"),
    "answer in the error file": ({"kind": "in_error_file"}, None),
    "refusal": ({"kind": "refusal"}, "refusal"),
    "length": ({"kind": "length"}, None),
    "separators inside a string": ({"kind": "separators"}, None),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_row_fault(service, fault):
    what, code = FAULTS[fault]
    service.row_fault(**what, custom_ids=HIT)
    out = ask(service)
    assert codes(out) == {f"row-{n}": code if f"row-{n}" in HIT else None for n in range(N)}
    assert service.ledger()["by_custom_id"].keys() <= codes(out).keys()


def test_content_filter(service):
    service.row_fault("content_filter", custom_ids=HIT)
    out = ask(service, include="content_filter")
    hit = out.filter(pl.col("custom_id").is_in(HIT))
    # OpenAI withholds within a 200, Azure refuses the prompt with a 400.
    assert set(hit["finish_reason"]) == {"content_filter"} or set(hit["error"].struct.field("code")) == {
        "content_filter"
    }
    assert out.filter(~pl.col("custom_id").is_in(HIT))["error"].null_count() == N - 4


@pytest.mark.parametrize("kind", ["crlf", "blank_lines", "no_final_newline"])
def test_file_fault(service, kind):
    service.row_fault(kind)
    assert ask(service)["error"].null_count() == N


def test_truncated_last_line(service):
    service.row_fault("truncated_last_line")
    by_id = codes(ask(service))
    assert sorted(by_id.values(), key=str) == [*[None] * (N - 1), "malformed_line"]


@pytest.mark.parametrize("unexecuted", ["error_lines", "nowhere"])
@pytest.mark.parametrize("kind", ["expire", "cancel"])
def test_partial_answers_are_kept(service, kind, unexecuted):
    service.batch_fault(kind, at=0.5, unexecuted=unexecuted)
    out = ask(service)
    errors = [code for code in codes(out).values() if code is not None]
    assert len(errors) == N // 2
    assert set(errors) == {
        "missing" if unexecuted == "nowhere" else {"expire": "batch_expired", "cancel": "batch_cancelled"}[kind]
    }
    assert service.ledger()["executions"] == N // 2


def test_late_output_file_is_awaited(service):
    service.batch_fault("late_output", polls=4)
    assert ask(service, settle_seconds=30)["error"].null_count() == N


@pytest.mark.parametrize("spelling", ["null", "empty", "zero_bytes"])
def test_spellings_of_no_error_file(service, spelling):
    service.batch_fault("absent_id", spelling=spelling)
    assert ask(service)["error"].null_count() == N


def test_unknown_status_counts_as_running(service):
    service.batch_fault("unknown_status", status="pre_schedule", polls=5)
    assert ask(service)["error"].null_count() == N


def test_all_rows_failed(service):
    service.row_fault("status", status=400, code="bad_thing", attempts=None)
    assert set(codes(ask(service)).values()) == {"bad_thing"}


def test_input_file_not_found_temporarily_is_resubmitted(service):
    service.batch_fault("cannot_find_file", times=2)
    assert ask(service)["error"].null_count() == N
    assert service.calls()["create_batch"] == 3
    assert set(service.ledger()["by_custom_id"].values()) == {1}


def test_input_file_never_found_raises(service):
    service.batch_fault("cannot_find_file", times=None)
    with pytest.raises(bf.InputFileRejectedError, match="Cannot find file"):
        ask(service)
    service.clear_faults()
    assert ask(service)["error"].null_count() == N
