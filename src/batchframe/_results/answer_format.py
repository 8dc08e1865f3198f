"""What the answers of a run are: the dtypes of their columns, and how the texts of result lines become these.

Lines give texts, whatever the endpoint (see `Answer`), and texts are kept: what is made of them can be made again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import polars as pl

from batchframe._endpoints.registry import DEFAULT, ENDPOINTS

if TYPE_CHECKING:
    from batchframe._schemas.response_format import AnswerType

# Why a model stopped in the middle of an answer, by finish_reason.
_CUT = {
    "length": "the answer was cut by the token limit (finish_reason length), so raise max_completion_tokens: ",
    "max_output_tokens": "the answer was cut by the token limit (finish_reason max_output_tokens), so raise it: ",
    "content_filter": "the answer was cut by the content filter (finish_reason content_filter): ",
}
_PROBLEM = "batchframe:problem"


@dataclass(frozen=True)
class AnswerFormat:
    """What the answers of a run are.

    Parameters
    ----------
    endpoint
        What was asked.
    choices
        How many choices a request asks for.
    dimensions
        Of an embedding; None where they are not known before the answers.
    answer_type
        What ``response_format`` says that a text must be, None where it stays text.
    """

    endpoint: str = DEFAULT.path
    choices: int = 1
    dimensions: int | None = None
    answer_type: AnswerType | None = None

    @property
    def is_many(self) -> bool:
        """Whether a row has several choices."""
        return self.choices > 1 and ENDPOINTS[self.endpoint].read_choice is not None

    @cached_property
    def response(self) -> pl.DataType:
        """The dtype of the column ``response``."""
        dtype = ENDPOINTS[self.endpoint].dtype
        if dtype is not None:
            return dtype(self.dimensions)
        one = pl.String() if self.answer_type is None else self.answer_type.decoder.dtype
        return pl.List(one) if self.is_many else one

    @property
    def finish_reason(self) -> pl.DataType:
        """The dtype of the column ``finish_reason``."""
        return pl.List(pl.String()) if self.is_many else pl.String()

    @property
    def max_rows(self) -> int | None:
        """How many rows can be held together, where answers are large; None where they are texts."""
        max_rows = ENDPOINTS[self.endpoint].max_rows
        return None if max_rows is None else max_rows(self.dimensions)

    def decoded(self, answers: pl.DataFrame) -> pl.DataFrame:
        """Return answers with what their texts say in the place of the texts.

        Parameters
        ----------
        answers
            Answers with the columns of `ANSWER_SCHEMA`, as the lines of result files say them. Where a text does not
            say what it must, the answer failed with ``invalid_response``, and says where and why.
        """
        if self.response == pl.String():
            return answers
        texts = answers.select(pl.when(pl.col("code").is_null()).then(pl.col("response"))).to_series()
        values, problems = self._values(texts)
        if self.answer_type is not None and not self.is_many:
            values, problems = _of_one_message(values, problems, answers["pieces"], self.answer_type)
        cut = pl.lit("")
        if self.is_many:
            answers = answers.with_columns(pl.col("finish_reason").str.json_decode(pl.List(pl.String())))
        else:
            cut = pl.col("finish_reason").replace_strict(_CUT, default="", return_dtype=pl.String)
        misfits = pl.col(_PROBLEM).is_not_null()
        return (
            answers.with_columns(values.alias("response"), problems.alias(_PROBLEM))
            .with_columns(
                pl.when(misfits).then(pl.lit("invalid_response")).otherwise(pl.col("code")).alias("code"),
                pl.when(misfits).then(pl.concat_str(cut, _PROBLEM)).otherwise(pl.col("message")).alias("message"),
            )
            .drop(_PROBLEM)
        )

    def _values(self, texts: pl.Series) -> tuple[pl.Series, pl.Series]:
        """Return what some texts say, and what is wrong with each, null where nothing is."""
        decode = ENDPOINTS[self.endpoint].decode
        if decode is not None:
            return decode(texts, self.dimensions)
        if not self.is_many:
            assert self.answer_type is not None
            return self.answer_type.decoder.decode(texts)
        choices = texts.str.json_decode(pl.List(pl.String()))
        return (choices, _nothing_wrong(texts)) if self.answer_type is None else _typed(choices, self.answer_type)


def _nothing_wrong(texts: pl.Series) -> pl.Series:
    return pl.repeat(None, len(texts), dtype=pl.String, eager=True)


def _typed(choices: pl.Series, answer_type: AnswerType) -> tuple[pl.Series, pl.Series]:
    """Return lists of values of lists of texts; one choice that does not fit fails its row."""
    row, nth = "row", "nth"
    flat = choices.alias("text").to_frame().with_row_index(row).filter(pl.col("text").is_not_null()).explode("text")
    values, problems = answer_type.decoder.decode(flat["text"])
    told = pl.format("choice {}: {}", pl.col(nth), pl.col("problem"))
    joined = (
        flat.select(row, pl.int_range(pl.len()).over(row).alias(nth), values.alias("value"), problems.alias("problem"))
        .with_columns(pl.when(pl.col("problem").is_not_null()).then(told).alias("problem"))
        .group_by(row, maintain_order=True)
        .agg("value", pl.col("problem").drop_nulls().first())
        .with_columns(pl.when(pl.col("problem").is_null()).then(pl.col("value")).alias("value"))
    )
    rows = pl.int_range(len(choices), dtype=pl.UInt32, eager=True).alias(row).to_frame()
    found = rows.join(joined.cast({row: pl.UInt32}), on=row, how="left", maintain_order="left")
    return found["value"], found["problem"]


def _of_one_message(
    values: pl.Series, problems: pl.Series, pieces: pl.Series, answer_type: AnswerType
) -> tuple[pl.Series, pl.Series]:
    """Return values and problems after a second look at answers of several messages that do not fit as a whole.

    Where one of the messages fits, or all that do say the same, that is the answer: a model may have begun anew.
    """
    rows = (problems.is_not_null() & pieces.is_not_null()).arg_true()
    if not len(rows):
        return values, problems
    texts = pieces.gather(rows).str.json_decode(pl.List(pl.String()))
    found, misfits = answer_type.decoder.decode(texts.explode())
    fitting: dict[int, set[str]] = {}
    chosen: dict[int, int] = {}
    owners = [row for row, count in zip(rows, texts.list.len(), strict=True) for _ in range(count)]
    for place, (row, value, misfit) in enumerate(zip(owners, found, misfits, strict=True)):
        if misfit is None:
            fitting.setdefault(row, set()).add(repr(value))
            chosen[row] = place
    agreed = {row: place for row, place in chosen.items() if len(fitting[row]) == 1}
    places = pl.Series([agreed.get(row) for row in range(len(values))], dtype=pl.UInt32)
    is_agreed = places.is_not_null()
    return found.gather(places).zip_with(is_agreed, values), problems.zip_with(~is_agreed, _nothing_wrong(problems))
