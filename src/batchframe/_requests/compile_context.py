"""What a prompt is compiled against, and what may be wrong with a row on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from batchframe._core.column_names import OURS
from batchframe._core.exceptions import OptionError, TemplateError, warn
from batchframe._core.json_values import json_text
from batchframe._requests import encode
from batchframe._requests import template as _template

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchframe._endpoints.base import Endpoint

BODY = "body:"  # before the name of a parameter that is staged: another column of ours may have that name
# A column has one dtype: in the tools of one row, the properties of another row's tools are null.
_OF_MANY_SHAPES = frozenset({"tools", "functions"})
# What is joined to a body: texts that are the same for all rows, and expressions.
Pieces = list[str | pl.Expr]


@dataclass
class Text:
    """A text that a row makes: pieces to join."""

    pieces: Pieces

    @property
    def constant(self) -> str | None:
        """Give the text itself where no row changes it."""
        return "".join(self.pieces) if all(isinstance(piece, str) for piece in self.pieces) else None  # type: ignore[arg-type]

    def expression(self, on_null: str) -> pl.Expr:
        """Return the text as an expression; null where something in it is null and that is not rendered."""
        pieces = [pl.lit(piece) if isinstance(piece, str) else piece for piece in self.pieces]
        if on_null == "render":
            pieces = [piece.fill_null("") for piece in pieces]
        return pieces[0] if len(pieces) == 1 else pl.concat_str(pieces)

    def json(self, on_null: str) -> str | pl.Expr:
        """Return the JSON of the text."""
        if self.constant is not None:
            return json_text(self.constant, "the prompt")
        return encode.json(self.expression(on_null), pl.String(), "the prompt")


@dataclass
class CompileContext:
    """The frame and the options that a prompt is compiled against; collects what may be wrong with a row.

    Parameters
    ----------
    staged
        The columns and dtypes of the frame, and of the expressions that are columns of ours.
    schema
        The frame's alone.
    nulls
        Whether something is null, by what it is called.
    invalid
        Whether a row cannot be sent, by why.
    problems
        Why a row cannot be sent, null where it can: for reasons that tell what was got.
    templates
        The templates and the fields in each, by what it is called.
    """

    staged: Mapping[str, Any]
    schema: Mapping[str, Any]
    on_null: str
    endpoint: Endpoint
    nulls: dict[str, pl.Expr] = field(default_factory=dict)
    invalid: dict[str, pl.Expr] = field(default_factory=dict)
    problems: list[pl.Expr] = field(default_factory=list)
    templates: dict[str, tuple[str, set[str]]] = field(default_factory=dict)

    def value(self, name: str) -> tuple[pl.Expr, Any]:
        """Return the column that an expression became, and its dtype."""
        return pl.col(OURS + name), self.staged[OURS + name]

    def text(self, content: Any, name: str) -> Text:
        """Return the text of a template or expression, after noting what may be null or not finite in it.

        Parameters
        ----------
        content
            The template, or the expression.
        name
            What it is called, in errors and as a staged column.
        """
        pieces: list[str | _template.Field]
        if isinstance(content, pl.Expr):
            value, dtype = self.value(name)
            pieces = [_template.Field((name,), dtype, value)]
        elif isinstance(content, str):
            told = "the prompt" if name == "prompt" else name
            pieces = list(_template.parse(content, self.schema, told))
            fields = {piece.name for piece in pieces if isinstance(piece, _template.Field)}
            self.templates[told] = (content, fields)
        else:
            msg = f"{name} must be a template or an expression, got {type(content).__qualname__}"
            raise OptionError(msg)
        text = Text([])
        for piece in pieces:
            if isinstance(piece, str):
                text.pieces.append(piece)
                continue
            called = name if isinstance(content, pl.Expr) else f"column {piece.name!r}"
            text.pieces.append(encode.text(piece.value, piece.dtype, called))
            self.nulls[called] = piece.value.is_null()
            self.refuse_unwritable(called, piece.value, piece.dtype, is_json=piece.dtype.is_nested())
        return text

    def check_braces(self) -> None:
        """Refuse, or warn of, columns in doubled braces: each row is sent the braces, and not what is in the column.

        Raises
        ------
        TemplateError
            No template has a field; with the template that was meant.
        """
        has_field = any(fields for _, fields in self.templates.values())
        for called, (template, fields) in self.templates.items():
            found, mended = _template.undoubled(template, self.schema)
            # Who writes a column both ways knows the difference.
            doubled = [braces for braces, meant in found.items() if meant[1:-1] not in fields]
            if not doubled:
                continue
            told = (
                f"{called} has {doubled[0]}, and doubled braces mean themselves: every row is sent the same text there"
            )
            if has_field:
                warn(f"{told}. For the column write {found[doubled[0]]}")
                continue
            shown = _template.shortened(mended, mended.index(found[doubled[0]]))
            msg = f"{told}. For the column write single braces:\n{shown}"
            raise TemplateError(msg)

    def refuse_unwritable(self, called: str, value: pl.Expr, dtype: Any, *, is_json: bool = True) -> None:
        """Note the rows in which a value holds what JSON has not, or what Polars cannot write at all."""
        found = encode.not_finite(value, dtype) if is_json else None
        if found is not None:
            self.invalid[f"{called} holds NaN or infinity, which JSON has not"] = found
        found = encode.out_of_calendar(value, dtype)
        if found is not None:
            self.invalid[f"{called} holds a day beyond the year 262000, such as DuckDB's infinity"] = found

    def member(self, name: str, staged: str) -> pl.Expr:
        """Return the member of an object that an expression makes, comma first; nothing where it is null."""
        called, (value, dtype) = staged.removeprefix(BODY), self.value(staged)
        self.refuse_unwritable(called, value, dtype)
        encoded = encode.json(value, dtype, called, omit_null_fields=name in _OF_MANY_SHAPES)
        written = pl.concat_str(pl.lit(f",{json_text(name, called)}:"), encoded)
        return pl.when(value.is_not_null()).then(written).otherwise(pl.lit(""))
