"""A run that no process waits for: begin it once, and let cron take it one step further every few minutes.

    python examples/cron.py FOLDER
    */5 * * * * cd /srv/app && python examples/cron.py FOLDER

The first call begins the run, the others make one pass each: collect what is finished, submit what is next, never
sleep. Two that overlap do no harm: one works, the other says which does. When the run is finished, the answers are in
FOLDER/answers.parquet.
"""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl

import batchframe as bf

DATA = Path(__file__).parent / "data" / "jargon.parquet"
PROMPT = "Summarise in one sentence: {term}: {definition}"


def main(folder: Path) -> None:
    """Begin the run, or make one pass of it."""
    folder.mkdir(parents=True, exist_ok=True)
    path, answers = folder / "run", folder / "answers.parquet"
    if answers.exists():
        print(f"{answers}: finished before")
        return
    if path.exists():
        run = bf.open_run(path)
        status = run.advance()
    else:
        run = bf.submit(pl.read_parquet(DATA).head(50), PROMPT, model="gpt-4o-mini", run_dir=path)
        status = run.status(refresh=False)
    if status.done:
        run.result().write_parquet(answers)
        print(f"{answers}: {status.succeeded} of {status.rows} rows succeeded")
    else:
        print(f"{status.pending} of {status.rows} rows are pending; waiting for {status.waiting_for}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
