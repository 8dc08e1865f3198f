"""What the package promises about itself: its names, its imports, and which room may import which."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from packaging.version import Version

import batchframe as bf

ROOT = Path(__file__).parents[1]
PACKAGE = Path(bf.__file__).parent

# Imports go downward or stay in their layer. A module that is not here fails the test: give it its place.
LAYERS = {
    "surfaces": (5, "__init__ _frame _calls _previews _parquet _arguments cli _progress testing"),
    "orchestration": (
        4,
        (
            "_begin _prepare _reuse _run _run_results _runs _cleaning _choosing _explaining _account _sources _reading "
            "_admission _loop _desk _collecting _submitting _adoption _claiming _retry _rejection _part_files _stop "
            "_blocks _assembly _answers _visibility _watch _trouble"
        ),
    ),
    "input and output": (3, "_store _lease _client _connect _openai _azure"),
    "pure steps": (
        2,
        (
            "_arrow _frames _encode _template _tokens _requests _dedupe _input_files _results _columns _endpoints "
            "_included _parameters _parameter_types _options _option_table _forms _prompts _scope _messages "
            "_conversations _images _media _model_rules _schema _strict _dtypes _typed _atoms _usage"
        ),
    ),
    "vocabulary": (1, "_types _limits _providers _other_forms _lenient _exceptions _events"),
}
LAYER = {module: number for number, modules in LAYERS.values() for module in modules.split()}
PURE = {module for module, number in LAYER.items() if number <= 2}
IMPURE = {"openai", "os", "time"}
MAY_IMPORT_OPENAI = {"_connect", "_openai", "_azure"} | {module for module, number in LAYER.items() if number == 5}


def imports(path: Path, package: str) -> set[str]:
    """Return the dotted names a module imports, wherever in it and for whatever purpose."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            if node.module == package:
                found |= {f"{package}.{alias.name}" for alias in node.names}
            else:
                found.add(node.module)
    return found


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def rooms_imported(path: Path) -> set[str]:
    """Return the rooms of ours that a module imports; a public name imported from the package is its surface."""
    names = {name.split(".")[1] if "." in name else "__init__" for name in imports(path, "batchframe")
             if name.split(".")[0] == "batchframe"}  # fmt: skip
    return {name if name in LAYER or name == "emulator" else "__init__" for name in names}


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if room(path) != "emulator")
EMULATOR = sorted((PACKAGE / "emulator").rglob("*.py"))


def named(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def test_every_module_has_its_layer():
    assert {room(path) for path in MODULES} == LAYER.keys()


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_imports_go_only_downward(path):
    for imported in rooms_imported(path):
        if imported == "emulator":
            assert LAYER[room(path)] == 5, f"only surfaces start the emulator, {named(path)} imports it"
        else:
            assert LAYER[imported] <= LAYER[room(path)], f"{named(path)} imports {imported} of a higher layer"


@pytest.mark.parametrize("path", EMULATOR, ids=named)
def test_the_emulator_imports_nothing_of_the_library(path):
    ours = {name for name in imports(path, "batchframe") if name.split(".")[0] == "batchframe"}
    assert all(name.startswith("batchframe.emulator") for name in ours), ours


@pytest.mark.parametrize("path", [path for path in MODULES if room(path) in PURE], ids=named)
def test_pure_rooms_import_no_world(path):
    assert not IMPURE & {name.split(".")[0] for name in imports(path, "batchframe")}


@pytest.mark.parametrize("path", [path for path in MODULES if room(path) not in MAY_IMPORT_OPENAI], ids=named)
def test_only_one_room_and_the_surfaces_know_the_sdk(path):
    assert "openai" not in {name.split(".")[0] for name in imports(path, "batchframe")}


def test_no_module_is_long():
    lengths = {named(path): len(path.read_text(encoding="utf-8").splitlines()) for path in [*MODULES, *EMULATOR]}
    assert {name: length for name, length in lengths.items() if length > 600} == {}


def test_public_names_are_sorted_and_real():
    assert sorted(bf.__all__) == bf.__all__
    public = {name for name, value in vars(bf).items() if not name.startswith("_") and not isinstance(value, type(bf))}
    assert public - {"annotations"} == set(bf.__all__)


def test_every_public_name_is_documented():
    undocumented = [name for name in bf.__all__ if not (getattr(bf, name).__doc__ or "").strip()]
    assert undocumented == []


@pytest.mark.parametrize("frame", [pl.DataFrame({"a": [1]}), pl.LazyFrame({"a": [1]})], ids=["eager", "lazy"])
def test_the_namespace_is_on_frames(frame):
    methods = {name for name in dir(frame.batch) if not name.startswith("_")}
    assert methods == {"run", "submit", "requests"}
    assert all((getattr(frame.batch, name).__doc__ or "").strip() for name in methods)


def python(code: str) -> str:
    """Run code in a fresh interpreter in which warnings are errors, and return what it prints."""
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def test_importing_twice_registers_the_namespace_once():
    assert python("import batchframe, importlib, polars as pl; importlib.import_module('batchframe'); print(pl.DataFrame().batch)")  # fmt: skip  # noqa: E501


# What is slow to import, or comes with an extra, is imported at first use: `import batchframe` costs little more than
# `import polars`.
AT_FIRST_USE = [
    "openai",
    "httpx",
    "httpx2",
    "pydantic",
    "pyarrow",
    "fsspec",
    "tiktoken",
    "filelock",
    "asyncio",
    "pandas",
    "click",
    "tqdm",
    "starlette",
    "uvicorn",
    "azure",
    "batchframe.testing",
    "batchframe.emulator",
]


@pytest.mark.parametrize(
    "use",
    [
        "",
        "bf.requests(pl.DataFrame({'text': ['a']}), 'Classify: {text}', model='gpt-4o-mini')",
        "bf.result_schema(pl.DataFrame({'text': ['a']}), 'Classify: {text}', model='gpt-4o-mini')",
        "bf.list_runs()",
        "bf.read_batch(b'')",
    ],
    ids=["import", "requests", "result_schema", "list_runs", "read_batch"],
)
def test_modules_slow_to_import_are_imported_at_first_use(use):
    # Modules that polars imports are not ours to avoid.
    code = (
        f"import sys, polars as pl; before = {{*sys.modules}}; import batchframe as bf; {use or 'pass'}; "
        f"print([name for name in {AT_FIRST_USE!r} if name in sys.modules and name not in before])"
    )
    assert python(code) == "[]"


def test_the_oldest_dependencies_that_are_tested_are_the_lower_bounds():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("[dependency-groups]")[0]
    bounds = dict(re.findall(r'"([a-z0-9-]+)>=([0-9.]+)"', project.split("dependencies = [", 1)[1]))
    tested = (ROOT / "constraints" / "oldest.txt").read_text(encoding="utf-8").split("# Not ours")[0]
    pinned = dict(re.findall(r"^([a-z0-9-]+)==([0-9.]+)$", tested, re.MULTILINE))
    assert {name: Version(bound) for name, bound in bounds.items()} == {
        name: Version(pin) for name, pin in pinned.items()
    }


def test_the_wheel_says_it_is_typed():
    assert (PACKAGE / "py.typed").is_file()
