"""Render rows as request lines: prompt and options are compiled to Polars expressions, evaluated a slice at a time.

No Python loop runs over rows: each slice is one evaluation, and its lines are one Arrow buffer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import polars as pl

from batchframe._core import wire_format
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
    from collections.abc import Iterable, Iterator, Mapping

    from batchframe._requests.frame_source import Source
    from batchframe._requests.request_spec import RequestSpec

_BODY = OURS + "body"

MAX_ID_CHARACTERS = 64


class Slice(NamedTuple):
    """A slice of the frame, with the index of its first row."""

    offset: int
    rows: pl.DataFrame


class MapBlocks(Protocol):
    """Calls a renderer with each slice and yields the results in order, as `map` does."""

    def __call__(self, function: BlockRenderer, slices: Iterable[Slice], /) -> Iterable[pl.DataFrame]:
        """Render each slice."""


@dataclass(frozen=True, eq=False)
class BlockRenderer:
    """Renders the request lines of a slice of rows.

    It is pure, sees no other rows, and pickles without the frame, so another process can call it.

    Parameters
    ----------
    url, max_line_bytes
        As for `compile_prompt`.
    on_null, custom_id
        As in the request spec.
    staged
        The names of the columns that `Source` added.
    body
        The JSON text of the body of a row.
    nulls, invalid
        Whether a row is left out, by the name of the null value, and by the reason.
    problems
        The reason why a row is left out; null for a good row.
    """

    url: str
    max_line_bytes: int
    on_null: str
    custom_id: str | None
    staged: frozenset[str]
    body: pl.Expr
    nulls: dict[str, pl.Expr]
    invalid: dict[str, pl.Expr]
    problems: list[pl.Expr]

    def __call__(self, piece: Slice) -> pl.DataFrame:
        """Return the user's columns and the internal ones; see `Renderer.slices`.

        Raises
        ------
        InputError
            As for `Renderer.slices`.
        """
        offset, rows = piece
        columns = [name for name in rows.columns if name not in self.staged]
        out = rows.with_columns(self._ids(rows, offset), *self._codes(rows, offset))
        body = self.body
        if out[CODE].null_count() < out.height:
            body = pl.when(pl.col(CODE).is_null()).then(body)
        out = out.with_columns(body.alias(_BODY))
        custom_id = pl.concat_str(pl.lit('"'), pl.col(CUSTOM_ID), pl.lit('"'))
        if self.custom_id is not None:  # generated ids need no escaping
            custom_id = encode.json(pl.col(CUSTOM_ID), pl.String(), "custom_id")
        line = wire_format.request_lines(custom_id, self.url, pl.col(_BODY))
        out = out.with_columns(line.alias(LINE), digest(pl.col(_BODY)).alias(DIGEST))
        too_large = pl.col(LINE).str.len_bytes() > self.max_line_bytes
        if out.select(too_large.any()).item():
            message = pl.format(
                "the request line has {} bytes; at most {} are allowed",
                pl.col(LINE).str.len_bytes(),
                pl.lit(self.max_line_bytes),
            )
            out = out.with_columns(
                pl.when(too_large).then(pl.lit("request_too_large")).otherwise(pl.col(CODE)).alias(CODE),
                pl.when(too_large).then(message).otherwise(pl.col(MESSAGE)).alias(MESSAGE),
                pl.when(~too_large).then(pl.col(LINE)).alias(LINE),
                pl.when(~too_large).then(pl.col(DIGEST)).alias(DIGEST),
            )
        # Not select(): a column may be named "*".
        return out[[*columns, CUSTOM_ID, DIGEST, CODE, MESSAGE, LINE]]

    def _ids(self, rows: pl.DataFrame, offset: int) -> pl.Series:
        if self.custom_id is None:
            numbers = pl.int_range(offset, offset + rows.height, eager=True).cast(pl.String)
            return ("row-" + numbers).alias(CUSTOM_ID)
        ids = rows[self.custom_id].cast(pl.String).alias(CUSTOM_ID)
        for is_bad, reason in (
            (ids.is_null(), "null"),
            (ids == "", "empty"),
            (ids.str.len_chars() > MAX_ID_CHARACTERS, f"longer than {MAX_ID_CHARACTERS} characters"),
        ):
            indices = is_bad.arg_true()
            if len(indices):
                row = offset + indices[0]
                msg = f"custom_id column {self.custom_id!r} is {reason} in row {row}: every row needs its own id"
                raise InputError(msg)
        return ids

    def _codes(self, rows: pl.DataFrame, offset: int) -> list[pl.Expr]:
        """Return the code and message of each row that is left out; null for a row that is sent."""
        nothing = pl.lit(None, pl.String)
        checks = {f"null:{name}": is_null for name, is_null in self.nulls.items()}
        checks |= {f"invalid:{reason}": is_invalid for reason, is_invalid in self.invalid.items()}
        checks |= {f"problem:{number}": problem for number, problem in enumerate(self.problems)}
        if not checks:
            return [nothing.alias(CODE), nothing.alias(MESSAGE)]
        flags = rows.select(expression.alias(name) for name, expression in checks.items())
        problems = flags.select(pl.col(pl.String))
        flags = flags.with_columns(pl.col(pl.String).is_not_null())
        failed = [name for name in checks if flags[name].any()]
        if self.on_null == "raise":
            for name in failed:
                if name.startswith("null:"):
                    row = offset + flags[name].arg_true()[0]
                    msg = f'{name.removeprefix("null:")} is null in row {row}, and on_null is "raise"'
                    raise InputError(msg)
        codes, messages = nothing, nothing
        for name in reversed(failed):  # reversed, so that the first of several reasons wins
            kind, _, reason = name.partition(":")
            code = "null_input" if kind == "null" else "invalid_input"
            codes = pl.when(flags[name]).then(pl.lit(code)).otherwise(codes)
            message = problems[name] if kind == "problem" else f"{reason} is null" if kind == "null" else reason
            messages = pl.when(flags[name]).then(pl.lit(message)).otherwise(messages)
        return [codes.alias(CODE), messages.alias(MESSAGE)]


@dataclass
class Renderer:
    """Renders a frame as request lines, a slice at a time; created by `compile_prompt`.

    Parameters
    ----------
    source
        The frame, with the expressions that need all of its rows.
    render_block
        The renderer of one slice.
    """

    source: Source
    render_block: BlockRenderer

    @property
    def url(self) -> str:
        """The endpoint in the spelling of the service."""
        return self.render_block.url

    @property
    def custom_id(self) -> str | None:
        """The name of the user's column of ids."""
        return self.render_block.custom_id

    def slices(self, map_blocks: MapBlocks = map) -> Iterable[pl.DataFrame]:
        """Return each slice with the user's columns and the internal ones: custom_id, digest, code, message, line.

        ``line`` is the exact JSON line with its newline. It and ``digest`` are null for a row that is left out;
        ``code`` and ``message`` say why.

        Parameters
        ----------
        map_blocks
            Calls the renderer with each slice; the ``map`` of an executor renders several at a time.

        Raises
        ------
        InputError
            A custom_id is null, empty or too long; or a value is null and ``on_null="raise"``.
        """
        return map_blocks(self.render_block, self._pieces())

    def _pieces(self) -> Iterator[Slice]:
        offset = 0
        for rows in self.source.slices():
            yield Slice(offset, rows)
            offset += rows.height


