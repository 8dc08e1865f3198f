"""``batchframe batches`` and ``batchframe read``."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from test_account import batch, make
from test_reading import bad, good, jsonl

from batchframe._providers import openai
from batchframe.cli import main
from odd_service import OddService


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with result files, and the frame of the requests."""
    monkeypatch.chdir(tmp_path)
    Path("out.jsonl").write_bytes(jsonl(good("a"), good("c", "no")))
    Path("err.jsonl").write_bytes(jsonl(bad("b")))
    pl.DataFrame({"id": ["a", "b", "c"]}).write_parquet("rows.parquet")
    return tmp_path


@pytest.fixture
def service(emu, here, monkeypatch):
    """The emulator as the service of the environment."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("OPENAI_BASE_URL", emu.base_url)
    made = []
    real = openai.client_from_environment
    monkeypatch.setattr(openai, "client_from_environment", lambda: made.append(real()) or made[-1])
    yield emu
    for client in made:
        client.close()


def test_batches(service, capsys):
    first, second = make(service.client()), make(service.client(), model="no-such-model")
    assert main(["batches"]) == 0
    out = capsys.readouterr().out
    assert first.id in out  # whole, to be copied
    assert out.index(second.id) < out.index(first.id)
    assert "…" not in out
    assert main(["batches", "--status", "failed", "--since", "1h", "--limit", "5"]) == 0
    out = capsys.readouterr().out
    assert second.id in out
    assert first.id not in out


def test_batches_as_json(service, capsys):
    made = make(service.client(), metadata={"project": "x"})
    assert main(["batches", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert found["batch_id"] == made.id
    assert json.loads(found["metadata"]) == {"project": "x"}
    assert main(["batches", "--json", "--status", "expired"]) == 0
    assert capsys.readouterr().out == ""


def test_batches_shows_every_batch(here, capsys, monkeypatch):
    with OddService(lambda *_: {"data": [batch(number) for number in range(60)]}) as odd:
        monkeypatch.setattr(openai, "client_from_environment", lambda: odd.client)
        assert main(["batches"]) == 0
    out = capsys.readouterr().out
    assert all(f"batch_{number} " in out for number in range(60))


def test_read_files_and_print(here, capsys):
    assert main(["read", "out.jsonl", "err.jsonl"]) == 3
    out = capsys.readouterr().out
    assert "batch_expired" in out
    assert "3: 2 succeeded, 1 batch_expired" in out
    assert main(["read", "out.jsonl"]) == 0
    assert main(["read", "out.jsonl", "err.jsonl", "--allow-failed"]) == 0


def test_read_joins_a_frame_and_writes_a_file(here, capsys):
    assert (
        main(["read", "out.jsonl", "err.jsonl", "answers.parquet", "--frame", "rows.parquet", "--custom-id", "id"]) == 3
    )
    assert "answers.parquet" in capsys.readouterr().out
    found = pl.read_parquet("answers.parquet")
    assert found["id"].to_list() == ["a", "b", "c"]
    assert found["response"].to_list() == ["yes", None, "no"]
    assert not list(here.glob(".*tmp"))


def test_read_a_batch(service, capsys):
    made = make(service.client(), ["Great sound."])
    assert main(["read", made.id, "answers.parquet"]) == 0
    assert pl.read_parquet("answers.parquet")["custom_id"].to_list() == ["c-0"]


def test_read_a_batch_that_has_not_ended(service, capsys):
    service.configure(progression="stepped")
    client = service.client()
    file = client.files.create(file=("a.jsonl", b"{}\n"), purpose="batch")
    alive = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    assert main(["read", alive.id]) == 4
    assert "has not ended: it is validating" in capsys.readouterr().err
    assert main(["read", alive.id, "--frame", "rows.parquet", "--custom-id", "id"]) == 4
    assert "3: 0 succeeded, 3 pending" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["read"], 2, "Missing argument"),
        (["read", "no.jsonl"], 2, "'no.jsonl' cannot be read"),
        (["read", "rows.parquet"], 2, "'rows.parquet', line 1: not JSON"),
        (["read", "out.jsonl", "no/folder/out.parquet"], 2, "the folder of 'no/folder/out.parquet' does not exist"),
        (["read", "out.jsonl", "--frame", "out.jsonl"], 2, "'out.jsonl' cannot be read as Parquet"),
        (["read", "out.jsonl", "--frame", "rows.parquet", "--custom-id", "idd"], 2, "Did you mean 'id'"),
        (["read", "batch_x"], 1, "404"),
        (["batches", "--since", "soon"], 2, "since must be"),
        (["batches", "--status", "complete"], 2, "Did you mean 'completed'"),
        (["batches", "--limit", "0"], 2, "--limit"),
    ],
)
def test_errors_are_one_line(service, capsys, args, code, message):
    assert main(args) == code
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") <= 2


def test_missing_key(here, capsys):
    assert main(["batches"]) == 2
    assert "no API key" in capsys.readouterr().err


def test_help_lists_the_commands(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "batches" in out
    assert "read " in out
