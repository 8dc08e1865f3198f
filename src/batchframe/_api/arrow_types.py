"""Convert frames of other libraries to Polars frames through Arrow. Values stay exact; other types are refused by name.

Polars panics on some Arrow types, and reads others as their storage type: a period as its ordinal, an 8-bit flag as a
number. So pyarrow checks the types first. It is slow to import, so this module is imported only for such a frame.
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

    # From the column's name and pyarrow's cast, if it has one, to the advice in the message.
    Cast = Callable[[str, str | None], str]

_EXTENSION = b"ARROW:extension:name"
_POLARS_DIGITS = 38
_A_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}
# Types of DuckDB 2.0 without an Arrow type of their own, or with one that Polars lacks. A UHUGEINT of 2**127 or more is
# exported as a negative decimal, a TIMETZ without its offset, a BIT as bytes with padding.
_DUCKDB_FOREIGN = {"bignum", "bit", "interval", "time with time zone", "uhugeint", "union", "variant", "varint"}


def to_frame(frame: Any) -> pl.DataFrame:
    """Return the Polars frame of an object that exports the Arrow C stream.

    Raises
    ------
    InputError
        A column has a type or a value that Polars cannot hold; the message names the column and a cast. Or the stream
        failed.
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
    except (Exception, pl.exceptions.PanicException) as error:  # any library may have made the frame
        msg = f"reading the Arrow stream of {type(frame).__module__}.{type(frame).__qualname__} failed: {error}"
        raise InputError(msg) from error


def refuse_stored_types(schema: Any, path: str, intervals: list[str]) -> None:
    """Refuse a column of a Parquet file that Polars would misread, or panic on.

    Parameters
    ----------
    schema
        The Arrow schema of the file.
    path
        The path of the file, for the cast in the message.
    intervals
        The dotted paths of the INTERVAL columns and fields.

    Raises
    ------
    InputError
        The message names the column, its type and a cast.
    """
    use = "Pass table to bf.run, or write it with pyarrow.parquet.write_table"

    def cast(name: str, target: str | None) -> str:
        read = f"table = pyarrow.parquet.read_table({path!r})"
        if target is None:
            return f"where the file is written; or leave it out, by {read}.drop_columns({name!r}). {use}"
        return f"such as {read}; {_set_column(name, target)}. {use}"

    _refuse_types(schema, cast, is_stored=True)
    for name in schema.names:
        if any(interval == name or interval.startswith(f"{name}.") for interval in intervals):
            raise _refusal(name, "Parquet type INTERVAL", _cannot_hold_message(), cast(name, None))


def _is_a(frame: Any, module: str, name: str) -> bool:
    """Whether an object is an instance of a class, whose library may not be installed."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(frame, kind)


def _stream_table(frame: Any, cast: Cast) -> Any:
    """Return the table of an Arrow C stream, or the object itself if pyarrow cannot read its schema."""
    try:
        reader = pa.RecordBatchReader.from_stream(frame)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return frame  # for example a wrapped Polars frame with 128-bit integers
    with reader:  # closing it releases the connection of a DuckDB relation
        _refuse_types(reader.schema, cast)
        table = reader.read_all()
    for name, column in zip(table.column_names, table.columns, strict=True):
        if any(_is_out_of_day(leaf) for chunk in column.chunks for leaf in _leaves(chunk)):
            problem = "and holds 24:00:00, which is not a time of day in Polars"
            raise _refusal(name, f"Arrow type {column.type}", problem, cast(name, None))
    return table


def _imported(table: Any) -> pl.DataFrame:
    """Return the Polars frame of a table. If Polars refuses it, find the column and name it."""
    if not hasattr(table, "to_reader"):
        return pl.DataFrame(table)
    try:
        return pl.DataFrame(table.to_reader())
    except (Exception, pl.exceptions.PanicException):
        for field in table.schema:
            _import_alone(table.select([field.name]))
        raise


def _import_alone(table: Any) -> None:
    """Refuse a table of one column by name if Polars does not accept it."""
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
            # pyarrow cannot cast a type inside another type.
            shown = _shown(field)
            inner, target = (None, foreign.cast) if foreign.shown == shown else (foreign.shown, None)
            raise _refusal(field.name, f"Arrow type {shown}", _cannot_hold_message(inner), cast(field.name, target))


def _refuse_twins(names: list[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        msg = f"there are {names.count(twice)} columns named {twice!r}: rename all but one"
        raise InputError(msg)


def _refusal(name: str, shown: str, problem: str, cast: str) -> InputError:
    """Return the error for a column. ``shown`` is its type as the user's library prints it."""
    return InputError(f"column {name!r} has the {shown}, {problem}: cast it first, {cast}")


def _cannot_hold_message(inner: str | None = None) -> str:
    return "which Polars cannot hold" if inner is None else f"and Polars cannot hold the {inner} in it"


def _arrow_cast(name: str, target: str | None) -> str:
    if target is None:
        return "to text or another type that Polars supports, or leave the column out"
    return f"such as {_set_column(name, target)}"


def _set_column(name: str, target: str) -> str:
    column = f"table[{name!r}]"
    return f"table = table.set_column(table.column_names.index({name!r}), {name!r}, {target.format(column)})"


