"""A whole run of batchframe: ``python client_ours.py frame|parquet FOLDER SOURCE BASE_URL POLL_SECONDS``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import openai
import polars as pl

import batchframe as bf
import data
import measure


def frame_to_frame(source: str, options: dict[str, Any]) -> dict[str, float]:
    """Measure a run from frame to frame."""
    frame = pl.read_parquet(source)
    out: list[Any] = []
    figures = measure.timed(lambda: out.append(bf.run(frame, data.PROMPT, **options)))
    assert out[0].height == frame.height
    assert out[0]["error"].null_count() == frame.height
    return figures


def parquet_to_parquet(source: str, options: dict[str, Any]) -> dict[str, float]:
    """Measure a run from Parquet file to Parquet file."""
    destination = options["run_dir"].with_name("out.parquet")
    figures = measure.timed(lambda: bf.run_parquet(source, destination, data.PROMPT, **options))
    assert pl.scan_parquet(destination).select(pl.col("response").null_count()).collect().item() == 0
    return figures


def main(kind: str, folder: Path, source: str, base_url: str, poll_seconds: float) -> None:
    """Measure one of the two and print the figures as JSON."""
    client = openai.OpenAI(api_key="sk-emulator", base_url=base_url)
    options = {
        **data.OPTIONS,
        "client": client,
        "run_dir": folder / "run",
        "poll_seconds": poll_seconds,
        "progress": False,
    }
    measured = {"frame": frame_to_frame, "parquet": parquet_to_parquet}[kind]
    print(json.dumps(measured(source, options)))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4], float(sys.argv[5]))
