"""The format of a run's answers: the dtypes of their columns, and how the texts of result lines are decoded.

Result lines give texts, whatever the endpoint (see `Answer`). The texts are stored, so they can be decoded again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import polars as pl

from batchframe._endpoints.registry import DEFAULT, ENDPOINTS

if TYPE_CHECKING:
    from batchframe._schemas.response_format import AnswerType

# Prefixes of the error message of a truncated answer, by finish_reason.
_TRUNCATED = {
    "length": "the answer was cut by the token limit (finish_reason length), so raise max_completion_tokens: ",
    "max_output_tokens": "the answer was cut by the token limit (finish_reason max_output_tokens), so raise it: ",
    "content_filter": "the answer was cut by the content filter (finish_reason content_filter): ",
}
_PROBLEM = "batchframe:problem"


@dataclass(frozen=True)
class AnswerFormat:
    """The format of a run's answers.

    Parameters
    ----------
    endpoint
        The path of the endpoint.
    choices
        The number of choices that each request asks for.
    dimensions
        The dimensions of an embedding; None if they are not known in advance.
    answer_type
        The type of the answers by ``response_format``; None if they stay text.
    """

    endpoint: str = DEFAULT.path
    choices: int = 1
    dimensions: int | None = None
    answer_type: AnswerType | None = None

    @property
    def has_choices(self) -> bool:
        """Whether the answer of a row is a list of choices."""
        return self.choices > 1 and ENDPOINTS[self.endpoint].read_choice is not None

    @cached_property
    def response(self) -> pl.DataType:
        """The dtype of the column ``response``."""
        endpoint_dtype = ENDPOINTS[self.endpoint].dtype
        if endpoint_dtype is not None:
            return endpoint_dtype(self.dimensions)
        dtype = pl.String() if self.answer_type is None else self.answer_type.decoder.dtype
        return pl.List(dtype) if self.has_choices else dtype

    @property
    def finish_reason(self) -> pl.DataType:
        """The dtype of the column ``finish_reason``."""
        return pl.List(pl.String()) if self.has_choices else pl.String()

    @property
    def max_rows(self) -> int | None:
        """The number of rows that fit in memory together if answers are large; None for texts."""
        max_rows = ENDPOINTS[self.endpoint].max_rows
        return None if max_rows is None else max_rows(self.dimensions)

    def decoded(self, answers: pl.DataFrame) -> pl.DataFrame:
        """Decode the texts of answers.

        Parameters
        ----------
        answers
            Answers with the columns of `ANSWER_SCHEMA`, read from result lines. A text that does not fit the type makes
            its row fail with ``invalid_response``, and the message says where and why.
        """
        if self.response == pl.String():
            return answers
        texts = answers.select(pl.when(pl.col("code").is_null()).then(pl.col("response"))).to_series()
        values, problems = self._values(texts)
        if self.answer_type is not None and not self.has_choices:
            values, problems = _with_single_messages(values, problems, answers["pieces"], self.answer_type)
        truncation = pl.lit("")
        if self.has_choices:
            answers = answers.with_columns(pl.col("finish_reason").str.json_decode(pl.List(pl.String())))
        else:
            truncation = pl.col("finish_reason").replace_strict(_TRUNCATED, default="", return_dtype=pl.String)
        misfits = pl.col(_PROBLEM).is_not_null()
        return (
            answers.with_columns(values.alias("response"), problems.alias(_PROBLEM))
            .with_columns(
                pl.when(misfits).then(pl.lit("invalid_response")).otherwise(pl.col("code")).alias("code"),
                pl.when(misfits)
                .then(pl.concat_str(truncation, _PROBLEM))
                .otherwise(pl.col("message"))
                .alias("message"),
            )
            .drop(_PROBLEM)
        )

    def _values(self, texts: pl.Series) -> tuple[pl.Series, pl.Series]:
        """Return the values of some texts, and the problem of each, null for a good one."""
        decode = ENDPOINTS[self.endpoint].decode
        if decode is not None:
            return decode(texts, self.dimensions)
        if not self.has_choices:
            assert self.answer_type is not None
            return self.answer_type.decoder.decode(texts)
        choices = texts.str.json_decode(pl.List(pl.String()))
        return (choices, _no_problems(texts)) if self.answer_type is None else _typed_choices(choices, self.answer_type)


def _no_problems(texts: pl.Series) -> pl.Series:
    return pl.repeat(None, len(texts), dtype=pl.String, eager=True)


def _typed_choices(choices: pl.Series, answer_type: AnswerType) -> tuple[pl.Series, pl.Series]:
    """Decode lists of texts; one choice that does not fit makes its row fail."""
    row, nth = "row", "nth"
    flat = choices.alias("text").to_frame().with_row_index(row).filter(pl.col("text").is_not_null()).explode("text")
    values, problems = answer_type.decoder.decode(flat["text"])
    message = pl.format("choice {}: {}", pl.col(nth), pl.col("problem"))
    joined = (
        flat.select(row, pl.int_range(pl.len()).over(row).alias(nth), values.alias("value"), problems.alias("problem"))
        .with_columns(pl.when(pl.col("problem").is_not_null()).then(message).alias("problem"))
        .group_by(row, maintain_order=True)
        .agg("value", pl.col("problem").drop_nulls().first())
        .with_columns(pl.when(pl.col("problem").is_null()).then(pl.col("value")).alias("value"))
    )
    rows = pl.int_range(len(choices), dtype=pl.UInt32, eager=True).alias(row).to_frame()
    decoded = rows.join(joined.cast({row: pl.UInt32}), on=row, how="left", maintain_order="left")
    return decoded["value"], decoded["problem"]


def _with_single_messages(
    values: pl.Series, problems: pl.Series, pieces: pl.Series, answer_type: AnswerType
) -> tuple[pl.Series, pl.Series]:
    """Retry answers of several messages that do not fit when joined; return the new values and problems.

    If one message fits, or all that fit are equal, that is the answer: a model may have started over.
    """
    rows = (problems.is_not_null() & pieces.is_not_null()).arg_true()
    if not len(rows):
        return values, problems
    texts = pieces.gather(rows).str.json_decode(pl.List(pl.String()))
    candidates, misfits = answer_type.decoder.decode(texts.explode())
    fitting: dict[int, set[str]] = {}
    chosen: dict[int, int] = {}
    owners = [row for row, count in zip(rows, texts.list.len(), strict=True) for _ in range(count)]
    for place, (row, value, misfit) in enumerate(zip(owners, candidates, misfits, strict=True)):
        if misfit is None:
            fitting.setdefault(row, set()).add(repr(value))
            chosen[row] = place
    agreed = {row: place for row, place in chosen.items() if len(fitting[row]) == 1}
    places = pl.Series([agreed.get(row) for row in range(len(values))], dtype=pl.UInt32)
    is_agreed = places.is_not_null()
    return candidates.gather(places).zip_with(is_agreed, values), problems.zip_with(~is_agreed, _no_problems(problems))
