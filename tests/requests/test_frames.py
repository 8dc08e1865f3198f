"""Accepted frames, and reading them once, in order, in slices."""

from __future__ import annotations

import json

import polars as pl
import pyarrow as pa
import pytest

import batchframe as bf
from batchframe._api import options as _options
from batchframe._api.frames import to_polars
from batchframe._requests import frame_source
from batchframe._requests.frame_source import Source
from batchframe._requests.renderer import compile_prompt

FRAME = pl.DataFrame({"x": ["a", "b", "c"], "n": [1, 2, 3]})


def contents(frame, prompt="{x}", **options):
    rows = bf.requests(frame, prompt, model="m", **options)
    return [line and json.loads(line)["body"]["messages"][-1]["content"] for line in rows["request"]]


class Stream:
    """An object that exports the Arrow C stream."""

    def __init__(self, table):
        self._table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self._table.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize(
    "make",
    [
        lambda: FRAME,
        FRAME.lazy,
        FRAME.to_arrow,
        lambda: pa.RecordBatchReader.from_batches(
            FRAME.to_arrow().schema, FRAME.to_arrow().to_batches(max_chunksize=2)
        ),
        lambda: Stream(FRAME.to_arrow()),
        lambda: Stream(FRAME),
        lambda: pytest.importorskip("pandas").DataFrame(FRAME.to_dict(as_series=False), index=[7, 8, 9]),
    ],
    ids=["polars", "lazy", "pyarrow", "record batches", "stream", "stream of polars", "pandas"],
)
def test_accepted_frames(make):
    assert contents(make()) == ["a", "b", "c"]
    schema = bf.result_schema(make(), "{x}", model="m")
    assert schema.names()[:3] == ["x", "n", "custom_id"]


@pytest.mark.parametrize(
    "frame",
    [FRAME["x"], [1, 2], {"x": ["a"]}, None, "reviews.parquet", 3, object(), pl.DataFrame, FRAME.lazy, pl.col("x")],
    ids=lambda frame: type(frame).__name__,
)
def test_other_objects_are_refused(frame):
    for call in (bf.requests, bf.run, bf.submit, bf.result_schema):
        with pytest.raises(
            bf.InputError, match="expected a Polars DataFrame or LazyFrame, or an object with __arrow_c_stream__"
        ) as caught:
            call(frame, "{x}", model="m")
        assert str(caught.value).endswith(f"got {type(frame).__module__}.{type(frame).__qualname__}")


def test_arrow_stream_without_columns_is_refused():
    with pytest.raises(
        bf.InputError, match=r"reading the Arrow stream of pyarrow\.lib\.ChunkedArray failed|expected a Polars"
    ):
        contents(pa.chunked_array([["a"]]))


def test_object_columns_are_refused():
    frame = FRAME.with_columns(o=pl.Series([object()] * 3, dtype=pl.Object))
    for source in (frame, frame.lazy()):
        with pytest.raises(
            bf.InputError, match="column 'o' has dtype Object, which cannot be written to a file: drop it"
        ):
            contents(source)


def test_reserved_column_names_are_refused():
    with pytest.raises(
        bf.InputError, match="column 'batchframe:line' starts with 'batchframe:', which batchframe reserves: rename it"
    ):
        contents(FRAME.rename({"n": "batchframe:line"}))
    assert contents(FRAME.rename({"n": "batchframe"})) == ["a", "b", "c"]


@pytest.mark.parametrize("make", [lambda frame: frame, lambda frame: frame.lazy()], ids=["eager", "lazy"])
def test_frame_without_rows(make):
    frame = make(FRAME.clear())
    rows = bf.requests(frame, "{x}", model="m", seed=pl.col("n"))
    assert rows.schema == {"custom_id": pl.String, "request": pl.String}
    assert rows.height == 0
    assert bf.requests(frame, pl.col("x") + "!", model="m").height == 0


