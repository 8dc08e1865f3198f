"""The dangerous window, lost replies, refused files, patience: over real HTTP against a service that misbehaves."""

from __future__ import annotations

import io
import json
import time

import msgspec
import openai
import polars as pl
import pytest

import batchframe as bf
from batchframe._core import events
from batchframe._providers.openai import OpenAIClient
from batchframe._runs import run as _run

FRAME = pl.DataFrame({"n": range(20)})
ARGUMENTS = {"model": "gpt-4o-mini", "poll_seconds": 0.02, "settle_seconds": 0.3}


@pytest.fixture
def trigger():
    hung = []

    def hang(point, action):
        hung.append(point)
        events.set_trigger(point, action)

    yield hang
    for point in hung:
        events.set_trigger(point, None)


def once_each(emu, rows=20):
    return emu.ledger()["by_custom_id"] == {f"row-{n}": 1 for n in range(rows)}


@pytest.mark.parametrize("skip", [0, 1, 2])
@pytest.mark.parametrize("kind", ["reset_before", "reset_after", "status"])
def test_a_create_without_an_answer_is_never_repeated_blindly(emu, client, kind, skip):
    emu.fault("create_batch", kind, skip=skip)
    out = bf.run(FRAME, "Repeat {n}", client=client, limits=bf.Limits(max_requests=8), **ARGUMENTS)
    assert out["error"].null_count() == 20
    assert once_each(emu)


def test_a_create_that_acts_late_is_adopted(emu, client):
    emu.fault("create_batch", "late", seconds=0.5)
    out = bf.run(FRAME, "Repeat {n}", client=client, **ARGUMENTS | {"settle_seconds": 5})
    assert out["error"].null_count() == 20
    assert once_each(emu)
    assert emu.calls()["create_batch"] == 1
    assert emu.calls().get("delete_file", 0) == 0


def test_a_create_that_acts_after_the_settle_time_finds_no_file(emu, client):
    emu.fault("create_batch", "late", seconds=1.0)
    out = bf.run(FRAME, "Repeat {n}", client=client, **ARGUMENTS)
    assert out["error"].null_count() == 20
    assert emu.calls()["delete_file"] == 1
    time.sleep(1.2)
    statuses = sorted(batch.status for batch in client.batches.list())
    assert statuses == ["completed", "failed"]
    assert once_each(emu)


def test_a_create_that_acts_between_the_deletion_of_its_file_and_the_last_look(emu, client, trigger):
    emu.fault("create_batch", "late", seconds=0.8)

    def until_it_acted():
        while not list(client.batches.list()):
            time.sleep(0.02)

    trigger("after_input_deleted", until_it_acted)
    out = bf.run(FRAME, "Repeat {n}", client=client, **ARGUMENTS)
    assert out["error"].null_count() == 20
    assert emu.calls()["create_batch"] == 2
    assert once_each(emu)


def test_creates_that_came_to_nothing_do_not_count_as_files_that_are_not_found(emu, client):
    emu.fault("create_batch", "reset_before", times=4)
    emu.batch_fault("cannot_find_file")
    out = bf.run(FRAME, "Repeat {n}", client=client, **ARGUMENTS | {"settle_seconds": 0})
    assert out["error"].null_count() == 20
    assert once_each(emu)


def test_nothing_is_submitted_while_a_create_is_in_doubt(emu, client):
    emu.fault("create_batch", "reset_before")
    with pytest.raises(bf.RunPendingError) as raised:
        bf.run(FRAME, "Repeat {n}", client=client, timeout_seconds=0.5, **ARGUMENTS | {"settle_seconds": 30})
    pending = raised.value.run
    status = pending.advance()
    assert status.waiting_for == "what became of a create that got no answer"
    assert (emu.calls()["create_batch"], emu.calls().get("delete_file", 0)) == (1, 0)


def test_a_create_that_was_refused_for_now_is_sent_again(emu, client):
    emu.fault("create_batch", "status", status=429, retry_after=0.1, times=3)
    out = bf.run(FRAME, "Repeat {n}", client=client, **ARGUMENTS)
    assert out["error"].null_count() == 20
    assert (emu.calls()["create_file"], emu.calls()["create_batch"]) == (1, 4)
    assert once_each(emu)


