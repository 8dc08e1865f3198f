"""Random mixtures of all faults over hundreds of rows: the exact outcome of every row, and the exact ledger."""

from __future__ import annotations

import tempfile
import warnings
from typing import NamedTuple

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import batchframe as bf
from batchframe import testing


class Kind(NamedTuple):
    """A fault of one row: how it is switched on, the code it ends with, and what its executions cost."""

    switch: dict
    code: str | None
    is_worth_another: bool
    is_executed: bool = True
    is_billed: bool = True


KINDS = {
    "status 0": Kind({"kind": "status", "status": 0, "body": "null"}, "http_0", True, False, False),
    "429": Kind({"kind": "rate_limited"}, "rate_limit_exceeded", True, False, False),
    "503": Kind({"kind": "status", "status": 503, "code": "busy"}, "busy", True, False, False),
    "missing": Kind({"kind": "missing"}, "missing", True),
    "malformed": Kind({"kind": "malformed", "at": 0.8}, "malformed_line", True),
    "no body": Kind({"kind": "no_body"}, "empty_response", True),
    "400": Kind({"kind": "status", "status": 400, "code": "bad"}, "bad", False, True, False),
    "failed in output": Kind({"kind": "in_output_file", "status": 400, "code": "odd"}, "odd", False, True, False),
    "refusal": Kind({"kind": "refusal"}, "refusal", False),
    "duplicate": Kind({"kind": "duplicate"}, None, False),
    "contradiction": Kind({"kind": "duplicate", "copy": "error"}, None, False),
    "stranger": Kind({"kind": "unknown_id"}, None, False),
    "text": Kind({"kind": "body_as_text"}, None, False),
    "answer in error file": Kind({"kind": "in_error_file"}, None, False),
    "separators": Kind({"kind": "separators"}, None, False),
}


@st.composite
def mixtures(draw):
    rows = draw(st.integers(100, 300))
    is_cut_short = draw(st.booleans())  # a batch that expires costs some rows one attempt, and no execution
    attempts = 3 if is_cut_short else draw(st.integers(1, 3))
    hits = st.just(1) if is_cut_short else st.sampled_from([1, 2, None])
    names = draw(st.lists(st.tuples(st.sampled_from(sorted(KINDS)), hits), max_size=8, unique=True))
    hit = {}
    for name, times in names:
        for row in draw(st.sets(st.integers(0, rows - 1), max_size=rows // 8)):
            hit.setdefault(row, (name, times))
    files = draw(st.sets(st.sampled_from(["crlf", "blank_lines", "no_final_newline"])))
    max_requests = draw(st.integers(rows // 6, rows))
    return rows, hit, attempts, is_cut_short, sorted(files), max_requests


def expected(fault: tuple[str, int | None] | None, attempts: int) -> tuple[str | None, int, int]:
    """Return the code a row ends with, how often it is executed, and how often billed."""
    if fault is None:
        return None, 1, 1
    kind, times = KINDS[fault[0]], fault[1]
    bad = attempts if times is None else min(times, attempts)
    if not kind.is_worth_another:
        return kind.code, 1, int(kind.is_billed)
    is_saved = bad < attempts
    executions = bad * kind.is_executed + is_saved
    return (None if is_saved else kind.code), executions, bad * kind.is_billed + is_saved


@pytest.fixture(scope="module", params=["openai", "azure"])
def service(request):
    with testing.emulator(request.param, progression="instant") as emu:
        yield emu


@settings(max_examples=settings.default.max_examples // 5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mixture=mixtures())
def test_every_row_has_its_outcome_and_the_ledger_is_exact(service, mixture):
    rows, hit, attempts, is_cut_short, files, max_requests = mixture
    service.reset()
    service.clear_faults()
    service.configure(shuffle=True)
    for fault in sorted(set(hit.values()), key=str):
        name, times = fault
        ids = [f"row-{row}" for row in sorted(hit) if hit[row] == fault]
        service.row_fault(**KINDS[name].switch, custom_ids=ids, attempts=times)
    for kind in files:
        service.row_fault(kind, attempts=None)
    if is_cut_short:
        service.batch_fault("expire", at=0.4, unexecuted="nowhere" if rows % 2 else "error_lines")
    frame = pl.DataFrame({"n": range(rows)})
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore", bf.BatchframeWarning)
        out = bf.run(frame, "Repeat {n}", model="gpt-4o-mini", client=service.client(), poll_seconds=0.02,
                     settle_seconds=0.2, max_attempts=attempts, run_dir=f"{folder}/run",
                     limits=bf.Limits(max_requests=max_requests))  # fmt: skip
        status = bf.open_run(f"{folder}/run").status(refresh=False)
    found = list(zip(out["n"], out["custom_id"], out["error"].struct.field("code"), strict=True))
    outcomes = {row: expected(hit.get(row), attempts) for row in range(rows)}
    assert found == [(row, f"row-{row}", outcomes[row][0]) for row in range(rows)]
    executed = service.ledger()["by_custom_id"]
    assert {row: executed.get(f"row-{row}", 0) for row in range(rows)} == {row: outcomes[row][1] for row in range(rows)}
    assert service.ledger()["billed"] == sum(billed for _, _, billed in outcomes.values())
    failed = sum(code is not None for code, _, _ in outcomes.values())
    assert (status.succeeded, status.failed, status.pending + status.not_sent) == (rows - failed, failed, 0)
    answered = out.filter(pl.col("error").is_null())
    assert answered.filter(~pl.col("response").str.contains(pl.format(r"\b{}\b", "n"))).height == 0
