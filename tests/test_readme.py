"""The README stays short, and the tables of the pages hold what there is."""

from __future__ import annotations

import re
from pathlib import Path

import batchframe as bf
from batchframe._core.option_names import NOT_YET, OPTION_NAMES
from batchframe._providers import profiles
from batchframe._results import result_blocks
from batchframe._results.extra_columns import EXTRA_COLUMNS
from batchframe.cli._commands import group
from batchframe.cli._guard import Exit

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def table(text: str, heading: str) -> list[list[str]]:
    """Return the cells of the first table whose first column has this heading."""
    rows = text[text.index(f"| {heading} |") :].split("\n\n", maxsplit=1)[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def codes(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def first_codes(name: str, heading: str) -> list[str]:
    """Return what the first column of a table holds in backquotes."""
    return [code for row in table(page(name), heading) for code in codes(row[0])]


def test_readme_is_short():
    assert 60 <= len(README.splitlines()) <= 120
    example = re.search(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)[1]
    assert len([line for line in example.splitlines() if line]) <= 10


def test_readme_and_index_lead_to_every_page():
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert set(re.findall(r"\]\(([\w-]+\.md)\)", page("index.md"))) == pages - {"index.md"}
    only_in_index = {"emulator.md", "systems.md", "releasing.md", "architecture.md"}
    assert set(re.findall(r"\]\(docs/([\w-]+\.md)\)", README)) == pages - only_in_index


def test_table_of_options():
    assert sorted(first_codes("options.md", "option")) == sorted(OPTION_NAMES - NOT_YET)


def test_table_of_extra_columns():
    assert first_codes("columns.md", "`include`") == [f'"{name}"' for name in EXTRA_COLUMNS]


def test_table_of_calls():
    called = [code.partition("(")[0] for code in first_codes("calls.md", "call")]
    public = {name for name in bf.__all__ if name.islower()}
    assert sorted(called) == sorted(f"bf.{name}" for name in public)


def test_tables_of_the_handle():
    listed = first_codes("calls.md", "to go on with the run") + first_codes("calls.md", "to read from the run")
    public = {name for name in dir(bf.Run) if not name.startswith("_")}
    # Used by the calls themselves.
    internal = {"start", "close", "sink", "added_to", "warn_of_failures", "is_finished"}
    assert {code.partition("(")[0] for code in listed} == public - internal


def test_table_of_exceptions():
    text = page("failures.md")
    named = set(re.findall(r"`bf\.(\w+Error)`", text[text.index("| exception |") :]))
    assert named | {"BatchframeError"} == {name for name in bf.__all__ if name.endswith("Error")}


def test_tables_of_error_codes():
    not_sent = [codes(row[0])[0] for row in table(page("failures.md"), "code")]
    assert sorted(not_sent) == sorted(result_blocks.NOT_SENT)


def test_table_of_services():
    listed = [name.strip('"') for name in first_codes("services.md", "`provider`")]
    assert sorted(["openai", "azure", *listed]) == sorted(profiles.PROVIDERS)
    for name, row in zip(listed, table(page("services.md"), "`provider`"), strict=True):
        assert all(profiles.provider_of(url).name == name for url in codes(row[1]))


def test_table_of_exit_codes():
    assert [int(row[0]) for row in table(page("command.md"), "exit code")] == [int(code) for code in Exit]


def test_table_of_commands():
    assert {code.split()[1] for code in first_codes("command.md", "command")} == set(group.commands)
