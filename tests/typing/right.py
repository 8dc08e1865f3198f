"""Code as users write it: type checkers find nothing in it. It is not run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import polars as pl
import pydantic
from openai.types.chat import ChatCompletionToolParam
from typing_extensions import assert_type

import batchframe as bf


class Review(pydantic.BaseModel):
    sentiment: str


class Foreign:
    """A frame of another library."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return requested_schema


def either(frame: pl.DataFrame | pl.LazyFrame) -> pl.DataFrame | pl.LazyFrame:
    return bf.run(frame, "{text}", model="m")


frame = pl.DataFrame({"text": ["a"]})
tool: ChatCompletionToolParam = {"type": "function", "function": {"name": "f"}}
client = openai.OpenAI()
azure = openai.AzureOpenAI()

# What comes back is what went in.
assert_type(bf.run(frame, "{text}", model="m"), pl.DataFrame)
assert_type(bf.run(frame.lazy(), "{text}", model="m"), pl.LazyFrame)
assert_type(bf.run(Foreign(), "{text}", model="m"), pl.DataFrame)
assert_type(bf.submit(frame.lazy(), "{text}", model="m"), bf.Run)
assert_type(bf.requests(Foreign(), "{text}", model="m"), pl.DataFrame)
assert_type(bf.result_schema(frame, "{text}", model="m"), pl.Schema)
assert_type(bf.run_parquet(Path("in.parquet"), "out.parquet", "{text}", model="m"), bf.Run)

# Prompts.
bf.run(frame, pl.col("text"), model="m")
bf.run(frame, [{"role": "user", "content": "{text}"}], model="m")
bf.run(frame, [{"role": "system", "content": "s"}, {"role": "user", "content": pl.col("text")}], model="m")
bf.run(frame, [{"role": "user", "content": [{"type": "text", "text": "{text}"}]}], model="m")

# Options.
run = bf.submit(
    frame,
    "{text}",
    model="m",
    system=pl.col("text"),
    images=["url", pl.col("bytes")],
    image_detail="low",
    endpoint="/v1/responses",
    response_format=Review,
    custom_id="id",
    client=client,
    provider=bf.Provider(name="ours"),
    limits=bf.Limits(max_requests=1),
    max_attempts=1,
    pilot=5,
    run_dir=Path("run"),
    name="n",
    dedupe=True,
    reuse="all",
    on_null="raise",
    include=["model", "raw"],
    prefix="p_",
    poll_seconds=1,
    settle_seconds=0.5,
    timeout_seconds=60,
    progress=False,
    cleanup="when_done",
    metadata={"a": "b"},
    completion_window="24h",
    expires_after=3600,
    extra_body={"new": 1},
)
bf.submit(frame, "{text}", model="m", reuse=run, client=azure, include="model", images="url")
bf.submit(frame, "{text}", model="m", include={"model"}, response_format=pl.Struct({"a": pl.Int64}))
bf.submit(frame, "{text}", model="m", response_format={"type": "json_object"})
bf.submit(frame, "{text}", model="m", response_format=Review.model_json_schema())

# None is each option's default.
bf.submit(frame, "{text}", model="m", endpoint=None, max_attempts=None, dedupe=None, on_null=None, cleanup=None)

# Request parameters, values and columns.
bf.run(frame, "{text}", model="m", temperature=0, max_tokens=pl.col("cap"), stop=["a"], seed=None, n=2)
bf.run(frame, "{text}", model="m", tools=[tool], tool_choice="required", logit_bias={50256: -100})
bf.run(frame, "{text}", model="m", reasoning={"effort": "low"}, tools=[{"type": "web_search"}], reasoning_effort="low")
bf.run(frame, "{text}", model="m", logprobs=True, top_logprobs=2)
bf.run(frame, "{text}", model="m", logprobs=2)

# A call that is put together.
options: dict[str, Any] = {"temperature": 0}
assert_type(bf.run(frame, "{text}", model="m", **options), pl.DataFrame)
