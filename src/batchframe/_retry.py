"""Which rows are worth another attempt, and the input files that ask for them again.

Attempts go in rounds: when every part of one attempt is done, the rows of it that may succeed later go together into
as few files as the limits allow. What is due is computed from the files alone, so a crash between two of the new
parts loses none: the rows that are in no part of the next attempt yet are still due.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

import msgspec
import polars as pl

from batchframe._answers import part_answers
from batchframe._assembly import PartState, part_states
from batchframe._columns import best_answers
from batchframe._events import trigger
from batchframe._input_files import Splitter, estimated_tokens
from batchframe._requests import CODE, CUSTOM_ID, REQUEST, digest, digest_sums
from batchframe._results import ANSWER_SCHEMA
from batchframe._types import PartRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchframe._limits import Limits
    from batchframe._store import RunFolder

_NOTE = "retries.json"
# Rows that the files do not tell of are not asked for again until the files were fetched once more.
NOT_TOLD = ("missing", "malformed_line")


def is_settled(folder: RunFolder, states: list[PartState], max_attempts: int) -> bool:
    """Whether a run whose parts are all done has nothing more to ask for."""
    return all(not due(folder, attempt).height for attempt in unsettled(folder, states, max_attempts))


def unsettled(folder: RunFolder, states: list[PartState], max_attempts: int) -> range:
    """Return the attempts that may be followed by another, and of which that is not noted as prepared.

    That the next one's parts are there does not tell: a crash may have come between two of them.
    """
    last = max((state.record.attempt for state in states), default=0)
    return range(settled_attempt(folder) + 1, min(last, max_attempts - 1) + 1)


def due(folder: RunFolder, attempt: int) -> pl.DataFrame:
    """Return what of one attempt is worth another and is in no part of the next yet.

    Returns
    -------
    pl.DataFrame
        ``part: Int64``, ``custom_id: String``, ``code: String`` (``missing`` where the files have no line).
    """
    states = [state for state in part_states(folder) if not state.is_replaced]
    taken: set[str] = {
        custom_id
        for state in states
        if state.record.attempt == attempt + 1
        for custom_id in state.record.custom_ids or []
    }
    found = [
        _due_of_part(folder, state.record) for state in states if state.record.attempt == attempt and state.is_done
    ]
    schema = {"part": pl.Int64(), "custom_id": pl.String(), "code": pl.String()}
    frame = pl.concat([pl.DataFrame(schema=schema), *found])
    return frame.filter(~pl.col("custom_id").is_in(pl.Series(list(taken), dtype=pl.String).implode()))


def _due_of_part(folder: RunFolder, part: PartRecord) -> pl.DataFrame:
    asked = pl.DataFrame({"custom_id": _ids(folder, part)}, schema={"custom_id": pl.String()})
    columns = ("custom_id", "code", "again")
    frames = [pl.DataFrame(schema={name: ANSWER_SCHEMA[name] for name in columns})]
    frames += [pl.scan_ipc(path).select(columns).collect() for path in part_answers(folder, part.number)]
    answers = best_answers(pl.concat(frames)).with_columns(pl.lit(value=True).alias("told"))
    # A batch that somebody cancelled was meant to stop: what it has no line for is not asked for by itself.
    submissions = folder.submissions(part.number)
    may_miss = any(found.has_files and found.status != "cancelled" for found in submissions)
    missing = pl.col("told").is_null() & pl.lit(value=may_miss)
    joined = asked.join(answers, on="custom_id", how="left", maintain_order="left")
    return joined.filter(missing | pl.col("again").fill_null(value=False)).select(
        pl.lit(part.number, pl.Int64).alias("part"),
        "custom_id",
        pl.col("code").fill_null("missing"),
    )


def _ids(folder: RunFolder, part: PartRecord) -> list[str]:
    """Return the custom_ids of a part's requests."""
    if part.custom_ids is not None:
        return part.custom_ids
    ids: list[str] = []
    for block, start, stop in part.ranges or []:
        rows = pl.read_parquet(folder.rows_path(block), columns=[CUSTOM_ID, CODE, REQUEST], glob=False)[start:stop]
        ids += rows.filter(pl.col(CODE).is_null() & pl.col(REQUEST).is_null())[CUSTOM_ID].to_list()
    return ids