def compile_prompt(
    frame: pl.DataFrame | pl.LazyFrame, spec: RequestSpec, max_line_bytes: int, url: str | None = None
) -> Renderer:
    """Check a request spec against a frame, and return the renderer of its rows.

    Parameters
    ----------
    frame, spec
        The rows, and the request that each becomes.
    max_line_bytes
        The size limit of an input file, and so of a line.
    url
        The endpoint in the spelling of the service; None for that of the spec.

    Raises
    ------
    TemplateError, OptionError, InputError
        The prompt, an option or the frame does not fit. Only the schema of the frame was evaluated.
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
    prompt = compiled(scope, spec)
    parameters = members(scope, dict(sorted({**endpoint.default_parameters, **spec.body}.items())))
    opening = f'{{"model":{json_text(spec.model, "model")},"{endpoint.prompt_member}":'
    body = join([opening, *prompt, *parameters, "}"])
    render_block = BlockRenderer(
        url=url or spec.endpoint,
        max_line_bytes=max_line_bytes,
        on_null=spec.on_null,
        custom_id=spec.custom_id,
        staged=frozenset(source.staged),
        body=body,
        nulls=scope.nulls if spec.on_null != "render" else {},
        invalid=scope.invalid,
        # A name makes a plain expression of them: what `then` returns, the oldest Polars pickles and cannot unpickle.
        problems=[problem.alias("problem") for problem in scope.problems],
    )
    return Renderer(source, render_block)


def _check_custom_id(name: str | None, schema: Mapping[str, Any]) -> None:
    if name is None:
        return
    if name not in schema:
        raise TemplateError.from_unknown_column(name, schema, "custom_id")
    if not (isinstance(schema[name], pl.String) or schema[name].is_integer()):
        msg = f"custom_id column {name!r} is {schema[name]}: it must be String or an integer"
        raise InputError(msg)


def refuse_duplicates(rows: pl.LazyFrame, column: str) -> None:
    """Refuse duplicate ids.

    Parameters
    ----------
    rows
        All rendered rows, in order.
    column
        The name of the user's column of ids.

    Raises
    ------
    InputError
        An id occurs twice; the message names it and its rows.
    """
    ids = rows.select(CUSTOM_ID)
    duplicates = ids.group_by(CUSTOM_ID).len().filter(pl.col("len") > 1).head(1).collect(engine="streaming")
    if duplicates.height:
        value = duplicates[CUSTOM_ID][0]
        indices = ids.with_row_index(OURS + "row").filter(pl.col(CUSTOM_ID) == value).head(5).collect()
        numbers = ", ".join(map(str, indices[OURS + "row"]))
        msg = (
            f"custom_id column {column!r} has {value!r} in rows {numbers}: each row needs its own id, or the service "
            "rejects the file. Drop the duplicates, or omit custom_id"
        )
        raise InputError(msg)
