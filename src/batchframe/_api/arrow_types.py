"""Frames of other libraries → Polars frames, by way of Arrow: value for value, or refused by name.

Polars panics at some Arrow types, and takes others for what they are stored as: a period for its ordinal, a flag of
eight bits for a number. So pyarrow looks at the types first. It takes a while to import, so this module is imported
where a frame of another library comes in.
"""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from batchframe._core.exceptions import InputError, warn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    # Of the column's name, and of the cast that pyarrow has, if any: what to do.
    Cast = Callable[[str, str | None], str]

_EXTENSION = b"ARROW:extension:name"
_POLARS_DIGITS = 38
_A_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}
# Types of DuckDB 2.0 that have no Arrow type of their own, or one that Polars has not: as a decimal, a UHUGEINT from
# 2**127 on is negative; a TIMETZ has lost its offset; a BIT comes as bytes with padding.
_DUCKDB_FOREIGN = {"bignum", "bit", "interval", "time with time zone", "uhugeint", "union", "variant", "varint"}


def to_frame(frame: Any) -> pl.DataFrame:
    """Return the Polars frame of an object that exports Arrow.

    Raises
    ------
    InputError
        A column has a type or a value that Polars cannot hold: names it, and the cast that helps. Or the stream fails.
    """
    try:
        if _is_a(frame, "pandas", "DataFrame"):
            return _imported(_pandas_table(frame))
        if _is_a(frame, "duckdb", "DuckDBPyRelation"):
            _refuse_duckdb_types(frame)
            return _imported(_stream_table(frame, _duckdb_cast))
        return _imported(_stream_table(frame, _arrow_cast))
    except InputError:
        raise
    except (Exception, pl.exceptions.PanicException) as error:  # whatever made the frame raises errors of its own
        msg = f"the Arrow stream of {type(frame).__module__}.{type(frame).__qualname__} gives no frame: {error}"
        raise InputError(msg) from error


def refuse_stored_types(schema: Any, path: str, intervals: list[str]) -> None:
    """Refuse a column of a Parquet file that Polars would misread, or panic at.

    Parameters
    ----------
    schema
        The Arrow schema of the file.
    path
        Where it is, for the cast that helps.
    intervals
        The paths of what is an INTERVAL there, columns and fields joined by dots.

    Raises
    ------
    InputError
        Names the column, its type and the cast.
    """
    use = "Pass table to bf.run, or write it with pyarrow.parquet.write_table"

    def cast(name: str, target: str | None) -> str:
        read = f"table = pyarrow.parquet.read_table({path!r})"
        if target is None:
            return f"where the file is written; or leave it out, by {read}.drop_columns({name!r}). {use}"
        return f"such as {read}; {_set_column(name, target)}. {use}"

    _refuse_types(schema, cast, is_stored=True)
    for name in schema.names:
        if any(found == name or found.startswith(f"{name}.") for found in intervals):
            raise _refusal(name, "Parquet type INTERVAL", _unheld(), cast(name, None))


