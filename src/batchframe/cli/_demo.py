"""``batchframe demo``: a complete run over real texts on this machine."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

import batchframe as bf

if TYPE_CHECKING:
    from collections.abc import Iterator

    import openai

PROMPT = "In one word, is this about people, software, hardware or culture? {term}: {definition}"
MODEL = "gpt-4o-mini"
_NAME = "jargon.parquet"


def texts() -> pl.DataFrame:
    """Return the demo's texts: entries of the Jargon File, 4.4.7, which is in the public domain."""
    # A wheel has a copy beside this module; a checkout has the file in examples/data.
    packaged = Path(__file__).with_name(_NAME)
    return pl.read_parquet(packaged if packaged.exists() else Path(__file__).parents[3] / "examples" / "data" / _NAME)


@contextmanager
def service(base_url: str | None) -> Iterator[openai.OpenAI]:
    """Yield a client of an emulator in this process, or of the service at ``base_url`` with OPENAI_API_KEY."""
    if base_url is not None:
        import openai  # noqa: PLC0415  (slow to import)

        with openai.OpenAI(base_url=base_url) as client:
            yield client
        return
    from batchframe import testing  # noqa: PLC0415  (needs the extra emulator)

    # Slow enough to watch the progress.
    with testing.emulator(seconds={"validating": 0.5, "in_progress": 2.0, "finalizing": 0.5}) as emulator:
        yield emulator.client()


def demo(rows: int | None, client: openai.OpenAI, *, progress: bool | None) -> tuple[pl.DataFrame, bf.Run]:
    """Run the demo's prompt, and return the frame with the answers and the run."""
    frame = texts()
    if rows is not None:
        frame = frame.sample(min(rows, frame.height), seed=447)
    run_dir = Path(tempfile.mkdtemp(prefix="batchframe-demo-"))
    out = bf.run(frame, PROMPT, model=MODEL, client=client, run_dir=run_dir, poll_seconds=0.2, progress=progress)
    assert isinstance(out, pl.DataFrame)
    return out, bf.open_run(run_dir, client=client)
