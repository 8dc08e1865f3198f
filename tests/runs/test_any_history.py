"""A run driven through random faults of every kind, crashes and resumes: what holds after each step, and at the end."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import warnings
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import batchframe as bf
from batchframe import testing
from batchframe._core.events import set_trigger

N = 24
IDS = st.sets(st.sampled_from([f"row-{n}" for n in range(N)]), min_size=1, max_size=6)
FRAME = pl.DataFrame({"n": range(N)})
CALLS = (
    "create_file",
    "retrieve_file",
    "file_content",
    "create_batch",
    "retrieve_batch",
    "list_batches",
    "delete_file",
)
POINTS = (
    "before_upload", "after_upload_call", "after_upload", "before_create", "after_create_call", "after_create",
    "after_ended", "after_download", "after_part_input", "after_part_record", "before_settle", "after_input_deleted",
)  # fmt: skip
NOT_EXECUTED = (
    {"kind": "rate_limited"},
    {"kind": "status", "status": 503},
    {"kind": "status", "status": 0, "body": "null"},
)
NOT_TOLD = ({"kind": "missing"}, {"kind": "malformed"}, {"kind": "no_body"})
ATTEMPTS = 4


class Crash(BaseException):
    """The process is gone, as far as the run can tell."""


class History(RuleBasedStateMachine):
    """One run and its service; whoever works on the run may die at any time."""

    dialect = "openai"
    service: testing.Emulator

    @initialize(max_requests=st.integers(4, N), seed=st.integers(0, 9))
    def begin(self, max_requests: int, seed: int) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.service.reset()
        self.service.clear_faults()
        self.service.configure(progression="stepped", shuffle=True, seed=seed)
        # How often a row may have been executed before it has an answer: each fault that eats an answer allows one.
        self.eaten = dict.fromkeys(FRAME["n"], 0)
        self.expired = 0
        self.options = {
            "model": "gpt-4o-mini",
            "client": self.service.client(),
            "poll_seconds": 0.0,
            "settle_seconds": 0.0,
            "max_attempts": ATTEMPTS,
            "limits": bf.Limits(max_requests=max_requests),
            "run_dir": self.folder / "run",
        }
        self.run = None
        self.go_on(None, is_turned=False)

    def go_on(self, point: str | None, *, is_turned: bool) -> None:
        """Make the call again, or one pass; a crash at the point ends it, and whoever comes next has only the disk."""

        def crash() -> None:
            set_trigger(point, None)
            raise Crash

        if point is not None:
            set_trigger(point, crash)
        try:
            with contextlib.suppress(bf.APICallError, bf.RunError), warnings.catch_warnings():
                warnings.simplefilter("ignore", bf.BatchframeWarning)
                if self.run is None:
                    frame = FRAME.reverse() if is_turned else FRAME
                    bf.submit(frame, "Repeat {n}", timeout_seconds=5, **self.options)
                    self.run = bf.open_run(self.folder / "run", client=self.options["client"])
                self.run.advance()
        except Crash:
            self.run = None
        finally:
            if point is not None:
                set_trigger(point, None)

    @rule()
    def one_pass(self) -> None:
        self.go_on(None, is_turned=False)

    @rule(point=st.sampled_from(POINTS))
    def a_crash(self, point: str) -> None:
        self.go_on(point, is_turned=False)

    @rule(point=st.none() | st.sampled_from(POINTS), is_turned=st.booleans())
    def another_process(self, point: str | None, is_turned: bool) -> None:
        self.run = None
        self.go_on(point, is_turned=is_turned)

    @rule(steps=st.integers(1, 6))
    def time_passes(self, steps: int) -> None:
        for _ in range(steps):
            self.service.step()

    @rule(call=st.sampled_from(CALLS), kind=st.sampled_from(["reset_before", "reset_after", "status"]))
    def a_call_fails(self, call: str, kind: str) -> None:
        self.service.fault(call, kind, status=503, times=4 if kind == "status" else 1)

    @rule(seconds=st.sampled_from([0.02, 0.1]))
    def a_create_acts_late(self, seconds: float) -> None:
        self.service.fault("create_batch", "late", seconds=seconds)

    @rule(fault=st.sampled_from(NOT_EXECUTED), ids=IDS)
    def rows_are_not_executed(self, fault: dict, ids: set[str]) -> None:
        self.service.row_fault(**fault, custom_ids=sorted(ids))

    @rule(fault=st.sampled_from(NOT_TOLD), ids=IDS)
    def answers_do_not_arrive(self, fault: dict, ids: set[str]) -> None:
        self.service.row_fault(**fault, custom_ids=sorted(ids))
        for name in ids:
            self.eaten[int(name.removeprefix("row-"))] += 1

    @precondition(lambda self: self.expired < 2)
    @rule(at=st.sampled_from([0.0, 0.3, 0.8]), unexecuted=st.sampled_from(["error_lines", "nowhere"]))
    def a_batch_expires(self, at: float, unexecuted: str) -> None:
        self.expired += 1
        self.service.batch_fault("expire", at=at, unexecuted=unexecuted)

    @rule(fault=st.sampled_from(["no_metadata", "null_counts", "wrong_counts", "cannot_find_file", "late_output"]))
    def a_batch_is_odd(self, fault: str) -> None:
        self.service.batch_fault(fault)

    @invariant()
    def every_row_is_there_once_and_paid_for_once(self) -> None:
        if not (self.folder / "run" / "run.json").exists():
            return
        opened = bf.open_run(self.folder / "run")
        out = opened.result()
        turned = out["n"][0] == N - 1
        assert out["n"].to_list() == (list(range(N)) if not turned else list(range(N))[::-1])
        status = opened.status(refresh=False)
        assert status.succeeded + status.failed + status.not_sent + status.pending == N
        answered = out.filter(pl.col("error").is_null())
        assert answered.filter(~pl.col("response").str.contains(pl.format(r"\b{}\b", "n"))).height == 0
        self.ledger_is_exact(turned)

    def ledger_is_exact(self, turned: bool) -> None:
        executed = self.service.ledger()["by_custom_id"]
        for n in range(N):
            name = f"row-{N - 1 - n if turned else n}"
            allowed = 1 + self.eaten[N - 1 - n if turned else n]
            assert executed.get(name, 0) <= min(allowed, ATTEMPTS), (name, executed)

    def teardown(self) -> None:
        if not hasattr(self, "folder"):
            return
        self.service.clear_faults()
        self.service.configure(progression="instant")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", bf.BatchframeWarning)
            for _ in range(5):  # a file that was not found four times in a row stops the run, and the same call goes on
                with contextlib.suppress(bf.InputFileRejectedError):
                    out = bf.run(FRAME, "Repeat {n}", **self.options)
                    break
        codes = set(out["error"].struct.field("code").drop_nulls())
        # Rows that used up their attempts may have failed; nothing else may be left.
        assert codes <= {"rate_limit_exceeded", "server_error", "http_0", "http_503", "missing", "malformed_line",
                         "empty_response", "batch_expired"}, codes  # fmt: skip
        assert out["n"].to_list() == list(range(N))
        shutil.rmtree(self.folder)


@pytest.fixture(scope="module", params=["openai", "azure"])
def service(request):
    with testing.emulator(request.param) as emu:
        yield emu


def drive(service, monkeypatch, examples, steps):
    monkeypatch.setattr(History, "service", service, raising=False)
    every = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(History, settings=every)


def test_any_history_of_faults_and_crashes_pays_each_row_once(service, monkeypatch):
    drive(service, monkeypatch, examples=4, steps=16)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_any_long_history_of_faults_and_crashes_pays_each_row_once(service, monkeypatch):
    drive(service, monkeypatch, examples=20, steps=30)
