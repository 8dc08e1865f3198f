"""Mistakes as users make them: type checkers find one in each line that ends in ``# wrong``, and none elsewhere."""

from __future__ import annotations

import openai
import polars as pl

import batchframe as bf

frame = pl.DataFrame({"text": ["a"]})

# Nothing that must be there is missing.
bf.run(frame, "{text}")  # wrong
bf.submit(frame, "{text}")  # wrong
bf.requests(frame, "{text}")  # wrong
bf.result_schema(frame, "{text}")  # wrong
bf.run_parquet("in.parquet", "out.parquet", "{text}")  # wrong
bf.run(frame, model="m")  # wrong

# Names.
bf.run(frame, "{text}", model="m", max_atempts=1)  # wrong
bf.submit(frame, "{text}", model="m", max_atempts=1)  # wrong
bf.requests(frame, "{text}", model="m", temprature=0)  # wrong
bf.result_schema(frame, "{text}", model="m", temprature=0)  # wrong
bf.run_parquet("in.parquet", "out.parquet", "{text}", model="m", temprature=0)  # wrong
bf.run(frame, "{text}", model="m", stream=True)  # wrong
bf.run(frame, "{text}", model="m", messages=[])  # wrong
bf.run(frame, "{text}", model="m", base_model="gpt-4o")  # wrong
bf.run(frame, "{text}", model="m", api_key="sk-x")  # wrong
bf.run(frame, "{text}", "m")  # wrong

# Literals.
bf.run(frame, "{text}", model="m", on_null="drop")  # wrong
bf.run(frame, "{text}", model="m", endpoint="/v1/chat")  # wrong
bf.run(frame, "{text}", model="m", include=["modell"])  # wrong
bf.run(frame, "{text}", model="m", include="cost")  # wrong
bf.run(frame, "{text}", model="m", cleanup="always")  # wrong
bf.run(frame, "{text}", model="m", image_detail="medium")  # wrong
bf.run(frame, "{text}", model="m", reasoning_effort="hard")  # wrong
bf.run(frame, "{text}", model="m", service_tier="slow")  # wrong

# Types.
bf.run(5, "{text}", model="m")  # wrong
bf.run(frame, 5, model="m")  # wrong
bf.run(frame, ["{text}"], model="m")  # wrong
bf.run(frame, "{text}", model=pl.col("text"))  # wrong
bf.run(frame, "{text}", model=None)  # wrong
bf.run(frame, "{text}", model="m", max_attempts="3")  # wrong
bf.run(frame, "{text}", model="m", temperature="hot")  # wrong
bf.run(frame, "{text}", model="m", n=pl.col("n"))  # wrong
bf.run(frame, "{text}", model="m", limits={"max_requests": 1})  # wrong
bf.run(frame, "{text}", model="m", client=openai.AsyncOpenAI())  # wrong
bf.run(frame, "{text}", model="m", response_format="json")  # wrong
bf.run(frame, "{text}", model="m", metadata={"a": 1})  # wrong

# What comes back.
bf.run(frame, "{text}", model="m").collect()  # wrong
bf.run(frame.lazy(), "{text}", model="m").height  # wrong
bf.submit(frame, "{text}", model="m").columns  # wrong
