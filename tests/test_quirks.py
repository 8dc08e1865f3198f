"""Every quirk of the emulator's table through batchframe's own client: the exact outcome by row, and what it cost."""

from __future__ import annotations

import contextlib
import re
import warnings
from dataclasses import dataclass, field
from typing import Any

import polars as pl
import pytest

import batchframe as bf
from batchframe import testing
from batchframe._api import result_sources
from batchframe._providers.service import Service
from batchframe.emulator._batches import refusals
from quirk_table import ROWS, SWITCHES

N = 20
FRAME = pl.DataFrame({"n": range(N)})
ARGUMENTS = {"model": "gpt-4o-mini", "poll_seconds": 0.01, "settle_seconds": 0.3}
SEPARATORS = "one\u2028two\u2029three\u0085four "


@dataclass(frozen=True)
class Outcome:
    """The outcome of twenty rows under a quirk."""

    codes: Any = None
    """The error codes of all rows, or by row; None for a success."""
    executed: Any = 1
    """How often each row is executed: all, or by row."""
    billed: int = N
    batches: int = 1
    """The number of batches at the end, and of calls that create them unless `calls` differs."""
    says: str = ""
    """The error that the run raises."""
    mend: str = "clear_faults()"
    """After an error: a change that lets the same call succeed, with at most one execution per row."""
    finish: str | None = "stop"
    begins: str = ""
    """The prefix of each response."""
    speaks: tuple[str, ...] = ("openai",)
    also: tuple[str, ...] = ()
    """Further switches, for quirks that need them."""
    calls: dict[str, int] = field(default_factory=dict)
    frame: pl.DataFrame = field(default_factory=lambda: FRAME)
    options: dict[str, Any] = field(default_factory=dict)
    client: dict[str, Any] = field(default_factory=dict)
    null: str = ""
    """A column of bf.batches() that is null."""
    is_readable: bool = True
    """Whether bf.read_batch() gives the same result, if there is one batch."""


BOTH = ("openai", "azure", "azure-v1")
GOOD = Outcome()
# Not executed: asked again, at no other cost.
AGAIN = Outcome(batches=2)
# Executed and billed, and nothing can be read of it: asked and paid once more.
PAID_AGAIN = Outcome(batches=2, executed=2, billed=2 * N)
REFUSED = Outcome(executed=0, billed=0)
IN_DOUBT = 'fault("create_batch", "reset_after")'
FAILS = ('batch_fault("fail", code="bad_file", lines=[1, 2])',)
# Two lines of the file are refused, and the others go without them.
TWO_REFUSED = Outcome(
    codes=dict.fromkeys(range(2), "input_rejected"),
    executed=dict.fromkeys(range(2), 0),
    billed=18,
    batches=2,
    also=FAILS,
)


def fails(says, **more):
    return Outcome(says=says, executed=0, billed=0, **more)


