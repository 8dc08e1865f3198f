"""Every dtype of pandas: its values stay exact, or it is refused with a cast that works."""

from __future__ import annotations

import datetime as dt
import re
import uuid
import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import batchframe as bf
from batchframe._api.frames import to_polars
from rendered import refusal, texts

DAY = dt.date(2024, 7, 1)
AWARE = dt.datetime(2024, 7, 1, 12, 30, tzinfo=dt.timezone.utc)
MOMENT = AWARE.replace(tzinfo=None)
PARIS = dt.timezone(dt.timedelta(hours=2))


def objects(*values):
    return pd.Series([*values], dtype=object)


def of(series):
    return pd.DataFrame({"id": ["a"] * len(series), "v": series})


# By the dtype: a column of two values, the second of them null where the dtype has one; and their texts.
EXACT = {
    "int8": (lambda: pd.Series([1, -128], dtype="int8"), ["1", "-128"]),
    "int64": (lambda: pd.Series([1, -(2**63)]), ["1", str(-(2**63))]),
    "uint64": (lambda: pd.Series([1, 2**64 - 1], dtype="uint64"), ["1", str(2**64 - 1)]),
    "float16": (lambda: pd.Series([1.5, np.nan], dtype="float16"), ["1.5", None]),
    "float64": (lambda: pd.Series([0.1, np.nan]), ["0.1", None]),
    "bool": (lambda: pd.Series([True, False]), ["true", "false"]),
    "str": (lambda: pd.Series(["a", None]), ["a", None]),
    "string": (lambda: pd.Series(["a", None], dtype="string"), ["a", None]),
    "Int64": (lambda: pd.Series([2**53 + 1, None], dtype="Int64"), [str(2**53 + 1), None]),
    "Float64": (lambda: pd.Series([1.5, None], dtype="Float64"), ["1.5", None]),
    "boolean": (lambda: pd.Series([True, None], dtype="boolean"), ["true", None]),
    "datetime64[s]": (
        lambda: pd.Series(pd.to_datetime([MOMENT, None])).astype("datetime64[s]"),
        ["2024-07-01T12:30:00", None],
    ),
    "datetime64[ns]": (
        lambda: pd.Series(pd.to_datetime(["2024-07-01 12:30:00.000000001", None])),
        ["2024-07-01T12:30:00.000000001", None],
    ),
    "datetime64[ns, tz]": (
        lambda: pd.Series(pd.to_datetime([MOMENT, None])).dt.tz_localize("Europe/Paris"),
        ["2024-07-01T12:30:00+02:00", None],
    ),
    "timedelta64[ns]": (lambda: pd.Series(pd.to_timedelta(["1D", None])), ["P1D", None]),
    "category": (lambda: pd.Series(["a", None], dtype="category"), ["a", None]),
    "category, ordered": (lambda: pd.Series(pd.Categorical(["b", "a"], ["b", "a"], ordered=True)), ["b", "a"]),
    "category of integers": (lambda: pd.Series([10, 20], dtype="category"), ["10", "20"]),
    "category of floats": (lambda: pd.Series([1.5, None], dtype="category"), ["1.5", None]),
    "category of booleans": (lambda: pd.Series([True, False], dtype="category"), ["true", "false"]),
    "category of dates": (lambda: objects(DAY, None).astype("category"), ["2024-07-01", None]),
    "ArrowDtype of decimals": (
        lambda: pd.Series([Decimal("1.5"), None], dtype=pd.ArrowDtype(pa.decimal128(5, 2))),
        ["1.50", None],
    ),
    "ArrowDtype of lists": (lambda: pd.Series([[1], None], dtype=pd.ArrowDtype(pa.list_(pa.int8()))), ["[1]", None]),
    "object, str": (lambda: objects("a", np.nan), ["a", None]),
    "object, NA": (lambda: objects(pd.NA, "a"), [None, "a"]),
    "object, int": (lambda: objects(np.int64(5), 7), ["5", "7"]),
    "object, bool": (lambda: objects(True, None), ["true", None]),
    "object, int and float": (lambda: objects(1, 2.5), ["1.0", "2.5"]),
    "object, Decimal": (lambda: objects(Decimal("1.50"), None), ["1.50", None]),
    "object, date": (lambda: objects(DAY, None), ["2024-07-01", None]),
    "object, datetime": (lambda: objects(MOMENT, pd.NaT), ["2024-07-01T12:30:00", None]),
    "object, Timestamp": (lambda: objects(pd.Timestamp(MOMENT), None), ["2024-07-01T12:30:00", None]),
    "object, datetimes of two zones": (
        lambda: objects(AWARE, AWARE.astimezone(PARIS)),
        ["2024-07-01T12:30:00+00:00", "2024-07-01T12:30:00+00:00"],
    ),
    "object, time": (lambda: objects(dt.time(1, 2, 3), None), ["01:02:03", None]),
    "object, timedelta": (lambda: objects(dt.timedelta(1), None), ["P1D", None]),
    "object, dict": (lambda: objects({"a": 1}, {"b": DAY}), ['{"a":1,"b":null}', '{"a":null,"b":"2024-07-01"}']),
    "object, list": (lambda: objects([1, None], None), ["[1,null]", None]),
    "object, list of dates": (lambda: objects([DAY], None), ['["2024-07-01"]', None]),
    "object, array": (lambda: objects(np.array([1, 2]), None), ["[1,2]", None]),
    "object, tuple": (lambda: objects((1, 2), None), ["[1,2]", None]),
}
# By the dtype: a column, and its texts after the cast that the error tells; None where they are pandas' own affair.
REFUSED = {
    "period[M]": (lambda: pd.Series(pd.period_range("2024-01", periods=2, freq="M")), ["2024-01", "2024-02"]),
    "interval": (lambda: pd.Series(pd.interval_range(0, 2)), ["(0, 1]", "(1, 2]"]),
    "Sparse[int64]": (lambda: pd.Series(pd.arrays.SparseArray([0, 1])), ["0", "1"]),
    "Sparse[float64]": (lambda: pd.Series(pd.arrays.SparseArray([np.nan, 1.0])), [None, "1.0"]),
    "complex128": (lambda: pd.Series([1 + 2j]), ["(1+2j)"]),
    "datetime64 with an offset": (
        lambda: pd.Series(pd.to_datetime(["2024-07-01T12:30:00+05:30"])),
        ["2024-07-01T07:00:00+00:00"],
    ),
    "category of intervals": (lambda: pd.cut(pd.Series([1, 5]), [0, 3, 6]), ["(0, 3]", "(3, 6]"]),
    "category of periods": (
        lambda: pd.Series(pd.period_range("2024-01", periods=1, freq="M")).astype("category"),
        ["2024-01"],
    ),
    "category of mixed values": (lambda: pd.Series([1, "a"], dtype="category"), ["1", "a"]),
    "ArrowDtype of wide decimals": (
        lambda: pd.Series([Decimal("1.5")], dtype=pd.ArrowDtype(pa.decimal256(50, 2))),
        ["1.50"],
    ),
    "object, int and str": (lambda: objects(1, "a"), ["1", "a"]),
    "object, str and int": (lambda: objects("a", 1), ["a", "1"]),
    "object, bool and int": (lambda: objects(True, 1), ["True", "1"]),
    "object, bool and str": (lambda: objects(True, "a"), ["True", "a"]),
    "object, str and bytes": (lambda: objects("a", b"b"), None),
    "object, bytes and str": (lambda: objects(b"b", "a"), None),
    "object, date and datetime": (lambda: objects(DAY, MOMENT), ["2024-07-01", "2024-07-01 12:30:00"]),
    "object, datetime and date": (lambda: objects(MOMENT, DAY), ["2024-07-01 12:30:00", "2024-07-01"]),
    "object, lists of date and datetime": (lambda: objects([DAY, MOMENT]), None),
    "object, dicts of date and datetime": (lambda: objects({"a": DAY}, {"a": MOMENT}), None),
    "object, with and without a zone": (
        lambda: objects(AWARE, MOMENT),
        ["2024-07-01 12:30:00+00:00", "2024-07-01 12:30:00"],
    ),
    "object, time with a zone": (lambda: objects(dt.time(1, 2, tzinfo=dt.timezone.utc)), ["01:02:00+00:00"]),
    "object, nanoseconds": (lambda: objects(pd.Timestamp("2024-07-01 00:00:00.000000001")), None),
    "object, wide int": (lambda: objects(2**70), [str(2**70)]),
    "object, int beyond a float": (lambda: objects(2**53 + 1, 0.5), [str(2**53 + 1), "0.5"]),
    "object, wide Decimal": (lambda: objects(Decimal("1" * 45)), ["1" * 45]),
    "object, UUID": (lambda: objects(uuid.UUID(int=5)), ["00000000-0000-0000-0000-000000000005"]),
    "object, Period": (lambda: objects(pd.Period("2024-01")), ["2024-01"]),
    "object, Interval": (lambda: objects(pd.Interval(0, 1)), ["(0, 1]"]),
    "object, of a class": (lambda: objects(object()), None),
    "object, mixed lists": (lambda: objects([1, "a"]), ["[1, 'a']"]),
    "object, mixed dicts": (lambda: objects({"a": 1}, {"a": "x"}), ["{'a': 1}", "{'a': 'x'}"]),
    "object, half of a surrogate pair": (lambda: objects("\ud800"), None),
}


