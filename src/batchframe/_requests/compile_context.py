"""The context in which a prompt is compiled. It collects what may be wrong with a row."""

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

BODY = "body:"  # prefix of a staged parameter, so that its name differs from other staged columns
# A column has one dtype, so the properties of other rows' tools are null fields, which are omitted.
_OMIT_NULL_FIELDS = frozenset({"tools", "functions"})
# The pieces that are joined into a body: constant texts and expressions.
Pieces = list[str | pl.Expr]


@dataclass
class Text:
    """The text of a row, as pieces to join."""

    pieces: Pieces

    @property
    def constant(self) -> str | None:
        """The text if it is the same for all rows, else None."""
        return "".join(self.pieces) if all(isinstance(piece, str) for piece in self.pieces) else None  # type: ignore[arg-type]

    def expression(self, on_null: str) -> pl.Expr:
        """Return the text as an expression, null where a piece is null, unless ``on_null`` is "render"."""
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
    """The frame and options for which a prompt is compiled, and the checks of each row.

    Parameters
    ----------
    staged
        The columns and dtypes of the frame with the staged expressions.
    schema
        The columns and dtypes of the user's frame.
    nulls
        Whether an input is null, by its label.
    invalid
        Whether a row cannot be sent, by the reason.
    problems
        The reason why a row cannot be sent, null where it can. For reasons that quote the row's value.
    templates
        The templates and the names of their fields, by label.
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
        """Return the staged column of an expression, and its dtype."""
        return pl.col(OURS + name), self.staged[OURS + name]

    def text(self, content: Any, name: str) -> Text:
        """Return the text of a template or expression, and add the checks of its inputs.

        Parameters
        ----------
        content
            The template, or the expression.
        name
            Its name in error messages and as a staged column.
        """
        pieces: list[str | _template.Field]
        if isinstance(content, pl.Expr):
            value, dtype = self.value(name)
            pieces = [_template.Field((name,), dtype, value)]
        elif isinstance(content, str):
            template_label = "the prompt" if name == "prompt" else name
            pieces = list(_template.parse(content, self.schema, template_label))
            fields = {piece.name for piece in pieces if isinstance(piece, _template.Field)}
            self.templates[template_label] = (content, fields)
        else:
            msg = f"{name} must be a template or an expression, got {type(content).__qualname__}"
            raise OptionError(msg)
        text = Text([])
        for piece in pieces:
            if isinstance(piece, str):
                text.pieces.append(piece)
                continue
            label = name if isinstance(content, pl.Expr) else f"column {piece.name!r}"
            text.pieces.append(encode.text(piece.value, piece.dtype, label))
            self.nulls[label] = piece.value.is_null()
            self.refuse_unwritable(label, piece.value, piece.dtype, is_json=piece.dtype.is_nested())
        return text

    def check_braces(self) -> None:
        """Refuse columns in doubled braces, or warn if another field exists: the column's value would not be sent.

        Raises
        ------
        TemplateError
            No template has a field. The error gives the corrected template.
        """
        has_field = any(fields for _, fields in self.templates.values())
        for label, (template, fields) in self.templates.items():
            undoubled, corrected = _template.undoubled(template, self.schema)
            # A user who writes the same column both ways knows the difference.
            doubled = [braces for braces, single in undoubled.items() if single[1:-1] not in fields]
            if not doubled:
                continue
            problem = (
                f"{label} has {doubled[0]}: doubled braces are literal text, so every row sends the same text there"
            )
            single = undoubled[doubled[0]]
            if has_field:
                warn(f"{problem}. For the column, write {single}")
                continue
            shown = _template.shortened(corrected, corrected.index(single))
            msg = f"{problem}. For the column, write single braces:\n{shown}"
            raise TemplateError(msg)

    def refuse_unwritable(self, label: str, value: pl.Expr, dtype: Any, *, is_json: bool = True) -> None:
        """Add the checks for values that JSON cannot represent or Polars cannot format."""
        is_invalid = encode.not_finite(value, dtype) if is_json else None
        if is_invalid is not None:
            self.invalid[f"{label} contains NaN or infinity, which JSON cannot represent"] = is_invalid
        is_invalid = encode.out_of_calendar(value, dtype)
        if is_invalid is not None:
            self.invalid[f"{label} contains a date beyond the year 262000, such as DuckDB's infinity"] = is_invalid

    def member(self, name: str, staged: str) -> pl.Expr:
        """Return the member of a body from a staged expression, with a leading comma; empty where it is null."""
        label, (value, dtype) = staged.removeprefix(BODY), self.value(staged)
        self.refuse_unwritable(label, value, dtype)
        encoded = encode.json(value, dtype, label, omit_null_fields=name in _OMIT_NULL_FIELDS)
        pair = pl.concat_str(pl.lit(f",{json_text(name, label)}:"), encoded)
        return pl.when(value.is_not_null()).then(pair).otherwise(pl.lit(""))
