"""The table of docs/emulator.md is whole, and each of its rows is true."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import get_args

import pytest

from batchframe.emulator._batch_faults import BatchKind
from batchframe.emulator._faults import Kind
from batchframe.emulator._file_faults import FileKind
from batchframe.emulator._oddities import Oddity
from batchframe.emulator._row_faults import RowKind

TESTS = Path(__file__).parent
PAGE = TESTS.parents[1] / "docs" / "emulator.md"


def rows():
    """Return the table's rows that are no headings: quirk, switch, test, seen."""
    _, table = PAGE.read_text().split("| quirk | switch | test | seen |\n")
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[1:]]
    return [row for row in cells if not row[0].startswith("**")]


ROWS = rows()


def kinds(method):
    """Return the kinds that the table switches on by a method."""
    called = [ast.parse(switch.strip("`"), mode="eval").body for _, switch, _, _ in ROWS if switch != "always"]
    position = 1 if method == "fault" else 0
    return {node.args[position].value for node in called if node.func.id == method}


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_row(service, row):
    assert len(row) == 4
    _, switch, test, seen = row
    if switch != "always":
        # The switch exists, with these options: it is thrown.
        eval(f"service.{switch.strip('`')}", {"service": service})
    file, name = test.strip("`").split("::")
    assert f"def {name}(" in (TESTS / file).read_text()
    assert all(item.startswith(("10.", "pain ")) for item in seen.split(", "))


def test_every_kind_of_fault_and_every_oddity_has_a_row():
    assert kinds("fault") == set(get_args(Kind))
    assert kinds("row_fault") == set(get_args(RowKind))
    assert kinds("batch_fault") == set(get_args(BatchKind))
    assert kinds("file_fault") == set(get_args(FileKind))
    assert all(f'"{oddity}"' in PAGE.read_text() for oddity in get_args(Oddity))


def test_every_quirk_of_the_reference_has_a_row():
    seen = {item for row in ROWS for item in row[3].split(", ")}
    assert {f"10.{number}" for number in range(1, 22)} <= seen
