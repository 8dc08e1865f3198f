"""The table of docs/emulator.md: every quirk, the switch that turns it on, and the tests of both sides."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).parents[1] / "docs" / "emulator.md"
HEAD = "| quirk | switch | test | client test | seen |\n"


class Row(NamedTuple):
    quirk: str
    switch: str
    test: str
    client_test: str
    seen: list[str]


def _rows():
    _, table = PAGE.read_text(encoding="utf-8").split(HEAD)
    for line in table.splitlines()[1:]:
        quirk, *cells, seen = (cell.strip() for cell in line.strip("|").split(" | "))
        if not quirk.startswith("**"):
            yield Row(quirk, *(cell.strip("`") for cell in cells), seen.split(", "))


ROWS = list(_rows())
SWITCHES = {row.quirk: row.switch for row in ROWS}