def _is_a(frame: Any, module: str, name: str) -> bool:
    """Whether an object is of a class of a library that may not be installed."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(frame, kind)


def _stream_table(frame: Any, cast: Cast) -> Any:
    """Return the table of an Arrow C stream; the object itself where pyarrow cannot read its schema."""
    try:
        reader = pa.RecordBatchReader.from_stream(frame)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return frame  # such as a wrapped Polars frame with its 128-bit integers
    with reader:  # closed, a DuckDB relation gives its connection free
        _refuse_types(reader.schema, cast)
        table = reader.read_all()
    for name, column in zip(table.column_names, table.columns, strict=True):
        if any(_is_out_of_day(leaf) for chunk in column.chunks for leaf in _leaves(chunk)):
            problem = "and holds 24:00:00, which is no time of day to Polars"
            raise _refusal(name, f"Arrow type {column.type}", problem, cast(name, None))
    return table


def _imported(table: Any) -> pl.DataFrame:
    """Return the Polars frame of a table; what Polars refuses nevertheless is looked for column by column."""
    if not hasattr(table, "to_reader"):
        return pl.DataFrame(table)
    try:
        return pl.DataFrame(table.to_reader())
    except (Exception, pl.exceptions.PanicException):
        for field in table.schema:
            _import_alone(table.select([field.name]))
        raise


def _import_alone(table: Any) -> None:
    """Refuse a table of one column by name where Polars does not take it."""
    (field,) = table.schema
    try:
        pl.DataFrame(table.to_reader())
    except (Exception, pl.exceptions.PanicException) as error:
        problem = f"which Polars refuses ({error})"
        raise _refusal(field.name, f"Arrow type {field.type}", problem, _arrow_cast(field.name, None)) from error


def _refuse_types(schema: Any, cast: Cast, *, is_stored: bool = False) -> None:
    _refuse_twins(schema.names)
    for field in schema:
        foreign = _foreign(field, is_stored=is_stored)
        if foreign is not None:
            # pyarrow casts no type that is inside of another.
            shown = _shown(field)
            inner, target = (None, foreign.cast) if foreign.shown == shown else (foreign.shown, None)
            raise _refusal(field.name, f"Arrow type {shown}", _unheld(inner), cast(field.name, target))


def _refuse_twins(names: list[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        msg = f"there are {names.count(twice)} columns named {twice!r}: rename all but one"
        raise InputError(msg)


def _refusal(name: str, shown: str, problem: str, cast: str) -> InputError:
    """Return the error of a column, whose type is as the maker of the frame shows it."""
    return InputError(f"column {name!r} has the {shown}, {problem}: cast it first, {cast}")


def _unheld(inner: str | None = None) -> str:
    return "which Polars cannot hold" if inner is None else f"and Polars cannot hold the {inner} in it"


def _arrow_cast(name: str, target: str | None) -> str:
    if target is None:
        return "to text or another type that Polars has, or leave the column out"
    return f"such as {_set_column(name, target)}"


def _set_column(name: str, target: str) -> str:
    column = f"table[{name!r}]"
    return f"table = table.set_column(table.column_names.index({name!r}), {name!r}, {target.format(column)})"


def _duckdb_cast(name: str, _: str | None) -> str:
    quoted = '"' + name.replace('"', '""') + '"'
    return f"such as SELECT * REPLACE ({quoted}::VARCHAR AS {quoted})"


# -- types


class _Foreign(NamedTuple):
    """An Arrow type that Polars misreads or has not, and the cast of a column {0} of it, where pyarrow has one."""

    shown: str
    cast: str | None


def _foreign(field: Any, *, is_stored: bool) -> _Foreign | None:
    """Return the innermost foreign type of a field; None where Polars takes it value for value.

    Parameters
    ----------
    field
        The Arrow field.
    is_stored
        Whether it is in a Parquet file, which tells Polars more of some types.
    """
    name = _extension(field)
    if name is not None:
        is_plain = _is_its_storage(name, field.type, is_stored=is_stored)
        return None if is_plain else _Foreign(_shown(field), _EXTENSION_CASTS.get(name))
    for is_foreign, cast in _FOREIGN:
        if is_foreign(field.type, is_stored):
            return _Foreign(str(field.type), cast)
    return next((found for inner in _inner(field.type) if (found := _foreign(inner, is_stored=is_stored))), None)


def _inner(kind: Any) -> list[Any]:
    """Return the fields in a nested Arrow type."""
    if pa.types.is_dictionary(kind):
        return [pa.field("values", kind.value_type)]
    if pa.types.is_map(kind):
        return [kind.key_field, kind.item_field]
    if pa.types.is_struct(kind):
        return [kind.field(index) for index in range(kind.num_fields)]
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return [kind.value_field] if is_list else []


def _extension(field: Any) -> str | None:
    """Return the name of an extension type; one that pyarrow does not know is only in the field's metadata."""
    if isinstance(field.type, pa.BaseExtensionType):
        return str(field.type.extension_name)
    name = (field.metadata or {}).get(_EXTENSION)
    return None if name is None else name.decode()


def _is_its_storage(name: str, kind: Any, *, is_stored: bool) -> bool:
    """Whether an extension type is no more than its text, or than bytes, which no prompt takes for anything else."""
    storage = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    if name == "arrow.opaque" or (name == "arrow.uuid" and not is_stored):
        return False
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    others = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(is_kind(storage) for is_kind in (*texts, *others))


def _shown(field: Any) -> str:
    """Return an Arrow type as a person knows it."""
    name = _extension(field)
    return str(field.type) if name is None or name in str(field.type) else f"extension<{name}>"


def _is_unknown_zone(zone: str | None) -> bool:
    """Whether Polars does not know a time zone, such as +05:30."""
    try:
        pl.select(pl.lit(0).cast(pl.Datetime("us", zone)))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return True
    return False


def _has_twins(kind: Any, _: bool) -> bool:  # noqa: FBT001
    """Whether fields of a struct share a name: Polars keeps the last of them."""
    return bool(pa.types.is_struct(kind)) and len({inner.name for inner in _inner(kind)}) < kind.num_fields


# What Polars 2.1 panics at, refuses, or reads as something else; and the cast, of the column {0}.
_FOREIGN: tuple[tuple[Callable[[Any, bool], bool], str | None], ...] = (
    (lambda kind, stored: pa.types.is_decimal256(kind) and (kind.precision > _POLARS_DIGITS or not stored),
     "{0}.cast(pyarrow.string())"),
    (lambda kind, _: pa.types.is_decimal(kind) and kind.scale < 0, "{0}.cast(pyarrow.string())"),
    (lambda kind, stored: pa.types.is_date64(kind) and not stored, "{0}.cast(pyarrow.date32())"),
    (lambda kind, _: pa.types.is_timestamp(kind) and _is_unknown_zone(kind.tz),
     "{0}.cast(pyarrow.timestamp('us', 'UTC'))"),
    (lambda kind, _: pa.types.is_run_end_encoded(kind), "pyarrow.compute.run_end_decode({0})"),
    (lambda kind, _: pa.types.is_interval(kind), None),
    (lambda kind, _: pa.types.is_union(kind), None),
    (lambda kind, _: pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind), None),
    (lambda kind, _: pa.types.is_fixed_size_binary(kind) and kind.byte_width == 0, None),
    (lambda kind, _: pa.types.is_fixed_size_list(kind) and kind.list_size == 0, None),
    (_has_twins, None),
)  # fmt: skip
_EXTENSION_CASTS = {"arrow.bool8": "{0}.cast(pyarrow.bool_())"}


