"""Assemble result blocks from a run's rows and downloaded files: a pure function, so it can be repeated."""

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
from batchframe._results.parsed_answers import LINES, parsed_schema, part_answers
from batchframe._store.parts import MISSING, PartState, ids_of, part_states

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from batchframe._store.records import PartRecord
    from batchframe._store.run_folder import RunFolder

_KEY = OURS + "key"
# Bytes of parsed answers that are kept for the next block.
_HELD_BYTES = 64_000_000
# Bytes of the result lines that are held together.
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
        The requested columns that are read from whole result lines.
    form
        The format of the answers.
    """

    folder: RunFolder
    from_lines: tuple[str, ...] = ()
    form: AnswerFormat = field(default_factory=AnswerFormat)
    states: list[PartState] = field(init=False)
    _read: dict[Path, pl.DataFrame] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.states = part_states(self.folder)

    def block(self, number: int) -> pl.DataFrame:
        """Return one block: its `pieces`, joined."""
        return pl.concat(self.pieces(number))

    def pieces(self, number: int) -> Iterator[pl.DataFrame]:
        """Yield one block: the input columns, the request digest, the added ones (as ``batchframe:…``), in row order.

        A row without an answer is ``pending`` while one may come; after that it has the error of its last part.
        Columns of whole lines make several pieces, since a line may be a hundred times as large as its answer.
        """
        stored = self.folder.read_frame(self.folder.rows_path(number))
        rows = stored.select(*OUR_COLUMNS).with_columns(pl.coalesce(REQUEST, CUSTOM_ID).alias(_KEY))
        relevant = [state for state in self.states if self._holds(state.record, number, rows)]
        rows = rows.with_columns(
            self._pending(relevant, number, rows).alias(PENDING), self._absent(relevant, rows).alias(ABSENT)
        )
        answers = self._answers_to(rows, relevant)
        added = added_columns(
            rows, answers, [*BESIDE_ANSWERS, *LINES] if self._has_lines else BESIDE_ANSWERS, self.form
        )
        block = stored.drop(name for name in OUR_COLUMNS if name != DIGEST)
        block = block.hstack(added.rename({name: OURS + name for name in added.columns}))
        if not self._has_lines:
            yield block
            return
        for piece in self._cut(block):
            columns = columns_of_lines(self._lines(piece), self.from_lines, self.form)
            rest = piece.drop(OURS + name for name in LINES)
            yield rest.hstack([column.alias(OURS + column.name) for column in columns])

    @property
    def _has_lines(self) -> bool:
        return bool(self.from_lines)

    def _cut(self, block: pl.DataFrame) -> Iterator[pl.DataFrame]:
        """Yield a block in slices of about `_PIECE_BYTES` of lines."""
        size = block[OURS + "line_bytes"].fill_null(0)
        offset = 0
        for height in ((size.cum_sum() - size) // _PIECE_BYTES).rle().struct.field("len") if block.height else [0]:
            yield block[offset : offset + height]
            offset += height

    def _lines(self, piece: pl.DataFrame) -> list[bytes | None]:
        """Return the result line of each row's answer."""
        lines: list[bytes | None] = [None] * piece.height
        places = piece.select(OURS + name for name in LINES).with_row_index().drop_nulls()
        for (name,), of_file in places.group_by(OURS + "line_file"):
            with self.folder.open(str(name)) as handle:
                for index, _, at, size in of_file.sort(OURS + "line_at").iter_rows():
                    handle.seek(at)
                    lines[index] = handle.read(size)
        return lines

    def _holds(self, part: PartRecord, block: int, rows: pl.DataFrame) -> bool:
        if part.ranges is not None:
            return any(number == block for number, _, _ in part.ranges)
        return bool(rows[_KEY].is_in(_all_ids(part)).any())

    def _pending(self, relevant: list[PartState], block: int, rows: pl.DataFrame) -> pl.Series:
        """Return which rows may still get an answer, including rows that are in no part yet."""
        live = settled = pl.repeat(value=False, n=rows.height, dtype=pl.Boolean, eager=True)
        if _shares_answers(rows):
            # The request that answers a row may be in any block of the run.
            return _is_among(rows[_KEY], self._live_ids) | ~_is_among(rows[_KEY], self._settled_ids)
        for state in relevant:
            is_held = _is_held(state.record, block, rows)
            live = live | is_held if state.is_live else live
            settled = settled | is_held if state.is_done else settled
            if state.record.rejected:
                settled = settled | rows[_KEY].is_in(_rejected_ids(state.record))
        return live | ~settled

    def _absent(self, relevant: list[PartState], rows: pl.DataFrame) -> pl.Series:
        """Return the error of each row in case it has no answer."""
        states = [state for state in (self.states if _shares_answers(rows) else relevant) if state.is_done]
        errors = pl.repeat(_struct(MISSING), rows.height, dtype=ERROR, eager=True)
        if all(state.absent is MISSING for state in states):
            return errors
        # The error of an executed attempt is preferred to that of an unsubmitted one, whichever is newer.
        for state in sorted(states, key=lambda state: state.absent[0] != "not_submitted"):
            if not state.is_replaced:
                is_held = _is_among(rows[_KEY], self._ids_of([state.record]))
                absent = pl.repeat(_struct(state.absent), rows.height, dtype=ERROR, eager=True)
                errors = errors.zip_with(~is_held, absent)
        return errors

    @cached_property
    def _live_ids(self) -> pl.Series:
        return self._ids_of(state.record for state in self.states if state.is_live)

    @cached_property
    def _settled_ids(self) -> pl.Series:
        rejected = [request.custom_id for state in self.states for request in state.record.rejected]
        ids = self._ids_of(state.record for state in self.states if state.is_done)
        return pl.concat([ids, pl.Series(_KEY, rejected, dtype=pl.String)])

    def _ids_of(self, parts: Iterable[PartRecord]) -> pl.Series:
        return pl.concat([pl.Series(dtype=pl.String), *(ids_of(self.folder, part) for part in parts)]).alias(_KEY)

    def _answers_to(self, rows: pl.DataFrame, relevant: list[PartState]) -> pl.DataFrame:
        """Return the answers to these rows, and maybe to others, oldest first."""
        wanted = rows.lazy().select(pl.col(_KEY).alias("custom_id")).unique()
        frames = [pl.DataFrame(schema=parsed_schema(lines=self._has_lines) | {"reused": pl.Boolean()})]
        if _shares_answers(rows):
            return pl.concat([*frames, *self._scanned(wanted)])
        ids = wanted.collect()
        # Vectors are large: only the wanted ones are read.
        held_bytes = _HELD_BYTES if self.form.max_rows else 0
        # Parts and blocks seldom end together, so the next block needs the same files.
        previous, self._read = self._read, {}
        for state in relevant:
            reused = pl.lit(state.record.reused_from is not None).alias("reused")
            for path in part_answers(self.folder, state.record, lines=self._has_lines):
                held_bytes += self.folder.size_of(path) or 0
                answers = previous.get(path)
                if answers is None:
                    answers = pl.scan_ipc(path).with_columns(reused).collect()
                if held_bytes > _HELD_BYTES:  # keep only the wanted answers of a file
                    answers = answers.join(ids, on="custom_id", how="semi", maintain_order="left")
                else:
                    self._read[path] = answers
                frames.append(answers)
        return pl.concat(frames)

    def _scanned(self, wanted: pl.LazyFrame) -> Iterator[pl.DataFrame]:
        """Yield the wanted answers of all parts; each block scans the files again."""
        for is_reused, states in groupby(self.states, lambda state: state.record.reused_from is not None):
            parts = [state.record for state in states]
            paths = [path for part in parts for path in part_answers(self.folder, part, lines=self._has_lines)]
            if paths:
                joined = pl.scan_ipc(paths).join(wanted, on="custom_id", how="semi", maintain_order="left")
                yield joined.with_columns(pl.lit(is_reused).alias("reused")).collect(engine="streaming")


