"""llm-batch-py: structured outputs and embeddings, run again until all is there, as its scheduler would."""

import json
import sys
import time
from pathlib import Path

import polars as pl
import tiktoken
from llm_batch_py import (
    EmbeddingJob,
    OpenAIConfig,
    ResultCacheStoreConfig,
    Runner,
    StructuredOutputJob,
    embedding_template,
    structured_template,
)
from pydantic import BaseModel, ConfigDict

# It estimates tokens before it submits, with vocabularies that tiktoken downloads; one without words will do.
tiktoken.registry.ENCODINGS["o200k_base"] = tiktoken.registry.ENCODINGS["cl100k_base"] = tiktoken.Encoding(
    "bytes", pat_str=r"[\s\S]", mergeable_ranks={bytes([byte]): byte for byte in range(256)}, special_tokens={}
)


class Opinion(BaseModel):
    # The README's model does without, and strict mode refuses each of its rows.
    model_config = ConfigDict(extra="forbid")

    is_satisfied: bool
    summary: str


kind, prompts = sys.argv[1], json.load(sys.stdin)
rows = {
    "name": kind,
    "key_cols": ["id"],
    "input_df": pl.DataFrame({"id": range(len(prompts)), "prompt": prompts}),
    "result_cache": ResultCacheStoreConfig(root_uri="./.llm_batch_py"),
}
if kind == "embeddings":
    job = EmbeddingJob(
        text_builder=embedding_template("{{ row.prompt }}", name="build_text", version="v1"),
        provider=OpenAIConfig(model="text-embedding-3-small", dimensions=32),
        **rows,
    )
else:
    job = StructuredOutputJob(
        prompt_builder=structured_template(
            system="Return JSON only.", messages="{{ row.prompt }}", name="build_prompt", version="v1"
        ),
        output_model=Opinion,
        provider=OpenAIConfig(model="gpt-4o-mini"),
        **rows,
    )

runner = Runner()
while True:
    frame = runner.run(job)
    if not (runner.last_summary.submitted_rows or runner.last_summary.inflight_rows):
        break
    time.sleep(0.1)
frame = frame.sort("id")
answers = frame["embedding"].to_list() if kind == "embeddings" else frame.select(*Opinion.model_fields).to_dicts()
Path("answers.json").write_text(json.dumps(answers))
