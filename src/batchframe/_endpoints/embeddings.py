"""``/v1/embeddings``."""

from __future__ import annotations

import base64
import struct
from typing import Any

import polars as pl

from batchframe._core.exceptions import OptionError
from batchframe._endpoints.base import Answer, Endpoint, unreadable
from batchframe._endpoints.parameter_table import PARAMETERS

# Source: OpenAI's embeddings guide. The dimensions of other models and of deployments are unknown before they answer.
_DIMENSIONS = {"text-embedding-3-small": 1_536, "text-embedding-3-large": 3_072, "text-embedding-ada-002": 1_536}
_SHORTENED = ("text-embedding-3-small", "text-embedding-3-large")
_FLOAT_BYTES = 4
_BLOCK_BYTES = 16_000_000


def dimensions_of(model: str, requested: int | None) -> int | None:
    """Return the dimensions of a model's embeddings, or None if they are unknown.

    Raises
    ------
    OptionError
        The model cannot make embeddings with the requested dimensions.
    """
    known = _DIMENSIONS.get(model)
    if requested is not None and known is not None and (requested > known or model not in _SHORTENED):
        limit = f"at most {known}" if model in _SHORTENED else f"{known}, which cannot be changed"
        msg = f"dimensions is {requested}, but {model} has {limit}: pass another number or leave it out"
        raise OptionError(msg)
    return requested or known


def _read(body: dict[str, Any]) -> Answer:
    data = body.get("data")
    if not isinstance(data, list) or len(data) != 1 or not isinstance(data[0], dict):
        count = len(data) if isinstance(data, list) else "no"
        return unreadable(f"{count} embeddings instead of one")
    vector = data[0].get("embedding")
    if isinstance(vector, list):
        try:
            vector = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        except (struct.error, OverflowError):
            return unreadable("an embedding that is not of numbers")
    return Answer(response=vector) if isinstance(vector, str) and vector else unreadable("no embedding")


def _dtype(dimensions: int | None) -> pl.DataType:
    return pl.List(pl.Float32()) if dimensions is None else pl.Array(pl.Float32(), dimensions)


def _max_rows(dimensions: int | None) -> int:
    return max(1, _BLOCK_BYTES // (_FLOAT_BYTES * (dimensions or max(_DIMENSIONS.values()))))


def _vectors(texts: pl.Series, dimensions: int | None) -> tuple[pl.Series, pl.Series]:
    """Return the vectors of texts with floats in base64, and the problem with each text or null."""
    packed = texts.str.decode("base64", strict=False).alias("packed")
    size = packed.bin.size()
    fits = (size % _FLOAT_BYTES == 0) & (size > 0) if dimensions is None else size == _FLOAT_BYTES * dimensions
    wrong_size = pl.format(
        "the embedding has {} bytes, but expected {}",
        size,
        pl.lit("4 for each dimension" if dimensions is None else f"4 for each of {dimensions} dimensions"),
    )
    problems = pl.select(
        pl.when(texts.is_not_null() & packed.is_null())
        .then(pl.lit("the embedding is not base64"))
        .when(~fits)
        .then(wrong_size)
    ).to_series()
    if not fits.all():
        packed = packed.zip_with(fits.fill_null(value=False), _absent(packed))
    if dimensions is not None:
        return packed.bin.reinterpret(dtype=pl.Array(pl.Float32, dimensions), endianness="little"), problems
    values = pl.repeat(None, len(packed), dtype=pl.List(pl.Float32), eager=True)
    for n_bytes in size.filter(packed.is_not_null()).unique():
        of_size = packed.zip_with(size == n_bytes, _absent(packed))
        vectors = of_size.bin.reinterpret(dtype=pl.Array(pl.Float32, n_bytes // _FLOAT_BYTES), endianness="little")
        values = vectors.arr.to_list().zip_with(of_size.is_not_null(), values)
    return values, problems


def _absent(values: pl.Series) -> pl.Series:
    return pl.repeat(None, len(values), dtype=values.dtype, eager=True)


EMBEDDINGS = Endpoint(
    path="/v1/embeddings",
    parameters=PARAMETERS["/v1/embeddings"],
    prompt_member="input",
    answer_member="data",
    object_name="list",
    read=_read,
    # A vector in base64 is a third of the size of its decimal digits, and decodes many times as fast.
    default_parameters={"encoding_format": "base64"},
    own_models=("text-embedding-",),
    refuses_empty_text=True,
    counts_inputs=True,
    dimensions_of=dimensions_of,
    dtype=_dtype,
    decode=_vectors,
    max_rows=_max_rows,
)
