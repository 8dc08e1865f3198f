"""What is kept of a run: its files at the service, its folder, the list of runs, and answers read as another type."""

from __future__ import annotations

import json

import polars as pl
import pytest

import batchframe as bf
from batchframe import testing
from batchframe._runs import run_reader
from batchframe._store import filesystem
from batchframe._store.run_folder import RunFolder

FRAME = pl.DataFrame({"n": range(12)})
ARGUMENTS = {"model": "gpt-4o-mini", "poll_seconds": 0.02, "settle_seconds": 0.3}


@pytest.fixture(params=["openai", "azure"])
def service(request, emulate):
    with emulate(request.param) as emu:
        yield emu


def submitted(service, **options):
    run = bf.submit(FRAME, "Repeat {n}", client=service.client(), **ARGUMENTS | options)
    run.wait()
    return run


def files(service):
    return {file.id for file in service.client().files.list()}


# -- the files at the service


def test_cleanup_deletes_what_the_run_made_and_nothing_else(service):
    service.row_fault("status", status=400, custom_ids=["row-3"])
    other = service.client().files.create(file=("other.jsonl", b'{"custom_id": "x"}\n'), purpose="batch").id
    run = submitted(service, limits=bf.Limits(max_requests=5))
    assert len(files(service)) > 6
    before = run.result()
    assert run.cleanup() >= 7
    assert files(service) == {other}
    assert run.cleanup() == 0
    assert bf.open_run(run.path).result().equals(before)


def test_cleanup_when_done(service):
    submitted(service, cleanup="when_done")
    assert not files(service)


def test_cleanup_that_fails_keeps_no_answer_back_and_a_cleaned_run_needs_no_service(tmp_path):
    call = {"frame": FRAME, "prompt": "Repeat {n}", "cleanup": "when_done", "run_dir": tmp_path / "run", **ARGUMENTS}
    with testing.emulator() as emu:
        client = emu.client()
        emu.fault("delete_file", "status", status=500, times=9)
        assert bf.run(client=client, **call)["error"].null_count() == 12
        assert files(emu)
        emu.clear_faults()
        assert bf.run(client=client, **call)["error"].null_count() == 12
        assert not files(emu)
    assert bf.run(client=client, **call)["error"].null_count() == 12  # the service is gone


def test_cleanup_leaves_what_is_running(emu):
    emu.configure(progression="stepped")
    run = bf.submit(FRAME, "Repeat {n}", client=emu.client(), **ARGUMENTS)
    assert run.cleanup() == 0
    assert len(files(emu)) == 1


def test_cleanup_that_was_interrupted_goes_on(emu):
    run = submitted(emu, limits=bf.Limits(max_requests=5))
    emu.fault("delete_file", "status", status=500, skip=2, times=9)
    with pytest.raises(bf.ServiceError):
        run.cleanup()
    emu.clear_faults()
    run.cleanup()
    assert not files(emu)


def test_rows_are_asked_again_after_a_cleanup(emu):
    emu.row_fault("status", status=400, custom_ids=["row-3"])
    run = submitted(emu)
    run.cleanup()
    assert run.retry().wait().succeeded == 12


# -- the folder


def test_delete(emu):
    run = submitted(emu)
    run.delete()
    assert not run.path.exists()


def test_delete_is_refused_while_batches_are_running(emu):
    emu.configure(progression="stepped")
    run = bf.submit(FRAME, "Repeat {n}", client=emu.client(), **ARGUMENTS)
    with pytest.raises(bf.RunError, match=r"1 batches of the run .* may still be running"):
        run.delete()
    assert run.path.exists()


def test_files_that_a_desktop_leaves_in_every_folder_are_passed_over(emu):
    run = submitted(emu)
    bf.run(FRAME.reverse(), "Repeat {n}", client=emu.client(), **ARGUMENTS)  # another arrangement of the rows
    run.reparse(response_format=pl.Struct({"a": pl.String})).result()
    for folder in [run.path, *(path for path in run.path.rglob("*") if path.is_dir())]:
        (folder / ".DS_Store").touch()
    again = bf.open_run(run.path, client=emu.client())
    assert again.status(refresh=False).succeeded == 12
    assert again.retry(pl.lit(value=True)).wait().succeeded == 12
    assert again.result()["error"].null_count() == 12
    again._folder.remove_unfinished_parts()
    assert (run.path / "parts" / ".DS_Store").exists()
    again.delete()
    assert not run.path.exists()


