"""Nested dtypes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterator

MAP: Any = getattr(pl, "Map", ())  # the oldest supported polars has no Map


def holds(dtype: Any, *wanted: Any) -> bool:
    """Return whether a dtype is, or contains, one of the wanted dtypes."""
    return any(isinstance(inner, wanted) for inner in inside(dtype))


def inside(dtype: Any) -> Iterator[Any]:
    """Yield a dtype and all dtypes nested in it."""
    yield dtype
    children: list[Any] = []
    if isinstance(dtype, (pl.List, pl.Array)):
        children = [dtype.inner]
    elif isinstance(dtype, pl.Struct):
        children = [field.dtype for field in dtype.fields]
    elif isinstance(dtype, MAP):
        children = [dtype.key, dtype.value]
    elif isinstance(dtype, pl.BaseExtension):
        children = [dtype.ext_storage()]
    for child in children:
        yield from inside(child)
