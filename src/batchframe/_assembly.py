"""A run's rows and downloaded bytes become result blocks: a pure function of its files, which can be done again."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from batchframe._columns import MORE, PENDING, added_columns
from batchframe._frames import OURS
from batchframe._requests import CODE, CUSTOM_ID, DIGEST, MESSAGE, REQUEST
from batchframe._results import ANSWER_SCHEMA, RAW, read_answers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

    from batchframe._store import RunFolder
    from batchframe._types import PartRecord

_KEY = OURS + "key"
_HELD_BYTES = 64_000_000
OUR_COLUMNS = (CUSTOM_ID, DIGEST, REQUEST, CODE, MESSAGE)


@dataclass
class PartState:
    """Where a part stands, as its files tell."""

    record: PartRecord
    is_done: bool
    is_replaced: bool

    @property
    def is_live(self) -> bool:
        """Whether answers to its requests may still come."""
        return not (self.is_done or self.is_replaced)


def part_states(folder: RunFolder) -> list[PartState]:
    """Return where each part of a run stands, in the order of attempts."""
    records = folder.parts()
    split = {record.split_from for record in records}
    states = [
        PartState(
            record,
            any(found.stage == "downloaded" for found in folder.submissions(record.number)),
            record.number in split,
        )
        for record in records
    ]
    return sorted(states, key=lambda state: (state.record.attempt, state.record.number))


@dataclass
class Assembler:
    """Joins answers to rows, a block at a time.

    Parameters
    ----------
    folder
        The run.
    raw
        Whether the result lines themselves are wanted.
    """

    folder: RunFolder
    raw: bool = False
    states: list[PartState] = field(init=False)
    _answers: dict[int, list[pl.DataFrame | pl.LazyFrame]] = field(default_factory=dict, init=False)
    _held_bytes: dict[int, int] = field(default_factory=dict, init=False)
    _spilled: Path = field(init=False)

    def __post_init__(self) -> None:
        self.states = part_states(self.folder)
        results = self.folder.path / "results"
        results.mkdir(exist_ok=True)
        self._spilled = Path(tempfile.mkdtemp(prefix=".answers-", dir=results))

    def block(self, number: int) -> pl.DataFrame:
        """Return one block: the input columns, the request digest, the added ones (as ``batchframe:…``), in row order.

        Rows that nothing was read for are ``pending`` while an answer may come, else ``missing``.
        """
        stored = pl.read_parquet(self.folder.rows_path(number), glob=False)
        rows = stored.select(*OUR_COLUMNS).with_columns(pl.coalesce(REQUEST, CUSTOM_ID).alias(_KEY))
        touching = [state for state in self.states if self._holds(state.record, number, rows)]
        rows = rows.with_columns(self._pending(touching, number, rows).alias(PENDING))
        answers = self._answers_to(rows, touching)
        added = added_columns(rows, answers, MORE if self.raw else [name for name in MORE if name != RAW])
        input_columns = stored.drop(name for name in OUR_COLUMNS if name != DIGEST)
        return input_columns.hstack(added.rename({name: OURS + name for name in added.columns}))

    def forget_before(self, block: int) -> None:
        """Drop what no later block needs; the blocks of first attempts come in order."""
        for state in self.states:
            if state.record.ranges and state.record.ranges[-1][0] < block:
                self._answers.pop(state.record.number, None)
                self._held_bytes.pop(state.record.number, None)
                shutil.rmtree(self._answers_folder(state.record.number), ignore_errors=True)

    def _holds(self, part: PartRecord, block: int, rows: pl.DataFrame) -> bool:
        if part.ranges is not None:
            return any(found == block for found, _, _ in part.ranges)
        return bool(rows[_KEY].is_in(part.custom_ids or []).any())

    def _pending(self, touching: list[PartState], block: int, rows: pl.DataFrame) -> pl.Series:
        """Return which rows an answer may still come for; those that are in no part yet count among them."""
        live = settled = pl.repeat(value=False, n=rows.height, dtype=pl.Boolean, eager=True)
        if _shares_answers(rows):
            # A row may be answered by another row's request, wherever in the run that is.
            live = rows[_KEY].is_in(self._ids_of(state for state in self.states if state.is_live))
            settled = rows[_KEY].is_in(self._ids_of(state for state in self.states if state.is_done))
            return live | ~settled
        for state in touching:
            mine = _mine(state.record, block, rows)
            live = live | mine if state.is_live else live
            settled = settled | mine if state.is_done else settled
        return live | ~settled

    def _ids_of(self, states: Iterator[PartState]) -> pl.Series:
        ids: list[str] = []
        for state in states:
            if state.record.ranges is None:
                ids += state.record.custom_ids or []
            for block, start, stop in state.record.ranges or []:
                stored = pl.read_parquet(self.folder.rows_path(block), columns=[CUSTOM_ID], glob=False)
                ids += stored[CUSTOM_ID][start:stop].to_list()
        return pl.Series(ids, dtype=pl.String).implode()

    def _answers_to(self, rows: pl.DataFrame, touching: list[PartState]) -> pl.DataFrame:
        """Return the answers to these rows, and maybe to others, in the order in which they were asked for."""
        states = self.states if _shares_answers(rows) else touching
        found = [answers for state in states for answers in self._part_answers(state.record.number)]
        wanted = rows.lazy().select(pl.col(_KEY).alias("custom_id")).unique()
        frames = [pl.DataFrame(schema=_known_schema(raw=self.raw))]
        for some in found:
            if isinstance(some, pl.LazyFrame):  # streamed, so that only what is wanted of the file is held
                joined = some.join(wanted, on="custom_id", how="semi", maintain_order="left")
                frames.append(joined.collect(engine="streaming"))
            else:
                frames.append(some)
        return pl.concat(frames)

    def _part_answers(self, part: int) -> list[pl.DataFrame | pl.LazyFrame]:
        """Return what a part's result files say: parsed once, and kept for the next blocks."""
        if part not in self._answers:
            frames = self._answers[part] = []
            for submission, kind, path in self.folder.result_files(part):
                with path.open("rb") as handle:
                    for index, answers in enumerate(read_answers(handle, raw=self.raw)):
                        batch_id = pl.lit(submission.batch_id, pl.String).alias("batch_id")
                        known = answers.with_columns(batch_id).select(*_known_schema(raw=self.raw))
                        frames.append(self._kept(known, part, f"{submission.number}.{kind}.{index}.arrow"))
        return self._answers[part]

    def _kept(self, answers: pl.DataFrame, part: int, name: str) -> pl.DataFrame | pl.LazyFrame:
        """Keep answers in memory while they are few, else as a file: memory does not grow with a result file."""
        size = int(answers.estimated_size())
        if sum(self._held_bytes.values()) + size <= _HELD_BYTES:
            self._held_bytes[part] = self._held_bytes.get(part, 0) + size
            return answers
        folder = self._answers_folder(part)
        folder.mkdir(parents=True, exist_ok=True)
        answers.write_ipc(folder / name)
        return pl.scan_ipc(folder / name)

    def _answers_folder(self, part: int) -> Path:
        return self._spilled / f"{part:04d}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._answers.clear()
        shutil.rmtree(self._spilled, ignore_errors=True)


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


def _shares_answers(rows: pl.DataFrame) -> bool:
    """Whether some row is answered by another row's request, as in a dedupe run."""
    return rows[REQUEST].null_count() < rows.height


def _known_schema(*, raw: bool) -> dict[str, pl.DataType]:
    return ANSWER_SCHEMA | {"batch_id": MORE["batch_id"]} | ({RAW: MORE[RAW]} if raw else {})
