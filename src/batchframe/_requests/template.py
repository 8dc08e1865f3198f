"""Prompt templates: ``"… {column} … {struct.field} … {{literal}}"``. Text of cells is never parsed again."""

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
# What users of Jinja write for a field: {{ text }}, {{- row.text | trim -}}, {{ row["text"] }}.
_DOUBLED = re.compile(r"(?<!\{)\{\{([^{}]+)\}\}(?!\})")
_OF_A_ROW = re.compile(r"""\w+(?:\.(?P<attribute>.+)|\[(?P<quote>['"])(?P<key>.+)(?P=quote)\])""", re.DOTALL)
_SPEC = re.compile(r"(?P<field>.+?)(?:!(?P<conversion>[rsa]))?(?::(?P<spec>.*))?", re.DOTALL)
_CONVERSIONS = {"r": "repr", "s": "str", "a": "ascii"}
_JSON_LIKE = re.compile(r"""^\s*["'\[]|["\n]""")
_SHOWN_CHARACTERS = 2000


@dataclass(frozen=True)
class Field:
    """One place of a template that a row fills.

    Parameters
    ----------
    path
        The column, and the struct fields below it.
    dtype
        The dtype of what is found there.
    value
        It, as an expression over the frame.
    """

    path: tuple[str, ...]
    dtype: Any
    value: pl.Expr = field(compare=False, repr=False)

    @property
    def name(self) -> str:
        """The column and path, as a person would write it."""
        return ".".join(self.path)


def parse(template: str, schema: Mapping[str, Any], called: str = "the prompt") -> list[str | Field]:
    """Split a template into literal text and fields.

    A field is a column's exact name first (dots and spaces included), then a struct path.

    Parameters
    ----------
    template
        The template.
    schema
        The frame's columns and dtypes.
    called
        What the template is, in errors.

    Raises
    ------
    TemplateError
        A field is not in the frame, a brace is alone or looks like JSON, or a field has a format spec.
    """
    half = re.search("[\ud800-\udfff]", template)
    if half:
        msg = f"{called} contains {half[0]!r}, half of a surrogate pair, which UTF-8 cannot encode: remove it"
        raise TemplateError(msg)
    pieces: list[str | Field] = []
    for at, kind, text in _tokens(template):
        if kind == "brace":
            raise TemplateError(f"{called} {_brace_error(template, at, schema)}")
        piece = text if kind == "text" else resolve(text, schema)
        if piece is None:
            raise TemplateError(f"{called} {_field_error(text, template, at, schema)}")
        before = pieces[-1] if pieces else None
        if isinstance(piece, str) and isinstance(before, str):
            pieces[-1] = before + piece
        else:
            pieces.append(piece)
    return pieces


def refuse_fields(text: str, schema: Mapping[str, Any], called: str) -> None:
    """Refuse a text that is sent as it is, and names a column as a template does: each row would be sent the braces.

    Raises
    ------
    TemplateError
        With the expression that was meant.
    """
    found = next((name for _, kind, name in _tokens(text) if kind == "field" and resolve(name, schema)), None)
    if found is not None:
        msg = f"{called} is no template, and names {{{found}}}: pass an expression instead, such as\n"
        raise TemplateError(msg + _expression(text, schema))


def undoubled(template: str, schema: Mapping[str, Any]) -> tuple[dict[str, str], str]:
    """Return what names a column in doubled braces, as written and as a field, and the template with these fields."""
    found: dict[str, str] = {}

    def single(braces: re.Match[str]) -> str:
        name = next((name for name in _meant(braces[1]) if resolve(name, schema) is not None), None)
        if name is None:
            return braces[0]
        found[braces[0]] = f"{{{name}}}"
        return found[braces[0]]

    mended = _DOUBLED.sub(single, template)
    return found, mended


def _meant(name: str) -> Iterator[str]:
    """Yield what a name in doubled braces may mean: itself, then as in Jinja."""
    yield name
    trimmed = name.removeprefix("-").removesuffix("-").strip()
    for text in filter(None, (trimmed, trimmed.partition("|")[0].rstrip())):
        yield text
        below = _OF_A_ROW.fullmatch(text)
        if below is not None:
            yield below["attribute"] or below["key"]


def _tokens(template: str) -> Iterator[tuple[int, Literal["text", "field", "brace"], str]]:
    """Yield where each part of a template begins, and what it is: text, a field's name, or a lone brace."""
    at = 0
    while at < len(template):
        char = template[at]
        if char not in "{}":
            end = _next_brace(template, at)
            yield at, "text", template[at:end]
        elif template[at : at + 2] == char * 2:
            end = at + 2
            yield at, "text", char
        elif (found := _BRACED.match(template, at)) is not None:
            end = found.end()
            yield at, "field", found[1]
        else:
            end = at + 1
            yield at, "brace", char
        at = end


def resolve(name: str, schema: Mapping[str, Any]) -> Field | None:
    """Return the field that a name means in a frame, or None."""
    # The column's own name may have dots, so the longest one that is there is taken.
    for column, rest in _prefixes(name):
        if column in schema:
            found = _inner(Field((column,), schema[column], encode.column(schema, column)), rest)
            if found is not None:
                return found
    return None


