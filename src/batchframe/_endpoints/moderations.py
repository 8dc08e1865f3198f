"""``/v1/moderations``."""

from __future__ import annotations

from typing import Any

import msgspec
import polars as pl

from batchframe._core.lenient import mapping, number
from batchframe._endpoints.base import Answer, Endpoint, unreadable
from batchframe._endpoints.parameter_table import PARAMETERS

# Source: openai.types.moderation (3.54.0). Older models return fewer categories.
_CATEGORIES = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "self-harm",
    "self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence", "violence/graphic",
)  # fmt: skip


def _read(body: dict[str, Any]) -> Answer:
    results = body.get("results")
    if not isinstance(results, list) or len(results) != 1 or not isinstance(results[0], dict):
        count = len(results) if isinstance(results, list) else "no"
        return unreadable(f"{count} results instead of one")
    flagged = results[0].get("flagged")
    if not isinstance(flagged, bool):
        return unreadable("a result that does not say whether it is flagged")
    categories, scores = mapping(results[0].get("categories")), mapping(results[0].get("category_scores"))
    moderation = {
        "flagged": flagged,
        "categories": {name: _flag(categories.get(name)) for name in _CATEGORIES},
        "category_scores": {name: number(scores.get(name)) for name in _CATEGORIES},
    }
    return Answer(response=msgspec.json.encode(moderation).decode())


_DTYPE = pl.Struct(
    {
        "flagged": pl.Boolean(),
        "categories": pl.Struct(dict.fromkeys(_CATEGORIES, pl.Boolean())),
        "category_scores": pl.Struct(dict.fromkeys(_CATEGORIES, pl.Float64())),
    }
)


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _decode(texts: pl.Series, _: int | None) -> tuple[pl.Series, pl.Series]:
    return texts.str.json_decode(_DTYPE), pl.repeat(None, len(texts), dtype=pl.String, eager=True)


MODERATIONS = Endpoint(
    path="/v1/moderations",
    parameters=PARAMETERS["/v1/moderations"],
    prompt_member="input",
    answer_member="results",
    read=_read,
    image_part=('{"type":"image_url","image_url":{"url":', "}}"),
    # The service refuses two: "Number of images (2) exceeds maximum of 1".
    max_images=1,
    own_models=("omni-moderation-", "text-moderation-"),
    dtype=lambda _: _DTYPE,
    decode=_decode,
)
