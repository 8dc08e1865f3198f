"""Take answers of other runs for rows with the same requests, and copy their result lines into the new run.

With the copies the new run is complete: the other runs may be deleted.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Literal, NamedTuple

import polars as pl

from batchframe._core import wire_format
from batchframe._core.column_names import CUSTOM_ID, DIGEST, LINE, OURS
from batchframe._core.digests import digest_number
from batchframe._core.exceptions import OptionError, ResultsError, RunNotFoundError
from batchframe._results.result_blocks import successful_requests
from batchframe._results.result_lines import READ_BYTES
from batchframe._store.records import PartRecord, SubmissionRecord
from batchframe._store.run_folder import RunFolder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from batchframe._core.remote import Account
    from batchframe._store.records import RunRecord

_KEY = OURS + "key"
_NTH = OURS + "nth"
_RUN = OURS + "run"
_BATCH = OURS + "batch"
_THEIR_ID = OURS + "their_id"
_ANSWER = OURS + "answer"
_BLOCK = OURS + "block"
_ROW = OURS + "row"

_NAMED = 3  # the most runs that a message names
_TABLE = {
    _KEY: pl.UInt128(),
    _THEIR_ID: pl.String(),
    _BATCH: pl.Categorical(),  # few of them, for many rows
    _RUN: pl.UInt32(),
}


class Source(NamedTuple):
    """A run that answers may come from."""

    folder: RunFolder
    record: RunRecord

    @property
    def name(self) -> str:
        """The name of the run in messages."""
        return f"run {self.record.run_id} of {self.record.created_at:%Y-%m-%d}"


def sources(reuse: Path | Literal["all"], root: Path, endpoint: str, account: Account) -> list[Source]:
    """Return the runs whose answers a call may reuse, newest first.

    Parameters
    ----------
    reuse
        The folder of a run, or ``"all"`` runs in ``root`` with the same endpoint and account.
    root
        The runs' root.
    endpoint, account
        The endpoint and the account of the call.

    Raises
    ------
    RunNotFoundError
        There is no run in that folder.
    OptionError
        It is a run of another endpoint.
    """
    if reuse != "all":
        folder = RunFolder(reuse)
        record = folder.record()
        if record.identity.endpoint != endpoint:
            msg = (
                f"reuse: the run in {reuse} asked {record.identity.endpoint}, and this call asks {endpoint}: an "
                "answer of one is none of the other"
            )
            raise OptionError(msg)
        return [Source(folder, record)]
    runs = [source for folder in RunFolder.all_in(root) for source in _source(folder)]
    same = (endpoint, account)
    runs = [source for source in runs if (source.record.identity.endpoint, source.record.identity.account) == same]
    return sorted(runs, key=lambda source: source.record.created_at, reverse=True)


def _source(folder: RunFolder) -> list[Source]:
    """Return the run of a folder as a list; empty if there is none, or another process has just deleted it."""
    try:
        return [Source(folder, folder.record())]
    except RunNotFoundError:
        return []


class Reuse:
    """The answers that rows can take, each of them once: the n-th row of a request takes its n-th answer.

    Holds all successful requests of the sources in memory: 16 bytes of digest, the custom_id and 12 more bytes each.

    Parameters
    ----------
    runs
        What `sources` returned.
    """

    def __init__(self, runs: list[Source]) -> None:
        self._sources = runs
        self._left = _table(runs)
        self._taken: list[pl.DataFrame] = []

    def take(self, block: int, rows: pl.DataFrame) -> pl.Series:
        """Return which rows of the next block take an answer; rows without a request line take none."""
        wanted = rows.select(CUSTOM_ID, digest_number(DIGEST).alias(_KEY), pl.col(LINE).is_not_null().alias(LINE))
        wanted = wanted.with_row_index(_ROW).filter(LINE).select(_ROW, _KEY, CUSTOM_ID)
        offered = self._left.join(wanted.select(_KEY).unique(), on=_KEY, how="semi").sort(_ANSWER)
        nth = pl.int_range(pl.len()).over(_KEY).alias(_NTH)
        taken = wanted.with_columns(nth).join(offered.with_columns(nth), on=[_KEY, _NTH], maintain_order="left")
        if taken.height:
            self._left = self._left.join(taken.select(_ANSWER), on=_ANSWER, how="anti")
            self._taken.append(taken.with_columns(pl.lit(block).alias(_BLOCK)).drop(_NTH, _ANSWER))
        return pl.int_range(rows.height, eager=True).is_in(taken[_ROW].implode())

    def copy_into(self, folder: RunFolder) -> None:
        """Write the answers taken so far as parts of a run that is being created, one part for each batch of origin.

        Raises
        ------
        ResultsError
            Result files of a source are gone, or have changed.
        """
        if not self._taken:
            return
        first = len(folder.parts())
        batches: dict[int, dict[str, _Batch]] = {}
        grouped = pl.concat(self._taken).group_by(_RUN, _BATCH, maintain_order=True)
        for number, ((run, batch_id), rows) in enumerate(grouped, first):
            source = self._sources[run]
            if run not in batches:
                batches[run] = _batches(source.folder)
            _copy(folder, number, source, batches[run].get(batch_id), rows)

    def summary(self, requests: int) -> str:
        """Return a sentence with the number of reused answers and their runs."""
        if not self._sources:
            return "reuse: there is no run yet that answers could come from"
        if not self._taken:
            what = self._sources[0].name if len(self._sources) == 1 else f"{len(self._sources)} runs"
            return f"reuse: {what} answered none of the {requests:,} requests"
        counts = pl.concat(taken.select(_RUN) for taken in self._taken).group_by(_RUN).len().sort(_RUN).rows()
        parts = [f"{count:,} of {self._sources[run].name}" for run, count in counts[:_NAMED]]
        if len(counts) > _NAMED:
            parts.append(f"{sum(count for _, count in counts[_NAMED:]):,} of {len(counts) - _NAMED} more runs")
        sent = requests - sum(count for _, count in counts)
        return (
            f"reuse: answers are taken from earlier runs ({', '.join(parts)}); {sent:,} of {requests:,} requests remain"
        )


class _Batch(NamedTuple):
    """A submission of a source, and its result files."""

    submission: SubmissionRecord
    paths: list[Path]


def _table(runs: list[Source]) -> pl.DataFrame:
    """Return the answers in the order in which they are taken."""
    frames = [pl.DataFrame(schema=_TABLE)]
    for run, source in enumerate(runs):
        frames += [
            rows.select(
                digest_number(DIGEST).alias(_KEY),
                pl.col(CUSTOM_ID).alias(_THEIR_ID),
                pl.col("batch_id").cast(pl.Categorical).alias(_BATCH),
                pl.lit(run, pl.UInt32).alias(_RUN),
            )
            for rows in successful_requests(source.folder)
        ]
    table = pl.concat(frames)
    if len(runs) > 1:
        # A run may hold copies of another's answers, and an answer that was paid for once is not two: of those that a
        # batch gave to a request, the n-th is the same in every run.
        nth = pl.int_range(pl.len()).over(_RUN, _BATCH, _KEY).alias(_NTH)
        table = table.with_columns(nth).unique([_BATCH, _KEY, _NTH], keep="first", maintain_order=True).drop(_NTH)
    return table.with_row_index(_ANSWER)


def _batches(folder: RunFolder) -> dict[str, _Batch]:
    """Return a run's batches with their result files; one whose answers were taken by parts may have several."""
    batches: dict[str, _Batch] = {}
    for part in folder.parts():
        for submission, _, path in folder.result_files(part.number):
            if submission.batch_id is not None:
                batches.setdefault(submission.batch_id, _Batch(submission, [])).paths.append(path)
    return batches


