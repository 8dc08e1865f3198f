"""A run against aimock, an emulator by other people: batchframe relies on nothing that only ours has.

It is written for Node and has no dependencies; npm installs it into a temporary folder.
"""

from __future__ import annotations

import re
import shutil
import subprocess

import openai
import polars as pl
import pytest

import batchframe as bf

pytestmark = pytest.mark.slow

PACKAGE = "@copilotkit/aimock@1.43.0"
ROWS_PER_BATCH = 3


@pytest.fixture(scope="module")
def aimock(tmp_path_factory):
    """Install aimock and return the command that starts it."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("aimock needs node and npm")
    folder = tmp_path_factory.mktemp("aimock")
    quiet = ["--no-audit", "--no-fund", "--no-save", "--ignore-scripts", "--fetch-retries=1"]
    install = [npm, "install", "--prefix", folder, *quiet, PACKAGE]
    npm_run = subprocess.run(install, capture_output=True, text=True, timeout=100, check=False)
    if npm_run.returncode:
        pytest.skip(f"npm cannot install {PACKAGE}: {npm_run.stderr.strip()[-300:]}")
    config = folder / "aimock.json"
    config.write_text("{}")
    return [node, folder / "node_modules" / ".bin" / "aimock", "--config", config, "--host", "127.0.0.1", "--port", "0"]


@pytest.fixture
def client(aimock):
    with subprocess.Popen(aimock, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            line = process.stdout.readline()
            url = re.search(r"http://127\.0\.0\.1:\d+", line)
            assert url, line + process.stdout.read()
            with openai.OpenAI(api_key="x", base_url=f"{url[0]}/v1") as client:
                yield client
        finally:
            process.kill()


# aimock's list shows a batch as of its last retrieve by id; batchframe uses the list from four batches in flight on.
@pytest.mark.parametrize("batches", [3, 10])
def test_a_run_over_several_batches(client, batches):
    # The first batch has one row: it shows whether the service takes the file at all.
    rows = 1 + (batches - 1) * ROWS_PER_BATCH
    frame = pl.DataFrame({"text": [f"review {number}" for number in range(rows)]})
    limits = bf.Limits(max_requests=ROWS_PER_BATCH)
    options = {"model": "gpt-4o-mini", "client": client, "limits": limits, "poll_seconds": 0.02}
    out = bf.run(frame, "Classify: {text}", timeout_seconds=60, **options)
    assert out["text"].equals(frame["text"])
    assert out["error"].null_count() == rows
    assert out["response"].to_list() == ["Mock batch completion"] * rows
    assert out["usage"].struct.field("total_tokens").to_list() == [2] * rows
    all_batches = client.batches.list(limit=100).data
    assert len(all_batches) == batches
    assert {batch.status for batch in all_batches} == {"completed"}
    assert {batch.metadata["batchframe_part"] for batch in all_batches} == {str(number) for number in range(batches)}
    # Repeating the call sends nothing.
    assert bf.run(frame, "Classify: {text}", **options).equals(out)
    assert len(client.batches.list(limit=100).data) == batches