def test_a_create_that_was_refused_for_good_raises_and_can_be_resumed(emu, client):
    emu.fault("create_batch", "status", status=403)
    call = {"frame": FRAME, "prompt": "Repeat {n}", "client": client, **ARGUMENTS}
    with pytest.raises(bf.AuthenticationError, match="create_batch: the service answered 403"):
        bf.run(**call)
    assert bf.run(**call)["error"].null_count() == 20
    assert once_each(emu)


@pytest.mark.parametrize("kind", ["reset_before", "reset_after", "status"])
def test_an_upload_that_failed_is_made_again(emu, client, kind):
    emu.fault("create_file", kind, times=2)
    out = bf.run(FRAME, "Repeat {n}", client=client, **ARGUMENTS)
    assert out["error"].null_count() == 20
    assert emu.calls()["create_file"] == 3
    assert once_each(emu)


@pytest.mark.parametrize("change", ["cut", "removed"])
def test_an_input_file_that_was_changed_on_disk_is_not_uploaded(emu, client, trigger, tmp_path, change):
    path, kept = tmp_path / "run/parts/0000/input.jsonl", tmp_path / "kept"

    def spoil():
        path.rename(kept)
        if change == "cut":
            path.write_bytes(kept.read_bytes()[:-100])

    trigger("before_upload", spoil)
    call = {"frame": FRAME, "prompt": "Repeat {n}", "client": client, "run_dir": tmp_path / "run", **ARGUMENTS}
    for _ in range(2):
        with pytest.raises(bf.RunError, match=r"input\.jsonl is not what was written: .* bytes"):
            bf.run(**call)
        trigger("before_upload", lambda: None)
    assert emu.calls().get("create_file", 0) == 0
    kept.replace(path)
    assert bf.run(**call)["error"].null_count() == 20
    assert once_each(emu)


def test_an_upload_of_too_few_bytes_is_not_used(emu, client, monkeypatch):
    upload = OpenAIClient.upload
    short = iter([True])

    def cut(self, handle, filename, expires_after):
        sent = io.BytesIO(handle.read()[:-10]) if next(short, False) else handle
        return upload(self, sent, filename, expires_after)

    monkeypatch.setattr(OpenAIClient, "upload", cut)
    out = bf.run(FRAME, "Repeat {n}", client=client, **ARGUMENTS)
    assert out["error"].null_count() == 20
    assert (emu.calls()["create_file"], emu.calls()["delete_file"]) == (2, 1)


@pytest.mark.parametrize("call", ["retrieve_batch", "file_content"])
@pytest.mark.parametrize("kind", ["reset_before", "reset_after", "status"])
def test_polls_and_downloads_are_patient(emu, client, call, kind):
    emu.fault(call, kind, times=7)
    out = bf.run(FRAME, "Repeat {n}", client=client.with_options(max_retries=0), **ARGUMENTS)
    assert out["error"].null_count() == 20
    assert once_each(emu)


def test_a_download_that_was_cut_leaves_nothing_and_is_made_again(emu, client, tmp_path):
    emu.fault("file_content", "truncate", at=0.7, times=2)
    out = bf.run(FRAME, "Repeat {n}", client=client, run_dir=tmp_path / "r", **ARGUMENTS)
    assert out["error"].null_count() == 20
    kept = sorted(path.name for path in (tmp_path / "r" / "parts" / "0000" / "submissions").iterdir())
    assert kept == ["0.json", "0.output.jsonl"]


def test_an_unknown_model_is_one_clear_error_and_costs_nothing(emu, client):
    with pytest.raises(
        bf.InputFileRejectedError, match=r"20 lines from line 1: model_not_found: The provided model 'gpt-nope' is"
    ) as raised:
        bf.run(FRAME, "Repeat {n}", client=client, **ARGUMENTS | {"model": "gpt-nope"})
    assert raised.value.errors[19][0] == 20
    assert emu.ledger()["executions"] == 0


def test_a_refused_file_is_submitted_once_a_call(emu, client):
    call = {"frame": FRAME, "prompt": "Repeat {n}", "client": client, **ARGUMENTS, "model": "gpt-later"}
    for _ in range(2):
        with pytest.raises(bf.InputFileRejectedError):
            bf.run(**call)
    assert emu.calls()["create_batch"] == 2
    emu.configure(models=["gpt-later"])
    assert bf.run(**call)["error"].null_count() == 20
    assert once_each(emu)


