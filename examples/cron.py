"""Let cron take a run one step further every few minutes, so that no process has to wait for it.

    python examples/cron.py FOLDER
    */5 * * * * cd /srv/app && python examples/cron.py FOLDER

The first call begins the run. Each further call makes one pass: it collects finished batches, submits the next ones and
never sleeps. Two calls may overlap: one works, the other reports which. Once the run is finished, the answers are in
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
    """Begin the run, or make one pass."""
    folder.mkdir(parents=True, exist_ok=True)
    path, answers = folder / "run", folder / "answers.parquet"
    if answers.exists():
        print(f"{answers}: already finished")
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
