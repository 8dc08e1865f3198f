"""Cuts of input files, exact to the byte, against a line-by-line oracle; then the files on disk."""

from __future__ import annotations

import json
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from itertools import accumulate, pairwise
from pathlib import Path

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import batchframe as bf
from batchframe._api import options as _options
from batchframe._endpoints.token_estimate import estimated_tokens
from batchframe._requests import frame_source
from batchframe._requests.renderer import compile_prompt
from batchframe._runs.render import prepare
from batchframe._store.run_folder import RunFolder
from batchframe._store.splitter import Cut, Splitter


def dealt(slices, max_requests, max_bytes):
    """Return the part of each line, assigned one by one."""
    parts, part, requests, size = [], 0, 0, 0
    for length in (length for lengths in slices for length in lengths):
        share = 10 if part == 0 else 1
        is_full = requests + 1 > max(1, max_requests // share) or size + length > max_bytes // share
        if is_full and requests:
            part, requests, size = part + 1, 0, 0
        parts.append(part)
        requests, size = requests + 1, size + length
    return parts


def cuts(splitter, slices):
    for lengths in slices:
        yield from splitter.cuts([7, *(7 + end for end in accumulate(lengths))])  # a slice's offsets may begin anywhere


@given(st.lists(st.lists(st.integers(1, 40), max_size=60), max_size=5), st.integers(1, 70), st.integers(40, 400))
@example([[40, 40], [], [40]], 1, 40)
@example([[1] * 100], 10, 400)
@example([[10] * 100], 1000, 100)
@example([[4, 40, 4, 4]], 50, 40)
def test_splitter_matches_line_by_line_oracle(slices, max_requests, max_bytes):
    splitter = Splitter(max_requests, max_bytes)
    got = []
    for lengths in slices:
        here = list(cuts(splitter, [lengths]))
        assert [place for cut in here for place in range(cut.start, cut.stop)] == list(range(len(lengths)))
        got += [cut.part for cut in here for _ in range(cut.start, cut.stop)]
    assert got == dealt(slices, max_requests, max_bytes)

    lengths = [length for inner in slices for length in inner]
    parts = [
        [length for length, part in zip(lengths, got, strict=True) if part == number]
        for number in range(max(got, default=-1) + 1)
    ]
    assert all(len(part) <= max_requests and sum(part) <= max_bytes for part in parts)
    for part, following in pairwise(parts[1:]):  # but the first and the last
        assert len(part) == max_requests or sum(part) + following[0] > max_bytes
    if len(parts) > 1:
        assert len(parts[0]) == 1 or (len(parts[0]) <= max_requests // 10 and sum(parts[0]) <= max_bytes // 10)
    assert splitter.total_requests == len(lengths)
    assert splitter.total_bytes == sum(lengths)
    assert splitter.fits_in_one == (len(lengths) <= max_requests and sum(lengths) <= max_bytes)


def test_parts_are_filled_to_the_byte():
    assert list(cuts(Splitter(100, 100), [[10, 50, 50, 1]])) == [Cut(0, 0, 1), Cut(1, 1, 3), Cut(2, 3, 4)]
    assert list(cuts(Splitter(100, 100), [[11, 50, 51]])) == [Cut(0, 0, 1), Cut(1, 1, 2), Cut(2, 2, 3)]


# -- on disk


def prepared(tmp_path, frame, limits, prompt="{x}", pilot=None, **options):
    parsed = _options.parse({"model": "m", **options})
    tmp_path.mkdir(exist_ok=True)
    folder = RunFolder(tmp_path)
    made = prepare(folder, compile_prompt(frame, parsed.request_spec(prompt), limits.max_bytes), limits, pilot)
    records = folder.parts()
    return made, records, [folder.input_path(record.number).read_bytes() for record in records]


def rows_of(record, blocks):
    """Return the rows in the ranges of a part."""
    starts = [0, *accumulate(blocks)]
    return [starts[block] + row for block, first, last in record.ranges for row in range(first, last)]


@pytest.mark.parametrize("slice_rows", [7, 65_536])
@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
@pytest.mark.parametrize(
    ("max_requests", "max_bytes", "parts"),
    [(1000, 10_000_000, 1), (40, 10_000_000, None), (1000, 2_500, None), (11, 1_300, None), (1, 10_000_000, 98),
     (98, 10_000_000, 1), (97, 10_000_000, 2)],
)  # fmt: skip
def test_files_hold_the_lines_of_the_preview(  # noqa: PLR0917
    tmp_path, monkeypatch, slice_rows, lazy, max_requests, max_bytes, parts
):
    monkeypatch.setattr(frame_source, "SLICE_ROWS", slice_rows)
    texts = [None if row in {5, 50} else "é" * (row % 13) + '"' for row in range(100)]
    frame = pl.DataFrame({"x": texts})
    wanted = bf.requests(frame, "{x}", model="m")["request"].drop_nulls().to_list()
    limits = bf.Limits(max_requests=max_requests, max_bytes=max_bytes)
    made, records, files = prepared(tmp_path, frame.lazy() if lazy else frame, limits)

    assert b"".join(files).decode() == "".join(line + "\n" for line in wanted)
    assert [record.number for record in records] == list(range(len(records)))
    assert parts is None or len(records) == parts
    assert sum(made.blocks) == 100
    assert made.requests == 98
    assert all(size <= slice_rows for size in made.blocks)
    sent = [row for row in range(100) if texts[row] is not None]
    assert [row for record in records for row in rows_of(record, made.blocks) if row in sent] == sent
    for record, content in zip(records, files, strict=True):
        assert len(content) == record.bytes <= max_bytes
        assert content.count(b"\n") == record.requests <= max_requests
        assert record.tokens == estimated_tokens(content.splitlines(keepends=True), record.bytes)
        ids = [json.loads(line)["custom_id"] for line in content.splitlines()]
        assert ids == [f"row-{row}" for row in rows_of(record, made.blocks) if row in sent]
    assert sum(int(record.digest, 16) for record in records) % 2**128 == made.digest
    for record, following in zip(records[1:-1], files[2:], strict=False):
        first = following.splitlines(keepends=True)[0]
        assert record.requests == max_requests or record.bytes + len(first) > max_bytes


def test_rows_that_fit_exactly_are_one_file(tmp_path):
    frame = pl.DataFrame({"x": [str(row) for row in range(30)]})
    size = sum(len(line) + 1 for line in bf.requests(frame, "{x}", model="m")["request"])
    _, (record,), _ = prepared(tmp_path / "exact", frame, bf.Limits(max_requests=30, max_bytes=size))
    assert (record.requests, record.bytes) == (30, size)
    assert not (tmp_path / "exact" / "parts" / "0001").exists()
    for name, limits in {
        "rows": bf.Limits(max_requests=29, max_bytes=size),
        "bytes": bf.Limits(max_requests=30, max_bytes=size - 1),
    }.items():
        _, records, _ = prepared(tmp_path / name, frame, limits)
        assert len(records) > 1


def test_a_row_larger_than_a_file_is_not_sent():
    frame = pl.DataFrame({"x": ["a", "a" * 100, "a" * 101]})
    sizes = [len(line) + 1 for line in bf.requests(frame, "{x}", model="m")["request"]]
    rows = bf.requests(frame, "{x}", model="m", limits=bf.Limits(max_bytes=sizes[1]))
    assert rows["request"].is_null().to_list() == [False, False, True]
    options = _options.parse({"model": "m"})
    (slice_,) = compile_prompt(frame, options.request_spec("{x}"), sizes[1]).slices()
    assert slice_["batchframe:code"].to_list() == [None, None, "request_too_large"]
    message = f"the request line has {sizes[2]} bytes; at most {sizes[1]} are allowed"
    assert slice_["batchframe:message"].to_list() == [None, None, message]
    assert slice_["batchframe:digest"].is_null().to_list() == [False, False, True]


def test_line_as_large_as_the_limit_is_its_own_part(tmp_path):
    frame = pl.DataFrame({"x": ["a", "a" * 300, "a", "a"]})
    size = max(len(line) + 1 for line in bf.requests(frame, "{x}", model="m")["request"])
    _, records, _ = prepared(tmp_path, frame, bf.Limits(max_requests=100, max_bytes=size))
    assert [record.requests for record in records] == [1, 1, 2]
    assert records[1].bytes == size


@pytest.mark.parametrize("texts", [[], [None, None]], ids=["no rows", "only nulls"])
def test_no_input_file_without_requests(tmp_path, texts):
    frame = pl.DataFrame({"x": pl.Series(texts, dtype=pl.String)})
    made, records, _ = prepared(tmp_path, frame, bf.Limits(max_requests=10, max_bytes=1000))
    assert (sum(made.blocks), made.requests, made.digest, records) == (len(texts), 0, 0, [])
    assert not (Path(tmp_path) / "parts").exists()


@pytest.mark.parametrize(("pilot", "expected"), [(2, [2, 2]), (3, [2, 2]), (4, [2, 2]), (5, [3, 1])])
def test_pilot_may_end_among_skipped_rows(tmp_path, monkeypatch, pilot, expected):
    monkeypatch.setattr(frame_source, "SLICE_ROWS", 2)
    frame = pl.DataFrame({"x": ["a", "b", None, None, "c", "d"]})
    _, records, _ = prepared(tmp_path, frame, bf.Limits(max_requests=10, max_bytes=10_000), pilot=pilot)
    assert [record.requests for record in records] == expected


def test_frame_error_is_not_reported_as_missing_run(tmp_path, monkeypatch):
    """Even one that names a missing file, raised while an input file is open."""
    monkeypatch.setattr(frame_source, "SLICE_ROWS", 2)

    def slices(_):
        yield pl.DataFrame({"x": ["a", "b"]})
        raise FileNotFoundError("data.parquet")

    monkeypatch.setattr(frame_source.Source, "slices", slices)
    with pytest.raises(FileNotFoundError, match=r"^data\.parquet$"):
        prepared(tmp_path, pl.DataFrame({"x": ["a", "b", "c"]}), bf.Limits(max_requests=10, max_bytes=10_000))
    assert list((tmp_path / "parts" / "0001").iterdir()) == []


# -- blocks rendered elsewhere


def by_pickle(render_block, pieces):
    """Render each slice with copies of the renderer and of the slice, as another process would get them."""
    for piece in pieces:
        renderer, copied = pickle.loads(pickle.dumps((render_block, piece)))
        yield pickle.loads(pickle.dumps(renderer(copied)))


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


IMAGES = pl.DataFrame({
    "x": ['é"', None, "c", "d", "e"], "n": [1, 2, 3, 4, 5], "id": ["a", '"', "\\", "body", "é"],
    "image": [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", None, b"no image", b"GIF89a"],
    "at": pl.Series([0, 1, 2, 3, 4], dtype=pl.Datetime),
})  # fmt: skip
PROMPTS = {
    "template": ("{x} {n} {at}", {}),
    "python": (pl.col("x").map_elements(lambda text: json.dumps([text]), return_dtype=pl.String), {"custom_id": "id"}),
    "messages": ([{"role": "system", "content": "{n}"}, {"role": "user", "content": "{x}"}], {"seed": pl.col("n")}),
    "images": ("{n}", {"images": "image"}),
    "nulls": ("{x}", {"on_null": "render"}),
}


@pytest.mark.parametrize("kind", PROMPTS)
def test_copies_of_the_renderer_give_the_same_bytes(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(frame_source, "SLICE_ROWS", 2)
    prompt, options = PROMPTS[kind]
    spec = _options.parse({"model": "m", **options}).request_spec(prompt)
    limits = bf.Limits(max_requests=3, max_bytes=10_000)
    for name, map_blocks in {"here": map, "copies": by_pickle}.items():
        (tmp_path / name).mkdir()
        prepare(RunFolder(tmp_path / name), compile_prompt(IMAGES, spec, 10_000), limits, map_blocks=map_blocks)
    assert files_of(tmp_path / "here") == files_of(tmp_path / "copies")
    assert len(files_of(tmp_path / "here")) >= 5


def test_block_renderer_pickles_without_the_frame():
    frame = pl.DataFrame({"x": ["a" * 1_000_000]})
    renderer = compile_prompt(frame, _options.parse({"model": "m"}).request_spec("{x}"), 10_000_000)
    assert len(pickle.dumps(renderer.render_block)) < 10_000


def test_bad_id_error_names_the_row_in_any_block(monkeypatch):
    monkeypatch.setattr(frame_source, "SLICE_ROWS", 2)
    frame = pl.DataFrame({"x": list("abcde"), "id": ["1", "2", "3", "", "5"]})
    renderer = compile_prompt(frame, _options.parse({"model": "m", "custom_id": "id"}).request_spec("{x}"), 10_000)
    with pytest.raises(bf.InputError, match="custom_id column 'id' is empty in row 3"):
        list(renderer.slices(by_pickle))


@pytest.mark.slow
def test_process_pool_renders_the_same_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(frame_source, "SLICE_ROWS", 2)
    spec = _options.parse({"model": "m"}).request_spec("{x} {n}")
    limits = bf.Limits(max_requests=3, max_bytes=10_000)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        for name, map_blocks in {"here": map, "pool": pool.map}.items():
            (tmp_path / name).mkdir()
            prepare(RunFolder(tmp_path / name), compile_prompt(IMAGES, spec, 10_000), limits, map_blocks=map_blocks)
    assert files_of(tmp_path / "here") == files_of(tmp_path / "pool")
