"""The signatures of the public calls: written from one table, offered by editors, and checked by type checkers."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
import typing
from pathlib import Path

import polars as pl
import pytest

import batchframe as bf
from batchframe import testing
from batchframe._api import arguments, namespace
from batchframe._api import options as _options
from batchframe._api.option_table import OPTIONS
from batchframe._core.option_names import NOT_YET, OPTION_NAMES
from batchframe._endpoints.parameter_table import PARAMETERS
from batchframe._endpoints.registry import ENDPOINTS
from batchframe._requests.parameters import NEVER, is_from_prompt
from batchframe._results.extra_columns import EXTRA_COLUMNS

ROOT = Path(__file__).parents[2]
USER_CODE = Path(__file__).parents[1] / "typing"
CALLS = [bf.run, bf.submit, bf.requests, bf.result_schema, bf.run_parquet]
METHODS = {"run": bf.run, "submit": bf.submit, "requests": bf.requests}
NAMES = [option.name for option in OPTIONS]
FRAME = pl.DataFrame({"x": ["a"]})


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("generate_signatures", ROOT / "scripts" / "generate_signatures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def keyword_only(call):
    return [one for one in inspect.signature(call).parameters.values() if one.kind is one.KEYWORD_ONLY]


# -- written from the table


def test_signatures_match_the_table(script, capsys):
    assert script.stale() == [], "run scripts/generate_signatures.py"
    assert script.main(["--check"]) == 0


def test_stale_signatures_are_found_and_written(script, tmp_path, monkeypatch, capsys):
    for name in script.MODULES:
        source = (script.ROOT / name).read_text(encoding="utf-8")
        tmp_path.joinpath(name).parent.mkdir(exist_ok=True)
        tmp_path.joinpath(name).write_text(source, encoding="utf-8")
    monkeypatch.setattr(script, "ROOT", tmp_path)
    calls, types = tmp_path / "_api" / "calls.py", tmp_path / "_api" / "arguments.py"
    whole = calls.read_text(encoding="utf-8"), types.read_text(encoding="utf-8")
    calls.write_text(re.sub("    pilot: .*\n|    pilot\n(        .*\n)+", "", whole[0]), encoding="utf-8")
    types.write_text(re.sub("    seed: .*\n", "", whole[1]), encoding="utf-8")
    assert script.main(["--check"]) == 1
    assert "is stale: run scripts/generate_signatures.py" in capsys.readouterr().err
    assert script.main([]) == 0
    assert (calls.read_text(encoding="utf-8"), types.read_text(encoding="utf-8")) == whole
    assert script.stale() == []


@pytest.mark.parametrize("call", [*CALLS, *(getattr(namespace.BatchNamespace, name) for name in METHODS)])
def test_every_option_is_in_the_signature(call):
    assert [one.name for one in keyword_only(call)] == NAMES
    defaults = {one.name: one.default for one in keyword_only(call)}
    assert defaults.pop("model") is inspect.Parameter.empty
    assert _options.parse({"model": "m", **defaults}) == _options.parse({"model": "m"})


def test_planned_options_are_in_no_signature():
    assert not NOT_YET & set(NAMES)
    assert set(NAMES) | NOT_YET == OPTION_NAMES


def test_literals_match_the_accepted_values():
    assert typing.get_args(arguments.Include) == tuple(EXTRA_COLUMNS)
    assert set(typing.get_args(arguments.Endpoint)) == set(ENDPOINTS)
    meanings = {option.name: option.metadata["meaning"] for option in OPTIONS}
    assert all(f"``{name}``" in meanings["include"] for name in tuple(EXTRA_COLUMNS))
    assert all(f"``{path}``" in meanings["endpoint"] for path in ENDPOINTS if path != "/v1/chat/completions")
    for name, values in re.findall(r'(\w+): Literal(\[.*?\]) \| None = (?:None|".*?"),', inspect.getsource(bf.submit)):
        for value in json.loads(values):
            given = {"model": "m", "images": "x", name: value}
            assert getattr(_options.parse(given), name) == value


def test_parameters_match_the_accepted_names():
    known = {name for names in PARAMETERS.values() for name in names}
    taken = {name for name in known - OPTION_NAMES - NEVER if not is_from_prompt(name)}
    assert arguments.EndpointParameters.__annotations__.keys() == taken


def test_the_docstring_documents_every_option_once():
    parameters = inspect.getdoc(bf.run).split("\n\nReturns\n")[0].split("\nParameters\n")[1]
    documented = re.findall(r"^([\w*]+)$", parameters, re.MULTILINE)
    assert documented == ["frame", "prompt", *NAMES, "**parameters"]
    for name, call in METHODS.items():
        assert getattr(FRAME.batch, name).__doc__ == call.__doc__


# -- at run time


def test_missing_model_is_a_type_error():
    for call in (bf.run, bf.submit, bf.requests, bf.result_schema, FRAME.batch.run, FRAME.batch.requests):
        with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'model'"):
            call("{x}") if inspect.ismethod(call) else call(FRAME, "{x}")


@pytest.mark.parametrize("name", sorted(NOT_YET))
def test_planned_options_are_refused_by_name(name):
    for call in (bf.run, bf.submit, bf.requests, bf.result_schema):
        with pytest.raises(bf.OptionError, match=f"^{name} is not available in this version of batchframe"):
            call(FRAME, "{x}", model="m", **{name: 1})


def test_every_call_passes_every_option_on(monkeypatch, tmp_path):
    """An option that a call took and dropped would be one that does nothing."""
    given = {name: object() for name in [*NAMES, "temperature", "nonsense"]}
    seen = []

    def parse(options):
        seen.append(options)
        raise InterruptedError

    for module in ("calls", "previews", "parquet"):
        monkeypatch.setattr(f"batchframe._api.{module}.parse", parse)
    calls = [lambda call=call: call(FRAME, "{x}", **given) for call in CALLS[:-1]]
    calls += [lambda name=name: getattr(FRAME.batch, name)("{x}", **given) for name in METHODS]
    calls.append(lambda: bf.run_parquet(tmp_path / "a", tmp_path / "b", "{x}", **given))
    for call in calls:
        with pytest.raises(InterruptedError):
            call()
        assert seen.pop() == given


# -- names as users import them


def test_public_names_have_the_module_batchframe():
    for name in bf.__all__:
        value = getattr(bf, name)
        assert (value.__module__, value.__qualname__) == ("batchframe", name)
    for name in testing.__all__:
        assert getattr(testing, name).__module__ == "batchframe.testing"
    assert repr(bf.Run) == "<class 'batchframe.Run'>"


def test_tracebacks_show_the_public_name():
    code = "import batchframe as bf, polars as pl; bf.requests(pl.DataFrame({'x': [1]}), '{y}', model='m')"
    stderr = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    ).stderr
    assert stderr.splitlines()[-1].startswith("batchframe.TemplateError: ")


# -- editors and type checkers


@pytest.mark.slow
@pytest.mark.parametrize("call", ["run", "submit", "requests", "result_schema", "run_parquet"])
def test_editors_complete_the_options(call):
    jedi = pytest.importorskip("jedi")
    code = f"import batchframe as bf\nbf.{call}("
    completed = jedi.Script(code, path=ROOT / "user.py", project=project(jedi)).complete()
    offered = {one.name for one in completed}
    assert {f"{name}=" for name in NAMES} <= offered


@pytest.mark.slow
def test_notebooks_complete_the_options_of_the_namespace():
    jedi = pytest.importorskip("jedi")
    completed = jedi.Interpreter("frame.batch.run(", [{"frame": FRAME}]).complete()
    assert {f"{name}=" for name in NAMES} <= {one.name for one in completed}


def project(jedi):
    return jedi.Project(ROOT, added_sys_path=[str(Path(bf.__file__).parents[1])])


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """Return a function that checks the user code, and tells by file which lines have errors."""
    package, folder = Path(bf.__file__).parents[1], tmp_path_factory.mktemp("typing")
    is_installed = "site-packages" in package.parts
    for path in USER_CODE.glob("*.py"):
        (folder / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")

    def run(command):
        environment = os.environ | ({} if is_installed else {"MYPYPATH": str(package)})
        return subprocess.run(
            [sys.executable, "-m", *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )

    def with_mypy():
        ran = run(["mypy", "--strict", "--show-absolute-path", "--no-error-summary", *USER_CODE_NAMES])
        assert not ran.stderr, ran.stderr
        found = re.findall(r"^(\S+\.py):(\d+): error", ran.stdout, re.MULTILINE)
        return [(Path(path).name, int(line)) for path, line in found]

    def with_pyright():
        extra = [] if is_installed else [str(package)]
        settings = {"typeCheckingMode": "standard", "extraPaths": extra, "reportUnusedExpression": "none"}
        (folder / "pyrightconfig.json").write_text(json.dumps(settings))
        ran = run(["basedpyright", "--outputjson", "--pythonpath", sys.executable])
        found = json.loads(ran.stdout)["generalDiagnostics"]
        errors = [one for one in found if one["severity"] == "error"]
        return [(Path(one["file"]).name, one["range"]["start"]["line"] + 1) for one in errors]

    return {"mypy": with_mypy, "basedpyright": with_pyright}


USER_CODE_NAMES = sorted(path.name for path in USER_CODE.glob("*.py"))


@pytest.mark.slow
@pytest.mark.timeout(900)  # mypy reads all of polars and openai
@pytest.mark.parametrize("checker", ["mypy", "basedpyright"])
def test_type_checkers_report_wrong_calls_only(checked, checker):
    if importlib.util.find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed")
    marked = {
        (path.name, number)
        for path in USER_CODE.glob("*.py")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if line.endswith("# wrong")
    }
    found = set(checked[checker]())
    assert len(marked) > 30
    assert found == marked
