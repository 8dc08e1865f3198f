"""The queue of enqueued tokens: used, not overrun, and nobody's rows fail for it."""

from __future__ import annotations

import dataclasses
import json
import threading

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import batchframe as bf
from batchframe._batches.admission import Admission, Load, told_limit
from batchframe._core.events import set_trigger
from batchframe._endpoints.token_estimate import estimated_tokens
from batchframe._providers.limits import is_queue_full
from batchframe._providers.profiles import provider_named
from batchframe.emulator import answer
from quirk_table import SWITCHES
from test_quirks import throw

N = 40
FRAME = pl.DataFrame({"n": range(N)})
PROMPT = "Repeat {n}: " + "word " * 40
ARGUMENTS = {"model": "gpt-4o-mini", "poll_seconds": 0.02, "settle_seconds": 0.3}
LIMITS = {"max_requests": 5}  # parts of 1 and then 5 requests
LINES = [line.encode() for line in bf.requests(FRAME, PROMPT, model="gpt-4o-mini")["request"]]
TOKENS = [answer(json.loads(line)["body"])["usage"]["prompt_tokens"] for line in LINES]
PART = 5 * max(TOKENS)


@pytest.fixture(params=["openai", "azure"])
def service(request, emulate):
    """OpenAI tells by failing the batch later, Azure may refuse the create."""
    at = {"openai": "validation", "azure": "create"}[request.param]
    with emulate(request.param, over_limit_at=at) as emu:
        emu.tells_late = request.param == "openai"
        yield emu


def ask(service, prompt=PROMPT, limits=None, **options):
    limits = bf.Limits(**LIMITS | (limits or {}))
    return bf.run(FRAME, prompt, client=service.client(), limits=limits, **ARGUMENTS | options)


def is_whole(service, out, times=1):
    assert out["error"].null_count() == N
    return service.ledger(summary=True)["executions"] == times * N


def refusals(service):
    """How often the service refused a batch for want of room."""
    failed = sum(batch.status == "failed" for batch in service.client().batches.list())
    return failed + service.calls()["create_batch"] - len(list(service.client().batches.list()))


def test_a_limit_that_is_known_is_never_overrun(service):
    service.configure(enqueued_token_limit=2 * PART)
    out = ask(service, limits={"max_enqueued_tokens": 2 * PART})
    assert is_whole(service, out)
    assert refusals(service) == 0


def test_a_limit_that_is_not_known_is_learned_from_the_first_refusal(service):
    service.configure(enqueued_token_limit=2 * PART, progression="timed", seconds={"in_progress": 0.2})
    out = ask(service)
    assert is_whole(service, out)
    # Where the refusal comes after the create, what was created by then is refused, and no more.
    assert refusals(service) <= (8 if service.tells_late else 1)


def test_many_parts_do_not_run_into_the_limit_together(emu):
    emu.configure(enqueued_token_limit=3 * max(TOKENS), progression="timed", seconds={"in_progress": 0.05})
    out = ask(emu, limits={"max_requests": 1})
    assert is_whole(emu, out)
    assert refusals(emu) <= 12  # of 40 parts: those that went before the first word of a limit


@pytest.mark.parametrize(
    "told", [pytest.param(True, marks=pytest.mark.slow), False], ids=["limit given", "limit learned"]
)
def test_a_part_larger_than_the_queue_is_split(service, told):
    limit = PART // 2
    service.configure(enqueued_token_limit=limit)
    out = ask(service, limits={"max_enqueued_tokens": limit} if told else {})
    assert is_whole(service, out)
    assert out["n"].to_list() == list(range(N))