def _inner(found: Field, rest: str | None) -> Field | None:
    """Return what a path means below a field."""
    if rest is None:
        return found
    if not isinstance(found.dtype, pl.Struct):
        return None
    inner = {field.name: field.dtype for field in found.dtype.fields}
    for name, below in _prefixes(rest):
        if name in inner:
            value = encode.struct_field(found.value, found.dtype, name)
            deeper = _inner(Field((*found.path, name), inner[name], value), below)
            if deeper is not None:
                return deeper
    return None


def _prefixes(name: str) -> Iterator[tuple[str, str | None]]:
    """Yield the name cut at none of its dots, then at the last, …: what comes before, and what after."""
    yield name, None
    for dot in reversed([place for place, char in enumerate(name) if char == "."]):
        yield name[:dot], name[dot + 1 :]


def _next_brace(template: str, at: int) -> int:
    places = [place for place in (template.find("{", at), template.find("}", at)) if place >= 0]
    return min(places, default=len(template))


def _field_error(name: str, template: str, at: int, schema: Mapping[str, Any]) -> str:
    """Return what is wrong with a template that has such a field, as what is said of it."""
    if not name.strip():
        return (
            f"has {{{name}}} at character {at}, which names no column: write a column's name inside. "
            f"{_double_the_braces(template, at, schema)}"
        )
    if _JSON_LIKE.search(name):
        return _brace_error(template, at, schema)
    if _specified(name, schema) is not None:
        return (
            f"has a format spec, {{{name}}}, and templates have none: pass an expression instead, "
            f"such as\n{_expression(template, schema)}"
        )
    for above, rest in _prefixes(name):
        found = resolve(above, schema)
        if found is not None and isinstance(found.dtype, pl.Struct):
            names = [inner.name for inner in found.dtype.fields]
            near = suggestion(rest or "", names)
            listed = ", ".join(map(repr, names))
            return f"names {{{name}}}; {above!r} is a Struct with fields {listed}.{near}"
        if found is not None:
            return f"names {{{name}}}; {above!r} is {found.dtype}, not a Struct"
    return f"{unknown_column(f'{{{name}}}', name, schema)}. Braces that mean themselves are doubled: {{{{{name}}}}}"


def _specified(name: str, schema: Mapping[str, Any]) -> str | None:
    """Return the source of the expression that a field with a format spec asks for, or None where it is no such."""
    parts = _SPEC.fullmatch(name)
    found = resolve(parts["field"], schema) if parts else None
    if parts is None or found is None:
        return None
    source, conversion, spec = _source(found, schema), parts["conversion"], parts["spec"] or ""
    if isinstance(found.dtype, (pl.Date, pl.Datetime, pl.Time)) and spec and not conversion:
        return f"{source}.dt.to_string({spec!r})"
    value = f"{_CONVERSIONS[conversion]}(value)" if conversion else "value"
    return f"{source}.map_elements(lambda value: format({value}, {spec!r}), return_dtype=pl.String)"


def _source(found: Field, schema: Mapping[str, Any]) -> str:
    column, *below = found.path
    source = f"pl.nth({list(schema).index(column)})" if encode.is_pattern(column) else f"pl.col({column!r})"
    return source + "".join(f".struct.field({name!r})" for name in below)


def _expression(template: str, schema: Mapping[str, Any]) -> str:
    """Return the source of the expression that a template with format specs stands for."""
    pieces: list[str] = []
    literal = ""
    for _, kind, text in _tokens(template):
        found = resolve(text, schema) if kind == "field" else None
        source = _source(found, schema) if found is not None else _specified(text, schema) if kind == "field" else None
        if source is None:
            literal += f"{{{text}}}" if kind == "field" else text
            continue
        pieces += [f"pl.lit({literal!r})"] * bool(literal) + [source]
        literal = ""
    pieces += [f"pl.lit({literal!r})"] * bool(literal)
    return f"pl.concat_str({', '.join(pieces)})"


def _brace_error(template: str, at: int, schema: Mapping[str, Any]) -> str:
    around = template[max(0, at - 20) : at + 20]
    return f"has a brace at character {at} that begins no field: {around!r}. {_double_the_braces(template, at, schema)}"


def _double_the_braces(template: str, at: int, schema: Mapping[str, Any]) -> str:
    shown = shortened(template, at)
    which = "it" if shown == template else "this part"
    return (
        f"Braces that mean themselves, as in JSON, are doubled: double the braces, so that {which} reads\n"
        f"{_doubled(shown, schema)}"
    )


def shortened(template: str, at: int) -> str:
    """Return a template to show, of a long one the part about a character."""
    return template if len(template) <= _SHOWN_CHARACTERS else template[max(0, at - 40) : at + 40]


def _doubled(template: str, schema: Mapping[str, Any]) -> str:
    """Return the template with all braces doubled but those of its fields, and those that are doubled already.

    Whether ``}}`` is a doubled brace or two that close JSON objects shows in how they were opened; where no ``{{``
    is, nothing was doubled yet.
    """
    written, at = "", 0
    opened: list[int] = []
    some_doubled = "{{" in template
    while at < len(template):
        char, pair = template[at], template[at : at + 2]
        found = _BRACED.match(template, at)
        if found is not None and resolve(found[1], schema) is not None:
            written += found[0]
            at = found.end()
        elif char == "{":
            opened.append(len(pair) if pair == "{{" else 1)
            written += "{{"
            at += opened[-1]
        elif char == "}":
            width = opened.pop() if opened else 1 + some_doubled
            written += "}}"
            at += width if pair == "}}" else 1
        else:
            written += char
            at += 1
    return written
