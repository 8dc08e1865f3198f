"""The table of docs/emulator.md is complete, and each row is true."""

from __future__ import annotations

import ast
import functools
from pathlib import Path
from typing import get_args

import pytest

import test_quirks
from batchframe.emulator._config.oddities import Oddity
from batchframe.emulator._faults.batch_faults import BatchKind
from batchframe.emulator._faults.call_faults import CallKind
from batchframe.emulator._faults.file_faults import FileKind
from batchframe.emulator._faults.row_faults import RowKind
from quirk_table import PAGE, ROWS

TESTS = Path(__file__).parent


def kinds(method):
    """Return the kinds that the table passes to a method."""
    called = [ast.parse(row.switch, mode="eval").body for row in ROWS if row.switch != "always"]
    position = 1 if method == "fault" else 0
    return {node.args[position].value for node in called if node.func.id == method}


@pytest.mark.parametrize("row", ROWS, ids=[row.quirk for row in ROWS])
def test_switch_and_test_of_a_row_exist(service, row):
    if row.switch != "always":
        # Throw the switch, to see that it exists and takes these options.
        eval(f"service.{row.switch}", {"service": service})
    file, name = row.test.split("::")
    assert f"def {name}(" in (TESTS / file).read_text()
    assert all(item.startswith(("10.", "pain ")) for item in row.seen)


@functools.cache
def client_tests(path):
    """Return the tests of a module by name, with the texts and names in each, its parameters included."""
    tests = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
    return {
        test.name: {getattr(node, "value", None) or getattr(node, "id", None) for node in ast.walk(test)}
        for test in tests
    }


@pytest.mark.parametrize("row", ROWS, ids=[row.quirk for row in ROWS])
def test_client_test_of_a_row_uses_its_switch(row):
    """The client test exists, and throws this switch, which it looks up in the table by the quirk's name."""
    file, name = row.client_test.split("::")
    uses = client_tests(TESTS.parent / file)[name]
    if name == "test_quirk":
        assert row.quirk in {param.values[0] for param in test_quirks.QUIRKS}
    elif row.switch != "always":
        assert row.quirk in uses
    assert row.switch == "always" or {"throw", "SWITCHES"} <= uses


def test_every_fault_kind_and_oddity_has_a_row():
    assert kinds("fault") == set(get_args(CallKind))
    assert kinds("row_fault") == set(get_args(RowKind))
    assert kinds("batch_fault") == set(get_args(BatchKind))
    assert kinds("file_fault") == set(get_args(FileKind))
    assert all(f'"{oddity}"' in PAGE.read_text() for oddity in get_args(Oddity))


def test_every_quirk_of_the_reference_has_a_row():
    references = {item for row in ROWS for item in row.seen}
    assert {f"10.{number}" for number in range(1, 22)} <= references
