"""The examples of the documentation: public docstrings, and each block of code in the README and the pages of docs/.

The blocks of a page run in order, in one namespace, with the emulator as the service of the environment:

- A ``python`` block with prompts (``>>>``) is a doctest. Any other runs, and prints exactly the ``text`` block that
  follows it, or nothing.
- A ``console`` block holds lines ``$ batchframe …`` and what they print. ``...`` stands for any text.
- A ``sh`` block does not run. The options of its ``batchframe`` commands must exist.

``<!-- not run: reason -->`` in the line above a ``python`` block keeps it from running; it must still be Python.
"""

from __future__ import annotations

import ast
import contextlib
import doctest
import io
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest

import batchframe as bf
from batchframe import testing
from batchframe._providers import openai as _openai
from batchframe._runs import run as _run
from batchframe.cli import main
from batchframe.cli._commands import group

ROOT = Path(__file__).parents[1]
FINDER = doctest.DocTestFinder(exclude_empty=True)
PUBLIC = {f"bf.{name}": getattr(bf, name) for name in bf.__all__} | {
    f"testing.{name}": getattr(testing, name) for name in testing.__all__
}
DOCTESTS = [
    example
    for name, value in PUBLIC.items()
    # Of whatever module: public names report the package, and their methods the module they are in.
    for example in FINDER.find(value, name, module=False, globs={})
    if example.examples
]

PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))]
AZURE = "docs/azure.md"
_FENCE = re.compile(
    r"^(?:<!-- not run: (?P<reason>.+) -->\n)?```(?P<language>\w+)\n(?P<source>.*?)^```$", re.MULTILINE | re.DOTALL
)
_LANGUAGES = {"python", "text", "console", "sh"}


class Block(NamedTuple):
    """A fenced block: its language and source, the line before its source, and why it does not run."""

    language: str
    source: str
    line: int
    reason: str | None


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(fence["language"], fence["source"], text.count("\n", 0, fence.start("source")), fence["reason"])
        for fence in _FENCE.finditer(text)
    ]


def with_output(page: str) -> list[tuple[Block, str]]:
    """Return the blocks of a page, each with the text block that follows it; text blocks are not listed themselves."""
    page_blocks = blocks(page)
    following = [*page_blocks[1:], None]
    return [
        (block, after.source if after is not None and after.language == "text" else "")
        for block, after in zip(page_blocks, following, strict=True)
        if block.language != "text"
    ]


PAGES_WITH_CODE = [page for page in PAGES if blocks(page)]


