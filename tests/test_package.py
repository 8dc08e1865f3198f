"""The structure of the package: its public names, and which module may import which."""

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

# The packages in the order of the data, the lowest first. A module imports from its own package and from those above it
# in this table. `docs/architecture.md` and the docstring of the package have the same list.
PACKAGES = {
    "_core": "errors, events, column names, the forms of remote objects",
    "_endpoints": "what differs between the endpoints",
    "_schemas": "typed answers",
    "_requests": "rows -> request lines",
    "_store": "the run on disk",
    "_providers": "batch services",
    "_results": "result files -> answers -> columns",
    "_batches": "input files -> batches -> result files",
    "_runs": "one run, resumable",
    "_api": "what users call",
}
SURFACES = {"__init__", "testing", "cli"}
RANK = {package: rank for rank, package in enumerate(PACKAGES)} | dict.fromkeys(SURFACES, len(PACKAGES))
# Pure: neither clock nor files nor services.
PURE = {"_core", "_endpoints", "_schemas", "_requests"}
IMPURE_MODULES = {"openai", "os", "time"}
MAY_IMPORT_OPENAI = {"_providers", "_api", *SURFACES}


def imports(path: Path) -> set[str]:
    """Return the dotted names that a module imports, wherever in it and for whatever purpose."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            if node.module == "batchframe":
                found |= {f"batchframe.{alias.name}" for alias in node.names}
            else:
                found.add(node.module)
    return found


def package_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def packages_imported(path: Path) -> set[str]:
    """Return the packages of ours that a module imports; a public name is imported from the package itself."""
    names = {name.split(".")[1] if "." in name else "__init__" for name in imports(path)
             if name.split(".")[0] == "batchframe"}  # fmt: skip
    return {name if name in RANK or name == "emulator" else "__init__" for name in names}


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if package_of(path) != "emulator")
EMULATOR = sorted((PACKAGE / "emulator").rglob("*.py"))


def named(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def test_every_module_is_in_a_package_of_the_table():
    assert {package_of(path) for path in MODULES} == RANK.keys()


def test_architecture_page_lists_the_packages_in_order():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(_\w+)` \|", page, re.MULTILINE) == list(PACKAGES)


def test_package_docstring_lists_the_packages():
    assert re.findall(r"^    (_\w+) ", bf.__doc__, re.MULTILINE) == list(PACKAGES)[::-1]


def test_modules_named_by_the_architecture_page_exist():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    modules = re.findall(r"`(_\w+/\w+\.py)`", page)
    assert len(modules) > len(PACKAGES)
    assert [module for module in modules if not (PACKAGE / module).is_file()] == []


def test_imports_go_only_downward():
    upward = [
        f"{named(path)} imports {imported}"
        for path in MODULES
        for imported in packages_imported(path) - {"emulator"}
        if RANK[imported] > RANK[package_of(path)]
    ]
    assert upward == []


def test_only_the_surfaces_start_the_emulator():
    starting = {package_of(path) for path in MODULES if "emulator" in packages_imported(path)}
    assert starting <= SURFACES


def test_no_two_modules_import_each_other():
    """No circle either: remove the modules that import none of those left, until none is left."""
    dotted = {"batchframe." + named(path).removesuffix(".py").replace("/", "."): path for path in MODULES}
    left = {module: imports_of_modules(path, dotted) - {module} for module, path in dotted.items()}
    while free := {module for module, imported in left.items() if not imported & left.keys()}:
        left = {module: imported for module, imported in left.items() if module not in free}
    assert left == {}


def imports_of_modules(path: Path, modules: dict[str, Path]) -> set[str]:
    """Return the modules that are imported by name, as ``from batchframe._core import events`` does too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (names & modules.keys()) or {node.module} & modules.keys()
    return found


def test_the_emulator_imports_nothing_of_the_library():
    ours = {
        f"{named(path)} imports {name}"
        for path in EMULATOR
        for name in imports(path)
        if name.split(".")[0] == "batchframe" and not name.startswith("batchframe.emulator")
    }
    assert ours == set()


def test_pure_packages_read_no_clock_no_files_and_no_service():
    pure = [path for path in MODULES if package_of(path) in PURE and named(path) != "_core/clock.py"]
    impure = {
        named(path): found for path in pure
        if (found := IMPURE_MODULES & {name.split(".")[0] for name in imports(path)})
    }  # fmt: skip
    assert impure == {}


def test_only_the_providers_and_the_surfaces_know_the_sdk():
    knowing = {package_of(path) for path in MODULES if "openai" in {name.split(".")[0] for name in imports(path)}}
    assert knowing <= MAY_IMPORT_OPENAI


# What touches the disk, by the names of its methods and of its modules; `os` has other things too.
DISK_METHODS = {
    *("is_file", "is_dir", "is_symlink", "iterdir", "glob", "rglob", "walk", "stat", "lstat", "samefile", "readlink"),
    *("mkdir", "rmdir", "unlink", "touch", "chmod", "symlink_to", "hardlink_to"),
    *("read_bytes", "read_text", "write_bytes", "write_text"),
}
DISK_MODULES = {"shutil", "tempfile", "filecmp", "glob", "fcntl", "mmap"}
NOT_OF_THE_DISK = {"fspath", "getpid"}
# They deal with the user's own files.
OWN_FILES = {"_api/parquet.py", "_api/result_sources.py"}


def touches_disk(node: ast.AST) -> bool:
    """Whether a piece of code touches the disk, or makes a path out of that of a run's folder."""
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.Div) and isinstance(node.left, ast.Attribute) and node.left.attr == "path"
    if isinstance(node, ast.Import):
        return bool(DISK_MODULES & {alias.name for alias in node.names})
    if isinstance(node, ast.ImportFrom):
        return node.module in {*DISK_MODULES, "os"}
    return isinstance(node, ast.Call) and calls_disk(node)


def calls_disk(node: ast.Call) -> bool:
    """Whether a call touches the disk, as far as its name tells."""
    if not isinstance(node.func, ast.Attribute):
        return isinstance(node.func, ast.Name) and node.func.id == "open"
    name, owner = node.func.attr, ast.unparse(node.func.value)
    if owner == "os":
        return name not in NOT_OF_THE_DISK
    if name in {"open", "exists"}:  # a run's folder has these too
        return not owner.endswith("folder")
    if name in {"replace", "rename"}:  # of strings, dates and structs; of frames
        return len(node.args) == 1 and not node.keywords and not isinstance(node.args[0], (ast.Dict, ast.DictComp))
    return name in DISK_METHODS


def test_only_the_store_knows_the_file_system():
    inside = {"_store", "cli", "testing"}
    outside = [path for path in MODULES if package_of(path) not in inside and named(path) not in OWN_FILES]
    touching = [
        f"{named(path)}: {ast.unparse(node)}"
        for path in outside
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if touches_disk(node)
    ]
    assert touching == []


@pytest.mark.parametrize(
    "code",
    [
        "path.open()", "open(path)", "(folder.path / 'x').exists()", "folder.path / 'x'", "path.replace(target)",
        "path.rename(target)", "os.rename(a, b)", "import shutil", "from os import replace", "path.stat().st_size",
    ],
)  # fmt: skip
def test_code_that_touches_the_disk_is_recognized(code):
    assert any(touches_disk(node) for node in ast.walk(ast.parse(code)))


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
