"""Read the user's frame in slices of bounded size."""

from __future__ import annotations

import enum
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from batchframe._core.column_names import OURS
from batchframe._core.dtypes import holds
from batchframe._core.exceptions import InputError, OptionError, TemplateError, first_paragraph

if TYPE_CHECKING:
    from collections.abc import Iterator

SLICE_BYTES = 16_000_000
SLICE_ROWS = 65_536
# Rows per batch of a LazyFrame: an image may have megabytes.
_READ_ROWS, _READ_ROWS_OF_BYTES = 10_000, 100

_END = OURS + "end"


@dataclass
class Source:
    """A frame, and the expressions that are evaluated on the whole of it.

    Parameters
    ----------
    frame
        The user's frame.
    staged
        Expressions, by the name of the internal column that holds their values. They mean the same as in
        ``frame.with_columns(expr)`` on the whole frame, so they are evaluated before slicing.
    per_row
        The staged columns of which at least one must differ from row to row. Empty if another part of the request
        differs.
    max_rows
        The maximum number of rows in a slice, if less than the default.
    """

    frame: pl.DataFrame | pl.LazyFrame
    staged: dict[str, pl.Expr] = field(default_factory=dict)
    per_row: frozenset[str] = frozenset()
    max_rows: int | None = None

    def schema(self) -> pl.Schema:
        """Return the schema of the user's columns, followed by the staged columns."""
        schema: pl.Schema = _with_columns(self.frame.lazy(), self.staged).collect_schema()
        return schema

    def slices(self) -> Iterator[pl.DataFrame]:
        """Yield the rows in order, in slices of bounded rows and bytes. A frame without rows gives one empty slice.

        A LazyFrame is evaluated once, as a stream: a second evaluation could give another order.

        Raises
        ------
        OptionError
            An expression changes the number of rows, or gives one value for all rows where it must differ.
        TemplateError
            An expression fails on the frame.
        """
        frame, max_rows = self.frame, min(SLICE_ROWS, self.max_rows or SLICE_ROWS)
        if isinstance(frame, pl.LazyFrame) and self.staged:
            heights = {name: _probe(frame, expression) for name, expression in self.staged.items()}
            self._refuse_constant_prompt({name for name, height in heights.items() if height is _Height.ONE})
            if _Height.UNKNOWN in heights.values():
                # Only the data show whether the expression changes the number of rows.
                with evaluating():
                    frame = frame.collect()
        if isinstance(frame, pl.DataFrame):
            pieces = _cut(self._evaluated(frame), max_rows)
        else:
            staged = _with_columns(frame, self.staged)
            of_bytes = any(holds(dtype, pl.Binary) for dtype in self.schema().values())
            chunk_size = _READ_ROWS_OF_BYTES if of_bytes else _READ_ROWS
            pieces = _even(_batches(staged, chunk_size), max_rows)
        is_empty = True
        try:
            with evaluating():
                for piece in pieces:
                    is_empty = False
                    yield piece
        except pl.exceptions.ShapeError as error:
            raise _height_error(str(error)) from error
        if is_empty:
            yield self.schema().to_frame()

    def _evaluated(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return the frame with the staged columns, each evaluated once."""
        if not self.staged:
            return frame
        # with_columns broadcasts a single value, which hides it. Imploding each expression shows its height.
        try:
            imploded = frame.select(expression.implode().alias(name) for name, expression in self.staged.items())
        except pl.exceptions.PolarsError as error:
            msg = f"an expression of the prompt or of a parameter fails on the frame: {error}"
            raise TemplateError(msg) from error
        values: dict[str, pl.Series] = {name: imploded[name][0] for name in self.staged}
        constant = {name for name, value in values.items() if len(value) == 1}
        if frame.height == 1:
            constant = {name for name in constant & self.per_row if _probe(frame, self.staged[name]) is _Height.ONE}
        self._refuse_constant_prompt(constant)
        for name, value in values.items():
            if len(value) != frame.height:
                if len(value) != 1:
                    raise _height_error(f"got {len(value)} rows on this frame of {frame.height}")
                values[name] = _with_columns(frame, {name: self.staged[name]})[name]
        return frame.with_columns(value.alias(name) for name, value in values.items())

    def _refuse_constant_prompt(self, constant: set[str]) -> None:
        if self.per_row and self.per_row <= constant:
            msg = (
                "the prompt expression gives one value for all rows, so every row would send the same request: "
                'use an expression with a value for each row, such as pl.format("… {}", pl.col("text"))'
            )
            raise OptionError(msg)


class _Height(enum.Enum):
    """The height of an expression, compared with its frame."""

    KEPT = "a value for each row"
    ONE = "one value for all rows"
    UNKNOWN = "it depends on the data"


def _probe(frame: pl.DataFrame | pl.LazyFrame, expression: pl.Expr) -> _Height:
    """Return the height of an expression, from two small frames with the same schema.

    The streaming engine broadcasts a single value silently. On the data, a filter that leaves one row would look like a
    constant, and every row would send the same request.
    """
    schema = frame.collect_schema()
    heights: set[_Height] = set()
    for rows in (2, 3):
        # First nulls, then three distinct values where the dtype allows it, so that filter() or unique() shows.
        probe = _nulls(schema, rows)
        if rows == 3:  # noqa: PLR2004
            probe = probe.with_columns(_sample(name, dtype, rows) for name, dtype in schema.items())
        try:
            height = probe.select(expression.alias("probe")).height
        except (Exception, pl.exceptions.PanicException):  # noqa: BLE001, S112  (an expression may call any code)
            continue
        heights.add({rows: _Height.KEPT, 1: _Height.ONE}.get(height, _Height.UNKNOWN))
    return heights.pop() if len(heights) == 1 else _Height.UNKNOWN


def _nulls(schema: pl.Schema, rows: int) -> pl.DataFrame:
    """Return a frame of nulls. `DataFrame.clear` treats column names such as ^a$ as patterns, so they are set last."""
    frame = schema.to_frame()
    frame.columns = [str(index) for index in range(frame.width)]
    frame = frame.clear(rows)
    frame.columns = list(schema)
    return frame


def _sample(name: str, dtype: Any, rows: int) -> pl.Series:
    if dtype.is_numeric() or dtype.is_temporal() or isinstance(dtype, (pl.String, pl.Boolean)):
        return pl.Series(name, range(rows)).cast(dtype, strict=False)
    return pl.Series(name, [None] * rows, dtype)


@contextmanager
def evaluating(*errors: type[Exception]) -> Iterator[None]:
    """Raise InputError for a Polars panic and for ``errors``: the user's frame caused them."""
    caught: tuple[Any, ...] = (pl.exceptions.PanicException, *errors)
    try:
        yield
    except caught as error:
        msg = f"the frame cannot be evaluated: {first_paragraph(error)}"
        raise InputError(msg) from error


def _height_error(detail: str) -> OptionError:
    return OptionError(
        f"an expression changes the number of rows ({detail}): it must give one value for each row of the frame; "
        "filter the frame first"
    )


def _with_columns(frame: Any, staged: dict[str, pl.Expr]) -> Any:
    if not staged:
        return frame
    try:
        return frame.with_columns(expression.alias(name) for name, expression in staged.items())
    except (pl.exceptions.ShapeError, pl.exceptions.InvalidOperationError) as error:
        raise _height_error(str(error).split("\n", 1)[0]) from error


def _batches(frame: pl.LazyFrame, chunk_size: int) -> Iterator[pl.DataFrame]:
    """Yield the rows of a LazyFrame as they are evaluated, and check that none is missing.

    If the query panics, the batches of Polars (1.37 to 2.1) end as if there were no more rows. So a row that marks the
    end is appended.

    Raises
    ------
    InputError
        The batches ended before the last row.
    """
    schema = frame.collect_schema()
    if not schema:
        return
    end = _nulls(schema, 1).lazy().with_columns(pl.lit(value=True).alias(_END))
    marked = pl.concat([frame.with_columns(pl.lit(value=False).alias(_END)), end])
    is_whole = False
    for batch in marked.collect_batches(chunk_size=chunk_size, maintain_order=True, engine="streaming"):
        is_whole = batch[_END][-1]
        yield batch.drop(_END).head(batch.height - is_whole)
    if not is_whole:
        msg = (
            "the frame cannot be evaluated: Polars panicked before the last row; the reason is on standard error. "
            "Call collect() on the LazyFrame by itself to find the column"
        )
        raise InputError(msg)


def _cut(frame: pl.DataFrame, max_rows: int) -> Iterator[pl.DataFrame]:
    """Split a frame into slices by its mean row size."""
    if frame.height:
        row_bytes = max(1, frame.estimated_size() // frame.height)
        yield from frame.iter_slices(max(1, min(max_rows, int(SLICE_BYTES // row_bytes))))


def _even(batches: Iterator[pl.DataFrame], max_rows: int) -> Iterator[pl.DataFrame]:
    """Join small batches and split large ones, so that a block is neither a few rows nor a gigabyte."""
    pending: list[pl.DataFrame] = []
    pending_rows = pending_bytes = 0
    for batch in batches:
        for piece in _cut(batch, max_rows):
            size = int(piece.estimated_size())
            if pending and (pending_rows + piece.height > max_rows or pending_bytes + size > SLICE_BYTES):
                yield pl.concat(pending)
                pending, pending_rows, pending_bytes = [], 0, 0
            pending.append(piece)
            pending_rows += piece.height
            pending_bytes += size
    if pending:
        yield pl.concat(pending)