@pytest.mark.filterwarnings("ignore:the prompt has no {column} field")
def test_frame_without_columns():
    assert bf.requests(pl.DataFrame(), "Go", model="m").height == 0
    assert bf.requests(pl.DataFrame().lazy(), "Go", model="m").height == 0


def test_column_names_that_look_like_patterns():
    frame = pl.DataFrame({"*": ["star"], "^.*$": ["pattern"], "x": ["a"]})
    (rows,) = compile_prompt(frame, _options.parse({"model": "m"}).request_spec("{*}"), 10_000).slices()
    assert rows.columns[:3] == ["*", "^.*$", "x"]
    assert rows.select(pl.nth(0, 1, 2)).rows() == [("star", "pattern", "a")]
    for source in (frame, frame.lazy()):
        assert contents(source, "{*}{^.*$}", custom_id="^.*$") == ["starpattern"]
        assert contents(source, pl.col("x") + "!") == ["a!"]


# -- slices


def test_lazy_frame_is_evaluated_once_in_order():
    batches = []

    def note(batch):
        batches.append(batch["n"].to_list())
        return batch

    frame = pl.DataFrame({"n": range(50_000)}).lazy().map_batches(note, schema={"n": pl.Int64}, streamable=True)
    for prompt in (
        "{n}",
        pl.format("{}", "n"),
        pl.format("{}", pl.col("n").shift(0)),
        [{"role": "user", "content": pl.col("n") + 0}],
    ):
        batches.clear()
        assert contents(frame, prompt) == [str(n) for n in range(50_000)]
        assert sorted(n for batch in batches for n in batch) == list(range(50_000))


def test_lazy_frame_with_unknown_height_is_evaluated_once():
    heights = []

    def note(batch):
        heights.append(batch.height)
        return batch

    frame = FRAME.lazy().map_batches(note, schema=FRAME.schema)
    assert contents(frame, pl.lit(pl.Series(["p", "q", "r"]))) == ["p", "q", "r"]
    assert heights == [3]


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_slices_are_bounded_in_rows_and_bytes(monkeypatch, lazy):
    monkeypatch.setattr(frame_source, "SLICE_ROWS", 1000)
    monkeypatch.setattr(frame_source, "SLICE_BYTES", 200_000)
    frame = pl.DataFrame({"x": ["a" * 1000] * 2500, "n": range(2500)})
    slices = list(Source(frame.lazy() if lazy else frame).slices())
    assert pl.concat(slices).equals(frame)
    assert max(piece.height for piece in slices) <= 1000
    assert 100_000 < max(piece.estimated_size() for piece in slices) <= 201_000
    small = pl.DataFrame({"n": range(2500)})
    heights = [piece.height for piece in Source(small.lazy() if lazy else small).slices()]
    assert sum(heights) == 2500
    assert max(heights) <= 1000
    assert len(heights) <= 5


def test_small_batches_are_joined():
    batches = (pl.DataFrame({"n": [row]}) for row in range(100))
    assert [piece.height for piece in frame_source._even(batches, 1_000)] == [100]


def test_row_ids_continue_across_slices(monkeypatch):
    monkeypatch.setattr(frame_source, "SLICE_ROWS", 2)
    frame = pl.DataFrame({"x": list("abcde")})
    for source in (frame, frame.lazy()):
        assert bf.requests(source, "{x}", model="m")["custom_id"].to_list() == [f"row-{row}" for row in range(5)]


def test_input_frame_is_not_modified():
    frame = FRAME.clone()
    contents(frame, pl.col("x"), seed=pl.col("n"))
    assert frame.equals(FRAME)
    assert to_polars(frame) is frame


def test_query_error_of_a_lazy_frame_is_raised():
    frame = pl.DataFrame({"x": ["1", "b"]}).lazy().with_columns(n=pl.col("x").cast(pl.Int64))
    with pytest.raises(pl.exceptions.PolarsError, match="conversion from `str` to `i64` failed"):
        contents(frame)
