"""The README: its example prints what it shows, and its tables hold what there is."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import polars as pl

from batchframe._core.option_names import NOT_YET, OPTION_NAMES
from batchframe._results.extra_columns import EXTRA_COLUMNS
from batchframe.cli._commands import group
from batchframe.cli._guard import Exit

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
FENCES = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def table(heading: str) -> list[list[str]]:
    """Return the cells of the first table under a heading, or after a line that starts like it."""
    rows = README[README.index(f"| {heading} |") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def codes(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_example_prints_what_it_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (_, code), (_, shown) = FENCES[:2]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pl.Config(restore_defaults=True):
        exec(compile(code, "README.md", "exec"), {})
    assert printed.getvalue() == shown


def test_the_example_is_short():
    code = [line for line in FENCES[0][1].splitlines() if line]
    assert len(code) <= 10


def test_the_options_are_those_there_are():
    listed = [codes(row[0])[0] for row in table("option")]
    assert sorted(listed) == sorted(OPTION_NAMES - NOT_YET)


def test_the_exit_codes_are_those_there_are():
    assert [int(row[0]) for row in table("exit code")] == [int(code) for code in Exit]


def test_the_commands_are_those_there_are():
    assert {name for name in group.commands if f"batchframe {name}" in README} == set(group.commands)


def test_every_column_of_include_is_told():
    told = next(row[2] for row in table("option") if row[0] == "`include`")
    assert codes(told) == [f'"{name}"' for name in tuple(EXTRA_COLUMNS)]
