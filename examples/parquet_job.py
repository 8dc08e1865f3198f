"""Run a prompt from one Parquet file to another, in bounded memory. Kill it and start it again at any time.

OPENAI_API_KEY=… python examples/parquet_job.py examples/data/jargon.parquet answers.parquet
BATCHFRAME_EXAMPLE_EMULATOR=1 python examples/parquet_job.py …  # a local service with made-up answers
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import batchframe as bf

if TYPE_CHECKING:
    import openai


def main(source: str, destination: str, client: openai.OpenAI | None = None) -> int:
    """Explain every term of the source. Return 1 if a row did not succeed."""
    run = bf.run_parquet(
        source,
        destination,
        "Explain to a child in one sentence what this means: {term} ({definition})",
        system="You are a patient teacher.",
        model="gpt-4o-mini",
        max_completion_tokens=100,
        include=["model", "request_id"],
        client=client,
    )
    status = run.status(refresh=False)
    print(f"{destination}: {status.rows} rows, {status.succeeded} succeeded, {status.usage['total_tokens']} tokens")
    if status.succeeded < status.rows:
        print(run.errors().select("custom_id", "code", "message"))
    return 0 if status.succeeded == status.rows else 1


if __name__ == "__main__":
    source, destination = sys.argv[1:]
    if os.environ.get("BATCHFRAME_EXAMPLE_EMULATOR"):
        from batchframe import testing

        with testing.emulator() as service:
            sys.exit(main(source, destination, service.client()))
    sys.exit(main(source, destination))