def prepare_retries(folder: RunFolder, attempt: int, wanted: pl.DataFrame, limits: Limits) -> int:
    """Write the input files of the next attempt, and return how many.

    Parameters
    ----------
    folder
        The run.
    attempt
        The attempt that failed.
    wanted
        What `due` found.
    limits
        The limits of an input file, both set.
    """
    assert limits.max_requests is not None
    assert limits.max_bytes is not None
    first = max(part.number for part in folder.parts()) + 1
    writer = _RetryWriter(folder, attempt + 1, Splitter(limits.max_requests, limits.max_bytes, part=first))
    for source, lines in _lines(folder, wanted):
        for custom_id, line in lines:
            writer.add(source, custom_id, line)
    return writer.finish() - first + 1


def _lines(folder: RunFolder, wanted: pl.DataFrame) -> Iterator[tuple[int, Iterator[tuple[str, bytes]]]]:
    for (part,), rows in wanted.group_by("part", maintain_order=True):
        yield int(part), _lines_of(folder.input_path(int(part)), set(rows["custom_id"]))


def _lines_of(path: os.PathLike[str], ids: set[str]) -> Iterator[tuple[str, bytes]]:
    with open(path, "rb") as handle:  # noqa: PTH123
        for line in handle:
            custom_id = _decode_id(line).custom_id
            if custom_id in ids:
                yield custom_id, line


class _Id(msgspec.Struct, gc=False):
    custom_id: str


_decode_id = msgspec.json.Decoder(_Id).decode


@dataclass
class _RetryWriter:
    """Deals the lines of an attempt out to parts; a part is there when its record is, after its input file."""

    folder: RunFolder
    attempt: int
    splitter: Splitter
    _record: PartRecord | None = None
    _handle: IO[bytes] | None = None

    def add(self, source: int, custom_id: str, line: bytes) -> None:
        """Append one line."""
        ((part, _, _),) = self.splitter.cuts((0, len(line)))
        if self._record is None or self._record.number != part:
            self._commit()
            path = self.folder.input_path(part)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = path.open("wb")
            self._record = PartRecord(
                number=part, requests=0, bytes=0, tokens=0, attempt=self.attempt, custom_ids=[], retry_of=source
            )
        assert self._handle is not None
        assert self._record.custom_ids is not None
        self._handle.write(line)
        self._record.requests += 1
        self._record.bytes += len(line)
        self._record.custom_ids.append(custom_id)

    def _commit(self) -> None:
        if self._record is None or self._handle is None:
            return
        self._handle.flush()
        os.fsync(self._handle.fileno())
        self._handle.close()
        trigger("after_retry_input")
        self._record.tokens = estimated_tokens(self._record.bytes)
        self._record.digest = f"{_digest_of(self.folder.input_path(self._record.number)):032x}"
        self.folder.write_part(self._record)
        trigger("after_retry_part")

    def finish(self) -> int:
        """Commit the last part, and return its number."""
        self._commit()
        return self.splitter.part


def _digest_of(path: os.PathLike[str]) -> int:
    """Return the order-free sum of the digests of a file's requests."""
    total = 0
    with open(path, "rb") as handle:  # noqa: PTH123
        while lines := handle.readlines(8_000_000):
            bodies = [line[line.index(b'"body":') + 7 : -2].decode() for line in lines]
            total += digest_sums(pl.DataFrame({"body": bodies}).select(digest(pl.col("body"))).to_series())
    return total % 2**128


def settled_attempt(folder: RunFolder) -> int:
    """Return the last attempt of which all that was due is in parts of the next; 0 where none is."""
    found = folder.read_note(_NOTE)
    settled = found.get("settled_attempt") if isinstance(found, dict) else None
    return settled if isinstance(settled, int) else 0


def settle(folder: RunFolder, attempt: int) -> None:
    """Note that all that was due of this attempt, and of those before it, is in parts of the next."""
    if attempt > settled_attempt(folder):
        folder.write_note(_NOTE, {"settled_attempt": attempt})