# -- the list


def test_the_runs_of_a_folder(emu, tmp_path, monkeypatch):
    monkeypatch.setenv("BATCHFRAME_HOME", str(tmp_path / "home"))
    assert bf.list_runs().height == 0
    done = submitted(emu)
    emu.configure(progression="stepped")
    going = bf.submit(FRAME, "Say {n}", client=emu.client(), name="second", **ARGUMENTS)
    found = bf.list_runs()
    assert found["run_id"].to_list() == [going.id, done.id]
    assert found.select("state", "rows", "succeeded", "pending", "name").rows() == [
        ("running", 12, 0, 12, "second"),
        ("finished", 12, 12, 0, None),
    ]
    assert bf.list_runs(tmp_path / "home").equals(found)
    assert bf.list_runs(tmp_path / "nowhere").schema == found.schema


def test_a_run_that_is_made_or_deleted_just_now_hides_no_other(emu, batchframe_home, monkeypatch):
    done, gone = submitted(emu), submitted(emu, name="gone")
    (batchframe_home / f".new-{done.id}").mkdir()
    (batchframe_home / f".new-{done.id}" / "run.json").write_bytes((done.path / "run.json").read_bytes())
    exists = RunFolder.exists

    def then_it_is_deleted(self):
        found = exists(self)
        if self.path == gone.path and found:
            gone.delete()
        return found

    monkeypatch.setattr(RunFolder, "exists", then_it_is_deleted)
    assert bf.list_runs()["run_id"].to_list() == [done.id]


def test_a_run_is_deleted_at_once_for_all_who_look(emu, monkeypatch):
    run = submitted(emu)
    seen = []
    monkeypatch.setattr(filesystem.shutil, "rmtree", lambda *_, **__: seen.append(run.path.exists()))
    run.delete()
    assert seen == [False]
    monkeypatch.undo()
    calls = emu.calls()["create_batch"]
    assert submitted(emu).status().succeeded == 12  # and what a crash left of it is cleared away
    assert emu.calls()["create_batch"] == calls


@pytest.mark.parametrize("is_finished", [True, False])
def test_a_run_that_is_deleted_while_it_is_read_is_said_to_be_gone(emu, monkeypatch, is_finished):
    if not is_finished:
        emu.configure(progression="stepped")
    run = bf.submit(FRAME, "Repeat {n}", client=emu.client(), **ARGUMENTS)
    name = "final_blocks" if is_finished else "current_blocks"
    if is_finished:
        run.wait()
    act = getattr(run_reader, name)

    def then_it_is_deleted(*args, **options):
        found = act(*args, **options)
        run._folder.remove()
        return found

    monkeypatch.setattr(run_reader, name, then_it_is_deleted)
    with pytest.raises(bf.RunNotFoundError, match="no run in"):
        bf.open_run(run.path).result()


# -- another type


def test_answers_are_read_as_another_type_without_asking(emu):
    schema = {"type": "object", "properties": {"label": {"enum": ["a", "b"]}}, "required": ["label"],
              "additionalProperties": False}  # fmt: skip
    wire = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
    run = submitted(emu, response_format=wire)
    assert run.result().schema["response"] == pl.String()
    texts = run.result()["response"].to_list()
    calls = emu.calls()
    out = run.reparse(response_format=schema).result()
    assert out.schema["response"] == pl.Struct({"label": pl.Enum(["a", "b"])})
    assert out["response"].to_list() == [json.loads(text) for text in texts]
    wrong = run.reparse(response_format=pl.Struct({"label": pl.Int64()}))
    assert set(wrong.result()["error"].struct.field("code")) == {"invalid_response"}
    assert wrong.status(refresh=False).failed == 12
    for text in (None, wire, {"type": "json_object"}):
        assert run.reparse(response_format=text).result()["response"].to_list() == texts
    assert emu.calls() == calls
