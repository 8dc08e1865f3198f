"""The state of each part of a run, read from its files, and the requests it holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from batchframe._core.column_names import CODE, CUSTOM_ID, REQUEST
from batchframe._store.stop_record import is_covered, read_stop

if TYPE_CHECKING:
    from batchframe._store.records import PartRecord, StopRecord
    from batchframe._store.run_folder import RunFolder

MISSING = ("missing", "the service wrote no line for it in either result file")


@dataclass
class PartState:
    """The state of a part, read from its files.

    ``absent`` is the error code and message of its rows without an answer.
    """

    record: PartRecord
    is_done: bool
    is_replaced: bool
    absent: tuple[str, str] = MISSING

    @property
    def is_live(self) -> bool:
        """Whether answers to its requests may still come."""
        return not (self.is_done or self.is_replaced)


def part_states(folder: RunFolder) -> list[PartState]:
    """Return the state of each part, ordered by generation, attempt and number."""
    records = folder.parts()
    split = {record.split_from for record in records}
    stop = read_stop(folder)
    states = [_state(folder, record, stop, is_replaced=record.number in split) for record in records]
    return sorted(states, key=lambda state: (state.record.generation, state.record.attempt, state.record.number))


def _state(folder: RunFolder, record: PartRecord, stop: StopRecord | None, *, is_replaced: bool) -> PartState:
    submissions = folder.submissions(record.number)
    if not record.requests:  # all of its requests are in batches found in the account
        return PartState(record, is_done=True, is_replaced=is_replaced)
    if any(submission.stage == "downloaded" for submission in submissions):
        expired = next((submission for submission in submissions if submission.output_expired_at is not None), None)
        if expired is None:
            return PartState(record, is_done=True, is_replaced=is_replaced)
        message = f"the output file of batch {expired.batch_id} expired before it was fetched"
        return PartState(record, is_done=True, is_replaced=is_replaced, absent=("output_expired", message))
    is_alive = any(submission.is_alive for submission in submissions)
    if stop is not None and is_covered(record, stop) and not is_alive:
        return PartState(record, is_done=True, is_replaced=is_replaced, absent=("not_submitted", stop.message))
    return PartState(record, is_done=False, is_replaced=is_replaced)


def ids_of(folder: RunFolder, part: PartRecord) -> pl.Series:
    """Return the custom_ids of a part's requests, as ``custom_id: String``."""
    if part.custom_ids is not None:
        return pl.Series("custom_id", part.custom_ids, dtype=pl.String)
    ids = [pl.Series("custom_id", dtype=pl.String)]
    for block, start, stop in part.ranges or []:
        rows = folder.read_frame(folder.rows_path(block), [CUSTOM_ID, CODE, REQUEST])[start:stop]
        ids.append(rows.filter(pl.col(CODE).is_null() & pl.col(REQUEST).is_null())[CUSTOM_ID])
    return pl.concat(ids)