@pytest.mark.parametrize(("make", "wanted"), EXACT.values(), ids=EXACT)
def test_pandas_values_are_exact(make, wanted):
    assert texts(of(make())) == wanted


@pytest.mark.parametrize(("make", "wanted"), REFUSED.values(), ids=REFUSED)
def test_pandas_dtypes_are_refused_with_a_cast_that_works(make, wanted):
    df = of(make())
    message = refusal(df)
    assert message.startswith(f"column 'v' has the dtype {df['v'].dtype}, ")
    cast = re.search(r": cast it first, such as (df\['v'\] = .*)$", message)
    assert cast, message
    if wanted is not None:
        exec(cast[1], {"df": df})
        assert texts(df) == wanted


def test_every_pandas_dtype_is_in_a_table():
    def below(kind):
        return {name for found in kind.__subclasses__() for name in ({found.__name__} | below(found))}

    made = {type(make().dtype).__name__ for make, _ in (*EXACT.values(), *REFUSED.values())}
    abstract = {"PandasExtensionDtype", "BaseMaskedDtype", "NumericDtype", "IntegerDtype", "FloatingDtype",
                "StorageExtensionDtype"}  # fmt: skip
    alike = {"Int8Dtype", "Int16Dtype", "Int32Dtype", "UInt8Dtype", "UInt16Dtype", "UInt32Dtype", "UInt64Dtype",
             "Float32Dtype", "NumpyEADtype"}  # fmt: skip
    pandas = {name for name in below(pd.api.extensions.ExtensionDtype) if hasattr(pd, name)}
    assert pandas - abstract - alike - made == set()


