"""A run's rows and downloaded bytes become result blocks: a pure function of its files, which can be done again."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any

import polars as pl

from batchframe._core.column_names import CODE, CUSTOM_ID, DIGEST, MESSAGE, OURS, REQUEST
from batchframe._results.answer_format import AnswerFormat
from batchframe._results.columns import ABSENT, ERROR, PENDING, added_columns
from batchframe._results.extra_columns import BESIDE_ANSWERS, columns_of_lines
from batchframe._results.parsed_answers import LINES, known_schema, part_answers
from batchframe._store.parts import MISSING, PartState, ids_of, part_states

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from batchframe._store.records import PartRecord
    from batchframe._store.run_folder import RunFolder

_KEY = OURS + "key"
_HELD_BYTES = 64_000_000
# Of result lines that are looked at together.
_PIECE_BYTES = 32_000_000
OUR_COLUMNS = (CUSTOM_ID, DIGEST, REQUEST, CODE, MESSAGE)


@dataclass
class Assembler:
    """Joins answers to rows, a block at a time.

    Parameters
    ----------
    folder
        The run.
    from_lines
        Which of the columns are wanted that are made of whole result lines.
    form
        What the answers are.
    """

    folder: RunFolder
    from_lines: tuple[str, ...] = ()
    form: AnswerFormat = field(default_factory=AnswerFormat)
    states: list[PartState] = field(init=False)
    _read: dict[Path, pl.DataFrame] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.states = part_states(self.folder)

    def block(self, number: int) -> pl.DataFrame:
        """Return one block whole: its `pieces`."""
        return pl.concat(self.pieces(number))

    def pieces(self, number: int) -> Iterator[pl.DataFrame]:
        """Yield one block: the input columns, the request digest, the added ones (as ``batchframe:…``), in row order.

        Rows without an answer are ``pending`` while one may come, and else have the error of their last part. There are
        several pieces where columns of whole lines are wanted: a line may be a hundred times as large as its answer.
        """
        stored = self.folder.read_frame(self.folder.rows_path(number))
        rows = stored.select(*OUR_COLUMNS).with_columns(pl.coalesce(REQUEST, CUSTOM_ID).alias(_KEY))
        touching = [state for state in self.states if self._holds(state.record, number, rows)]
        rows = rows.with_columns(
            self._pending(touching, number, rows).alias(PENDING), self._absent(touching, rows).alias(ABSENT)
        )
        answers = self._answers_to(rows, touching)
        added = added_columns(
            rows, answers, [*BESIDE_ANSWERS, *LINES] if self._has_lines else BESIDE_ANSWERS, self.form
        )
        block = stored.drop(name for name in OUR_COLUMNS if name != DIGEST)
        block = block.hstack(added.rename({name: OURS + name for name in added.columns}))
        if not self._has_lines:
            yield block
            return
        for piece in self._cut(block):
            made = columns_of_lines(self._lines(piece), self.from_lines, self.form)
            own = piece.drop(OURS + name for name in LINES)
            yield own.hstack([column.alias(OURS + column.name) for column in made])

    @property
    def _has_lines(self) -> bool:
        return bool(self.from_lines)

    def _cut(self, block: pl.DataFrame) -> Iterator[pl.DataFrame]:
        """Yield a block in slices whose lines have some bytes together."""
        size = block[OURS + "line_bytes"].fill_null(0)
        offset = 0
        for height in ((size.cum_sum() - size) // _PIECE_BYTES).rle().struct.field("len") if block.height else [0]:
            yield block[offset : offset + height]
            offset += height

    def _lines(self, piece: pl.DataFrame) -> list[bytes | None]:
        """Return the result line of each row's answer."""
        found: list[bytes | None] = [None] * piece.height
        places = piece.select(OURS + name for name in LINES).with_row_index().drop_nulls()
        for (name,), of_file in places.group_by(OURS + "line_file"):
            with self.folder.open(str(name)) as handle:
                for index, _, at, size in of_file.sort(OURS + "line_at").iter_rows():
                    handle.seek(at)
                    found[index] = handle.read(size)
        return found

    def _holds(self, part: PartRecord, block: int, rows: pl.DataFrame) -> bool:
        if part.ranges is not None:
            return any(found == block for found, _, _ in part.ranges)
        return bool(rows[_KEY].is_in(_all_ids(part)).any())

    def _pending(self, touching: list[PartState], block: int, rows: pl.DataFrame) -> pl.Series:
        """Return which rows an answer may still come for; those that are in no part yet count among them."""
        live = settled = pl.repeat(value=False, n=rows.height, dtype=pl.Boolean, eager=True)
        if _shares_answers(rows):
            # A row may be answered by another row's request, wherever in the run that is.
            return _is_among(rows[_KEY], self._live_ids) | ~_is_among(rows[_KEY], self._settled_ids)
        for state in touching:
            mine = _mine(state.record, block, rows)
            live = live | mine if state.is_live else live
            settled = settled | mine if state.is_done else settled
            if state.record.rejected:
                settled = settled | rows[_KEY].is_in(_rejected_ids(state.record))
        return live | ~settled

    def _absent(self, touching: list[PartState], rows: pl.DataFrame) -> pl.Series:
        """Return the code and message of each row if it should have no answer."""
        states = [state for state in (self.states if _shares_answers(rows) else touching) if state.is_done]
        errors = pl.repeat(_struct(MISSING), rows.height, dtype=ERROR, eager=True)
        if all(state.absent is MISSING for state in states):
            return errors
        # An attempt that was executed says more than one that was not submitted, whichever came later.
        for state in sorted(states, key=lambda state: state.absent[0] != "not_submitted"):
            if not state.is_replaced:
                mine = _is_among(rows[_KEY], self._ids_of([state.record]))
                absent = pl.repeat(_struct(state.absent), rows.height, dtype=ERROR, eager=True)
                errors = errors.zip_with(~mine, absent)
        return errors

    @cached_property
    def _live_ids(self) -> pl.Series:
        return self._ids_of(state.record for state in self.states if state.is_live)

    @cached_property
    def _settled_ids(self) -> pl.Series:
        rejected = [found.custom_id for state in self.states for found in state.record.rejected]
        ids = self._ids_of(state.record for state in self.states if state.is_done)
        return pl.concat([ids, pl.Series(_KEY, rejected, dtype=pl.String)])

    def _ids_of(self, parts: Iterable[PartRecord]) -> pl.Series:
        return pl.concat([pl.Series(dtype=pl.String), *(ids_of(self.folder, part) for part in parts)]).alias(_KEY)

    def _answers_to(self, rows: pl.DataFrame, touching: list[PartState]) -> pl.DataFrame:
        """Return the answers to these rows, and maybe to others, in the order in which they were asked for."""
        wanted = rows.lazy().select(pl.col(_KEY).alias("custom_id")).unique()
        frames = [pl.DataFrame(schema=known_schema(lines=self._has_lines) | {"reused": pl.Boolean()})]
        if _shares_answers(rows):
            return pl.concat([*frames, *self._picked(wanted)])
        ids = wanted.collect()
        # Vectors are large: what is not wanted of them is not read.
        held_bytes = _HELD_BYTES if self.form.max_rows else 0
        # A part seldom ends where a block does: the next one asks for the same files.
        before, self._read = self._read, {}
        for state in touching:
            reused = pl.lit(state.record.reused_from is not None).alias("reused")
            for path in part_answers(self.folder, state.record, lines=self._has_lines):
                held_bytes += self.folder.size_of(path) or 0
                answers = before.get(path)
                if answers is None:
                    answers = pl.scan_ipc(path).with_columns(reused).collect()
                if held_bytes > _HELD_BYTES:  # only what is wanted of a file is held
                    answers = answers.join(ids, on="custom_id", how="semi", maintain_order="left")
                else:
                    self._read[path] = answers
                frames.append(answers)
        return pl.concat(frames)

    def _picked(self, wanted: pl.LazyFrame) -> Iterator[pl.DataFrame]:
        """Yield what is wanted of the answers of all parts: a scan each time, since blocks ask for it in turn."""
        for is_reused, states in groupby(self.states, lambda state: state.record.reused_from is not None):
            parts = [state.record for state in states]
            paths = [path for part in parts for path in part_answers(self.folder, part, lines=self._has_lines)]
            if paths:
                joined = pl.scan_ipc(paths).join(wanted, on="custom_id", how="semi", maintain_order="left")
                yield joined.with_columns(pl.lit(is_reused).alias("reused")).collect(engine="streaming")


