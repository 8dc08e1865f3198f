"""Large files: bounded memory, and polls answered while the work goes on."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from pathlib import Path

import openai
import pytest

from .conftest import CHAT, jsonl, request, wait

MB = 1 << 20


@contextlib.contextmanager
def server():
    """The emulator in a process of its own, so that its memory can be measured."""
    script = "import batchframe.emulator as e; e.serve(port=0)"
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True) as process:
        url = process.stderr.readline().removeprefix("batchframe emulator: ").strip()
        try:
            with openai.OpenAI(api_key="x", base_url=url, max_retries=0) as client:
                yield process.pid, client
        finally:
            process.terminate()


def rss(pid):
    with Path(f"/proc/{pid}/status").open() as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS:"))


class Peak(threading.Thread):
    """Samples the resident memory of a process."""

    def __init__(self, pid):
        super().__init__()
        self.pid, self.first, self.most, self.ended = pid, rss(pid), 0, threading.Event()

    def run(self):
        while not self.ended.wait(0.005):
            self.most = max(self.most, rss(self.pid))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.join()

    @property
    def growth(self):
        return self.most - self.first


def big_file(path, total_bytes, prompt_bytes):
    line = jsonl(
        request("ROW", {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "x " * prompt_bytes}]})
    )
    with path.open("wb") as file:
        for number in range(total_bytes // len(line)):
            file.write(line.replace(b"ROW", b"row-%d" % number))
    return total_bytes // len(line)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measured through /proc")
@pytest.mark.parametrize("total", [20, pytest.param(199, marks=pytest.mark.slow)])
def test_a_large_file_in_bounded_memory(tmp_path, total):
    path = tmp_path / "input.jsonl"
    rows = big_file(path, total * MB, 5_000)
    with server() as (pid, client), Peak(pid) as peak:
        with path.open("rb") as file:
            file_id = client.files.create(file=file, purpose="batch").id
        batch = client.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h")
        batch = wait(client, batch.id, seconds=100)
        with client.files.with_streaming_response.content(file_id) as reply:
            received = sum(len(piece) for piece in reply.iter_bytes())
    assert (batch.status, batch.request_counts.completed) == ("completed", rows)
    assert received == path.stat().st_size
    print(f"{total} MB: server memory grew by {peak.growth / MB:.1f} MB")  # noqa: T201 - the measurement
    assert 0 < peak.growth < 60 * MB


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measured through /proc")
@pytest.mark.parametrize("rows", [20_000, pytest.param(50_000, marks=pytest.mark.slow)])
def test_many_rows_in_bounded_memory_and_polls_are_answered(tmp_path, rows):
    content = jsonl(*(request(f"row-{i}") for i in range(rows)))
    slowest = 0.0
    with server() as (pid, client), Peak(pid) as peak:
        file_id = client.files.create(file=("input.jsonl", content), purpose="batch").id
        batch = client.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h")
        while batch.status != "completed":
            started = time.monotonic()
            batch = client.batches.retrieve(batch.id)
            slowest = max(slowest, time.monotonic() - started)
            assert batch.status != "failed"
    assert batch.request_counts.completed == rows
    print(f"{rows} rows: memory grew by {peak.growth / MB:.1f} MB, slowest poll {slowest * 1000:.0f} ms")  # noqa: T201 - the measurement
    assert peak.growth < 100 * MB
    assert slowest < 1.5
