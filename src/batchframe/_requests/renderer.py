"""Rows → request lines: the prompt and the options become Polars expressions, evaluated a slice at a time.

No Python loop runs over rows here: each slice is one evaluation, and its lines are one Arrow buffer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from batchframe._core.column_names import CODE, CUSTOM_ID, DIGEST, LINE, MESSAGE, OURS
from batchframe._core.digests import digest
from batchframe._core.exceptions import InputError, OptionError, TemplateError
from batchframe._core.json_values import json_text
from batchframe._endpoints import parameter_checks
from batchframe._endpoints.registry import ENDPOINTS
from batchframe._requests import encode, template
from batchframe._requests.compile_context import BODY, CompileContext
from batchframe._requests.prompt import compiled, join, members, stage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from batchframe._requests.frame_source import Source
    from batchframe._requests.request_spec import RequestSpec

_BODY = OURS + "body"

MAX_ID_CHARACTERS = 64


@dataclass
class Renderer:
    """What turns a slice of rows into request lines; made by `compile_prompt`.

    Parameters
    ----------
    source
        The frame, with the expressions that see the whole of it.
    """

    source: Source
    url: str
    max_line_bytes: int
    on_null: str
    custom_id: str | None
    _body: pl.Expr
    _nulls: dict[str, pl.Expr]
    _invalid: dict[str, pl.Expr]
    _problems: list[pl.Expr]

    def slices(self) -> Iterator[pl.DataFrame]:
        """Yield, slice by slice, the user's columns and ours: custom_id, digest, code, message and line.

        ``line`` is the exact JSON line with its newline; null, like ``digest``, where the row is not sent. ``code``
        and ``message`` say why.

        Raises
        ------
        InputError
            A custom_id is null, empty, too long or of a wrong dtype; a null where ``on_null="raise"``.
        """
        offset = 0
        for rows in self.source.slices():
            yield self._render(rows, offset)
            offset += rows.height

    def _render(self, rows: pl.DataFrame, offset: int) -> pl.DataFrame:
        kept = [name for name in rows.columns if name not in self.source.staged]
        out = rows.with_columns(self._ids(rows, offset), *self._codes(rows, offset))
        body = self._body
        if out[CODE].null_count() < out.height:
            body = pl.when(pl.col(CODE).is_null()).then(body)
        out = out.with_columns(body.alias(_BODY))
        head, tail = '{"custom_id":', f',"method":"POST","url":{json_text(self.url, "endpoint")},"body":'
        custom_id = pl.concat_str(pl.lit('"'), pl.col(CUSTOM_ID), pl.lit('"'))
        if self.custom_id is not None:  # ours have nothing to escape
            custom_id = encode.json(pl.col(CUSTOM_ID), pl.String(), "custom_id")
        line = pl.concat_str(pl.lit(head), custom_id, pl.lit(tail), pl.col(_BODY), pl.lit("}\n"))
        out = out.with_columns(line.alias(LINE), digest(pl.col(_BODY)).alias(DIGEST))
        too_large = pl.col(LINE).str.len_bytes() > self.max_line_bytes
        if out.select(too_large.any()).item():
            said = pl.format(
                "the request line has {} bytes, and at most {} are allowed",
                pl.col(LINE).str.len_bytes(),
                pl.lit(self.max_line_bytes),
            )
            out = out.with_columns(
                pl.when(too_large).then(pl.lit("request_too_large")).otherwise(pl.col(CODE)).alias(CODE),
                pl.when(too_large).then(said).otherwise(pl.col(MESSAGE)).alias(MESSAGE),
                pl.when(~too_large).then(pl.col(LINE)).alias(LINE),
                pl.when(~too_large).then(pl.col(DIGEST)).alias(DIGEST),
            )
        # Not select: a column may be called "*".
        return out[[*kept, CUSTOM_ID, DIGEST, CODE, MESSAGE, LINE]]

    def _ids(self, rows: pl.DataFrame, offset: int) -> pl.Series:
        if self.custom_id is None:
            numbers = pl.int_range(offset, offset + rows.height, eager=True).cast(pl.String)
            return ("row-" + numbers).alias(CUSTOM_ID)
        ids = rows[self.custom_id].cast(pl.String).alias(CUSTOM_ID)
        for found, said in (
            (ids.is_null(), "null"),
            (ids == "", "empty"),
            (ids.str.len_chars() > MAX_ID_CHARACTERS, f"longer than {MAX_ID_CHARACTERS} characters"),
        ):
            where = found.arg_true()
            if len(where):
                row = offset + where[0]
                msg = f"custom_id column {self.custom_id!r} is {said} in row {row}: every row needs an id of its own"
                raise InputError(msg)
        return ids

    def _codes(self, rows: pl.DataFrame, offset: int) -> list[pl.Expr]:
        """Return why each row is not sent, null where it is."""
        nothing = pl.lit(None, pl.String)
        flags = {f"null:{name}": found for name, found in self._nulls.items()}
        flags |= {f"invalid:{said}": found for said, found in self._invalid.items()}
        flags |= {f"problem:{number}": problem for number, problem in enumerate(self._problems)}
        if not flags:
            return [nothing.alias(CODE), nothing.alias(MESSAGE)]
        found = rows.select(expression.alias(name) for name, expression in flags.items())
        told = found.select(pl.col(pl.String))
        found = found.with_columns(pl.col(pl.String).is_not_null())
        hit = [name for name in flags if found[name].any()]
        if self.on_null == "raise":
            for name in hit:
                if name.startswith("null:"):
                    row = offset + found[name].arg_true()[0]
                    msg = f'{name.removeprefix("null:")} is null in row {row}, and on_null="raise" was asked for'
                    raise InputError(msg)
        codes, messages = nothing, nothing
        for name in reversed(hit):  # the first one found is the one that is told
            kind, _, said = name.partition(":")
            code = "null_input" if kind == "null" else "invalid_input"
            codes = pl.when(found[name]).then(pl.lit(code)).otherwise(codes)
            message = told[name] if kind == "problem" else f"{said} is null" if kind == "null" else said
            messages = pl.when(found[name]).then(pl.lit(message)).otherwise(messages)
        return [codes.alias(CODE), messages.alias(MESSAGE)]


def compile_prompt(
    frame: pl.DataFrame | pl.LazyFrame, spec: RequestSpec, max_line_bytes: int, url: str | None = None
) -> Renderer:
    """Check a request spec against a frame, and return what renders its rows.

    Parameters
    ----------
    frame, spec
        The rows, and what is made of each.
    max_line_bytes
        What an input file may hold.
    url
        The endpoint as the service spells it in a line; None: as we do.

    Raises
    ------
    TemplateError, OptionError, InputError
        The prompt, an option or the frame does not fit; nothing was evaluated but the frame's schema.
    """
    if isinstance(spec.prompt, pl.Series):
        msg = 'the prompt is a Series: add it to the frame and pass its column, such as pl.col("prompt")'
        raise OptionError(msg)
    schema = frame.collect_schema()
    _check_custom_id(spec.custom_id, schema)
    endpoint = ENDPOINTS[spec.endpoint]
    source = stage(frame, spec)
    scope = CompileContext(source.schema(), schema, spec.on_null, endpoint)
    dtypes = {name: scope.value(BODY + name)[1] for name in spec.parameters if OURS + BODY + name in scope.staged}
    parameter_checks.check_dtypes(spec.endpoint, dtypes)
    for name, value in spec.parameters.items():
        if isinstance(value, str):
            template.refuse_fields(value, scope.schema, name)
    asked = compiled(scope, spec)
    parameters = members(scope, dict(sorted({**endpoint.default_parameters, **spec.body}.items())))
    opening = f'{{"model":{json_text(spec.model, "model")},"{endpoint.prompt_member}":'
    body = join([opening, *asked, *parameters, "}"])
    return Renderer(
        source=source,
        url=url or spec.endpoint,
        max_line_bytes=max_line_bytes,
        on_null=spec.on_null,
        custom_id=spec.custom_id,
        _body=body,
        _nulls=scope.nulls if spec.on_null != "render" else {},
        _invalid=scope.invalid,
        _problems=scope.problems,
    )


def _check_custom_id(name: str | None, schema: Mapping[str, Any]) -> None:
    if name is None:
        return
    if name not in schema:
        raise TemplateError.from_unknown_column(name, schema, "custom_id")
    if not (isinstance(schema[name], pl.String) or schema[name].is_integer()):
        msg = f"custom_id column {name!r} is {schema[name]}: it must be String or an integer"
        raise InputError(msg)


def refuse_duplicates(rows: pl.LazyFrame, column: str) -> None:
    """Refuse ids that occur twice.

    Parameters
    ----------
    rows
        All rows as they were rendered, in their order.
    column
        The user's column that the ids are from.

    Raises
    ------
    InputError
        Names an id, and its rows.
    """
    ids = rows.select(CUSTOM_ID)
    twice = ids.group_by(CUSTOM_ID).len().filter(pl.col("len") > 1).head(1).collect(engine="streaming")
    if twice.height:
        value = twice[CUSTOM_ID][0]
        where = ids.with_row_index(OURS + "row").filter(pl.col(CUSTOM_ID) == value).head(5).collect()
        told = ", ".join(map(str, where[OURS + "row"]))
        msg = (
            f"custom_id column {column!r} has {value!r} in rows {told}: each row needs its own, or the service "
            "refuses the file. Drop the duplicates, or leave custom_id out"
        )
        raise InputError(msg)
