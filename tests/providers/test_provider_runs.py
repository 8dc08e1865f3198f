"""The same frame through every provider, each behind an emulator with its rules and oddities."""

from __future__ import annotations

import dataclasses
import warnings

import openai
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import batchframe as bf
from batchframe._providers.profiles import PROVIDERS, provider_named

ARGUMENTS = {"poll_seconds": 0.02, "settle_seconds": 0.5, "max_attempts": 2}
CHAT = "/v1/chat/completions"
# One row is refused for its temperature, one refuses to answer, one is executed and never told of, one is told of at
# the second time.
FRAME = pl.DataFrame({"n": range(24)}).with_columns(heat=pl.when(pl.col("n") == 2).then(99.0).otherwise(0.0))
# The others differ from them in numbers and spellings: they are among the slow tests.
USUAL = ("openai", "azure", "groq", "siliconflow", "perplexity", "novita")
FAULTS = {"refusal": "row-3", "missing": "row-5", "rate_limited": "row-7"}
LEDGER = {f"row-{n}": 1 for n in range(24)} | {"row-5": 2}
CODES = {"row-2": "decimal_above_max_value", "row-3": "refusal", "row-5": "missing"}
MODELS = {"moonshot": "kimi-k2.6", "perplexity": "openai/gpt-5.1"}  # they have no other than their own
ENDPOINTS = {"perplexity": "/v1/responses"}


@pytest.fixture
def service_like(emulate):
    """Lend the service of a provider."""

    def lend(name, **settings):
        speaks = {"openai": {}, "azure": {"dialect": "azure-v1", "oddities": "all"}}.get(name, {"service": name})
        return emulate(**{"models": list(MODELS.values())} | speaks | settings)

    return lend


def ask(emu, service, frame=FRAME, prompt="Repeat {n}", **options):
    its_own = {"model": MODELS.get(service, "gpt-4o-mini"), "endpoint": ENDPOINTS.get(service)}
    arguments = {**its_own, "provider": service, **ARGUMENTS, **options}
    with openai.OpenAI(api_key="k", base_url=emu.base_url, max_retries=0) as client, warnings.catch_warnings():
        warnings.simplefilter("ignore", bf.BatchframeWarning)
        return bf.run(frame, prompt, client=client, **arguments)


def with_trouble(emu, name, model, endpoint):
    for kind, row in FAULTS.items():
        emu.row_fault(kind, custom_ids=[row], attempts=1 if kind == "rate_limited" else None)
    out = ask(emu, name, temperature=pl.col("heat"), include=["model"], model=model, endpoint=endpoint)
    return out, emu.ledger()


@pytest.mark.parametrize(
    "name", [name if name in USUAL else pytest.param(name, marks=pytest.mark.slow) for name in PROVIDERS]
)
def test_the_same_frame_comes_back(name, service_like):
    model, endpoint = MODELS.get(name, "gpt-4o-mini"), ENDPOINTS.get(name)
    with service_like("openai") as plain, service_like(name) as emu:  # at a time: two accounts, and so two runs
        ours, our_ledger = with_trouble(plain, "openai", model, endpoint)
        theirs, their_ledger = with_trouble(emu, name, model, endpoint)
        assert emu.calls()["create_batch"] == emu.calls()["create_file"] == 2
    assert_frame_equal(theirs, ours)
    assert their_ledger == our_ledger
    assert our_ledger["by_custom_id"] == LEDGER
    failed = ours.filter(pl.col("error").is_not_null())
    assert dict(zip(failed["custom_id"], failed["error"].struct.field("code"), strict=True)) == CODES


@pytest.mark.slow
@pytest.mark.parametrize("name", PROVIDERS)
def test_completion_windows_match_the_service(name, service_like):
    with service_like(name) as emu:
        for window in provider_named(name).completion_windows:
            out = ask(emu, name, FRAME[:1], completion_window=window, name=window)
            assert out["error"].null_count() == 1
        with pytest.raises(bf.OptionError, match="completion_window '5h' is not one of"):
            ask(emu, name, FRAME[:1], completion_window="5h")
        bold = dataclasses.replace(provider_named(name), completion_windows=("5h",))
        with pytest.raises((bf.InvalidCallError, bf.InputFileRejectedError), match=r"'5h'|'24h'"):
            ask(emu, name, FRAME[:1], completion_window="5h", provider=bold)
        assert emu.ledger()["executions"] == len(provider_named(name).completion_windows)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["reset_before", "reset_after", "status", "late", "truncate"])
@pytest.mark.parametrize("name", ["groq", "dashscope", "zhipu", "perplexity", "deepinfra", "novita"])
def test_a_create_in_doubt_is_settled(name, kind, service_like):
    """Groq pages its list in its own way, Zhipu deletes input files unless it is told not to, Novita drops metadata."""
    with service_like(name) as emu:
        emu.fault("create_batch", kind, seconds=1.0)
        assert ask(emu, name)["error"].null_count() == 24
        assert emu.ledger()["by_custom_id"] == {f"row-{n}": 1 for n in range(24)}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["perplexity", "deepinfra", "novita"])
def test_a_lost_folder_costs_nothing(name, batchframe_home, service_like):
    """Also where the service drops metadata: the names of the input files tell whose its batches are."""
    with service_like(name) as emu:
        assert ask(emu, name)["error"].null_count() == 24
        batchframe_home.rename(batchframe_home.with_name("lost"))
        assert ask(emu, name)["error"].null_count() == 24
        assert emu.ledger()["by_custom_id"] == {f"row-{n}": 1 for n in range(24)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["reset_after", "late", "truncate", "status"])