def _rejected_ids(part: PartRecord) -> pl.Series:
    return pl.Series([request.custom_id for request in part.rejected], dtype=pl.String).implode()


def _all_ids(part: PartRecord) -> pl.Series:
    ids = [*(part.custom_ids or []), *(request.custom_id for request in part.rejected)]
    return pl.Series(ids, dtype=pl.String).implode()


def _struct(error: tuple[str, str]) -> Any:
    return dict(zip(("code", "message"), error, strict=True))


def _is_held(part: PartRecord, block: int, rows: pl.DataFrame) -> pl.Series:
    """Return which rows of a block are in a part."""
    if part.ranges is None:
        return rows[_KEY].is_in(pl.Series(part.custom_ids or [], dtype=pl.String).implode())
    index = pl.int_range(rows.height, eager=True)
    is_held = pl.repeat(value=False, n=rows.height, dtype=pl.Boolean, eager=True)
    for number, start, stop in part.ranges:
        if number == block:
            is_held = is_held | index.is_between(start, stop - 1)
    return is_held


def _is_among(keys: pl.Series, ids: pl.Series) -> pl.Series:
    """Return which keys are in a long list of ids."""
    # is_in alone would build a hash table of all ids for each block.
    matching = ids.to_frame().join(keys.unique().to_frame(), on=_KEY, how="semi")[_KEY]
    return keys.is_in(matching.implode())


def _shares_answers(rows: pl.DataFrame) -> bool:
    """Whether the request of one row answers another row too, as in a dedupe run."""
    return rows[REQUEST].null_count() < rows.height