@pytest.mark.parametrize("example", DOCTESTS, ids=lambda example: example.name)
def test_docstring_example(example, client, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_doctest(example, {"bf": bf, "pl": pl, "client": client})


@pytest.mark.parametrize(
    "name", ["run", "submit", "requests", "result_schema", "run_parquet", "open_run", "batches", "read_batch"]
)
def test_every_call_has_an_example(name):
    assert f"bf.{name}" in {example.name for example in DOCTESTS}


@pytest.mark.filterwarnings("ignore:.*did not succeed:batchframe.BatchframeWarning")
@pytest.mark.parametrize("page", PAGES_WITH_CODE)
@pytest.mark.usefixtures("service")
def test_code_of_a_page(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BATCHFRAME_HOME")  # the runs' root is .batchframe, as the pages say
    # Calls and commands make a client of the environment each, which lives as long as the process.
    with pl.Config(restore_defaults=True), closing_clients(monkeypatch):
        namespace = {}
        for block, output in with_output(page):
            run_block(block, output, namespace, page)


@pytest.mark.parametrize("page", PAGES_WITH_CODE)
def test_every_block_of_a_page_is_checked(page):
    page_blocks = blocks(page)
    assert {block.language for block in page_blocks} <= _LANGUAGES
    # An indented fence belongs to a list: releasing.md has one, whose commands make a release.
    fences = re.findall(r"^```.*$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert len(fences) == 2 * len(page_blocks)
    before = [None, *page_blocks]
    sources = [block for block, output in zip(before, page_blocks, strict=False) if output.language == "text"]
    # A text block anywhere else would be compared with nothing.
    assert all(source is not None and has_output(source) for source in sources)


def test_runner_finds_wrong_output():
    block = Block("python", "print(1 + 1)\n", 0, None)
    run_block(block, "2\n", {}, "page")
    with pytest.raises(AssertionError, match=r"page:0"):
        run_block(block, "3\n", {}, "page")
    with pytest.raises(AssertionError):
        run_block(block, "", {}, "page")
    with pytest.raises(AssertionError):
        run_block(Block("python", ">>> 1 + 1\n3\n", 0, None), "", {}, "page")
    with pytest.raises(AssertionError):
        run_block(Block("console", "$ batchframe runs --root no-such-folder\nfour runs\n", 0, None), "", {}, "page")
    with pytest.raises(AssertionError, match="--promt"):
        run_block(Block("sh", "batchframe run a b --promt x\n", 0, None), "", {}, "page")
    with pytest.raises(SyntaxError):
        run_block(Block("python", "f(\n", 0, "a reason"), "", {}, "page")


def has_output(block: Block) -> bool:
    """Whether what a block prints is compared with the text block after it."""
    return block.language == "python" and block.reason is None and not block.source.startswith(">>>")


@pytest.fixture
def service(request, monkeypatch):
    """The service of the environment: Azure for its page, OpenAI for every other."""
    for name in ("_BRIEF_SECONDS", "_MIN_POLL_SECONDS", "_MAX_POLL_SECONDS"):
        monkeypatch.setattr(_run, name, 0.02)
    # Azure asks for a minute between two polls.
    monkeypatch.setattr(_openai.OpenAIClient, "min_poll_seconds", 0.0)
    if request.getfixturevalue("page") == AZURE:
        with testing.emulator("azure", deployments={"my-batch-deployment": "gpt-4o-mini"}) as emulator:
            monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", emulator.endpoint)
            monkeypatch.setenv("AZURE_OPENAI_API_KEY", "unused")
            monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
            yield emulator
    else:
        with testing.emulator() as emulator:
            monkeypatch.setenv("OPENAI_BASE_URL", emulator.base_url)
            monkeypatch.setenv("OPENAI_API_KEY", "unused")
            yield emulator


@contextlib.contextmanager
def closing_clients(monkeypatch):
    made = []
    make = _openai.client_from_environment
    monkeypatch.setattr(_openai, "client_from_environment", lambda: made.append(make()) or made[-1])
    yield
    for client in made:
        client.close()


def run_block(block: Block, output: str, namespace: dict, page: str) -> None:
    """Run a block, and compare what it prints."""
    place = f"{page}:{block.line}"
    if block.language == "sh":
        check_options(block.source, place)
    elif block.language == "console":
        run_commands(block.source, place)
    elif block.reason is not None:
        ast.parse(block.source)
    elif block.source.startswith(">>>"):
        example = doctest.DocTestParser().get_doctest(block.source, {}, page, page, block.line)
        run_doctest(example, namespace)
    else:
        # Empty lines before it: a traceback shows the line of the page.
        code = compile("\n" * block.line + block.source, page, "exec", dont_inherit=True)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, namespace)
        assert printed.getvalue() == output, f"{place} prints\n{printed.getvalue()}"


def run_doctest(example: doctest.DocTest, namespace: dict) -> None:
    example.globs = namespace
    report = []
    with pl.Config(restore_defaults=True):
        results = doctest.DocTestRunner(verbose=False).run(example, out=report.append, clear_globs=False)
    assert results.attempted
    assert not results.failed, "".join(report)


def run_commands(source: str, place: str) -> None:
    for command, expected in re.findall(r"^\$ (.+)\n((?:(?!\$ ).*\n)*)", source, re.MULTILINE):
        name, *arguments = shlex.split(command)
        assert name == "batchframe", f"{place} runs {name}"
        # As on a terminal that shows all characters.
        with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="\n")) as printed:
            assert main(arguments) == 0, f"{place}: {command}"
            printed.seek(0)
            shown = printed.read()
        is_same = doctest.OutputChecker().check_output(expected, shown, doctest.ELLIPSIS)
        assert is_same, f"{place}: {command} prints\n{shown}"


def check_options(source: str, place: str) -> None:
    for line in source.splitlines():
        words = shlex.split(line, comments=True)
        if len(words) < 2 or words[0] != "batchframe" or words[1].startswith("-"):
            continue
        assert words[1] in group.commands, f"{place}: there is no command {words[1]}"
        known = {option for parameter in group.commands[words[1]].params for option in parameter.opts}
        used = {word.partition("=")[0] for word in words[2:] if word.startswith("--")}
        assert used <= known, f"{place}: batchframe {words[1]} has no {used - known}"
