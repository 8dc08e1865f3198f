"""``read_batch``: batches and result files made anywhere → the added columns, joined to a frame if one is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from batchframe._api.frames import to_polars
from batchframe._api.options import include_columns
from batchframe._api.result_sources import SourceAnswers, read_sources
from batchframe._core.column_names import CODE, CUSTOM_ID, MESSAGE, OURS
from batchframe._core.exceptions import InputError, OptionError, suggestion, warn
from batchframe._results.columns import ABSENT, CORE, PENDING, added_columns
from batchframe._results.extra_columns import EXTRA_COLUMNS
from batchframe._store.parts import MISSING

if TYPE_CHECKING:
    from collections.abc import Iterable

_KEY = OURS + "key"


# The extra columns that result files hold, without a run.
OF_FILES = tuple(name for name, column in EXTRA_COLUMNS.items() if not column.of_runs_only)


def read_batch(
    source: Any,
    frame: Any = None,
    *,
    custom_id: str | None = None,
    include: str | Iterable[str] = (),
    client: Any = None,
) -> pl.DataFrame:
    r"""Read the answers of a batch, made here or elsewhere, into the columns that `run` adds.

    Parameters
    ----------
    source
        The id of a batch, whose output and error files are downloaded; the path of an output or error file (JSONL) of
        any service; its bytes; or a list of these, such as the two files of a batch, or a batch and a second one that
        retried its failures.
    frame
        The frame that the requests came from: a Polars DataFrame or LazyFrame (evaluated here), or an object with the
        Arrow C stream. None returns the answers alone.
    custom_id
        The String or integer column of the frame with the ids of the requests. None uses the column ``custom_id``. If
        there is none, the ids are ``row-0``, ``row-1``, … in row order, as `run` numbers them.
    include
        Extra columns, as for `run`: ``"model"``, ``"request_id"``, ``"logprobs"``, ``"tool_calls"``,
        ``"content_filter"``, and ``"raw"``, the unchanged result line.
    client
        An `openai.OpenAI` or `openai.AzureOpenAI`, used if ``source`` names a batch. None makes one from the
        environment variables.

    Returns
    -------
    pl.DataFrame
        With a frame: all its rows in their order, with ``custom_id: String`` (unless the frame has that column),
        ``response: String``, ``finish_reason: String``, ``usage: Struct{input_tokens, output_tokens, total_tokens,
        cached_tokens, cache_write_tokens, reasoning_tokens: Int64}`` and ``error: Struct{code, message: String}``,
        which is null if and only if the row succeeded. Its code is ``missing`` if no line answers the row, and
        ``pending`` if a batch may still answer it.
        Without a frame: these columns, one row per id, in the order in which the ids first occur. If an id occurs more
        than once, the first success counts, otherwise the last failure. Of several choices the first is read. The
        endpoint is read from the lines: for embeddings, ``response`` is a ``List(Float32)``, for moderations the
        Struct of `run`. Answers of an endpoint that `run` does not support (images, audio, rankings) have the code
        ``invalid_response``, whose message names what they look like; ``include="raw"`` returns their lines.

    Raises
    ------
    OptionError, InputError
        An argument is invalid; or a file holds no answers of a batch, or answers of another endpoint than the file
        before it. The message names the line.
    NotVisibleError
        The batch does not exist, or this key cannot see it.
    InputFileRejectedError
        The service refused the batch's input file. There are no answers, and nothing was billed.
    RunPendingError
        The batch has not ended, and there is no frame whose rows could be returned as pending.
    ResultsError
        A result file is missing, or is stored elsewhere.

    Notes
    -----
    Reading costs nothing. Answers that match no row of the frame are left out, with a warning that counts them.

    Examples
    --------
    >>> body = '{"choices": [{"message": {"content": "4"}}]}'
    >>> line = f'{{"custom_id": "a", "response": {{"status_code": 200, "body": {body}}}}}'
    >>> sums = pl.DataFrame({"id": ["a", "b"], "sum": ["2 + 2", "3 + 4"]})
    >>> bf.read_batch(line.encode(), sums, custom_id="id").select("id", "sum", "response", "error")
    shape: (2, 4)
    ┌─────┬───────┬──────────┬─────────────────────────────────┐
    │ id  ┆ sum   ┆ response ┆ error                           │
    │ --- ┆ ---   ┆ ---      ┆ ---                             │
    │ str ┆ str   ┆ str      ┆ struct[2]                       │
    ╞═════╪═══════╪══════════╪═════════════════════════════════╡
    │ a   ┆ 2 + 2 ┆ 4        ┆ null                            │
    │ b   ┆ 3 + 4 ┆ null     ┆ {"missing","the service wrote … │
    └─────┴───────┴──────────┴─────────────────────────────────┘
    """
    extra = include_columns("include", include, OF_FILES)
    if frame is None:
        if custom_id is not None:
            msg = f"custom_id={custom_id!r} names a column of the frame, but there is no frame: pass frame too"
            raise OptionError(msg)
        read = read_sources(source, client, extra, may_be_pending=False)
        return _added(read.answers["custom_id"].unique(maintain_order=True), read)
    rows = to_polars(frame)
    eager: pl.DataFrame = rows.collect() if isinstance(rows, pl.LazyFrame) else rows
    key = _key_column(eager, custom_id)
    _check_clashes(eager, key, extra)
    numbers = pl.int_range(eager.height, eager=True)
    ids = "row-" + numbers.cast(pl.String) if key is None else eager[key].cast(pl.String)
    read = read_sources(source, client, extra, may_be_pending=True)
    _warn_of_unmatched(ids, read.answers["custom_id"], key)
    added = _added(ids, read)
    return eager.hstack(added.drop(name for name in added.columns if name == key))


def _key_column(frame: pl.DataFrame, custom_id: Any) -> str | None:
    """Return the column with the ids of the requests; None if the ids are row numbers."""
    if custom_id is None:
        custom_id = "custom_id"
        if custom_id not in frame.columns:
            return None
    if not isinstance(custom_id, str):
        msg = f"custom_id must be the name of a column, got {custom_id!r}"
        raise OptionError(msg)
    if custom_id not in frame.columns:
        columns = ", ".join(map(repr, frame.columns[:30])) + (", …" if frame.width > 30 else "")  # noqa: PLR2004
        near = suggestion(custom_id, frame.columns)
        msg = f"custom_id is {custom_id!r}, but the frame has no such column.{near} Columns: {columns or 'none'}"
        raise InputError(msg)
    dtype = frame.schema[custom_id]
    if not (isinstance(dtype, pl.String) or dtype.is_integer()):
        msg = f"custom_id column {custom_id!r} must be String or an integer, got {dtype}"
        raise InputError(msg)
    return custom_id


def _check_clashes(frame: pl.DataFrame, key: str | None, extra: tuple[str, ...]) -> None:
    """Refuse added columns that would replace columns of the frame, except for the column with the ids."""
    for name in (*CORE, *extra):
        if name in frame.columns and name != key:
            msg = f"the frame already has a column {name!r}, which the answers would add: rename or drop it"
            raise InputError(msg)
        if name == key and name != "custom_id":
            msg = f"the ids are in column {name!r}, which the answers would add: rename it"
            raise InputError(msg)


def _warn_of_unmatched(ids: pl.Series, answered: pl.Series, key: str | None) -> None:
    """Warn of answers that match no row."""
    answered = answered.unique(maintain_order=True)
    unmatched = answered.filter(~answered.is_in(ids.unique().implode()))
    if unmatched.len():
        used = "row-0, row-1, …, since it has no column custom_id" if key is None else f"those of its column {key!r}"
        warn(
            f"{unmatched.len()} of {answered.len()} ids in the source, such as {unmatched[0]!r}, match no row of the "
            f"frame and are left out. The frame's ids are {used}; pass custom_id= to use another column"
        )


def _added(ids: pl.Series, read: SourceAnswers) -> pl.DataFrame:
    """Return the added columns of the rows with these ids."""
    answers, nothing = read.answers, pl.lit(None, pl.String)
    code, message = MISSING
    rows = pl.select(ids.alias(CUSTOM_ID)).with_columns(
        pl.col(CUSTOM_ID).alias(_KEY),
        nothing.alias(CODE),
        nothing.alias(MESSAGE),
        (~pl.col(CUSTOM_ID).is_in(answers["custom_id"].implode()) & read.is_pending)
        .fill_null(value=read.is_pending)
        .alias(PENDING),
        pl.struct(pl.lit(code).alias("code"), pl.lit(message).alias("message")).alias(ABSENT),
    )
    generation = pl.lit(0, pl.UInt16).alias("generation")
    return added_columns(rows, answers.with_columns(generation), read.extra, read.form)
