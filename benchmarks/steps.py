"""The two pure steps, ours and the loop's in turn: ``python steps.py render|parse FOLDER ROWS WORDS REPEAT``.

Prints one JSON object: the figures of each repetition, and how many bytes of lines each side wrote or read.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai

import batchframe as bf
import data
import loop
import measure
from batchframe._api import options
from batchframe._api.checked_call import run_of
from batchframe._store.records import SubmissionRecord
from batchframe._store.run_folder import RunFolder

if TYPE_CHECKING:
    import polars as pl


def _begun(frame: pl.DataFrame, run_dir: Path) -> RunFolder:
    """Make a run: everything a call does before its first upload. Nobody listens at the address."""
    client = openai.OpenAI(api_key="sk-none", base_url="http://127.0.0.1:9/v1")
    return RunFolder(
        run_of(frame, data.PROMPT, options.parse({**data.OPTIONS, "run_dir": run_dir, "client": client})).path
    )


def render(folder: Path, rows: int, words: int, repeat: int) -> dict[str, Any]:
    """Rows → input files on disk, with everything else that a run keeps: rows as Parquet, digests, records."""
    frame = data.reviews(rows, words)
    ours, theirs = folder / "ours", folder / "loop"

    def by_us() -> None:
        shutil.rmtree(ours, ignore_errors=True)
        _begun(frame, ours)

    def by_loop() -> None:
        shutil.rmtree(theirs, ignore_errors=True)
        theirs.mkdir()
        loop.write_input_files(frame, theirs)

    _begun(data.reviews(1_000, words), folder / "warm")
    figures = measure.in_turn(repeat, by_us, by_loop)
    paths = {"ours": ours.glob("parts/*/input.jsonl"), "loop": theirs.glob("*.jsonl")}
    sizes = {side: sum(path.stat().st_size for path in files) for side, files in paths.items()}
    return {**figures, "bytes": sizes}


def parse(folder: Path, rows: int, words: int, repeat: int) -> dict[str, Any]:
    """Result files → the final frame with its added columns, in memory."""
    frame = data.reviews(rows, words)
    store = _begun(frame, folder / "run")
    paths, first = [], 0
    for part in store.parts():
        downloaded = SubmissionRecord(number=0, stage="downloaded", batch_id=f"batch_{part.number}", status="completed")
        store.write_submission(part.number, downloaded)
        paths.append(store.result_path(part.number, 0, "output"))
        data.write_results(paths[-1], (f"row-{index}" for index in range(first, first + part.requests)))
        first += part.requests

    def by_us() -> None:
        shutil.rmtree(store.path / "results", ignore_errors=True)
        (store.path / "results.json").unlink(missing_ok=True)
        out = bf.open_run(store.path).added_to(frame)
        assert out["response"].null_count() == 0

    def by_loop() -> None:
        out = loop.read_results(frame, (path.read_text(encoding="utf-8") for path in paths))
        assert out["response"].null_count() == 0

    figures = measure.in_turn(repeat, by_us, by_loop)
    size = sum(path.stat().st_size for path in paths)
    return {**figures, "bytes": {"ours": size, "loop": size}}


if __name__ == "__main__":
    step = {"render": render, "parse": parse}[sys.argv[1]]
    print(json.dumps(step(Path(sys.argv[2]), *map(int, sys.argv[3:]))))