def _copy(folder: RunFolder, number: int, source: Source, batch: _Batch | None, rows: pl.DataFrame) -> None:
    """Write a part of answers that one batch of a source gave."""
    ids = dict(zip(rows[_THEIR_ID], rows[CUSTOM_ID], strict=True))
    submission, paths = batch or _Batch(SubmissionRecord(0), [])
    missing = set(ids)
    with folder.receiving(folder.result_path(number, 0, "output")) as target:
        for path in paths:
            with source.folder.open(path) as handle:
                for lines in _renamed(handle, ids, missing):
                    target.writelines(lines)
    if missing:
        msg = (
            f"reuse: {source.folder.path} says that {min(missing)!r} was answered, and its result files do not: they "
            "were changed. Restore them from a copy of the run, or leave reuse out"
        )
        raise ResultsError(msg)
    copied = SubmissionRecord(0, "downloaded", batch_id=submission.batch_id, status=submission.status)
    copied.times = submission.times
    folder.write_submission(number, copied)
    spans = rows.group_by(_BLOCK, maintain_order=True).agg(
        pl.col(_ROW).min().cast(pl.Int64).alias("first"), (pl.col(_ROW).max().cast(pl.Int64) + 1).alias("stop")
    )
    folder.write_part(
        PartRecord(
            number=number,
            requests=rows.height,
            bytes=0,
            tokens=0,
            digest=f"{int(rows[_KEY].sum()):032x}",
            attempt=0,
            ranges=spans.rows(),
            reused_from=source.record.run_id,
        )
    )


def _renamed(handle: IO[bytes], ids: Mapping[str, str], missing: set[str]) -> Iterator[list[bytes]]:
    """Yield the result lines of some requests, under their new ids, and take what was found from ``missing``.

    All else in a line says the same. What a file says of one request several times stays so too: whoever reads the
    copy finds the success among it.
    """
    while lines := handle.readlines(READ_BYTES):
        kept = []
        for line in lines:
            custom_id = wire_format.custom_id_of_result(line)
            new = None if custom_id is None else ids.get(custom_id)
            if custom_id is None or new is None:
                continue
            missing.discard(custom_id)
            kept.append(line if new == custom_id else wire_format.rename_result(line, new))
            if not kept[-1].endswith(b"\n"):
                kept[-1] += b"\n"
        yield kept