def test_the_value_that_would_change_is_named():
    message = refusal(of(objects(DAY, MOMENT)))
    assert (
        "and its values would change (datetime.datetime(2024, 7, 1, 12, 30) would become datetime.date(2024, 7, 1))"
        in message
    )


def test_object_columns_without_values_are_text():
    for series in (objects(), objects(None, None), objects(np.nan, np.nan)):
        assert to_polars(of(series)).schema["v"] == pl.String


def test_column_labels_become_text():
    df = pd.DataFrame({1: ["a"], ("x", "y"): ["b"]})
    assert to_polars(df).columns == ["1", "('x', 'y')"]
    assert texts(df, "{1}") == ["a"]
    assert "such as df[1] = df[1].astype(str)" in refusal(pd.DataFrame({1: objects(1, "a"), "id": "x"}))


def test_duplicate_column_names_are_refused():
    assert refusal(pd.DataFrame([[1, 2]], columns=["a", "a"])) == "there are 2 columns named 'a': rename all but one"
    assert refusal(pd.DataFrame([[1, 2]], columns=[1, "1"])) == "there are 2 columns named '1': rename all but one"


# -- the index


@pytest.mark.parametrize(
    ("index", "names"),
    [
        (pd.Index([7, 8], name="id"), "id"),
        (pd.RangeIndex(2, name="row"), "row"),
        (pd.MultiIndex.from_tuples([(1, "x"), (2, "y")], names=["day", None]), "day"),
        (pd.MultiIndex.from_tuples([(1, "x"), (2, "y")], names=["day", "place"]), "day, place"),
    ],
    ids=["named", "range", "half named", "two"],
)
def test_dropping_a_named_index_warns(index, names):
    df = pd.DataFrame({"v": ["a", "b"]}, index=index)
    for call in (
        lambda: bf.requests(df, "{v}", model="m"),
        lambda: bf.result_schema(df, "{v}", model="m"),
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
        (warning,) = caught
        assert warning.category is bf.BatchframeWarning
        assert warning.filename == __file__
        assert str(warning.message) == (
            f"the index of the pandas frame is left out ({names}): df.reset_index() keeps it as columns. "
            "The result is a Polars frame"
        )
    assert {*to_polars(df.reset_index()).columns} >= {*names.split(", "), "v"}


def test_dropping_an_unnamed_index_does_not_warn():
    df = pd.DataFrame({"v": ["a", "b"]}, index=[7, 9])
    assert to_polars(df).to_dict(as_series=False) == {"v": ["a", "b"]}


def test_a_run_over_a_pandas_frame_returns_a_polars_frame(client):
    df = pd.DataFrame({"text": ["Great sound.", "Broke."], "month": pd.to_datetime(["2024-01-01", None])})
    out = bf.run(df, "Classify: {text}", model="gpt-4o-mini", client=client, poll_seconds=0.02)
    assert isinstance(out, pl.DataFrame)
    assert out["error"].null_count() == 2
    assert out["month"].to_list() == [dt.datetime.fromisoformat("2024-01-01"), None]