OUTCOMES = {
    # rows
    "failed with any status, `error` null": Outcome(codes="model_not_found", billed=0, finish=None),
    "status 0, no body, counted as completed": AGAIN,
    "429": AGAIN,
    "500, 503": AGAIN,
    "filtered: OpenAI by `finish_reason`": Outcome(finish="content_filter"),
    "filtered: Azure by a 400 line": Outcome(codes="content_filter", billed=0, finish=None, speaks=BOTH[1:]),
    "refusal instead of content": Outcome(codes="refusal"),
    "cut by length": Outcome(finish="length"),
    "in neither file": PAID_AGAIN,
    "malformed line": PAID_AGAIN,
    "half of a surrogate pair in a text": Outcome(begins="\ufffd "),
    "NaN, which JSON has not, in a line": GOOD,
    "the same line twice": GOOD,
    "a second line that disagrees": GOOD,
    "a line of an id nobody sent": GOOD,
    "200 without a body": PAID_AGAIN,
    "the body as a text": GOOD,
    "failed line in the output file": AGAIN,
    "answer in the error file": GOOD,
    "line separators inside texts": Outcome(begins=SEPARATORS),
    "lines end with CR LF": GOOD,
    "blank lines": GOOD,
    "no newline at the end": GOOD,
    "the last line is cut": Outcome(batches=2, executed={19: 2}, billed=N + 1, also=("configure(shuffle=False)",)),
    "lines in another order": GOOD,
    "all rows failed: completed, no output file": Outcome(
        codes="bad_thing", billed=0, finish=None, also=('row_fault("status", status=400, code="bad_thing")',)
    ),
    # batches
    "expired after a part": AGAIN,
    "cancelled after a part": Outcome(
        codes=dict.fromkeys(range(5, N), "batch_cancelled"), executed=dict.fromkeys(range(5, N), 0), billed=5
    ),
    "what was not executed stands in neither file": AGAIN,
    "failed with a code": fails("billing_hard_limit_reached"),
    '"Cannot find file" although it is there': AGAIN,
    "slow": GOOD,
    "completed, and the output id comes later": GOOD,
    "result files expired": Outcome(codes="output_expired", finish=None, is_readable=False),
    'id of a file without lines: null, "", zero bytes': GOOD,
    "a status nobody knows": GOOD,
    "a batch that cannot be retrieved for some calls": GOOD,
    "the list shows a batch late": Outcome(also=(IN_DOUBT,), options={"settle_seconds": 10}),
    "the list shows a batch unchanged until it is asked for by id": Outcome(
        batches=6, options={"limits": bf.Limits(max_requests=4)}
    ),
    "metadata dropped": Outcome(null="metadata"),
    "counts wrong": Outcome(batches=2, also=('row_fault("rate_limited", every=2)',)),
    "counts null": Outcome(null="requests"),
    "counts on the batch itself": GOOD,
    "no counts": Outcome(null="requests"),
    "`errors` as a bare list": TWO_REFUSED,
    "`errors` as a text": fails(r"unknown_error: line 1: bad_file: The batch failed", also=FAILS),
    "`errors` without line and param": fails(r": bad_file: The batch failed", also=FAILS),
    '"COMPLETED"': GOOD,
    '"progress" for in_progress': GOOD,
    '"Completed"': GOOD,
    '"canceled"': Outcome(
        codes=dict.fromkeys(range(10, N), "batch_cancelled"),
        executed=dict.fromkeys(range(10, N), 0),
        billed=10,
        also=('batch_fault("cancel")',),
    ),
    "ISO timestamps": Outcome(also=(IN_DOUBT,)),
    "endpoint null": Outcome(null="endpoint"),
    'file ids "" from the start': GOOD,
    "`in_progress_at` null": Outcome(null="in_progress_at"),
    "`expires_at` null": Outcome(null="expires_at"),
    "a failed batch has `completed_at`": TWO_REFUSED,
    "nulls left out": GOOD,
    "the list under `value`": Outcome(also=(IN_DOUBT,)),
    "all of Azure's spellings": Outcome(also=(IN_DOUBT,), speaks=BOTH),
    "Azure goes on after its window": Outcome(
        speaks=BOTH[1:], also=('configure(window_seconds=0.01, progression="timed", seconds={"in_progress": 0.1})',)
    ),
    # limits
    "too many requests": fails("at most 3", mend="configure(max_requests=None)"),
    "too large a file": fails("413.*Lower limits=bf.Limits", mend="configure(max_file_bytes=None)", batches=0),
    "Azure's quota of files": Outcome(speaks=BOTH[1:], also=("configure(files_without_expiry=0)",)),
    "storage full": fails(
        "limited to 1000000 bytes",
        mend="configure(storage_bytes=None)",
        batches=0,
        frame=pl.DataFrame({"n": [f"{n} " + "x" * 60_000 for n in range(N)]}),
    ),
    'an unknown deployment, as `{"errors": …}`': fails(
        "Check the model: on Azure it is",
        speaks=BOTH[1:],
        mend='configure(errors_at_create=False, deployments={"gpt-4o-mini": "gpt-4o-mini"})',
        also=('configure(deployments={"mine": "gpt-4o-mini"})',),
    ),
    "a deployment that is not for batches": fails(
        "globalbatch", speaks=BOTH[1:], mend="configure(standard_deployments=[])", options={"model": "gpt-4o"}
    ),
    # files
    "pending for some looks at it": Outcome(speaks=BOTH),
    "all files are pending; Azure refuses batches of them": Outcome(speaks=BOTH),
    "status null at first": Outcome(speaks=BOTH),
    "status null for ever": Outcome(speaks=BOTH),
    "processing fails": fails("the status 'error'", speaks=BOTH[1:], batches=0),
    "some batches do not find it": AGAIN,
    "some retrieves do not find it": Outcome(speaks=("azure",)),
    "only a part of it arrived": Outcome(calls={"create_file": 2, "delete_file": 1}),
    # calls
    "5xx": GOOD,
    "429 with `Retry-After`": Outcome(calls={"create_file": 1, "create_batch": 2}),
    "`x-should-retry`": Outcome(calls={"create_file": 2, "delete_file": 1, "create_batch": 2}),
    "reset before the service acts": Outcome(calls={"create_file": 2, "delete_file": 1, "create_batch": 2}),
    "reset after it acted": Outcome(calls={"create_file": 1}),
    "acts late": Outcome(options={"settle_seconds": 10}, calls={"create_file": 1}),
    "truncated download": Outcome(calls={"file_content": 2}),
    "hangs": Outcome(client={"timeout": 0.5}, calls={"create_file": 2}),
    "slow upload, slow download": Outcome(calls={"create_file": 1}),
    "download without a length": GOOD,
    "download compressed": GOOD,
}


