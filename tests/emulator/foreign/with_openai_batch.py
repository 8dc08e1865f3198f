"""openai-batch: chat completions and embeddings, submitted, waited for and downloaded in one call."""

import json
import os
import sys
from pathlib import Path

from openai_batch import Batch, get_provider_by_base_url

kind, prompts = sys.argv[1], json.load(sys.stdin)
provider = get_provider_by_base_url(os.environ["OPENAI_BASE_URL"])
provider.api_key = os.environ["OPENAI_API_KEY"]

with Batch("input.jsonl", output_file="output.jsonl", provider=provider) as batch:
    for prompt in prompts:
        if kind == "embeddings":
            batch.add_to_batch(model="text-embedding-3-small", input=prompt, dimensions=32)
        else:
            batch.add_to_batch(model="gpt-4o-mini", messages=[{"role": "user", "content": prompt}])
    if kind != "written":
        batch.submit_wait_download(interval=0.1)
if kind == "written":
    # 0.3.4 reads the file that it wrote only after closing it; a file that is there already it opens by its path.
    Batch("input.jsonl", output_file="output.jsonl", provider=provider).submit_wait_download(interval=0.1)

answers = {}
for line in map(json.loads, Path("output.jsonl").read_bytes().splitlines()):
    body = line["response"]["body"]
    answers[line["custom_id"]] = (
        body["data"][0]["embedding"] if kind == "embeddings" else body["choices"][0]["message"]["content"]
    )
# It numbers its rows from 1.
Path("answers.json").write_text(json.dumps([answers[f"line-{n}"] for n in range(1, len(prompts) + 1)]))