def test_a_refused_part_does_not_touch_the_others(emu, client):
    """One part of three is refused; the other two are seen to, and the next call pays for the third only."""
    emu.batch_fault("fail", skip=1, code="invalid_request", message="Something is wrong with it.")
    call = {"frame": FRAME, "prompt": "Repeat {n}", "client": client, "limits": bf.Limits(max_requests=10), **ARGUMENTS}
    with pytest.raises(bf.InputFileRejectedError, match=r"part 1 .*invalid_request: Something is wrong with it"):
        bf.run(**call)
    out = bf.run(**call)
    assert out["error"].null_count() == 20
    assert once_each(emu)


def test_an_expired_batch_keeps_what_was_answered(emu, client):
    emu.configure(progression="stepped", execution_steps=2)
    run = bf.submit(FRAME, "Repeat {n}", client=client, max_attempts=1, **ARGUMENTS)
    emu.step(2)
    emu.expire()
    for _ in range(5):
        emu.step()
        if run.advance().done:
            break
    status = run.status()
    assert status.done
    assert status.batches == {"expired": 1}
    assert status.succeeded + status.failed == 20
    assert 0 < status.succeeded < 20
    out = run.result()
    assert out.filter(pl.col("response").is_null())["error"].struct.field("code").unique().to_list() == [
        "batch_expired"
    ]


def test_a_service_that_cannot_be_reached_is_given_up_after_a_minute(monkeypatch):
    monkeypatch.setattr(_run, "_UNREACHABLE_SECONDS", 0.3)
    with openai.OpenAI(api_key="k", base_url="http://127.0.0.1:1/v1", max_retries=0) as client:
        with pytest.raises(
            bf.ConnectionFailedError, match=r"list_batches: the service cannot be reached: .*Check the base URL"
        ):
            bf.run(FRAME, "Repeat {n}", client=client, **ARGUMENTS)


def test_a_wrong_key_is_one_clear_error(client, emu):
    emu.configure(api_keys=["sk-right"])
    with pytest.raises(
        bf.AuthenticationError, match=r"401 invalid_api_key: Incorrect API key provided.*Check the key: OPENAI_API_KEY"
    ) as raised:
        bf.run(FRAME, "Repeat {n}", client=emu.client(api_key="sk-wrong-secret"), **ARGUMENTS)
    assert "sk-wrong-secret" not in str(raised.value)
    assert bf.run(FRAME, "Repeat {n}", client=emu.client(api_key="sk-right"), **ARGUMENTS)["error"].null_count() == 20


def test_a_late_output_file_is_waited_for(emu, client, monkeypatch):
    """`completed` can be seen some polls before its output file."""
    retrieve = OpenAIClient.retrieve
    hidden = []

    def early(self, batch_id):
        batch = retrieve(self, batch_id)
        if batch.status == "completed" and len(hidden) < 3:
            hidden.append(batch_id)
            return msgspec.structs.replace(batch, output_file_id=None, raw=batch.raw | {"output_file_id": None})
        return batch

    monkeypatch.setattr(OpenAIClient, "retrieve", early)
    out = bf.run(FRAME, "Repeat {n}", client=client, **ARGUMENTS | {"settle_seconds": 20})
    assert out["error"].null_count() == 20
    assert len(hidden) == 3


def test_an_output_file_that_is_gone_is_an_error_about_the_run(emu, client):
    emu.configure(progression="stepped")
    run = bf.submit(FRAME, "Repeat {n}", client=client, **ARGUMENTS)
    emu.configure(progression="instant")
    emu.fault("file_content", "status", status=404, times=None)
    with pytest.raises(
        bf.ResultsError, match=r"part 0: batch batch_.* has an output file file-.* that the service does not show"
    ):
        run.wait()
    emu.clear_faults()
    assert run.wait().succeeded == 20


def test_the_intent_is_on_disk_before_the_create(client, trigger, tmp_path):
    seen = []

    def look():
        (path,) = tmp_path.glob("r/parts/0000/submissions/*.json")
        seen.append(json.loads(path.read_text()))

    trigger("before_create", look)
    bf.run(FRAME, "Repeat {n}", client=client, run_dir=tmp_path / "r", **ARGUMENTS)
    (written,) = seen
    assert written["stage"] == "submitting"
    assert written["input_file_id"].startswith("file-")
    assert written["batch_id"] is None


def test_two_services_give_two_runs(emu, client, emulate):
    with emulate() as other:
        for one in (client, other.client()):
            assert bf.run(FRAME, "Repeat {n}", client=one, **ARGUMENTS)["error"].null_count() == 20
        assert other.ledger()["executions"] == emu.ledger()["executions"] == 20