def throw(service, *switches):
    for switch in switches:
        if switch != "always":
            eval(f"service.{switch}", {"service": service})


def by_row(value):
    return [value.get(n, value.get("else")) if isinstance(value, dict) else value for n in range(N)]


def executions(service):
    """Return how often each row was executed."""
    counts = service.ledger()["by_custom_id"]
    assert counts.keys() <= {f"row-{n}" for n in range(N)}
    return [counts.get(f"row-{n}", 0) for n in range(N)]


def ask(service, outcome=GOOD, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bf.BatchframeWarning)
        client = service.client(**outcome.client)
        return bf.run(outcome.frame, "Repeat {n}", client=client, **ARGUMENTS | outcome.options | options)


def codes_of(out):
    return out["error"].struct.field("code").to_list()


# What the loop does not do yet; see the design: a 404 on what must exist is tried again for `settle_seconds`.
WRONG = {}
QUIRKS = [
    pytest.param(quirk, spoken, marks=[pytest.mark.xfail(strict=True, reason=WRONG[quirk])] if quirk in WRONG else [])
    for quirk, outcome in OUTCOMES.items()
    for spoken in outcome.speaks
]


@pytest.fixture(scope="module")
def services():
    """Yield a service for each dialect, started once."""
    with contextlib.ExitStack() as stack:
        yield {spoken: stack.enter_context(testing.emulator(spoken, progression="instant")) for spoken in BOTH}


@pytest.fixture
def speaking(services):
    """Yield a function that returns the service of a dialect, after a reset."""
    for service in services.values():
        service.reset()  # after a test too: a call that hangs would hold up the end
    yield services.__getitem__
    for service in services.values():
        service.reset()


@pytest.fixture
def service(speaking):
    return speaking("openai")


