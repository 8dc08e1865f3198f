"""The files around the package: links between pages, and what the metadata claims about Pythons."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "examples/**/*.md", ".github/**/*.md")
    for path in ROOT.glob(pattern)
)
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
WORKFLOW = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def prose(page: Path) -> str:
    """Return a page without its blocks of code: a comment there is no heading, and an index no link."""
    return re.sub(r"^( *)```.*?^\1```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return the names by which a link reaches the headings of a page, as GitHub makes them."""
    names = set()
    seen: Counter[str] = Counter()
    for heading in re.findall(r"^#+ +(.+?) *$", prose(page), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)  # of a link its text
        name = re.sub(r"[^\w -]", "", text).lower().replace(" ", "-")
        names.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return names


def broken_links(page: Path) -> list[str]:
    """Return the links of a page whose file or heading does not exist."""
    # Inline, [text](target), or as a reference, [text]: target.
    links = re.findall(r"\]\(([^)\s]+)\)|^\[[^\]]+\]: *(\S+)", prose(page), re.MULTILINE)
    broken = []
    for link in filter(None, (target for found in links for target in found)):
        if re.match(r"https?:|mailto:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES)
def test_links_between_pages_resolve(page):
    assert broken_links(ROOT / page) == []


def test_link_check_finds_broken_links(tmp_path):
    other = tmp_path / "other.md"
    other.write_text("# One thing\n\n## [A](b.md) `c`!\n\n## Twice\n\n## Twice\n\n```sh\n# Not a heading\n```\n")
    good = [
        "other.md",
        "other.md#one-thing",
        "other.md#a-c",
        "other.md#twice",
        "other.md#twice-1",
        "#top",
        "https://x.y",
    ]
    bad = ["no.md", "other.md#twice-2", "other.md#not-a-heading", "#one-thing"]
    page = tmp_path / "page.md"
    page.write_text("# Top\n" + "".join(f"[link]({link})\n" for link in good + bad) + "\n[name]: gone.md\n")
    assert broken_links(page) == [*bad, "gone.md"]


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])
def test_files_named_in_a_page_exist(page):
    named = re.findall(r"`((?:tests|benchmarks|scripts|examples|docs)/[\w./-]+\.\w+)`", prose(ROOT / page))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_workflow_runs_the_pythons_of_the_classifiers():
    claimed = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PROJECT)
    assert claimed == re.findall(r'"(3\.\d+)"', re.search(r"python: \[(.+)\]", WORKFLOW)[1])
    assert f'requires-python = ">={claimed[0]}"' in PROJECT


def test_workflow_hooks_and_pages_call_targets_that_exist():
    targets = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    called = set(re.findall(r"(?:run|entry): make (\S+)", WORKFLOW + hooks))
    assert called >= {"lint", "test", "coverage"}
    for page in PAGES:
        called |= set(re.findall(r"(?:`|\$ )make ([a-z]+)", (ROOT / page).read_text(encoding="utf-8")))
    assert called <= targets
