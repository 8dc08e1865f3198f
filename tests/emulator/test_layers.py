"""The packages of the emulator, and the direction of its imports."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import pytest

import batchframe.emulator

ROOT = Path(batchframe.emulator.__file__).parent
NAME = "batchframe.emulator"

# Imports go downward, or stay inside a package. Packages on one line do not import one another.
LAYERS = [
    ("__init__",),
    ("_entry",),
    ("_http",),
    ("_service",),
    ("_batches",),
    ("_endpoints",),
    ("_faults",),
    ("_config", "_model"),
    ("_errors", "_json"),
]
LEVEL = {package: level for level, packages in enumerate(reversed(LAYERS)) for package in packages}


def module_name(path: Path) -> str:
    """Return the dotted name of a module below the emulator; the emulator itself is ``__init__``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def targets(node: ast.AST) -> list[str]:
    """Return the dotted names that an import statement may refer to, the most specific ones first."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "a relative import"
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def module_of(target: str) -> str:
    """Return the emulator's module that a dotted name is, or is in."""
    name = target.removeprefix(NAME).removeprefix(".")
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name or "__init__"


def imports(path: Path) -> set[str]:
    """Return the dotted names that a module imports, anywhere in it: in functions and for type checkers too."""
    return {target for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) for target in targets(node)}


GRAPH = {
    name: {module_of(target) for target in imports(path) if target.split(".")[0] == "batchframe"}
    for name, path in MODULES.items()
}


def package(module: str) -> str:
    return module.split(".", maxsplit=1)[0]


def test_every_module_is_in_a_package_of_the_table():
    assert {package(module) for module in MODULES} == LEVEL.keys()


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_only_downward(module):
    upward = {
        imported
        for imported in GRAPH[module]
        if package(imported) != package(module) and LEVEL[package(imported)] >= LEVEL[package(module)]
    }
    assert upward == set()


def test_no_module_imports_itself_through_others():
    try:
        graphlib.TopologicalSorter(GRAPH).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


@pytest.mark.parametrize("module", MODULES)
def test_the_emulator_imports_nothing_else_of_batchframe(module):
    ours = {target for target in imports(MODULES[module]) if target.split(".")[0] == "batchframe"}
    assert {target for target in ours if not f"{target}.".startswith(f"{NAME}.")} == set()


def test_the_graph_is_complete():
    """The checks above see every module, and edges of each kind."""
    assert len(MODULES) > 60
    assert "_http.app" in GRAPH["_entry"], "imports in functions"
    assert "_service.service" in GRAPH["_http.replies"], "imports for type checkers"
    assert "_endpoints.chat" in GRAPH["_endpoints.registry"], "modules imported from their package"
    assert "_errors" in GRAPH["_batches.job"]
