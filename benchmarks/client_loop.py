"""The notebook loop, from frame to frame: ``python client_loop.py FOLDER SOURCE BASE_URL POLL_SECONDS``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import openai
import polars as pl

import loop
import measure


def main(folder: Path, source: str, base_url: str, poll_seconds: float) -> None:
    """Measure the loop and print the figures as JSON."""
    frame = pl.read_parquet(source)
    client = openai.OpenAI(api_key="sk-emulator", base_url=base_url)
    out: list[pl.DataFrame] = []
    figures = measure.timed(lambda: out.append(loop.run(frame, client, folder, poll_seconds)))
    assert out[0].height == frame.height
    assert out[0]["response"].null_count() == 0
    print(json.dumps(figures))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4]))
