"""Ask a model about every row, and work with the answers as with any other column.

    OPENAI_API_KEY=… python examples/analytics.py               # the real service: 300 short requests, under a cent
    BATCHFRAME_EXAMPLE_EMULATOR=1 python examples/analytics.py  # a local service with made-up answers

Run it again to see the same answers: the run is kept in .batchframe, so nothing is sent or paid for again.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

import batchframe as bf

if TYPE_CHECKING:
    import openai

DATA = Path(__file__).parent / "data" / "jargon.parquet"
PROMPT = "In one word, is this about people, software, hardware or culture? {term}: {definition}"


def main(client: openai.OpenAI | None = None) -> None:
    """Classify the terms and print a summary by topic. Without a client, the environment names the service."""
    terms = pl.read_parquet(DATA)
    answered = bf.run(terms, PROMPT, model="gpt-4o-mini", temperature=0, client=client)

    by_topic = (
        answered.with_columns(topic=pl.col("response").str.strip_chars(" .").str.to_lowercase())
        .group_by("topic")
        .agg(
            terms=pl.len(),
            mean_length=pl.col("definition").str.len_chars().mean().round(1),
            total_tokens=pl.col("usage").struct.field("total_tokens").sum(),
            failed=pl.col("error").is_not_null().sum(),
            example=pl.col("term").first(),
        )
        .sort("terms", "topic", descending=[True, False])
    )
    print(answered.select("term", "response", "usage"))
    print(by_topic)


if __name__ == "__main__":
    if os.environ.get("BATCHFRAME_EXAMPLE_EMULATOR"):
        from batchframe import testing

        with testing.emulator() as service:
            main(service.client())
    else:
        main()
