"""Prompt templates: ``"… {column} … {struct.field} … {{literal}}"``. The text of cells is never parsed."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from batchframe._core.exceptions import TemplateError, suggestion, unknown_column
from batchframe._requests import encode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_BRACED = re.compile(r"\{([^{}]*)\}")
# How users of Jinja write a field: {{ text }}, {{- row.text | trim -}}, {{ row["text"] }}.
_DOUBLED = re.compile(r"(?<!\{)\{\{([^{}]+)\}\}(?!\})")
_ROW_ACCESS = re.compile(r"""\w+(?:\.(?P<attribute>.+)|\[(?P<quote>['"])(?P<key>.+)(?P=quote)\])""", re.DOTALL)
_SPEC = re.compile(r"(?P<field>.+?)(?:!(?P<conversion>[rsa]))?(?::(?P<spec>.*))?", re.DOTALL)
_CONVERSIONS = {"r": "repr", "s": "str", "a": "ascii"}
_JSON_LIKE = re.compile(r"""^\s*["'\[]|["\n]""")
_SHOWN_CHARACTERS = 2000


@dataclass(frozen=True)
class Field:
    """A placeholder of a template.

    Parameters
    ----------
    path
        The column, and the path of struct fields in it.
    dtype
        The dtype of the value.
    value
        The value, as an expression over the frame.
    """

    path: tuple[str, ...]
    dtype: Any
    value: pl.Expr = field(compare=False, repr=False)

    @property
    def name(self) -> str:
        """The path, as users write it in a template."""
        return ".".join(self.path)


def parse(template: str, schema: Mapping[str, Any], label: str = "the prompt") -> list[str | Field]:
    """Split a template into literal text and fields.

    A field is read as the exact name of a column first, dots and spaces included, and then as a struct path.

    Parameters
    ----------
    template
        The template.
    schema
        The frame's columns and dtypes.
    label
        The label of the template in error messages.

    Raises
    ------
    TemplateError
        A field is not in the frame, a brace is unpaired or looks like JSON, or a field has a format spec.
    """
    surrogate = re.search("[\ud800-\udfff]", template)
    if surrogate:
        msg = f"{label} contains {surrogate[0]!r}, half of a surrogate pair, which UTF-8 cannot encode: remove it"
        raise TemplateError(msg)
    pieces: list[str | Field] = []
    for at, kind, text in _tokens(template):
        if kind == "brace":
            raise TemplateError(f"{label} {_brace_error(template, at, schema)}")
        piece = text if kind == "text" else resolve(text, schema)
        if piece is None:
            raise TemplateError(f"{label} {_field_error(text, template, at, schema)}")
        previous = pieces[-1] if pieces else None
        if isinstance(piece, str) and isinstance(previous, str):
            pieces[-1] = previous + piece
        else:
            pieces.append(piece)
    return pieces


def refuse_fields(text: str, schema: Mapping[str, Any], label: str) -> None:
    """Refuse a constant text with a template field in it: every row would send the braces.

    Raises
    ------
    TemplateError
        The text has a field. The error gives the expression to pass instead.
    """
    field_name = next((name for _, kind, name in _tokens(text) if kind == "field" and resolve(name, schema)), None)
    if field_name is not None:
        msg = f"{label} is not a template, but contains {{{field_name}}}: pass an expression instead, such as\n"
        raise TemplateError(msg + _expression(text, schema))


def undoubled(template: str, schema: Mapping[str, Any]) -> tuple[dict[str, str], str]:
    """Return the columns in doubled braces, as written → as a field, and the template with these fields."""
    fields: dict[str, str] = {}

    def single(braces: re.Match[str]) -> str:
        name = next((name for name in _jinja_names(braces[1]) if resolve(name, schema) is not None), None)
        if name is None:
            return braces[0]
        fields[braces[0]] = f"{{{name}}}"
        return fields[braces[0]]

    corrected = _DOUBLED.sub(single, template)
    return fields, corrected


def _jinja_names(name: str) -> Iterator[str]:
    """Yield the field names that a text in doubled braces may mean: the text itself, then its Jinja readings."""
    yield name
    trimmed = name.removeprefix("-").removesuffix("-").strip()
    for text in filter(None, (trimmed, trimmed.partition("|")[0].rstrip())):
        yield text
        access = _ROW_ACCESS.fullmatch(text)
        if access is not None:
            yield access["attribute"] or access["key"]


def _tokens(template: str) -> Iterator[tuple[int, Literal["text", "field", "brace"], str]]:
    """Yield the offset, kind and text of each token: literal text, a field's name, or an unpaired brace."""
    at = 0
    while at < len(template):
        char = template[at]
        if char not in "{}":
            end = _next_brace(template, at)
            yield at, "text", template[at:end]
        elif template[at : at + 2] == char * 2:
            end = at + 2
            yield at, "text", char
        elif (braced := _BRACED.match(template, at)) is not None:
            end = braced.end()
            yield at, "field", braced[1]
        else:
            end = at + 1
            yield at, "brace", char
        at = end


def resolve(name: str, schema: Mapping[str, Any]) -> Field | None:
    """Return the field that a name refers to, or None."""
    # A column name may contain dots, so the longest matching name wins.
    for column, rest in _prefixes(name):
        if column in schema:
            field = _inner_field(Field((column,), schema[column], encode.column(schema, column)), rest)
            if field is not None:
                return field
    return None


def _inner_field(outer: Field, rest: str | None) -> Field | None:
    """Return the field that a path refers to in a struct."""
    if rest is None:
        return outer
    if not isinstance(outer.dtype, pl.Struct):
        return None
    dtypes = {inner.name: inner.dtype for inner in outer.dtype.fields}
    for name, path in _prefixes(rest):
        if name in dtypes:
            value = encode.struct_field(outer.value, outer.dtype, name)
            inner = _inner_field(Field((*outer.path, name), dtypes[name], value), path)
            if inner is not None:
                return inner
    return None


def _prefixes(name: str) -> Iterator[tuple[str, str | None]]:
    """Yield the prefixes of a dotted name, longest first, each with the rest after its dot."""
    yield name, None
    for dot in reversed([place for place, char in enumerate(name) if char == "."]):
        yield name[:dot], name[dot + 1 :]


def _next_brace(template: str, at: int) -> int:
    places = [place for place in (template.find("{", at), template.find("}", at)) if place >= 0]
    return min(places, default=len(template))


def _field_error(name: str, template: str, at: int, schema: Mapping[str, Any]) -> str:
    """Return what is wrong with a field that was not found, as a message without its subject."""
    if not name.strip():
        return (
            f"has {{{name}}} at character {at}, without a column name: write one inside the braces. "
            f"{_double_the_braces(template, at, schema)}"
        )
    if _JSON_LIKE.search(name):
        return _brace_error(template, at, schema)
    if _specified(name, schema) is not None:
        return (
            f"has a format spec, {{{name}}}, which templates do not support: pass an expression instead, "
            f"such as\n{_expression(template, schema)}"
        )
    for prefix, rest in _prefixes(name):
        field = resolve(prefix, schema)
        if field is not None and isinstance(field.dtype, pl.Struct):
            names = [inner.name for inner in field.dtype.fields]
            near = suggestion(rest or "", names)
            listed = ", ".join(map(repr, names))
            return f"names {{{name}}}; {prefix!r} is a Struct with fields {listed}.{near}"
        if field is not None:
            return f"names {{{name}}}; {prefix!r} is {field.dtype}, not a Struct"
    return f"{unknown_column(f'{{{name}}}', name, schema)}. For literal braces, double them: {{{{{name}}}}}"


def _specified(name: str, schema: Mapping[str, Any]) -> str | None:
    """Return the source of the expression for a field with a format spec, or None if it has none."""
    parts = _SPEC.fullmatch(name)
    field = resolve(parts["field"], schema) if parts else None
    if parts is None or field is None:
        return None
    source, conversion, spec = _source(field, schema), parts["conversion"], parts["spec"] or ""
    if isinstance(field.dtype, (pl.Date, pl.Datetime, pl.Time)) and spec and not conversion:
        return f"{source}.dt.to_string({spec!r})"
    value = f"{_CONVERSIONS[conversion]}(value)" if conversion else "value"
    return f"{source}.map_elements(lambda value: format({value}, {spec!r}), return_dtype=pl.String)"


def _source(field: Field, schema: Mapping[str, Any]) -> str:
    column, *inner = field.path
    source = f"pl.nth({list(schema).index(column)})" if encode.is_pattern(column) else f"pl.col({column!r})"
    return source + "".join(f".struct.field({name!r})" for name in inner)


def _expression(template: str, schema: Mapping[str, Any]) -> str:
    """Return the source of the expression that a template with format specs is equivalent to."""
    pieces: list[str] = []
    literal = ""
    for _, kind, text in _tokens(template):
        field = resolve(text, schema) if kind == "field" else None
        source = _source(field, schema) if field is not None else _specified(text, schema) if kind == "field" else None
        if source is None:
            literal += f"{{{text}}}" if kind == "field" else text
            continue
        pieces += [f"pl.lit({literal!r})"] * bool(literal) + [source]
        literal = ""
    pieces += [f"pl.lit({literal!r})"] * bool(literal)
    return f"pl.concat_str({', '.join(pieces)})"


def _brace_error(template: str, at: int, schema: Mapping[str, Any]) -> str:
    around = template[max(0, at - 20) : at + 20]
    advice = _double_the_braces(template, at, schema)
    return f"has a brace at character {at} that does not start a field: {around!r}. {advice}"


def _double_the_braces(template: str, at: int, schema: Mapping[str, Any]) -> str:
    shown = shortened(template, at)
    which = "it" if shown == template else "this part"
    return f"Double literal braces, such as those of JSON, so that {which} reads\n{_doubled(shown, schema)}"


def shortened(template: str, at: int) -> str:
    """Return a template for a message; only the part around a character if it is long."""
    return template if len(template) <= _SHOWN_CHARACTERS else template[max(0, at - 40) : at + 40]


def _doubled(template: str, schema: Mapping[str, Any]) -> str:
    """Return the template with its braces doubled, except those of fields and those already doubled.

    ``}}`` may be a doubled brace or the end of two JSON objects: the opening braces decide. If there is no ``{{``, no
    brace was doubled.
    """
    doubled, at = "", 0
    opened: list[int] = []
    has_doubled = "{{" in template
    while at < len(template):
        char, pair = template[at], template[at : at + 2]
        braced = _BRACED.match(template, at)
        if braced is not None and resolve(braced[1], schema) is not None:
            doubled += braced[0]
            at = braced.end()
        elif char == "{":
            opened.append(len(pair) if pair == "{{" else 1)
            doubled += "{{"
            at += opened[-1]
        elif char == "}":
            width = opened.pop() if opened else 1 + has_doubled
            doubled += "}}"
            at += width if pair == "}}" else 1
        else:
            doubled += char
            at += 1
    return doubled