@pytest.mark.slow
def test_a_part_that_was_estimated_too_small_is_halved(emu, monkeypatch):
    monkeypatch.setattr("batchframe._store.input_files.estimated_tokens", lambda _sample, n_bytes: n_bytes // 40)
    emu.configure(enqueued_token_limit=PART // 2)
    assert is_whole(emu, ask(emu, limits={"max_enqueued_tokens": PART // 2}))


@pytest.mark.slow
def test_two_runs_share_the_queue(service):
    service.configure(enqueued_token_limit=2 * PART, progression="timed", seconds={"in_progress": 0.1})
    found = {}

    def go(word):
        found[word] = ask(service, word + PROMPT, limits={"max_enqueued_tokens": 2 * PART}, poll_seconds=0.1)

    threads = [threading.Thread(target=go, args=(word,)) for word in ("One: ", "Two: ")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(out["error"].null_count() == N for out in found.values())
    assert service.ledger(summary=True)["executions"] == 2 * N
    assert refusals(service) <= 18  # of 18 parts: both may see room for the same tokens at once


@pytest.mark.slow
def test_while_others_hold_the_queue_it_waits_and_says_so(service):
    service.configure(enqueued_token_limit=2 * PART)
    service.batch_fault("stuck", at=0)
    other = service.client()
    lines = b"\n".join(line.replace(b"row-", b"other-") for line in LINES[: N // 4 - 1])
    if not service.tells_late:
        lines = lines.replace(b"/v1/chat/completions", b"/chat/completions")
    file = other.files.create(file=("o.jsonl", lines), purpose="batch")
    endpoint = "/v1/chat/completions" if service.tells_late else "/chat/completions"
    batch = other.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h")
    with pytest.raises(bf.RunPendingError) as raised:
        ask(service, timeout_seconds=1.5)
    run = raised.value.run
    said = {run.advance().waiting_for for _ in range(20)}
    assert any("which others hold" in words for words in said)
    assert service.calls()["create_batch"] < 20
    other.batches.cancel(batch.id)
    assert run.wait(60).succeeded == N


def test_a_request_larger_than_the_queue_waits_and_says_so(service):
    service.configure(enqueued_token_limit=5)
    with pytest.raises(bf.RunPendingError, match=r", and it waits for room in the queue") as raised:
        bf.run(FRAME[:3], PROMPT, client=service.client(), timeout_seconds=1, **ARGUMENTS)
    said = {raised.value.run.advance().waiting_for for _ in range(30)}
    assert any("(limit: 5), though its one request has about 5" in words for words in said)
    assert service.calls()["create_batch"] < 12


def test_no_row_fails_and_no_attempt_is_used_for_want_of_room(service):
    service.configure(enqueued_token_limit=PART)
    out = ask(service, max_attempts=1)
    assert is_whole(service, out)


def test_what_was_learned_is_kept(emu, tmp_path):
    emu.configure(enqueued_token_limit=PART)
    ask(emu, limits={"max_requests": N}, run_dir=tmp_path / "run")
    assert json.loads((tmp_path / "run/queue.json").read_text()) == {"enqueued_token_limit": PART}


@pytest.mark.slow
@pytest.mark.parametrize("point", ["after_part_input", "after_part_record"])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_crash_while_a_part_is_split(emu, point, nth):
    left = [nth]

    def crash():
        left[0] -= 1
        if not left[0]:
            set_trigger(point, None)
            raise KeyboardInterrupt

    set_trigger(point, crash)
    limits = {"max_requests": N, "max_enqueued_tokens": sum(TOKENS) // 3}
    with pytest.raises(KeyboardInterrupt):
        ask(emu, limits=limits)
    emu.configure(enqueued_token_limit=sum(TOKENS) // 3)
    assert is_whole(emu, ask(emu, limits=limits))


# -- embeddings, of which inputs and requests are counted


def embed(service, *, max_requests=3, prompt=PROMPT, **limits):
    """Ask for embeddings with a profile of the service that has other limits."""
    profile = dataclasses.replace(provider_named("openai" if service.tells_late else "azure"), **limits)
    return ask(
        service, prompt, {"max_requests": max_requests}, provider=profile, endpoint="/v1/embeddings",
        model="text-embedding-3-small", dimensions=2,
    )  # fmt: skip


def has_all(service, out):
    ledger = service.ledger()
    return out["error"].null_count() == N and ledger["billed"] == N == len(ledger["by_body"])


def test_inputs_for_embeddings(service):
    """Whatever limits are asked for, no file has more, nor has one of another attempt."""
    throw(service, SWITCHES["too many inputs for embeddings"])
    service.row_fault("rate_limited", share=0.5)
    assert has_all(service, embed(service, max_requests=100_000, max_embeddings=4))
    assert refusals(service) == 0
    batches = bf.batches(service.client())
    assert batches["requests"].max() == 4
    assert batches["requests"].sum() > N


@pytest.mark.slow
def test_the_number_of_inputs_that_is_documented(service):
    n = 50_001
    limits = bf.Limits(max_requests=100_000)
    call = {"limits": limits, "endpoint": "/v1/embeddings", "model": "text-embedding-3-small", "dimensions": 2}
    out = bf.run(pl.DataFrame({"n": range(n)}), "{n}", client=service.client(), **ARGUMENTS | call)
    assert out["error"].null_count() == n
    assert refusals(service) == 0
    assert sorted(bf.batches(service.client())["requests"]) == [5_000, 45_001]


def test_the_queue_of_requests_for_embeddings(service):
    throw(service, SWITCHES["enqueued requests for embeddings"])
    service.configure(progression="timed", seconds={"in_progress": 0.05})
    assert has_all(service, embed(service, max_enqueued_embeddings=6))
    assert refusals(service) == 0


def test_a_queue_of_requests_that_is_smaller_than_documented_is_learned(service, batchframe_home):
    service.configure(enqueued_request_limit=7, progression="timed", seconds={"in_progress": 0.1})
    assert has_all(service, embed(service))
    assert refusals(service) <= (12 if service.tells_late else 1)
    (note,) = batchframe_home.glob("*/queue.json")
    assert json.loads(note.read_text()) == {"enqueued_request_limit": 7}


def test_a_part_of_more_requests_than_the_queue_takes_is_split(service):
    service.configure(enqueued_request_limit=4)
    assert has_all(service, embed(service, max_requests=20, max_enqueued_embeddings=4))
    assert refusals(service) == 0


@pytest.mark.parametrize("steps", [0, 1], ids=["validating", "validated"])
def test_requests_of_other_runs_are_counted(service, steps):
    service.configure(enqueued_request_limit=60, progression="stepped")
    profile = dataclasses.replace(
        provider_named("openai" if service.tells_late else "azure"), max_enqueued_embeddings=60
    )
    call = {"provider": profile, "endpoint": "/v1/embeddings", "client": service.client()}
    call |= ARGUMENTS | {"model": "text-embedding-3-small"}
    first = bf.submit(FRAME, PROMPT, **call)
    service.step(steps)
    with pytest.raises(bf.RunPendingError) as raised:
        bf.run(FRAME, "Other: " + PROMPT, **call, timeout_seconds=0.2)
    assert raised.value.run.advance().waiting_for == "room in the queue of enqueued requests (limit: 60)"
    assert service.calls()["create_batch"] == 1
    service.configure(progression="instant")
    assert (first.wait().succeeded, raised.value.run.wait(60).succeeded) == (N, N)
    assert refusals(service) == 0


# -- many batches are looked at together


def test_many_batches_cost_one_call_a_pass(emu, clock):
    emu.configure(progression="stepped")
    options = ARGUMENTS | {"poll_seconds": None}
    run = bf.submit(FRAME, PROMPT, client=emu.client(), limits=bf.Limits(max_requests=4), **options)
    before = emu.calls()
    for _ in range(5):
        run.advance()
    after = emu.calls()
    assert after["list_batches"] - before.get("list_batches", 0) == 5
    # One that shows nothing new for long is asked for by id now and then: see test_watch.py.
    assert after.get("retrieve_batch", 0) == before.get("retrieve_batch", 0)
    emu.configure(progression="instant")
    assert run.wait().succeeded == N


def test_a_list_that_does_not_show_them_is_no_loss(emu):
    emu.batch_fault("list_late", seconds=60, times=None)
    assert is_whole(emu, ask(emu, limits={"max_requests": 4}))


def test_a_list_that_fails_is_no_loss(emu):
    emu.fault("list_batches", "status", status=500, times=6)
    assert is_whole(emu, ask(emu, limits={"max_requests": 4}))


# -- pure parts


@pytest.mark.parametrize(
    ("said", "limit"),
    [
        ("Enqueued token limit reached for gpt-4o-mini in organization org-1. Limit: 2,000,000 enqueued tokens. Please",
         2_000_000),
        ("… has surpassed the configured limit of 30K for the deployment 'gpt-4.1-batch'.", 30_000),
        ("the configured limit of 1.5M for the", 1_500_000),
        ("Limit: 90,000 enqueued tokens.", 90_000),
        ("limit of 5B for", 5_000_000_000),
        ("There is no room.", None),
        ("Limit: none", None),
        ("Enqueued request limit reached for m in organization org-1. Limit: 1,000,000 enqueued requests.", 1_000_000),
        ("limit of 0 for", None),
    ],
)  # fmt: skip
def test_the_limit_in_a_refusal(said, limit):
    assert told_limit(said) == limit


@given(st.text())
def test_any_refusal_message_is_understood(said):
    assert told_limit(said) is None or told_limit(said) > 0


@pytest.mark.parametrize(
    ("words", "tells"),
    [
        ("token_limit_exceeded ...", True),
        ("Enqueued token limit reached for m", True),
        ("request_limit_exceeded Enqueued request limit reached for m", True),
        ("batch_request_limit_exceeded The batch has more requests than allowed.", False),
        ("rate_limit_exceeded", False),
    ],
)
def test_is_queue_full(words, tells):
    assert is_queue_full(words) == tells


def test_a_refusal_for_requests_says_nothing_of_tokens():
    admission = Admission(max_requests=1_000_000)
    words = "Enqueued request limit reached for m in organization o. Limit: 500 enqueued requests."
    admission.refused(1, Load(10_000, 100), Load(), words, others=False, chance=0)
    assert (admission.limit, admission.max_requests) == (None, 500)
    for _ in range(3):
        admission.refused(1, Load(10_000, 100), Load(), words, others=False, chance=0)
    assert admission.verdict(1, Load(10_000, 100), Load()) == "wait"  # others hold the queue: no smaller part goes in


@given(
    st.integers(1, 10_000),
    st.none() | st.integers(1, 100),
    st.lists(st.tuples(st.integers(1, 3_000), st.integers(1, 50)), min_size=1, max_size=30),
)
def test_a_known_limit_holds_and_everything_goes_in_the_end(limit, most, parts):
    admission = Admission(limit, most)
    parts = [Load(*part) for part in parts]
    waiting, flying, done = dict(enumerate(parts)), {}, 0
    for _ in range(2_000):
        for number, load in list(waiting.items()):
            tokens, requests = load
            in_flight = sum(flying.values(), Load())
            verdict = admission.verdict(number, load, in_flight)
            if verdict == "split":
                assert tokens > limit or requests > (most or requests)
                del waiting[number]
                waiting[max([*waiting, *flying, number, len(parts) + done]) + 1] = Load(tokens // 2, requests // 2)
                waiting[max(waiting) + 1] = Load(tokens - tokens // 2, requests - requests // 2)
            elif verdict == "submit":
                assert not flying or in_flight.tokens + tokens <= limit
                assert not flying or most is None or in_flight.requests + requests < most
                flying[number] = load
                del waiting[number]
        if flying:
            flying.pop(next(iter(flying)))
            admission.ended()
            done += 1
    assert not waiting


@given(st.lists(st.text(max_size=50), min_size=1, max_size=20))
def test_tokens_are_about_a_quarter_of_the_texts_bytes(texts):
    lines = [json.dumps({"body": {"messages": [{"role": "user", "content": text}]}}).encode() + b"\n" for text in texts]
    expected = sum(6 + -(-len(text.encode()) // 4) for text in texts)
    assert estimated_tokens(lines, sum(map(len, lines))) == expected