@pytest.fixture(autouse=True)
def in_no_time(monkeypatch):
    monkeypatch.setattr(result_sources, "_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(result_sources, "_SETTLE_SECONDS", 0.1)


@pytest.mark.parametrize(("quirk", "spoken"), QUIRKS)
def test_quirk(speaking, quirk, spoken):
    service, outcome = speaking(spoken), OUTCOMES[quirk]
    throw(service, SWITCHES[quirk], *outcome.also)
    if outcome.says:
        with pytest.raises(bf.BatchframeError, match=outcome.says):
            ask(service, outcome)
    else:
        out = ask(service, outcome)
        check_rows(outcome, out)
    calls = service.calls()
    for name, count in ({"create_batch": outcome.batches} | outcome.calls).items():
        assert calls.get(name, 0) == count, name
    assert executions(service) == [1 if count is None else count for count in by_row(outcome.executed)]
    assert service.ledger()["billed"] == outcome.billed
    if not outcome.says:
        check_account(service, outcome, out)
    elif outcome.mend:
        # An error is about the run, which stays as it is: the same call goes on with it, and nothing is paid twice.
        throw(service, outcome.mend)
        assert codes_of(ask(service, outcome)) == [None] * N
        assert executions(service) == [1] * N


def check_rows(outcome, out):
    assert out["n"].equals(outcome.frame["n"])
    assert codes_of(out) == by_row(outcome.codes)
    assert set(out.filter(pl.col("error").is_null())["finish_reason"]) <= {outcome.finish}
    for n, code, response in zip(range(N), codes_of(out), out["response"], strict=True):
        assert (response is None) is (code is not None)
        if response is not None and outcome.finish == "stop":
            assert response.startswith(outcome.begins)
            assert re.search(rf"\b{n}\b", response)


def check_account(service, outcome, out):
    """Check the list of batches, and the result of `bf.read_batch`."""
    client = service.client()
    batches = bf.batches(client)
    assert batches.height == outcome.batches
    assert not outcome.null or batches[outcome.null].null_count() == batches.height
    if outcome.batches == 1 and outcome.is_readable:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", bf.BatchframeWarning)  # of ids that nobody sent
            read = bf.read_batch(batches["batch_id"][0], outcome.frame, client=client)
        assert read.equals(out)


def test_every_quirk_has_an_outcome_or_a_test_of_its_own():
    assert {row.quirk for row in ROWS if row.client_test == "test_quirks.py::test_quirk"} == OUTCOMES.keys()


# Refusals that name no line, and those that name one though all lines are alike.
OF_FILES = {"empty", "tokens", "requests", "file", "purpose", "too_many", "too_many_inputs", "too_large", "window"}
OF_FILES |= {"byte_order_mark", "azure no_model"}
OF_ALL_LINES = {"model", "mismatch", "url", "openai stream", "openai no_model"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoken", "what"),
    [("openai", what) for what in refusals.OPENAI] + [("azure", what) for what in refusals.AZURE],
)
def test_every_input_file_rejection(speaking, what, spoken):
    """A rejected line is dropped; a rejected file raises with the reason, and nothing is executed."""
    words = (refusals.OPENAI if spoken == "openai" else refusals.AZURE)[what]
    service, is_of = speaking(spoken), {what, f"{spoken} {what}"}
    lines = [] if is_of & OF_FILES else [7]
    service.batch_fault("fail", code=words.code, message=words.message, lines=lines)
    if what in {"tokens", "requests", "file"}:
        # There is no room now, or the file is there all the same: it goes again.
        assert codes_of(ask(service)) == [None] * N
    elif lines and not is_of & OF_ALL_LINES:
        out = ask(service)
        assert codes_of(out) == [*[None] * 6, "input_rejected", *[None] * 13]
        assert out["error"][6]["message"].startswith(words.code)
        assert executions(service) == [*[1] * 6, 0, *[1] * 13]
    else:
        with pytest.raises(bf.InputFileRejectedError, match=f"{words.code}: ") as raised:
            ask(service)
        assert [(line, code) for line, code, _ in raised.value.errors] == [(7 if lines else None, words.code)]
        assert executions(service) == [0] * N
        assert codes_of(ask(service)) == [None] * N
    assert service.calls()["create_batch"] == 2
    assert service.ledger()["billed"] == N - (lines != [] and not is_of & OF_ALL_LINES)


def test_model_alias_answers_as_its_snapshot(service):
    throw(service, SWITCHES["the model answers as its snapshot"])
    assert set(ask(service, include="model")["model"]) == {"gpt-4o-mini-2024-07-18"}
    assert set(bf.batches(service.client())["model"]) == {"gpt-4o-mini-2024-07-18"}


def test_stuck_batch(service):
    """A wait ends at its timeout; the batch that is cancelled then has no results."""
    throw(service, SWITCHES["stuck"])
    with pytest.raises(bf.RunPendingError, match=r"not finished after 0\.3 seconds") as raised:
        ask(service, timeout_seconds=0.3)
    assert codes_of(raised.value.run.result()) == ["pending"] * N
    (batch,) = service.client().batches.list()
    service.client().batches.cancel(batch.id)
    assert codes_of(ask(service)) == ["batch_cancelled"] * N
    assert executions(service) == [0] * N
    assert service.calls()["create_batch"] == 1


def test_cancelled_batch(service):
    service.configure(progression="stepped")
    throw(service, SWITCHES["cancel: 409 when it has ended, 200 when cancelled"])
    client = Service(service.client(max_retries=0)).client
    run = bf.submit(FRAME, "Repeat {n}", client=service.client(), **ARGUMENTS)
    batch_id = run.batches()["batch_id"][0]
    service.step(2)
    assert client.cancel(batch_id).status == "cancelling"
    service.step()
    assert client.cancel(batch_id).status == "cancelled"
    run.wait()
    assert codes_of(run.result()) == [None] * 10 + ["batch_cancelled"] * 10
    service.configure(progression="instant")
    ask(service, name="another")
    with pytest.raises(bf.ServiceError, match=r"409 .*: Cannot cancel a batch with status 'completed'"):
        client.cancel(bf.batches(service.client())["batch_id"][0])


def test_slow_cancellation(service):
    service.configure(progression="stepped")
    throw(service, SWITCHES["cancelling takes long"])
    run = bf.submit(FRAME, "Repeat {n}", client=service.client(), **ARGUMENTS)
    service.step(2)
    service.client().batches.cancel(run.batches()["batch_id"][0])
    service.configure(progression="timed")
    with pytest.raises(bf.RunPendingError):
        run.wait(timeout_seconds=0.3)
    assert run.status().batches == {"cancelling": 1}
    service.configure(progression="instant")
    run.wait()
    assert codes_of(run.result()) == [None] * 10 + ["batch_cancelled"] * 10
    assert executions(service) == [1] * 10 + [0] * 10


# Six thousand tokens a row, in parts of 1, 10 and 9 rows: the last two are too many for the queue at a time.
LARGE = Outcome(
    frame=pl.DataFrame({"n": [f"{n} " + "word " * 6_000 for n in range(N)]}),
    options={"limits": bf.Limits(max_requests=10)},
)


@pytest.mark.parametrize("spoken", BOTH)
@pytest.mark.parametrize(
    "quirk", ["enqueued tokens, refused later", "refused at once", "failed batches hold the quota"]
)
def test_enqueued_token_limit(speaking, quirk, spoken):
    """Batches beyond the token limit are submitted when there is room; each row is executed once."""
    service = speaking(spoken)
    throw(service, SWITCHES[quirk], 'batch_fault("slow", at=0, seconds=0.3, times=2)')
    assert codes_of(ask(service, LARGE)) == [None] * N
    assert executions(service) == [1] * N
    assert service.calls()["create_batch"] > 3


def test_tokens_released_late(service):
    throw(service, SWITCHES["released late"])
    with pytest.raises(bf.RunPendingError) as raised:
        ask(service, LARGE, timeout_seconds=2)
    assert codes_of(raised.value.run.result()) == [None] * 11 + ["pending"] * 9
    service.configure(enqueued_token_limit=1_000_000)
    assert codes_of(ask(service, LARGE)) == [None] * N
    assert executions(service) == [1] * N


def test_projects_do_not_see_each_others_batches(service):
    service.configure(progression="stepped")
    throw(service, SWITCHES["callers that do not see one another"])
    own, other = (service.client(project=name) for name in ("own", "other"))
    run = bf.submit(FRAME, "Repeat {n}", client=own, **ARGUMENTS)
    assert (bf.batches(own).height, bf.batches(other).height) == (1, 0)
    with pytest.raises(bf.NotVisibleError, match="No batch found"):
        bf.read_batch(run.batches()["batch_id"][0], client=other)
    with pytest.raises(bf.RunMismatchError, match="project was 'own', is 'other'"):
        bf.open_run(run.path, client=other).wait()
    service.configure(progression="instant")
    assert run.wait().succeeded == N
    # The same call from another project is another run, with batches of its own.
    assert bf.run(FRAME, "Repeat {n}", client=other, **ARGUMENTS)["error"].null_count() == N
    assert executions(service) == [2] * N