def _refuse_duckdb_types(relation: Any) -> None:
    for name, kind in zip(relation.columns, relation.types, strict=True):
        foreign = _foreign_in_duckdb(kind)
        if foreign is not None:
            inner = None if foreign == str(kind) else foreign
            raise _refusal(name, f"type {kind}", _unheld(inner), _duckdb_cast(name, None))


def _foreign_in_duckdb(kind: Any) -> str | None:
    if kind.id in _DUCKDB_FOREIGN:
        return str(kind)
    if kind.id not in {"array", "list", "map", "struct"}:
        return None
    inner = [child for _, child in kind.children if isinstance(child, type(kind))]
    return next((found for child in inner if (found := _foreign_in_duckdb(child))), None)


# -- values


def _leaves(array: Any) -> Iterator[Any]:
    """Yield the arrays in a nested one that are not nested."""
    if pa.types.is_dictionary(array.type):
        inner = [array.dictionary]
    elif pa.types.is_map(array.type):
        inner = [array.keys, array.items]
    elif pa.types.is_struct(array.type):
        inner = array.flatten()
    elif _inner(array.type):
        inner = [array.flatten()]
    else:
        yield array
        return
    for one in inner:
        yield from _leaves(one)


def _is_out_of_day(array: Any) -> bool:
    """Whether there is the time 24:00:00, of which Polars makes a null."""
    if not pa.types.is_time(array.type):
        return False
    last = pc.max(array)
    return bool(last.is_valid and last.value >= _A_DAY[array.type.unit])


# -- pandas


def _pandas_table(frame: Any) -> Any:
    """Return the table of a pandas frame, without its index."""
    named = [str(name) for name in frame.index.names if name is not None]
    if named:
        warn(
            f"the index of the pandas frame is left out ({', '.join(named)}): df.reset_index() keeps it as columns. "
            "The result is a Polars frame"
        )
    names = [str(label) for label in frame.columns]
    _refuse_twins(names)
    arrays = [_pandas_array(label, frame.iloc[:, index]) for index, label in enumerate(frame.columns)]
    return pa.Table.from_arrays(arrays, names)


def _pandas_array(label: Any, series: Any) -> Any:
    name, shown, cast = str(label), f"dtype {series.dtype}", _pandas_cast(label, series.dtype)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of older pyarrow about newer pandas: none of the user's business
            array = pa.array(series, from_pandas=True)
    except Exception as error:
        raise _refusal(name, shown, f"which Arrow cannot hold ({error})", cast) from error
    foreign = _foreign(pa.field(name, array.type), is_stored=False)
    if foreign is not None:
        raise _refusal(
            name, shown, _unheld(foreign.shown if str(series.dtype) in {"category", "object"} else None), cast
        )
    if not _holds_objects(series.dtype):
        return array
    if pa.types.is_null(array.type):
        return array.cast(pa.large_string())  # no value tells its type; Polars takes such a column for text
    changed = _changed_value(series, array)
    if changed is not None:
        raise _refusal(name, shown, f"and its values would change ({changed})", cast)
    return array


def _pandas_cast(label: Any, dtype: Any) -> str:
    column = f"df[{label!r}]"
    kind = type(dtype).__name__
    if kind == "SparseDtype":
        return f"such as {column} = {column}.sparse.to_dense()"
    if kind == "DatetimeTZDtype":
        return f'such as {column} = {column}.dt.tz_convert("UTC")'
    return f"such as {column} = {column}.astype(str)"


def _holds_objects(dtype: Any) -> bool:
    categories = getattr(dtype, "categories", None)
    return str(dtype if categories is None else categories.dtype) == "object"


def _changed_value(series: Any, array: Any) -> str | None:
    """Return what Arrow makes another value of: of a datetime among dates it keeps the date.

    Python values are compared only where Arrow is lenient: with text and numbers it is strict.
    """
    lenient = (pa.types.is_temporal, pa.types.is_binary, pa.types.is_large_binary)
    if not any(is_lenient(kind) for kind in _kinds(array.type) for is_lenient in lenient):
        return None
    pairs = zip(series.tolist(), array.to_pylist(), strict=True)
    return next((f"{was!r} would become {now!r}" for was, now in pairs if not _is_same(was, now)), None)


def _kinds(kind: Any) -> Iterator[Any]:
    """Yield an Arrow type and those inside of it."""
    yield kind
    for field in _inner(kind):
        yield from _kinds(field.type)


def _is_same(was: Any, now: Any) -> bool:
    if now is None:  # None, NaN, NaT and NA are all that pyarrow takes for null
        return True
    if isinstance(now, dict):
        return all(_is_same(was.get(name), inner) for name, inner in now.items())
    if isinstance(now, list):
        return len(was) == len(now) and all(map(_is_same, was, now))
    return bool(was == now)
