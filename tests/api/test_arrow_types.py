"""Every type of Arrow, DuckDB and Parquet: its values stay exact, or it is refused by name."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import pytest

import batchframe as bf
from batchframe._api import parquet
from batchframe._api.frames import to_polars
from batchframe.cli import main
from each import each
from rendered import refusal, texts

DAY = dt.date(2024, 7, 1)
AWARE = dt.datetime(2024, 7, 1, 12, 30, 15, tzinfo=dt.timezone.utc)
MOMENT = AWARE.replace(tzinfo=None)
TIME = dt.time(12, 30, 15)
SPAN = dt.timedelta(days=1, seconds=2)
WIDE = Decimal("1.50")


class Stream:
    """Any object with the Arrow C stream."""

    def __init__(self, table):
        self._table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self._table.__arrow_c_stream__(requested_schema)


class Reader(Stream):
    """A stream that can be opened once."""

    def __arrow_c_stream__(self, requested_schema=None):
        table, self._table = self._table, None
        return table.__arrow_c_stream__(requested_schema)


def column(frame):
    return to_polars(frame)["v"].to_list()


# -- Arrow

intervals = pa.array([pa.MonthDayNano([1, 2, 3])])


def extension(kind, storage):
    return pa.ExtensionArray.from_storage(kind, storage)


def encoded(values):
    return pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), values)


# By the type: a column of one value. Where pyarrow's own value is another than Polars has for the same, so is it here.
EXACT = {
    "null": lambda: pa.nulls(1),
    "bool": lambda: pa.array([True]),
    "int8": lambda: pa.array([-128], pa.int8()),
    "int16": lambda: pa.array([1], pa.int16()),
    "int32": lambda: pa.array([1], pa.int32()),
    "int64": lambda: pa.array([-(2**63)], pa.int64()),
    "uint8": lambda: pa.array([255], pa.uint8()),
    "uint16": lambda: pa.array([1], pa.uint16()),
    "uint32": lambda: pa.array([1], pa.uint32()),
    "uint64": lambda: pa.array([2**64 - 1], pa.uint64()),
    "halffloat": lambda: pa.array([np.float16(1.5)], pa.float16()),
    "float": lambda: pa.array([1.5], pa.float32()),
    "double": lambda: pa.array([0.1], pa.float64()),
    "decimal32": lambda: pa.array([WIDE], pa.decimal32(5, 2)),
    "decimal64": lambda: pa.array([WIDE], pa.decimal64(12, 2)),
    "decimal128": lambda: pa.array([Decimal("9" * 26 + ".25")], pa.decimal128(38, 2)),
    "string": lambda: pa.array(["ä"]),
    "large_string": lambda: pa.array(["ä"], pa.large_string()),
    "string_view": lambda: pa.array(["ä"], pa.string_view()),
    "binary": lambda: pa.array([b"a"]),
    "large_binary": lambda: pa.array([b"a"], pa.large_binary()),
    "binary_view": lambda: pa.array([b"a"], pa.binary_view()),
    "fixed_size_binary": lambda: pa.array([b"ab"], pa.binary(2)),
    "date32": lambda: pa.array([DAY]),
    "time32[s]": lambda: pa.array([TIME], pa.time32("s")),
    "time32[ms]": lambda: pa.array([TIME], pa.time32("ms")),
    "time64[us]": lambda: pa.array([TIME], pa.time64("us")),
    "time64[ns]": lambda: pa.array([TIME], pa.time64("ns")),
    **{f"timestamp[{unit}]": lambda unit=unit: pa.array([MOMENT], pa.timestamp(unit)) for unit in ("s", "ms", "us")},
    **{
        f"timestamp[{zone}]": lambda zone=zone: pa.array([AWARE], pa.timestamp("us", zone))
        for zone in ("UTC", "Europe/Paris", "Etc/GMT+5", "US/Eastern")
    },
    **{f"duration[{unit}]": lambda unit=unit: pa.array([SPAN], pa.duration(unit)) for unit in ("s", "ms", "us")},
    "list": lambda: pa.array([[1, None]]),
    "large_list": lambda: pa.array([[1]], pa.large_list(pa.int8())),
    "fixed_size_list": lambda: pa.array([[1, 2]], pa.list_(pa.int8(), 2)),
    "struct": lambda: pa.array([{"a": 1, "b": "x"}]),
    "dictionary": lambda: pa.array(["a"]).dictionary_encode(),
    "dictionary of numbers": lambda: pa.array([10]).dictionary_encode(),
    "dictionary of dates": lambda: pa.array([DAY]).dictionary_encode(),
    "dictionary of decimals": lambda: pa.array([WIDE]).dictionary_encode(),
    "dictionary of bytes": lambda: pa.array([b"a"]).dictionary_encode(),
    "dictionary of structs": lambda: encoded(pa.array([{"a": 1}])),
    "list of dictionaries": lambda: pa.array([["a"]], pa.list_(pa.dictionary(pa.int8(), pa.string()))),
    "struct of a dictionary of numbers": lambda: pa.StructArray.from_arrays([encoded(pa.array([10]))], names=["a"]),
    "list of structs of lists": lambda: pa.array([[{"a": [DAY]}]]),
    "json": lambda: extension(pa.json_(), pa.array(['{"a":1}'])),
    "list of json": lambda: pa.ListArray.from_arrays([0, 1], extension(pa.json_(), pa.array(['{"a":1}']))),
}
# By the type: a column of it, and what the error calls it.
REFUSED = {
    "decimal256": (lambda: pa.array([WIDE], pa.decimal256(60, 2)), "decimal256(60, 2)"),
    "narrow decimal256": (lambda: pa.array([WIDE], pa.decimal256(5, 2)), "decimal256(5, 2)"),
    "decimal of hundreds": (lambda: pa.array([Decimal(1500)], pa.decimal128(5, -2)), "decimal128(5, -2)"),
    "date64": (lambda: pa.array([DAY], pa.date64()), "date64[ms]"),
    "timestamp with an offset": (lambda: pa.array([AWARE], pa.timestamp("us", "+05:30")), "timestamp[us, tz=+05:30]"),
    "timestamp of no zone": (lambda: pa.array([0]).cast(pa.timestamp("s", "Mars/Base")), "timestamp[s, tz=Mars/Base]"),
    "month_day_nano_interval": (lambda: intervals, "month_day_nano_interval"),
    "dense_union": (
        lambda: pa.UnionArray.from_dense(
            pa.array([0], pa.int8()), pa.array([0], pa.int32()), [pa.array([1]), pa.array(["a"])]
        ),
        "dense_union<0: int64=0, 1: string=1>",
    ),
    "sparse_union": (
        lambda: pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1]), pa.array(["a"])]),
        "sparse_union<0: int64=0, 1: string=1>",
    ),
    "run_end_encoded": (
        lambda: pa.RunEndEncodedArray.from_arrays(pa.array([1], pa.int32()), pa.array([5])),
        "run_end_encoded<run_ends: int32, values: int64>",
    ),
    "list_view": (lambda: pa.array([[1]], pa.list_view(pa.int8())), "list_view<item: int8>"),
    "large_list_view": (lambda: pa.array([[1]], pa.large_list_view(pa.int8())), "large_list_view<item: int8>"),
    "no bytes": (lambda: pa.array([b""], pa.binary(0)), "fixed_size_binary[0]"),
    "lists of none": (lambda: pa.array([[]], pa.list_(pa.int8(), 0)), "fixed_size_list<item: int8>[0]"),
    "twins in a struct": (
        lambda: pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]),
        "struct<a: int64, a: int64>",
    ),
    "bool8": (lambda: extension(pa.bool8(), pa.array([1], pa.int8())), "extension<arrow.bool8>"),
    "uuid": (lambda: pa.array([uuid.UUID(int=5).bytes], pa.uuid()), "extension<arrow.uuid>"),
    "opaque": (
        lambda: extension(pa.opaque(pa.binary(), "n", "v"), pa.array([b"x"])),
        "extension<arrow.opaque[storage_type=binary, type_name=n, vendor_name=v]>",
    ),
    "tensor": (
        lambda: extension(pa.fixed_shape_tensor(pa.int8(), [2, 2]), pa.array([[1, 2, 3, 4]], pa.list_(pa.int8(), 4))),
        "extension<arrow.fixed_shape_tensor[value_type=int8, shape=[2,2]]>",
    ),
}
# Newer than the oldest pyarrow.
NEWER = {"decimal32": "decimal32", "decimal64": "decimal64", "json": "json_", "list of json": "json_",
         "bool8": "bool8", "uuid": "uuid", "opaque": "opaque"}  # fmt: skip


def has(name):
    return hasattr(pa, NEWER.get(name, "array"))


def of(array):
    return pa.table({"id": pa.array(["a"] * len(array)), "v": array})


exact = each({name: make for name, make in EXACT.items() if has(name)})
refused = pytest.mark.parametrize(
    ("make", "shown"), [pytest.param(*case, id=name) for name, case in REFUSED.items() if has(name)]
)


def test_every_arrow_type_is_in_a_table():
    arrays = [make() for name, make in EXACT.items() if has(name)]
    arrays += [make() for name, (make, _) in REFUSED.items() if has(name)]
    arrays += [pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int8()))]
    made = {array.type.id for array in arrays}
    # pyarrow makes no values of the two older intervals.
    missing = {name for name in dir(pa.lib) if name.startswith("Type_") and getattr(pa.lib, name) not in made}
    assert missing <= {"Type_INTERVAL_MONTHS", "Type_INTERVAL_DAY_TIME"}


@exact
def test_arrow_values_are_exact(make):
    table = of(make())
    for frame in (table, table.to_reader(), Stream(table), Reader(table), table.to_batches()[0]):
        assert column(frame) == table["v"].to_pylist()


@refused
def test_arrow_types_are_refused_by_name(make, shown):
    table = of(make())
    for frame in (table, table.to_reader(), Stream(table), Reader(table)):
        message = refusal(frame)
        assert message.startswith(f"column 'v' has the Arrow type {shown}, which Polars cannot hold: cast it first, ")


@refused
def test_nested_arrow_types_are_refused(make, shown):
    array = make()
    indices = pa.array([0], pa.int8())
    for outer in (
        pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), array),
        pa.LargeListArray.from_arrays(pa.array([0, 1], pa.int64()), array),
        pa.FixedSizeListArray.from_arrays(array, 1),
        pa.StructArray.from_arrays([array], names=["a"]),
        pa.MapArray.from_arrays(pa.array([0, 1], pa.int32()), pa.array(["k"]), array),
        pa.MapArray.from_arrays(pa.array([0, 1], pa.int32()), array, pa.array([1])),
        pa.DictionaryArray.from_arrays(indices, array),
    ):
        message = refusal(of(outer))
        assert message.startswith("column 'v' has the Arrow type ")
        assert f", and Polars cannot hold the {shown} in it: cast it first, " in message


def test_maps_are_exact():
    array = pa.array([[("a", 1), ("b", None)]], pa.map_(pa.string(), pa.int8()))
    written = '{"a":1,"b":null}' if hasattr(pl, "Map") else '[{"key":"a","value":1},{"key":"b","value":null}]'
    assert texts(of(array)) == [written]


def test_nanoseconds_are_exact():
    stamps = pa.array([1]).cast(pa.timestamp("ns"))
    assert texts(of(stamps)) == ["1970-01-01T00:00:00.000000001"]
    assert texts(of(pa.array([1]).cast(pa.duration("ns")))) == ["PT0.000000001S"]


def test_extension_types_unknown_to_pyarrow_are_named():
    metadata = {"ARROW:extension:name": "mine.period", "ARROW:extension:metadata": '{"freq": "M"}'}
    field = pa.field("v", pa.int64(), metadata=metadata)
    message = refusal(Stream(pa.table([pa.array([648])], schema=pa.schema([field]))))
    assert "column 'v' has the Arrow type extension<mine.period>, which Polars cannot hold" in message
    words = pa.field("v", pa.string(), metadata={"ARROW:extension:name": "mine.words"})
    assert texts(Stream(pa.table([pa.array(["a"])], schema=pa.schema([words])))) == ["a"]


@pytest.mark.parametrize(
    "array",
    [
        pa.array([86_400], pa.int32()).view(pa.time32("s")),
        pa.array([86_400_000_000], pa.int64()).view(pa.time64("us")),
        pa.ListArray.from_arrays([0, 1], pa.array([86_400_000_000_000], pa.int64()).view(pa.time64("ns"))),
        pa.StructArray.from_arrays([pa.array([86_400_000], pa.int32()).view(pa.time32("ms"))], names=["a"]),
    ],
    ids=lambda array: str(array.type),
)
def test_times_that_polars_reads_as_null_are_refused(array):
    assert ", and holds 24:00:00, which is not a time of day in Polars: cast it first, " in refusal(of(array))


def test_duplicate_column_names_are_refused():
    table = pa.table([pa.array([1]), pa.array([2])], names=["a", "a"])
    assert refusal(table) == "there are 2 columns named 'a': rename all but one"


@pytest.mark.parametrize(
    "name",
    ["decimal256", "narrow decimal256", "decimal of hundreds", "date64", "timestamp with an offset", "run_end_encoded"]
    + ["bool8"] * has("bool8"),
)
def test_the_suggested_cast_works(name):
    table = of(REFUSED[name][0]())
    advice = refusal(table).split("such as ", 1)[1]
    scope = {"pyarrow": pa, "table": table}
    exec(advice, scope)
    assert len(column(scope["table"])) == 1


def test_128_bit_integers_of_a_wrapped_polars_frame_are_exact():
    frame = pl.DataFrame({"v": pl.Series([2**100, None], dtype=pl.Int128)})
    assert column(Stream(frame)) == [2**100, None]


def test_errors_of_a_stream_are_input_errors():
    class Broken:
        def __arrow_c_stream__(self, requested_schema=None):
            raise RuntimeError("the connection is closed")

    with pytest.raises(bf.InputError, match=r"Broken failed: the connection is closed"):
        to_polars(Broken())


# -- Parquet


def written(path, array):
    pq.write_table(of(array), path)
    return path


PARQUET_REFUSED = {
    "decimal": (lambda: pa.array([WIDE], pa.decimal256(60, 2)), "decimal256(60, 2)", None),
    "list of decimals": (lambda: pa.array([[WIDE]], pa.list_(pa.decimal256(60, 2))), None, "decimal256(60, 2)"),
    "struct of a decimal": (
        lambda: pa.array([{"a": WIDE}], pa.struct({"a": pa.decimal256(50, 2)})),
        None,
        "decimal256(50, 2)",
    ),
    "map of decimals": (
        lambda: pa.array([[("a", WIDE)]], pa.map_(pa.string(), pa.decimal256(50, 2))),
        None,
        "decimal256(50, 2)",
    ),
    "offset": (lambda: pa.array([AWARE], pa.timestamp("us", "+05:30")), "timestamp[us, tz=+05:30]", None),
    "no lists": (lambda: pa.array([[]], pa.list_(pa.int8(), 0)), "fixed_size_list<element: int8>[0]", None),
    "tensor": (
        REFUSED["tensor"][0],
        "extension<arrow.fixed_shape_tensor[value_type=int8, shape=[2,2]]>",
        None,
    ),
}


@pytest.mark.parametrize(("make", "shown", "inner"), PARQUET_REFUSED.values(), ids=PARQUET_REFUSED)
def test_parquet_types_are_refused_by_name(client, tmp_path, make, shown, inner):
    path = written(tmp_path / "in.parquet", make())
    with pytest.raises(bf.InputError) as caught:
        bf.run_parquet(path, tmp_path / "out.parquet", "{id}", model="m", client=client)
    message = str(caught.value)
    assert message.startswith("column 'v' has the Arrow type ")
    assert f"{shown}, which Polars cannot hold" in message or f", and Polars cannot hold the {inner} in it" in message
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize("name", [name for name in EXACT if has(name)])
def test_parquet_values_are_exact(tmp_path, name):
    if name == "time32[s]" and not hasattr(pl, "Map"):
        pytest.skip("the oldest Polars reads nulls")
    table = of(EXACT[name]())
    try:
        pq.write_table(table, tmp_path / "in.parquet")
    except pa.ArrowException:
        pytest.skip("pyarrow writes no Parquet of it")
    assert to_polars(parquet.scan(tmp_path / "in.parquet")).collect()["v"].to_list() == table["v"].to_pylist()


@pytest.mark.skipif(not hasattr(pl, "Map"), reason="the oldest Polars reads no decimal of 256 bits")
def test_a_narrow_decimal_of_256_bits_is_exact_in_parquet(tmp_path):
    path = written(tmp_path / "in.parquet", pa.array([WIDE], pa.decimal256(5, 2)))
    assert parquet.read(path)["v"].to_list() == [WIDE]


def test_the_command_refuses_a_wide_decimal_by_name(emu, tmp_path, monkeypatch, capsys):
    for name, value in emu.env().items() if hasattr(emu, "env") else ():
        monkeypatch.setenv(name, value)
    path = written(tmp_path / "in.parquet", pa.array([WIDE], pa.decimal256(60, 2)))
    code = main(["run", str(path), str(tmp_path / "out.parquet"), "--prompt", "{id}", "--model", "m"])
    err = capsys.readouterr().err
    assert code == 2
    assert err.startswith("error: column 'v' has the Arrow type decimal256(60, 2), which Polars cannot hold: cast it")
    assert err.count("\n") == 1


def test_the_command_read_refuses_it_too(tmp_path, capsys):
    path = written(tmp_path / "in.parquet", pa.array([WIDE], pa.decimal256(60, 2)))
    answers = tmp_path / "answers.jsonl"
    answers.write_text("")
    assert main(["read", str(answers), "--frame", str(path)]) == 2
    assert "column 'v' has the Arrow type decimal256(60, 2)" in capsys.readouterr().err


def test_the_suggested_cast_of_a_parquet_file_works(tmp_path):
    path = written(tmp_path / "in.parquet", pa.array([WIDE], pa.decimal256(60, 2)))
    with pytest.raises(bf.InputError) as caught:
        parquet.scan(path)
    read, cast = str(caught.value).split("cast it first, ", 1)[1].split("; ")[:2]
    scope = {"pyarrow": pa}
    exec(read.removeprefix("such as "), scope)
    exec(cast.partition(". Pass table to bf.run, or ")[0], scope)
    assert texts(scope["table"]) == ["1.50"]


@pytest.mark.parametrize("name", ["v", "v.w"])
@pytest.mark.parametrize("value", ["INTERVAL 1 DAY", "[INTERVAL 1 DAY]", "{'a': INTERVAL 1 DAY}"])
def test_intervals_written_by_duckdb_are_refused_by_name(con, tmp_path, name, value):
    path = tmp_path / "in.parquet"
    con.sql(f"""SELECT 'a' AS id, {value} AS "{name}" """).write_parquet(str(path))
    with pytest.raises(bf.InputError) as caught:
        parquet.scan(path)
    message = (
        f"column '{name}' has the Parquet type INTERVAL, which Polars cannot hold: cast it first, where the file is "
    )
    assert str(caught.value).startswith(message)
    read = str(caught.value).split("leave it out, by ", 1)[1].partition(". Pass table to bf.run, or ")[0]
    scope = {"pyarrow": pa}
    exec(read, scope)
    assert texts(scope["table"], "{id}") == ["a"]


def test_other_columns_written_by_duckdb_are_exact(con, tmp_path):
    path = tmp_path / "in.parquet"
    query = "SELECT 'a' AS id, '00112233-4455-6677-8899-aabbccddeeff'::UUID AS v, 5::HUGEINT AS h, '[1]'::JSON AS j"
    con.sql(query).write_parquet(str(path))
    frame = parquet.scan(path)
    assert frame.collect()["v"].to_list() == [bytes.fromhex("00112233445566778899aabbccddeeff")]
    assert texts(frame, "{id}") == ["a"]
    with pytest.raises(
        bf.TemplateError, match=r"column 'j' has dtype Binary, .* or \.cast\(pl\.String\) if it is UTF-8"
    ):
        texts(frame, "{j}")  # Polars reads JSON of Parquet so
    assert texts(frame.with_columns(pl.col("j").cast(pl.String)), "{id} {j}") == ["a [1]"]


# -- a LazyFrame


def test_a_lazy_frame_that_cannot_be_scanned_is_refused(tmp_path):
    path = written(tmp_path / "in.parquet", pa.array([WIDE], pa.decimal256(60, 2)))
    for call in (bf.requests, bf.run, bf.submit, bf.result_schema):
        with pytest.raises(
            bf.InputError, match=r"precision=60.* at most 38 digits|the frame cannot be evaluated: .*Decimal256"
        ):
            call(pl.scan_parquet(path), "{id}", model="m")
    with pytest.raises(bf.InputError, match="the frame cannot be evaluated"):
        bf.requests(pl.scan_parquet(tmp_path / "none.parquet"), "{id}", model="m")


@pytest.mark.parametrize("name", ["list of decimals", "struct of a decimal", "map of decimals"])
def test_nested_wide_decimals_of_a_scan_are_refused_by_name(tmp_path, name):
    path = written(tmp_path / "in.parquet", PARQUET_REFUSED[name][0]())
    with pytest.raises(
        bf.InputError, match=r"column 'v' has dtype .*, and a Polars Decimal has at most 38 |Decimal256"
    ):
        bf.requests(pl.scan_parquet(path), "{id}", model="m")


@pytest.mark.parametrize("name", ["offset", "no lists"])
def test_a_panic_of_the_query_is_an_error(tmp_path, name):
    """Polars' own batches end silently in this case."""
    path = written(tmp_path / "in.parquet", PARQUET_REFUSED[name][0]())
    for prompt in ("{id}", pl.col("id") + ""):
        with pytest.raises(bf.InputError, match="the frame cannot be evaluated"):
            bf.requests(pl.scan_parquet(path), prompt, model="m")