def test_creates_at_perplexity_are_retried_with_the_same_key(kind, service_like):
    """The answer to the repeated create is the batch of the first: nobody has to look for it in the list."""
    with service_like("perplexity") as emu:
        emu.fault("create_batch", kind, seconds=0.1)
        options = {**ARGUMENTS, "model": MODELS["perplexity"], "endpoint": "/v1/responses", "settle_seconds": 3_600}
        with openai.OpenAI(api_key="k", base_url=emu.base_url, max_retries=2) as client:
            out = bf.run(FRAME, "Repeat {n}", client=client, provider="perplexity", **options)
            assert len(client.batches.list().data) == 1
        assert out["error"].null_count() == 24
        assert emu.calls()["create_batch"] == 2
        assert emu.calls()["create_file"] == 1
        assert emu.ledger()["by_custom_id"] == {f"row-{n}": 1 for n in range(24)}


def test_no_other_service_gets_an_idempotency_key(service_like):
    seen = []
    with service_like("openai") as emu, openai.OpenAI(api_key="k", base_url=emu.base_url) as client:
        client._client.event_hooks["request"].append(lambda request: seen.append(request.headers))
        for name in ("openai", "perplexity"):
            bf.run(FRAME[:1], "{n}", client=client, provider=name, model="gpt-4o-mini", endpoint="/v1/responses",
                   **ARGUMENTS)  # fmt: skip
    keys = [headers["idempotency-key"] for headers in seen if "idempotency-key" in headers]
    assert len(keys) == 1
    assert keys[0].startswith("file-")


@pytest.mark.slow
@pytest.mark.parametrize("name", PROVIDERS)
def test_rows_of_an_expired_batch_are_retried(name, service_like):
    with service_like(name) as emu:
        emu.batch_fault("expire", at=0.5)
        assert ask(emu, name)["error"].null_count() == 24
        assert emu.ledger()["by_custom_id"] == {f"row-{n}": 1 for n in range(24)}


@pytest.mark.parametrize("name", PROVIDERS)
def test_rejected_input_file(name, service_like):
    with service_like(name) as emu:
        if name == "perplexity":  # at the upload
            with pytest.raises(bf.InvalidCallError, match=r"upload: .* model_not_found: Line 1: .*'nobodys-model'"):
                ask(emu, name, model="nobodys-model")
        else:
            with pytest.raises(bf.InputFileRejectedError, match="model_not_found") as raised:
                ask(emu, name, model="nobodys-model")
            assert len(raised.value.errors) == (1 if name == "novita" else 24)  # all in one text
        assert emu.ledger()["executions"] == 0


def test_zhipu_uses_v4_in_lines_and_batches(service_like):
    with service_like("zhipu") as emu:
        with pytest.raises(bf.InvalidCallError, match=r"'/v1/chat/completions'. Supported values are: '/v4/chat/compl"):
            ask(emu, "openai")
        ask(emu, "zhipu", FRAME[:1])
        # Its parameter keeps the input file: in doubt, the file tells what became of the create.
        (batch,) = emu.client().batches.list()
        assert emu.client().files.retrieve(batch.input_file_id).purpose == "batch"


def test_input_files_respect_the_services_limit(service_like):
    frame = pl.DataFrame({"n": range(5_001)})
    with service_like("siliconflow") as emu:
        with pytest.raises(bf.InputFileRejectedError, match="at most 5000"):
            ask(emu, "openai", frame)
        assert ask(emu, "siliconflow", frame)["error"].null_count() == 5_001
        assert emu.calls()["create_batch"] == 1 + 2


def test_siliconflow_needs_a_user_message_at_the_end(service_like):
    prompt = [{"role": "user", "content": "Repeat {n}"}, {"role": "assistant", "content": "Well,"}]
    with service_like("siliconflow") as emu:
        with pytest.raises(bf.InputFileRejectedError, match="last message"):
            ask(emu, "siliconflow", prompt=prompt)


def test_moonshot_accepts_only_kimi(service_like):
    with service_like("moonshot", models=[]) as emu:
        with pytest.raises(bf.InputFileRejectedError, match="kimi-k3"):
            ask(emu, "moonshot", model="kimi-k3")
        assert ask(emu, "moonshot")["error"].null_count() == 24


def test_a_trial_on_dashscope(service_like):
    """Its endpoint for trials is an endpoint like any other: a profile of one's own names it."""
    trial = dataclasses.replace(
        provider_named("dashscope"), endpoints={CHAT: "/v1/chat/ds-test"}, limits=bf.Limits(max_requests=100)
    )
    with service_like("dashscope") as emu:
        with pytest.raises(bf.InputFileRejectedError, match="model_not_found"):
            ask(emu, "dashscope", provider=trial)
        frame = pl.DataFrame({"n": range(150)})
        assert ask(emu, "dashscope", frame, provider=trial, model="batch-test-model")["error"].null_count() == 150
        too_many = dataclasses.replace(trial, limits=bf.Limits())
        with pytest.raises(bf.InputFileRejectedError, match="at most 100"):
            ask(emu, "dashscope", frame, provider=too_many, model="batch-test-model", name="again")


@pytest.mark.slow
@pytest.mark.parametrize("name", PROVIDERS)
def test_batches_of_each_service(name, service_like):
    with service_like(name) as emu:
        for again in range(3):
            ask(emu, name, FRAME[:2], name=str(again))
        with openai.OpenAI(api_key="k", base_url=emu.base_url, max_retries=0) as client:
            found = bf.batches(client, since="1h", status="completed")
            assert found.height == 3
            assert found["run"].n_unique() == (1 if name == "novita" else 3)  # it drops metadata
            counts = [None if name == "azure" else 2] * 3  # it may leave them null
            assert found["requests"].to_list() == found["completed"].to_list() == counts
            answers = bf.read_batch(found["batch_id"][0], FRAME[:2], client=client)
        assert answers["error"].null_count() == 2
