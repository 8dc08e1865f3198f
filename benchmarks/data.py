"""Data for the benchmarks, from a fixed seed: frames of short and long texts, and result lines like the service's."""

from __future__ import annotations

import json
import random
import sys
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SEED = 20240708
MODEL = "gpt-4o-mini"
SYSTEM = "You are a helpful assistant."
PROMPT = "Classify the sentiment of this review: {text}"
OPTIONS = {"model": MODEL, "system": SYSTEM, "temperature": 0}

# Words that need escaping or more than ASCII, as in real prose.
_MARKS = ('"great"', "don't", "naïve", "café", "½", "C:\\new", "🙂", "第一", "end.\n", "so-so")
_WORDS = 3_000
SHORT_WORDS = 12
LONG_WORDS = 1_500  # about 10 kB


def _vocabulary() -> pl.Series:
    rng = random.Random(SEED)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(_WORDS)]
    return pl.Series("word", words + list(_MARKS) * 10)


def reviews(rows: int, words: int = SHORT_WORDS) -> pl.DataFrame:
    """Return a frame with ids and texts of the given number of words."""
    drawn = _vocabulary().sample(rows * words, with_replacement=True, seed=SEED)
    text = drawn.reshape((rows, words)).arr.join(" ").alias("text")
    return pl.DataFrame([pl.int_range(rows, eager=True).alias("id"), text])


def write_reviews(path: str, rows: int) -> None:
    """Write short texts to a Parquet file."""
    piece = 100_000
    frames = [reviews(min(piece, rows - start)) for start in range(0, rows, piece)]
    pl.concat(frames).drop("id").with_row_index("id").write_parquet(path, row_group_size=piece)


def write_results(path: Path, custom_ids: Iterable[str]) -> None:
    """Write an output file as OpenAI writes it: about 900 bytes per line, in random order."""
    rng = random.Random(SEED)
    words = _vocabulary().to_list()
    lines = [_result_line(rng, custom_id, " ".join(rng.choices(words, k=SHORT_WORDS))) for custom_id in custom_ids]
    rng.shuffle(lines)
    path.write_text("".join(lines), encoding="utf-8")


def _result_line(rng: random.Random, custom_id: str, content: str) -> str:
    n_input, n_output = rng.randint(30, 60), rng.randint(10, 30)
    completion = {
        "id": f"chatcmpl-{rng.getrandbits(116):029x}",
        "object": "chat.completion",
        "created": 1_720_349_807,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, "refusal": None, "annotations": []},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": n_input,
            "completion_tokens": n_output,
            "total_tokens": n_input + n_output,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        "service_tier": "default",
        "system_fingerprint": f"fp_{rng.getrandbits(40):010x}",
    }
    line = {
        "id": f"batch_req_{rng.getrandbits(128):032x}",
        "custom_id": custom_id,
        "response": {"status_code": 200, "request_id": f"{rng.getrandbits(128):032x}", "body": completion},
        "error": None,
    }
    return json.dumps(line) + "\n"


if __name__ == "__main__":  # python data.py PATH ROWS
    write_reviews(sys.argv[1], int(sys.argv[2]))