def test_a_panic_after_some_rows_is_an_error(tmp_path):
    for number in range(3):
        written(tmp_path / f"{number}.parquet", pa.array([[1]] * 50_000, pa.list_(pa.int8(), 1)))
    frame = pl.concat([
        pl.scan_parquet(tmp_path / "*.parquet").select("id"),
        pl.scan_parquet(written(tmp_path / "last.pq", PARQUET_REFUSED["no lists"][0]())).select(
            pl.format("{}{}", "id", pl.col("v").cast(pl.String, strict=False).fill_null("")).alias("id")
        ),
    ])  # fmt: skip
    with pytest.raises(bf.InputError, match="the frame cannot be evaluated"):
        bf.requests(frame, "{id}", model="m")


# -- DuckDB

DUCKDB = {
    "BOOLEAN": ("true", "true"),
    "TINYINT": ("-1", "-1"),
    "SMALLINT": ("-1", "-1"),
    "INTEGER": ("-1", "-1"),
    "BIGINT": (str(-(2**63)), str(-(2**63))),
    "HUGEINT": (str(2**127 - 1), str(2**127 - 1)),
    "UTINYINT": ("255", "255"),
    "USMALLINT": ("1", "1"),
    "UINTEGER": ("1", "1"),
    "UBIGINT": (str(2**64 - 1), str(2**64 - 1)),
    "FLOAT": ("1.5", "1.5"),
    "DOUBLE": ("0.1", "0.1"),
    "DECIMAL(4,1)": ("1.5", "1.5"),
    "DECIMAL(9,1)": ("1.5", "1.5"),
    "DECIMAL(18,1)": ("1.5", "1.5"),
    "DECIMAL(38,10)": ("1.5", "1.5000000000"),
    "VARCHAR": ("'ä'", "ä"),
    "ENUM('a','b')": ("'a'", "a"),
    "UUID": ("'00112233-4455-6677-8899-aabbccddeeff'", "00112233-4455-6677-8899-aabbccddeeff"),
    "DATE": ("'2024-07-01'", "2024-07-01"),
    "TIME": ("'12:30:15.5'", "12:30:15.500"),
    "TIMESTAMP": ("'2024-07-01 12:30:15'", "2024-07-01T12:30:15"),
    "TIMESTAMP_S": ("'2024-07-01 12:30:15'", "2024-07-01T12:30:15"),
    "TIMESTAMP_MS": ("'2024-07-01 12:30:15'", "2024-07-01T12:30:15"),
    "TIMESTAMP_NS": ("'2024-07-01 12:30:15.000000001'", "2024-07-01T12:30:15.000000001"),
    "STRUCT(a INTEGER, b VARCHAR)": ("{'a': 1, 'b': 'x'}", '{"a":1,"b":"x"}'),
    "INTEGER[]": ("[1, NULL]", "[1,null]"),
    "INTEGER[2]": ("[1, 2]", "[1,2]"),
    "MAP(VARCHAR, INTEGER)": ("MAP {'a': 1}", '{"a":1}' if hasattr(pl, "Map") else '[{"key":"a","value":1}]'),
}
DUCKDB_REFUSED = {
    "UHUGEINT": (str(2**128 - 1), str(2**128 - 1)),
    "INTERVAL": ("'1 month 2 days'", "1 month 2 days"),
    "BIT": ("'10101'", "10101"),
    "TIME WITH TIME ZONE": ("'12:30:15+05:30'", "12:30:15+05:30"),
    "UNION(num INTEGER, str VARCHAR)": ("'x'::VARCHAR", "x"),
}


