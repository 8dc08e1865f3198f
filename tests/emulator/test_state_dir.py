"""The state folder: what a restart or a kill leaves, and how batches resume."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request

import openai
import pytest

from batchframe.emulator import body_digest
from batchframe.emulator._batches.ledger import Ledger, record
from batchframe.emulator._batches.result_files import ResultFile
from batchframe.emulator._service.storage import Storage
from batchframe.testing import emulator

from .conftest import body, create, ended, jsonl, read, request, upload, wait
from .upstream_server import UpstreamServer

# Each test starts several processes: a minute in all.
pytestmark = pytest.mark.slow


@pytest.fixture
def upstream():
    with UpstreamServer().running() as server:
        yield server


class Server:
    """An emulator in a process of its own, until it is killed or stopped."""

    def __init__(self, state_dir, **options):
        script = (
            "import json, sys, batchframe.emulator as e; o = json.loads(sys.argv[1]); "
            "s = e.Settings(seconds=e.Seconds(**o.pop('seconds', {}))); e.serve(port=0, settings=s, **o)"
        )
        argument = json.dumps({"state_dir": str(state_dir), **options})
        self.process = subprocess.Popen([sys.executable, "-c", script, argument], stderr=subprocess.PIPE, text=True)
        self.url = self.process.stderr.readline().removeprefix("batchframe emulator: ").strip()
        self.client = openai.OpenAI(api_key="x", base_url=self.url, max_retries=0)

    def ledger(self):
        with urllib.request.urlopen(self.url.removesuffix("/v1") + "/_emulator/ledger") as reply:
            return json.load(reply)

    def end(self, how=signal.SIGKILL):
        self.client.close()
        self.process.send_signal(how)
        self.process.wait(10)
        self.process.stderr.close()


@contextlib.contextmanager
def life(state_dir, **options):
    server = Server(state_dir, **options)
    try:
        yield server
    finally:
        server.end()


def rows_of(client, batch):
    """Return the custom_ids of the result lines of both files, with repetitions."""
    files = [file_id for file_id in (batch.output_file_id, batch.error_file_id) if file_id]
    return sorted(line["custom_id"] for file_id in files for line in read(client, file_id))


def test_killed_batch_resumes(tmp_path, upstream):
    upstream.seconds = 0.02
    rows = [request(f"row-{number}") for number in range(150)] + [request("bad 1"), request("bad 2")]
    with life(tmp_path, upstream=upstream.url, concurrency=4) as first:
        batch = create(first.client, upload(first.client, jsonl(*rows)))
        before = wait(first.client, batch.id, lambda now: now.request_counts.completed >= 50)
        assert before.status == "in_progress"
        # A batch does not need its input file any more.
        first.client.files.delete(batch.input_file_id)
    with life(tmp_path, upstream=upstream.url, concurrency=4) as second:
        again = second.client.batches.retrieve(batch.id)
        assert (again.status, again.created_at, again.in_progress_at) == (
            "in_progress",
            batch.created_at,
            before.in_progress_at,
        )
        assert again.request_counts.completed >= before.request_counts.completed
        done = wait(second.client, batch.id)
        ledger = second.ledger()
        assert rows_of(second.client, done) == sorted(row["custom_id"] for row in rows)
    assert (done.status, done.request_counts.completed, done.request_counts.failed) == ("completed", 150, 2)
    assert done.usage.input_tokens == 150 * 3
    # At most the requests under way at the kill are sent twice.
    assert set(upstream.seen) == {row["custom_id"] for row in rows}
    assert sum(upstream.seen.values()) <= len(rows) + 4
    # The ledger has each once, unless the process died between its record and its result.
    assert set(ledger["by_custom_id"]) == {row["custom_id"] for row in rows}
    assert ledger["executions"] == sum(ledger["by_custom_id"].values())
    assert len(rows) <= ledger["executions"] <= sum(upstream.seen.values())
    assert ledger["billed"] == ledger["executions"] - ledger["by_custom_id"]["bad 1"] - ledger["by_custom_id"]["bad 2"]


def test_batch_killed_repeatedly_resumes(tmp_path, upstream):
    upstream.seconds = 0.01
    rows = [request(f"row-{number}") for number in range(120)]
    kills, batch = 0, None
    done = 0
    while True:
        with life(tmp_path, upstream=upstream.url, concurrency=3) as server:
            if batch is None:
                batch = create(server.client, upload(server.client, jsonl(*rows)))
            target = done + 20
            now = wait(
                server.client,
                batch.id,
                lambda now, target=target: now.request_counts.completed >= target or now.status == "completed",
            )
            done = now.request_counts.completed
            if now.status == "completed":
                assert rows_of(server.client, now) == sorted(row["custom_id"] for row in rows)
                break
        kills += 1
    assert kills >= 3
    assert sum(upstream.seen.values()) <= len(rows) + 3 * kills


def test_finished_batches_are_unchanged_after_a_restart(tmp_path):
    with life(tmp_path) as first:
        client = first.client
        batch = ended(client, request("a"), request("b", body(foo=1)))
        failed = ended(client, {"custom_id": "a"})
        deleted = upload(client, jsonl(request("c")))
        client.files.delete(deleted)
        before = (
            [each.to_dict() for each in client.batches.list()],
            [each.to_dict() for each in client.files.list()],
            client.files.content(batch.output_file_id).content,
            first.ledger(),
        )
    with life(tmp_path) as second:
        client = second.client
        after = (
            [each.to_dict() for each in client.batches.list()],
            [each.to_dict() for each in client.files.list()],
            client.files.content(batch.output_file_id).content,
            second.ledger(),
        )
        assert after == before
        assert [each["id"] for each in after[0]] == [failed.id, batch.id]
        assert len(after[1]) == 4
        # New objects come after the old ones.
        newest = ended(client, request("d"))
        assert [each.id for each in client.batches.list()] == [newest.id, failed.id, batch.id]
        assert second.ledger()["by_custom_id"] == {"a": 1, "b": 1, "d": 1}


def test_killed_while_validating(tmp_path):
    with life(tmp_path, seconds={"validating": 60}) as first:
        batch = create(first.client, upload(first.client, jsonl(request("a"))))
        wrong = create(first.client, upload(first.client, jsonl({"custom_id": "a"})))
        assert first.client.batches.retrieve(batch.id).status == "validating"
    with life(tmp_path) as second:
        assert wait(second.client, batch.id).status == "completed"
        assert wait(second.client, wrong.id).status == "failed"


@pytest.mark.parametrize("status", ["cancelling", "finalizing"])
def test_killed_while_ending(tmp_path, upstream, status):
    slow = {"cancelling": 60, "finalizing": 60}
    rows = [request("one"), request("two"), *([request("hold 1")] if status == "cancelling" else [])]
    with life(tmp_path, upstream=upstream.url, concurrency=1, seconds=slow) as first:
        batch = create(first.client, upload(first.client, jsonl(*rows)))
        wait(first.client, batch.id, lambda now: now.request_counts.completed == 2)
        if status == "cancelling":
            first.client.batches.cancel(batch.id)
        wait(first.client, batch.id, lambda now: now.status == status)
    upstream.release.set()
    with life(tmp_path, upstream=upstream.url) as second:
        done = wait(second.client, batch.id)
        assert done.status == {"cancelling": "cancelled", "finalizing": "completed"}[status]
        assert rows_of(second.client, done) == sorted(row["custom_id"] for row in rows)
        assert done.request_counts.completed == 2
        assert [file.filename for file in second.client.files.list(purpose="batch_output")].count(
            f"{batch.id}_output.jsonl"
        ) == 1
    assert (upstream.seen["one"], upstream.seen["two"]) == (1, 1)


def test_own_answers_are_not_given_twice_after_a_restart(tmp_path):
    rows = [request(f"row-{number}") for number in range(400)]
    with life(tmp_path, seconds={"in_progress": 3}) as first:
        batch = create(first.client, upload(first.client, jsonl(*rows)))
        wait(first.client, batch.id, lambda now: now.request_counts.completed >= 100)
    with life(tmp_path) as second:
        done = wait(second.client, batch.id)
        assert rows_of(second.client, done) == sorted(row["custom_id"] for row in rows)
        assert done.request_counts.completed == 400
        ledger = second.ledger()
    assert ledger["executions"] == 400
    assert set(ledger["by_body"]) == {body_digest(row["body"]) for row in rows}


def test_clean_shutdown_keeps_state_and_reset_drops_it(tmp_path, upstream):
    with emulator(state_dir=tmp_path, upstream=upstream.url) as service:
        client = service.client()
        finished = ended(client, request("a"))
        held = create(client, upload(client, jsonl(request("hold"), request("b"))))
        wait(client, held.id, lambda now: now.request_counts.completed == 1)
    upstream.release.set()
    with emulator(state_dir=tmp_path, upstream=upstream.url) as service:
        client = service.client()
        assert client.batches.retrieve(finished.id).status == "completed"
        assert rows_of(client, wait(client, held.id)) == ["b", "hold"]
        service.reset()
        assert (client.batches.list().data, client.files.list().data) == ([], [])
        assert service.ledger()["executions"] == 0
        assert ended(client, request("c")).request_counts.completed == 1
    with emulator(state_dir=tmp_path) as service:
        assert len(service.client().batches.list().data) == 1


def test_window_ends_between_two_processes(tmp_path, upstream):
    with emulator(state_dir=tmp_path, upstream=upstream.url, window_seconds=1.5) as service:
        client = service.client()
        batch = create(client, upload(client, jsonl(request("a"), request("hold"))))
        wait(client, batch.id, lambda now: now.request_counts.completed == 1)
    upstream.release.set()
    time.sleep(1.5)
    requests_before = sum(upstream.seen.values())
    with emulator(state_dir=tmp_path, upstream=upstream.url) as service:
        client = service.client()
        assert wait(client, batch.id).status == "expired"
        assert rows_of(client, wait(client, batch.id)) == ["a", "hold"]
    assert sum(upstream.seen.values()) == requests_before


@pytest.mark.parametrize("shuffle", [False, True])
def test_killed_between_result_files_and_end(tmp_path, upstream, monkeypatch, shuffle):
    def die(self, record):
        if record.batch.status == "completed":
            raise RuntimeError("as if killed")
        keep(self, record)

    keep = Storage.keep
    monkeypatch.setattr(Storage, "keep", die)
    with emulator(state_dir=tmp_path, upstream=upstream.url, shuffle=shuffle) as service:
        batch = ended(service.client(), request("a"), request("bad"))
    monkeypatch.setattr(Storage, "keep", keep)
    with emulator(state_dir=tmp_path, upstream=upstream.url) as service:
        client = service.client()
        done = wait(client, batch.id)
        assert (done.status, rows_of(client, done)) == ("completed", ["a", "bad"])
        results = {file.id for file in client.files.list(purpose="batch_output")}
        assert results == {done.output_file_id, done.error_file_id}
        assert results.isdisjoint({batch.output_file_id, batch.error_file_id})
    assert upstream.seen == {"a": 1, "bad": 1}


def test_two_emulators_do_not_share_a_folder(tmp_path):
    with emulator(state_dir=tmp_path):
        with pytest.raises(RuntimeError, match="another emulator works in"), emulator(state_dir=tmp_path):
            pass
        other = subprocess.run(
            [sys.executable, "-c", f"import batchframe.emulator as e; e.serve(port=0, state_dir={str(tmp_path)!r})"],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert other.returncode != 0
        assert "another emulator works in" in other.stderr
    with emulator(state_dir=tmp_path):
        pass


def test_no_key_is_on_disk(tmp_path, upstream):
    with emulator(state_dir=tmp_path, upstream=upstream.url, upstream_key="sk-very-secret") as service:
        ended(service.client(), request("a"))
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert len(files) > 4
        assert not any(b"sk-very-secret" in path.read_bytes() for path in files)
    assert upstream.keys == {"Bearer sk-very-secret"}


def test_leftovers_are_removed(tmp_path):
    with emulator(state_dir=tmp_path) as service:
        file_id = upload(service.client(), jsonl(request("a")))
    (tmp_path / "files" / "file-nobody").write_bytes(b"x")
    (tmp_path / "scratch" / "upload").write_bytes(b"x")
    (tmp_path / "mine.txt").write_bytes(b"x")
    with emulator(state_dir=tmp_path):
        assert [path.name for path in (tmp_path / "files").iterdir()] == [file_id]
        assert list((tmp_path / "scratch").iterdir()) == []
        assert (tmp_path / "mine.txt").exists()


def test_a_torn_last_line_is_cut(tmp_path):
    path = tmp_path / "output"
    path.write_bytes(b'{"custom_id": "a"}\n{"custom_id": "b"}\n{"custom')
    results = ResultFile(path)
    assert len(results) == 2
    results.write(b'{"custom_id": "c"}\n')
    assert [json.loads(line)["custom_id"] for line in results.lines()] == ["a", "b", "c"]
    results.close()


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_a_torn_last_record_is_cut(tmp_path, cut):
    path = tmp_path / "ledger"
    records = [record(bytes([number]) * 32, f"row-{number}" + "x" * 30, billed=number > 0) for number in range(3)]
    path.write_bytes(b"".join(records))
    os.truncate(path, path.stat().st_size - cut)
    ledger = Ledger(path)
    assert (ledger.executions, ledger.billed) == (2, 1)
    ledger.add(records[2], executions=1, billed=1)
    assert ledger.counts()["executions"] == 3
    assert len(ledger.counts()["by_custom_id"]) == 3
    ledger.close()
