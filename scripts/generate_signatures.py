"""Write the options into the signatures and docstrings of the public calls, and the types of request parameters.

The sources are the table of options (``_api/option_table.py``) and the table of request parameters
(``_endpoints/parameter_table.py``). ``generate_parameters.py`` writes the latter, so run this script after it.
``--check`` writes nothing, and fails if anything is stale.
"""
# ruff: noqa: INP001  (a script, not a package)

from __future__ import annotations

import re
import sys
import textwrap
from dataclasses import MISSING
from itertools import chain
from pathlib import Path
from typing import Any

from batchframe._api.option_table import OPTIONS
from batchframe._core.option_names import OPTION_NAMES
from batchframe._endpoints.parameter_table import PARAMETERS
from batchframe._endpoints.registry import ENDPOINTS
from batchframe._requests.parameters import NEVER, is_from_prompt
from batchframe._results.extra_columns import EXTRA_COLUMNS

ROOT = Path(__file__).parents[1] / "src" / "batchframe"
MODULES = tuple(f"_api/{name}.py" for name in ("arguments", "calls", "namespace", "parquet", "previews"))
_WIDTH = 120
# In a signature, from the bare star to the request parameters, both included. In a docstring, from the first option to
# the last.
_SIGNATURE = re.compile(
    r"^(?P<indent> +)\*,\n(?:(?!^ +\*,$).)*?^(?P=indent)\*\*parameters: Unpack\[EndpointParameters\],$",
    re.MULTILINE | re.DOTALL,
)
_DOCSTRING = re.compile(r"^    model\n        (?:(?!^$).)*?^    \*\*parameters\n", re.MULTILINE | re.DOTALL)
_LITERAL = re.compile(r"^(?P<name>Endpoint|Include): TypeAlias = Literal\[\n.*?^\]$", re.MULTILINE | re.DOTALL)
_FIELDS = re.compile(
    r'(?<=^class EndpointParameters\(TypedDict, total=False\):\n)(    """.*?"""\n).*', re.MULTILINE | re.DOTALL
)
_TYPES = {"text": "str", "integer": "int", "number": "float", "boolean": "bool", "object": "Mapping[Any, object]"}
# These decide the type of the response, so they must be the same for all rows.
_NOT_PER_ROW = {"n", "dimensions"}


def written(name: str) -> str:
    """Return a module's source with its generated parts written anew."""
    source = (ROOT / name).read_text(encoding="utf-8")
    source = _SIGNATURE.sub(lambda match: _signature(match["indent"]), source)
    source = _DOCSTRING.sub(lambda _: _docstring(), source)
    source = _LITERAL.sub(lambda match: _literal(match["name"]), source)
    return _FIELDS.sub(lambda match: f"{match[1]}\n{_fields()}", source)


def stale() -> list[Path]:
    """Return the modules whose source would change."""
    return [ROOT / name for name in MODULES if written(name) != (ROOT / name).read_text(encoding="utf-8")]


def _signature(indent: str) -> str:
    lines = ["*,", *map(_parameter, OPTIONS), "**parameters: Unpack[EndpointParameters],"]
    return "\n".join(indent + line for line in lines)


def _parameter(option: Any) -> str:
    accepts = option.metadata["accepts"]
    if option.default is MISSING and option.default_factory is MISSING:
        return f"{option.name}: {accepts},"
    # None means the same as an empty value, and reads better.
    default = option.default if option.default_factory is MISSING else None
    default = None if default in ("", ()) else default
    return f"{option.name}: {accepts} | None = {default!r},".replace("'", '"')


def _docstring() -> str:
    lines = []
    for option in OPTIONS:
        lines += [
            option.name,
            *textwrap.wrap(option.metadata["meaning"], _WIDTH - 8, initial_indent="    ", subsequent_indent="    "),
        ]
    return textwrap.indent("\n".join([*lines, "**parameters"]), "    ") + "\n"


def _literal(name: str) -> str:
    """Return the type of the endpoints or of the extra columns: all names that there are."""
    names = ", ".join(f'"{value}"' for value in (ENDPOINTS if name == "Endpoint" else EXTRA_COLUMNS))
    return f"{name}: TypeAlias = Literal[\n    {names}\n]"


def _fields() -> str:
    """Return one line for each parameter of any endpoint that a call takes by name."""
    known = {name for names in PARAMETERS.values() for name in names} - OPTION_NAMES - NEVER
    names = sorted(name for name in known if not is_from_prompt(name))
    return "".join(f"    {name}: {_type_of(name)}\n" for name in names)


def _type_of(name: str) -> str:
    kinds = [kind for known in PARAMETERS.values() for kind in known.get(name, {}).items()]
    types = [_type(kind, inside) for kind, inside in kinds if kind != "text"]
    texts = [inside for kind, inside in kinds if kind == "text"]
    if texts:
        types.insert(0, _type("text", None if None in texts else tuple(dict.fromkeys(chain.from_iterable(texts)))))
    return " | ".join(dict.fromkeys([*types, *([] if name in _NOT_PER_ROW else ["pl.Expr"]), "None"]))


def _type(kind: str, inside: Any) -> str:
    if kind == "list":
        return f"Sequence[{' | '.join(_type(*item) for item in inside.items()) if inside else 'Any'}]"
    if kind == "text" and inside is not None:
        return f"Literal{list(inside)!r}".replace("'", '"')
    return _TYPES[kind]


def main(arguments: list[str]) -> int:
    """Write the modules, or with ``--check`` report a stale one. Return the exit code."""
    for path in stale():
        if "--check" in arguments:
            sys.stderr.write(f"{path} is stale: run scripts/generate_signatures.py\n")
            return 1
        path.write_text(written(path.relative_to(ROOT).as_posix()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
