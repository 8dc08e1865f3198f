"""Parsing a part is a pure function of its files, so any process with access to them can do it."""

from __future__ import annotations

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import batchframe as bf
from batchframe._results import parsed_answers
from batchframe._results.parsed_answers import parse_part, parse_parts, part_answers

FRAME = pl.DataFrame({"n": list(range(7))})


@pytest.fixture
def folder(client, tmp_path):
    options = {"model": "gpt-4o-mini", "client": client, "poll_seconds": 0.02, "limits": bf.Limits(max_requests=3)}
    bf.run(FRAME, "Repeat {n}", run_dir=tmp_path / "run", **options)
    return bf.open_run(tmp_path / "run")._folder


def read(folder, part):
    return pl.concat(pl.read_ipc(path) for path in part_answers(folder, part))


def test_other_process_parses_the_same(folder):
    parts = folder.parts()
    assert len(parts) == 3
    here = [read(folder, part) for part in parts]
    folder.remove_parsed_answers()
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        parse_parts(folder, parts, map_parts=executor.map)
    files = [part_answers(folder, part) for part in parts]
    for part, frame in zip(parts, here, strict=True):
        assert_frame_equal(read(folder, part), frame)
    assert files == [part_answers(folder, part) for part in parts]


def test_parsed_parts_are_not_parsed_again(folder):
    parse_parts(folder, folder.parts())
    given = []
    parse_parts(
        folder, folder.parts(), map_parts=lambda function, *arguments: given.extend(zip(*arguments, strict=True)) or []
    )
    assert given == []


def test_pickled_task_gives_the_same_bytes(folder, tmp_path):
    part = folder.parts()[0]
    task = parsed_answers._task(folder, part, folder.result_files(part.number), lines=True)
    first, second = tmp_path / "first", tmp_path / "second"
    for target, copy in ((first, task), (second, pickle.loads(pickle.dumps(task)))):
        target.mkdir()
        parse_part(copy, target)
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(path.name for path in second.iterdir()) != []
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)


def test_removed_parsed_answers_raise(folder, monkeypatch):
    """It waits for the lock, but some file systems have none."""
    parse = parsed_answers._parse

    def then_removed(*arguments, **options):
        parse(*arguments, **options)
        folder.remove_parsed_answers()

    monkeypatch.setattr(parsed_answers, "_parse", then_removed)
    with pytest.raises(bf.ResultsError, match="part 0: another process just removed its parsed answers"):
        part_answers(folder, folder.parts()[0])


def test_files_downloaded_during_parsing_are_read_next_time(folder, monkeypatch):
    part = folder.parts()[0]
    submission = folder.submissions(part.number)[0]
    parse = parsed_answers._parse

    def then_more(*arguments, **options):
        parse(*arguments, **options)
        with folder.receiving(folder.result_path(part.number, submission.number, "error")) as file:
            file.write(b'{"custom_id": "row-x", "response": null, "error": {"code": "c", "message": "m"}}\n')

    folder.remove_parsed_answers()
    before = read(folder, part)
    folder.remove_parsed_answers()
    monkeypatch.setattr(parsed_answers, "_parse", then_more)
    assert_frame_equal(read(folder, part), before)
    monkeypatch.undo()
    assert read(folder, part).height == before.height + 1