@pytest.fixture
def con():
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


@pytest.mark.parametrize("kind", DUCKDB)
def test_duckdb_values_are_exact(con, kind):
    value, text = DUCKDB[kind]
    assert texts(con.sql(f"SELECT CAST({value} AS {kind}) AS v")) == [text]


def test_duckdb_timestamps_with_a_zone_are_exact(con):
    assert texts(con.sql("SELECT '2024-07-01 12:30:15+02'::TIMESTAMPTZ AS v")) == ["2024-07-01T10:30:15+00:00"]


@pytest.mark.parametrize("kind", ["DATE", "TIMESTAMP", "TIMESTAMPTZ"])
def test_infinity_of_duckdb_is_not_sent(con, kind):
    relation = con.sql(f"SELECT unnest(['infinity', '2024-07-01', '-infinity'])::{kind} AS v")
    assert [text is not None for text in texts(relation)] == [False, True, False]


def test_duckdb_bytes_are_exact(con):
    assert column(con.sql(r"SELECT '\xAA\x00'::BLOB AS v")) == [b"\xaa\x00"]


@pytest.mark.parametrize("kind", DUCKDB_REFUSED)
def test_duckdb_types_are_refused_with_a_cast_that_works(con, kind):
    value, text = DUCKDB_REFUSED[kind]
    query = f"SELECT 'a' AS id, CAST({value} AS {kind}) AS v"
    message = refusal(con.sql(query))
    start = f"column 'v' has the type {con.sql(query).types[1]}, which Polars cannot hold: cast it first, such as "
    assert message.startswith(start)
    assert texts(con.sql(f"{message.removeprefix(start)} FROM ({query})")) == [text]