def _duckdb_cast(name: str, _: str | None) -> str:
    quoted = '"' + name.replace('"', '""') + '"'
    return f"such as SELECT * REPLACE ({quoted}::VARCHAR AS {quoted})"


# -- types


class _Foreign(NamedTuple):
    """An Arrow type that Polars misreads or lacks, and pyarrow's cast for a column {0} of it, if there is one."""

    shown: str
    cast: str | None


def _foreign(field: Any, *, is_stored: bool) -> _Foreign | None:
    """Return the innermost foreign type of a field; None if Polars reads the field exactly.

    Parameters
    ----------
    field
        The Arrow field.
    is_stored
        Whether it is in a Parquet file, where Polars reads some types that it cannot import otherwise.
    """
    name = _extension(field)
    if name is not None:
        is_plain = _is_its_storage(name, field.type, is_stored=is_stored)
        return None if is_plain else _Foreign(_shown(field), _EXTENSION_CASTS.get(name))
    for is_foreign, cast in _FOREIGN:
        if is_foreign(field.type, is_stored):
            return _Foreign(str(field.type), cast)
    return next((foreign for inner in _inner(field.type) if (foreign := _foreign(inner, is_stored=is_stored))), None)


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
    """Return the name of an extension type. A type unknown to pyarrow has its name in the field's metadata."""
    if isinstance(field.type, pa.BaseExtensionType):
        return str(field.type.extension_name)
    name = (field.metadata or {}).get(_EXTENSION)
    return None if name is None else name.decode()


def _is_its_storage(name: str, kind: Any, *, is_stored: bool) -> bool:
    """Whether the storage of an extension type, text or bytes, is also its meaning in a prompt."""
    storage = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    if name == "arrow.opaque" or (name == "arrow.uuid" and not is_stored):
        return False
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    others = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(is_kind(storage) for is_kind in (*texts, *others))


def _shown(field: Any) -> str:
    """Return an Arrow type as messages show it."""
    name = _extension(field)
    return str(field.type) if name is None or name in str(field.type) else f"extension<{name}>"


def _is_unknown_zone(zone: str | None) -> bool:
    """Whether Polars does not support a time zone, such as +05:30."""
    try:
        pl.select(pl.lit(0).cast(pl.Datetime("us", zone)))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return True
    return False


def _has_twins(kind: Any, _: bool) -> bool:  # noqa: FBT001
    """Whether fields of a struct share a name, of which Polars would keep only the last."""
    return bool(pa.types.is_struct(kind)) and len({inner.name for inner in _inner(kind)}) < kind.num_fields


# Types that Polars 2.1 panics on, refuses or misreads, with the cast for a column {0}.
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
            raise _refusal(name, f"type {kind}", _cannot_hold_message(inner), _duckdb_cast(name, None))


def _foreign_in_duckdb(kind: Any) -> str | None:
    if kind.id in _DUCKDB_FOREIGN:
        return str(kind)
    if kind.id not in {"array", "list", "map", "struct"}:
        return None
    inner = [child for _, child in kind.children if isinstance(child, type(kind))]
    return next((foreign for child in inner if (foreign := _foreign_in_duckdb(child))), None)


# -- values


def _leaves(array: Any) -> Iterator[Any]:
    """Yield the arrays at the bottom of a nested array."""
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
    for child in inner:
        yield from _leaves(child)


def _is_out_of_day(array: Any) -> bool:
    """Whether an array holds the time 24:00:00, which Polars reads as null."""
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
            warnings.simplefilter("ignore")  # older pyarrow warns about newer pandas, which the user cannot change
            array = pa.array(series, from_pandas=True)
    except Exception as error:
        raise _refusal(name, shown, f"which Arrow cannot hold ({error})", cast) from error
    foreign = _foreign(pa.field(name, array.type), is_stored=False)
    if foreign is not None:
        raise _refusal(
            name,
            shown,
            _cannot_hold_message(foreign.shown if str(series.dtype) in {"category", "object"} else None),
            cast,
        )
    if not _holds_objects(series.dtype):
        return array
    if pa.types.is_null(array.type):
        return array.cast(pa.large_string())  # all null: text, as Polars reads such a column
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
    """Return the first value that Arrow would change, as text: for a datetime among dates it keeps only the date.

    Arrow is strict with text and numbers, so only other types are compared.
    """
    lenient = (pa.types.is_temporal, pa.types.is_binary, pa.types.is_large_binary)
    if not any(is_lenient(kind) for kind in _kinds(array.type) for is_lenient in lenient):
        return None
    pairs = zip(series.tolist(), array.to_pylist(), strict=True)
    return next((f"{was!r} would become {now!r}" for was, now in pairs if not _is_same(was, now)), None)


def _kinds(kind: Any) -> Iterator[Any]:
    """Yield an Arrow type and the types inside it."""
    yield kind
    for field in _inner(kind):
        yield from _kinds(field.type)


def _is_same(was: Any, now: Any) -> bool:
    if now is None:  # only None, NaN, NaT and NA become null in pyarrow
        return True
    if isinstance(now, dict):
        return all(_is_same(was.get(name), inner) for name, inner in now.items())
    if isinstance(now, list):
        return len(was) == len(now) and all(map(_is_same, was, now))
    return bool(was == now)
