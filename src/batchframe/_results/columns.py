"""Turn answers into the added columns: always all of them, with the same dtypes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from batchframe._core.column_names import CODE, CUSTOM_ID, MESSAGE, OURS
from batchframe._core.exceptions import InputError
from batchframe._endpoints.usage import TOKENS
from batchframe._results.extra_columns import EXTRA_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from batchframe._results.answer_format import AnswerFormat

USAGE = pl.Struct(dict.fromkeys(TOKENS, pl.Int64()))
ERROR = pl.Struct({"code": pl.String(), "message": pl.String()})

CORE = {
    "custom_id": pl.String(),
    "response": pl.String(),
    "finish_reason": pl.String(),
    "usage": USAGE,
    "error": ERROR,
}

PENDING = OURS + "pending"
# The error of a row if it has no answer: a Struct of code and message.
ABSENT = OURS + "absent"
_HAS_ANSWER = OURS + "has_answer"


def added_schema(include: Iterable[str], form: AnswerFormat) -> dict[str, pl.DataType]:
    """Return the names (without prefix) and dtypes of the added columns, in order.

    Parameters
    ----------
    include
        The names of the extra columns.
    form
        The format of the answers.
    """
    answered = {"response": form.response, "finish_reason": form.finish_reason}
    return CORE | answered | {name: EXTRA_COLUMNS[name].dtype_for(form) for name in include}


def check_clashes(
    columns: Mapping[str, pl.DataType], include: Iterable[str], prefix: str, custom_id: str | None
) -> None:
    """Refuse added columns that would overwrite the user's.

    The column that `custom_id` names may exist: it holds the same values.

    Raises
    ------
    InputError
        A name clashes.
    """
    for name in (*CORE, *include):
        if prefix + name in columns and not is_same(name, columns, prefix, custom_id):
            msg = (
                f"the frame has a column {prefix + name!r} already, which would be overwritten: pass "
                f'prefix="{prefix}batch_" (or another) to name the added columns, or rename yours'
            )
            raise InputError(msg)


def is_same(name: str, columns: Mapping[str, pl.DataType], prefix: str, custom_id: str | None) -> bool:
    """Whether an added column is the user's own id column."""
    return name == "custom_id" == custom_id and prefix == "" and isinstance(columns["custom_id"], pl.String)


def with_default(column: pl.Expr, name: str) -> pl.Expr:
    """Fill an extra column with its default where there is no answer; other columns do not change."""
    default = EXTRA_COLUMNS[name].default if name in EXTRA_COLUMNS else None
    return column if default is None else column.fill_null(value=default)


def best_answers(answers: pl.DataFrame) -> pl.DataFrame:
    """Return one answer per request: its first success, else its last failure; newer generations come first.

    Parameters
    ----------
    answers
        Answers in the order of their requests, each with its ``generation``.
    """
    if answers["custom_id"].n_unique() == answers.height:
        return answers
    order = pl.int_range(pl.len())
    failed = pl.col("code").is_not_null()
    rank = pl.struct(failed, -pl.col("generation").cast(pl.Int64), pl.when(failed).then(-order).otherwise(order))
    ranked = answers.with_columns(rank.struct.rename_fields(["failed", "newest", "nth"]).alias(OURS + "rank"))
    return ranked.sort(OURS + "rank").unique("custom_id", keep="first", maintain_order=True).drop(OURS + "rank")


def _join(rows: pl.DataFrame, answers: pl.DataFrame) -> pl.DataFrame:
    flagged = answers.with_columns(pl.lit(value=True).alias(_HAS_ANSWER))
    return rows.join(flagged, left_on=OURS + "key", right_on="custom_id", how="left", maintain_order="left")


def added_columns(
    rows: pl.DataFrame, answers: pl.DataFrame, include: Iterable[str], form: AnswerFormat
) -> pl.DataFrame:
    """Return the added columns of some rows, in the order of the rows.

    Parameters
    ----------
    rows
        The internal columns of the rows: custom_id; code and message of a row that is not sent; whether the row is
        pending; code and message of a row without an answer; and ``batchframe:key``, the custom_id of its request.
    answers
        Answers in the order of their requests, each with its ``batch_id`` and whether it is ``reused``. The first
        success of a request counts, else its last failure. Answers to other requests are ignored.
    include
        The names of the extra columns, which the answers must have.
    form
        The format of the answers.
    """
    if form.response != answers.schema["response"]:
        # Decoded before the best answer is chosen: an answer that does not fit is not a success.
        own = answers.join(rows, left_on="custom_id", right_on=OURS + "key", how="semi", maintain_order="left")
        answers = form.decoded(own)
    joined = _join(rows, answers)
    if joined.height > rows.height:
        joined = _join(rows, best_answers(answers))
    has_answer = pl.col(_HAS_ANSWER).fill_null(value=False)
    succeeded = has_answer & pl.col("code").is_null()
    code = (
        pl.when(pl.col(CODE).is_not_null()).then(pl.col(CODE))
        .when(succeeded).then(pl.lit(None, pl.String))
        .when(pl.col(PENDING)).then(pl.lit("pending"))
        .when(has_answer).then(pl.col("code"))
        .otherwise(pl.col(ABSENT).struct.field("code"))
    )  # fmt: skip
    message = (
        pl.when(pl.col(CODE).is_not_null()).then(pl.col(MESSAGE))
        .when(pl.col(PENDING)).then(pl.lit("not answered yet"))
        .when(has_answer).then(pl.col("message"))
        .otherwise(pl.col(ABSENT).struct.field("message"))
    )  # fmt: skip
    has_usage = pl.any_horizontal(pl.col(name).is_not_null() for name in TOKENS)
    columns = {
        "custom_id": pl.col(CUSTOM_ID),
        "response": pl.when(succeeded).then(pl.col("response")),
        "finish_reason": pl.col("finish_reason"),
        "usage": pl.when(has_usage).then(pl.struct(TOKENS)),
        "error": pl.when(code.is_not_null()).then(pl.struct(code.alias("code"), message.alias("message"))),
    }
    columns |= {name: with_default(pl.col(name), name) for name in include}
    core = added_schema((), form)
    return joined.select(expression.alias(name) for name, expression in columns.items()).cast(core)  # type: ignore[arg-type]