@pytest.mark.parametrize("kind", ["UHUGEINT", "INTERVAL", "BIT", "TIME WITH TIME ZONE"])
def test_nested_duckdb_types_are_refused(con, kind):
    value = f"CAST({DUCKDB_REFUSED[kind][0]} AS {kind})"
    for outer in (
        f"[{value}]",
        f"array_value({value})",
        f"{{'a': [{value}]}}",
        f"MAP {{'k': {value}}}",
        f"MAP {{{value}: 1}}",
    ):
        message = refusal(con.sql(f"SELECT 'a' AS id, {outer} AS v"))
        assert f", and Polars cannot hold the {kind} in it: cast it first, such as SELECT * REPLACE (" in message


def test_enum_labels_are_not_types(con):
    assert texts(con.sql("SELECT 'UHUGEINT'::ENUM('UHUGEINT') AS v")) == ["UHUGEINT"]


def test_quotes_in_names_are_escaped_in_the_cast(con):
    relation = con.sql("""SELECT INTERVAL 1 DAY AS "a""b" """)
    with pytest.raises(bf.InputError) as caught:
        to_polars(relation)
    advice = str(caught.value).split("such as ", 1)[1]
    assert con.sql(f"{advice} FROM relation").fetchall() == [("1 day",)]


def test_every_duckdb_type_is_in_a_table(con):
    named = {name.split("(")[0].split("[")[0] for name in (*DUCKDB, *DUCKDB_REFUSED)}
    query = "SELECT DISTINCT logical_type FROM duckdb_types() WHERE database_name = 'system'"
    elsewhere = {"BLOB", "TIMESTAMP WITH TIME ZONE", "LIST", "NULL", "SQLNULL", "TYPE", "ARRAY", "TUPLE"}
    newer = {"BIGNUM", "VARINT", "TIME_NS", "TIMESTAMPTZ_NS", "TIMESTAMP WITH TIME ZONE_NS", "VARIANT", "GEOMETRY"}
    found = {kind for (kind,) in con.sql(query).fetchall()}
    assert found - named - elsewhere - newer == set()


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("BIGNUM", f"'{10**50}'", str(10**50)),
        ("VARINT", f"'{10**50}'", str(10**50)),
        ("TIME_NS", "'12:30:15.000000001'", "12:30:15.000000001"),
        ("VARIANT", "5", "5"),
        ("TIMESTAMPTZ_NS", "'2024-07-01 12:30:15.000000001+02'", "2024-07-01T10:30:15.000000001+00:00"),
        ("GEOMETRY", "'POINT(1 2)'", None),
    ],
)
def test_newer_types_of_duckdb(con, kind, value, text):
    try:
        query = f"SELECT 'a' AS id, CAST({value} AS {kind}) AS v"
        con.sql(query).fetchall()
    except duckdb.Error:
        pytest.skip("this DuckDB has it not")
    if kind == "GEOMETRY":
        assert texts(con.sql(query), "{id}") == ["a"]  # beside the prompt it does no harm
        with pytest.raises(bf.TemplateError, match="column 'v' has dtype"):
            texts(con.sql(query))
    elif kind.startswith("TIME"):
        assert texts(con.sql(query)) == [text]
    else:
        message = refusal(con.sql(query))
        assert message.startswith("column 'v' has the type ")
        advice = message.split("such as ", 1)[1]
        assert texts(con.sql(f"{advice} FROM ({query})")) == [text]


@pytest.mark.parametrize(
    ("kind", "value"),
    [("BOOLEAN", "true"), ("HUGEINT", "1"), ("UUID", "'00112233-4455-6677-8899-aabbccddeeff'"), ("BIT", "'101'")],
)
def test_types_of_lossless_duckdb_are_refused(con, kind, value):
    con.execute("SET arrow_lossless_conversion = true")
    message = refusal(con.sql(f"SELECT 'a' AS id, CAST({value} AS {kind}) AS v"))
    assert message.startswith("column 'v' has the ")
    assert message.endswith('cast it first, such as SELECT * REPLACE ("v"::VARCHAR AS "v")')


def test_a_refused_relation_releases_its_connection(con):
    con.execute("SET arrow_lossless_conversion = true")
    refusal(con.sql("SELECT range AS id, true AS v FROM range(5_000_000)"))
    assert con.sql("SELECT 1").fetchall() == [(1,)]


def test_failing_queries_are_input_errors(con):
    relation = con.sql("SELECT CASE WHEN range > 2_000_000 THEN error('boom') ELSE 1 END AS v FROM range(3_000_000)")
    with pytest.raises(bf.InputError, match=r"failed: .*boom"):
        to_polars(relation)