def _rejected_ids(part: PartRecord) -> pl.Series:
    return pl.Series([found.custom_id for found in part.rejected], dtype=pl.String).implode()


def _all_ids(part: PartRecord) -> pl.Series:
    ids = [*(part.custom_ids or []), *(found.custom_id for found in part.rejected)]
    return pl.Series(ids, dtype=pl.String).implode()


def _struct(error: tuple[str, str]) -> Any:
    return dict(zip(("code", "message"), error, strict=True))


def _mine(part: PartRecord, block: int, rows: pl.DataFrame) -> pl.Series:
    """Return which rows of a block a part holds."""
    if part.ranges is None:
        return rows[_KEY].is_in(pl.Series(part.custom_ids or [], dtype=pl.String).implode())
    index = pl.int_range(rows.height, eager=True)
    mine = pl.repeat(value=False, n=rows.height, dtype=pl.Boolean, eager=True)
    for found, start, stop in part.ranges:
        if found == block:
            mine = mine | index.is_between(start, stop - 1)
    return mine


def _is_among(keys: pl.Series, ids: pl.Series) -> pl.Series:
    """Return which keys are among many ids."""
    # is_in alone would make a hash table of all ids, block after block.
    found = ids.to_frame().join(keys.unique().to_frame(), on=_KEY, how="semi")[_KEY]
    return keys.is_in(found.implode())


def _shares_answers(rows: pl.DataFrame) -> bool:
    """Whether some row is answered by another row's request, as in a dedupe run."""
    return rows[REQUEST].null_count() < rows.height
