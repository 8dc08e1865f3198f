"""The loop that people write in notebooks: one json.dumps per row, the openai SDK, one json.loads per line.

It keeps nothing, retries nothing and checks for no errors. Where there is a choice, it takes the faster way.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import polars as pl

from data import MODEL, PROMPT, SYSTEM

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

MAX_REQUESTS = 50_000
MAX_BYTES = 180_000_000  # the service's 200 MB, with room for a line
ENDPOINT = "/v1/chat/completions"
_ENDED = {"completed", "failed", "expired", "cancelled"}


def write_input_files(frame: pl.DataFrame, folder: Path) -> list[Path]:
    """Write one request per row, and start another file when one is full."""
    paths: list[Path] = []
    handle: Any = None
    requests = size = 0
    for index, text in enumerate(frame["text"]):
        request = {
            "custom_id": f"row-{index}",
            "method": "POST",
            "url": ENDPOINT,
            "body": {
                "model": MODEL,
                "messages": [
                    {"role": "system", "content": SYSTEM},
                    {"role": "user", "content": PROMPT.format(text=text)},
                ],
                "temperature": 0,
            },
        }
        line = json.dumps(request) + "\n"
        if handle is None or requests == MAX_REQUESTS or size + len(line) > MAX_BYTES:
            if handle is not None:
                handle.close()
            paths.append(folder / f"input-{len(paths)}.jsonl")
            handle = paths[-1].open("w")
            requests = size = 0
        handle.write(line)
        requests += 1
        size += len(line)
    if handle is not None:
        handle.close()
    return paths


def read_results(frame: pl.DataFrame, texts: Iterable[str]) -> pl.DataFrame:
    """Read output files into columns and join them to the frame."""
    custom_ids, responses, reasons, n_input, n_output = [], [], [], [], []
    for text in texts:
        for line in text.strip().split("\n"):
            result = json.loads(line)
            body = result["response"]["body"]
            custom_ids.append(result["custom_id"])
            responses.append(body["choices"][0]["message"]["content"])
            reasons.append(body["choices"][0]["finish_reason"])
            n_input.append(body["usage"]["prompt_tokens"])
            n_output.append(body["usage"]["completion_tokens"])
    answers = pl.DataFrame(
        {
            "custom_id": custom_ids,
            "response": responses,
            "finish_reason": reasons,
            "input_tokens": n_input,
            "output_tokens": n_output,
        }
    )
    keyed = frame.with_columns(pl.format("row-{}", pl.int_range(pl.len())).alias("custom_id"))
    return keyed.join(answers, on="custom_id", how="left", maintain_order="left")


def run(frame: pl.DataFrame, client: Any, folder: Path, poll_seconds: float) -> pl.DataFrame:
    """Do everything: write, upload, create, poll, download, read."""
    batches = []
    for path in write_input_files(frame, folder):
        with path.open("rb") as handle:
            file = client.files.create(file=handle, purpose="batch")
        batches.append(client.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h"))
    while not all(batch.status in _ENDED for batch in batches):
        time.sleep(poll_seconds)
        batches = [client.batches.retrieve(batch.id) for batch in batches]
    return read_results(frame, _downloaded(client, batches))


def _downloaded(client: Any, batches: list[Any]) -> Iterator[str]:
    for batch in batches:
        yield client.files.content(batch.output_file_id).text
