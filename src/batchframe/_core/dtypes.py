"""Dtypes inside of dtypes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterator

MAP: Any = getattr(pl, "Map", ())  # a dtype newer than the oldest polars


def holds(dtype: Any, *wanted: Any) -> bool:
    """Whether a dtype is one of a kind, or has one inside."""
    return any(isinstance(inner, wanted) for inner in inside(dtype))


def inside(dtype: Any) -> Iterator[Any]:
    """Yield a dtype and all dtypes inside of it."""
    yield dtype
    inner: list[Any] = []
    if isinstance(dtype, (pl.List, pl.Array)):
        inner = [dtype.inner]
    elif isinstance(dtype, pl.Struct):
        inner = [field.dtype for field in dtype.fields]
    elif isinstance(dtype, MAP):
        inner = [dtype.key, dtype.value]
    elif isinstance(dtype, pl.BaseExtension):
        inner = [dtype.ext_storage()]
    for one in inner:
        yield from inside(one)
