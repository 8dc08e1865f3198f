"""Convert the frame of a call to a Polars frame."""

from __future__ import annotations

from typing import Any

import polars as pl

from batchframe._core.column_names import OURS
from batchframe._core.dtypes import holds, inside
from batchframe._core.exceptions import InputError
from batchframe._requests.frame_source import evaluating

_MAX_DIGITS = 38


def to_polars(frame: Any) -> pl.DataFrame | pl.LazyFrame:
    """Return a Polars frame unchanged, or convert an object that exports the Arrow C stream.

    Raises
    ------
    InputError
        The object is neither; or a column has a type that Polars or Parquet cannot hold; or a LazyFrame cannot be
        scanned.
    """
    if not isinstance(frame, (pl.DataFrame, pl.LazyFrame)):
        if isinstance(frame, (pl.Series, type)) or not hasattr(frame, "__arrow_c_stream__"):
            msg = (
                f"expected a Polars DataFrame or LazyFrame, or an object with __arrow_c_stream__ (pyarrow, pandas, "
                f"DuckDB), got {type(frame).__module__}.{type(frame).__qualname__}"
            )
            raise InputError(msg)
        from batchframe._api import arrow_types  # noqa: PLC0415  (pyarrow is slow to import)

        frame = arrow_types.to_frame(frame)
    assert isinstance(frame, (pl.DataFrame, pl.LazyFrame))
    with evaluating(OSError, pl.exceptions.PolarsError):
        schema = frame.collect_schema()
    for name, dtype in schema.items():
        if holds(dtype, pl.Object):
            msg = f"column {name!r} has dtype Object, which cannot be written to a file: drop it, or cast it"
            raise InputError(msg)
        if any(isinstance(inner, pl.Struct) and not inner.fields for inner in inside(dtype)):
            msg = f"column {name!r} has dtype {dtype}, and Parquet cannot hold a Struct without fields: drop it"
            raise InputError(msg)
        if any(isinstance(inner, pl.Decimal) and (inner.precision or 0) > _MAX_DIGITS for inner in inside(dtype)):
            # Polars scans such a file, then panics or raises when it reads the rows.
            msg = (
                f"column {name!r} has dtype {dtype}, and a Polars Decimal has at most {_MAX_DIGITS} digits: "
                "drop it, or cast it where the frame is made"
            )
            raise InputError(msg)
    reserved = [name for name in schema if name.startswith(OURS)]
    if reserved:
        msg = f"column {reserved[0]!r} starts with {OURS!r}, which batchframe reserves: rename it"
        raise InputError(msg)
    return frame
