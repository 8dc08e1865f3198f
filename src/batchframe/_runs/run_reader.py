"""Read a run's folder: results, errors, batches, status. Needs neither a key nor the service."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import polars as pl

from batchframe._batches.attempts import generation_of, is_settled, settled_round
from batchframe._batches.trouble import read_trouble
from batchframe._core.column_names import OURS
from batchframe._core.exceptions import OptionError, RowsFailedError, warn
from batchframe._endpoints.registry import ENDPOINTS
from batchframe._endpoints.usage import TOKENS
from batchframe._results.columns import CORE
from batchframe._results.extra_columns import OF_LINES
from batchframe._results.result_blocks import (
    OUTCOMES,
    FinalBlocks,
    add_counts,
    current_blocks,
    final_blocks,
    select_columns,
    view_blocks,
)
from batchframe._runs.explain import Explanation, explain
from batchframe._schemas.response_format import requested_answer_type
from batchframe._store.parts import part_states
from batchframe._store.stop_record import read_stop

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self

    from batchframe._batches.pass_report import PassReport
    from batchframe._runs.run_settings import RunSettings
    from batchframe._store.block_folder import BlockFolder
    from batchframe._store.lease import Lease
    from batchframe._store.records import PartRecord, RunRecord, StopRecord, SubmissionRecord
    from batchframe._store.run_folder import RunFolder

_TIME = pl.Datetime("us", "UTC")
_BATCHES = {
    "part": pl.Int64(),
    "attempt": pl.Int64(),
    "submission": pl.Int64(),
    "batch_id": pl.String(),
    "input_file_id": pl.String(),
    "stage": pl.String(),
    "status": pl.String(),
    "reason": pl.String(),
    "requests": pl.Int64(),
    "bytes": pl.Int64(),
    "tokens": pl.Int64(),
    "submitted_at": _TIME,
    "ended_at": _TIME,
}


@dataclass(frozen=True)
class RunStatus:
    """The status of a run. The four counts are rows, come from result lines, and add up to ``rows``.

    Parameters
    ----------
    state
        ``"running"``. If every row has its outcome: ``"finished"``, or ``"stopped"`` if rows were not submitted because
        of `Run.cancel`, because no row of the pilot succeeded, or because every row of the first batches failed with
        the same error. If the run is not done and no process works on it: ``"not_submitted"`` if it never had a batch
        at the service, ``"blocked"`` if none of its batches is running and waiting does not resolve the last error.
    rows, succeeded, failed, not_sent, pending
        Rows by outcome.
    batches
        Batches by the service's status.
    usage
        Tokens of all answers, by name. Answers reused from other runs do not count.
    cost
        None: this version has no prices.
    waiting_for
        What the run waits for, as text; empty if it is finished.
    trouble
        The last error of the run on disk, or why it was stopped; empty if the last pass succeeded.
    done
        Whether every row has its outcome.
    """

    state: str
    rows: int
    succeeded: int
    failed: int
    not_sent: int
    pending: int
    batches: dict[str, int]
    usage: dict[str, int]
    cost: float | None
    waiting_for: str
    trouble: str
    done: bool


class RunResults:
    """The reading half of a `Run`."""

    def __init__(
        self, folder: RunFolder, record: RunRecord, settings: RunSettings, view: BlockFolder | None, lease: Lease
    ) -> None:
        self._folder = folder
        self._record = record
        self._settings = settings
        self._view = view
        self._lease = lease
        # How often it was retried, and how many parts it had, when it was found finished.
        self._finished: tuple[int, int] | None = None

    def __repr__(self) -> str:
        return f"Run({os.fspath(self.path)!r}, rows={self._rows}, model={self._settings.model!r})"

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self._folder.path

    @property
    def id(self) -> str:
        """The run's id."""
        return self._record.run_id

    @property
    def _rows(self) -> int:
        return sum(self._record.blocks if self._view is None else view_blocks(self._view))

    def result(self) -> pl.DataFrame:
        """Return the whole frame: input columns and added columns, in row order.

        Unfinished rows have the error code ``pending``. Needs neither a key nor the service.
        """
        return self._collected(self.scan())

    def _collected(self, frame: pl.LazyFrame) -> pl.DataFrame:
        """Return a frame of the result blocks; errors as for `RunFolder.reading`."""
        with self._folder.reading("results"):
            return frame.collect()

    def _so_far(self) -> pl.DataFrame:
        settings = self._settings
        with self._folder.assembling():
            blocks = current_blocks(self._folder, self._view, from_lines=self._from_lines, form=settings.answer_format)
            pieces = chain.from_iterable(blocks)
            return pl.concat(
                [select_columns(piece.lazy(), OURS, settings.include, settings.prefix).collect() for piece in pieces]
            )

    def _final_blocks(self) -> FinalBlocks | None:
        """Return the result blocks; None where the run is not finished."""
        finished = self._finished_at()
        if finished is None:
            return None
        return final_blocks(
            self._folder,
            self._view,
            from_lines=self._from_lines,
            form=self._settings.answer_format,
            parts=finished[1],
            is_watched=self._lease.holder() is not None,
        )

    def scan(self) -> pl.LazyFrame:
        """Return the frame of `result` lazily: a scan of the result blocks once the run is finished."""
        final, settings = self._final_blocks(), self._settings
        if final is None:
            return self._so_far().lazy()
        return select_columns(final.scan(), final.note.prefix, settings.include, settings.prefix)

    def sink(self, path: Path) -> None:
        """Write what `result` gives to a Parquet file, a few rows at a time."""
        # A row group is held in memory while it is written: of the usual size, but where rows are large.
        blocks = self._record.blocks if self._view is None else view_blocks(self._view)
        group_rows = self._settings.answer_format.max_rows or 4 * max(1, *blocks)
        final = self._final_blocks()
        if final is not None:
            group_rows = min(group_rows, final.note.group_rows or group_rows)
        self.scan().sink_parquet(path, maintain_order=True, row_group_size=group_rows)

    def added_to(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return the frame this run was made of, with the added columns; its own columns stay the very same."""
        names = [self._settings.prefix + name for name in (*CORE, *self._settings.include)]
        added = self.scan().select(name for name in names if name not in frame.columns)
        return frame.hstack(self._collected(added))

    def errors(self) -> pl.DataFrame:
        """Return the rows that did not succeed.

        Returns
        -------
        pl.DataFrame
            The columns of `result`, with ``code`` and ``message`` (with the prefix) in place of ``error``.
        """
        error = pl.col(self._settings.prefix + "error")
        fields = [error.struct.field(name).alias(self._settings.prefix + name) for name in ("code", "message")]
        failed = self.scan().filter(error.is_not_null())
        return self._collected(failed.select(pl.all().exclude(error.meta.output_name()), *fields))

    def raise_for_errors(self) -> None:
        """Raise an error unless every row succeeded.

        Raises
        ------
        RowsFailedError
            With the counts by code, unfinished rows included. The error holds the run.
        """
        message = self._failures()
        if message is not None:
            raise RowsFailedError(f"{message}. See run.errors()", self)

    def explain(self, row: int | str) -> Explanation:
        """Return everything about one row: its request, its submissions and its result lines.

        Parameters
        ----------
        row
            The row number, from 0, or the custom_id.

        Raises
        ------
        OptionError
            The row does not exist.
        """
        return explain(self._folder, self._view, self.result(), self._settings.prefix, row)

    def reparse(self, *, response_format: Any) -> Self:
        """Read the same answers with another response format from now on. Sends nothing and costs nothing.

        Parameters
        ----------
        response_format
            A pydantic model, a JSON schema or a ``pl.Struct``, as for `run`. None, or the service's own format, gives
            the text of the answers.

        Returns
        -------
        Run
            This run: ``run.reparse(response_format=...).result()``. Rows whose answer does not fit the format have the
            code ``invalid_response``. With ``include="raw"`` their text is in the column ``raw``.

        Raises
        ------
        OptionError
            The response format is invalid.
        """
        form = self._settings.answer_format
        if ENDPOINTS[form.endpoint].format_parameter is None:
            msg = f"the answers of {form.endpoint} are no texts that could be read as another type"
            raise OptionError(msg)
        self._settings = replace(
            self._settings, answer_format=replace(form, answer_type=requested_answer_type(response_format))
        )
        return self

    def batches(self) -> pl.DataFrame:
        """Return one row per submission: its part, batch, status and times.

        Returns
        -------
        pl.DataFrame
            ``part, attempt, submission: Int64``, ``batch_id, input_file_id, stage, status, reason: String``,
            ``requests, bytes, tokens: Int64`` (tokens estimated), ``submitted_at, ended_at: Datetime`` (UTC).
        """
        rows = [
            (part.number, part.attempt, submission.number, submission.batch_id, submission.input_file_id,
             submission.stage, submission.status, submission.reason, part.requests, part.bytes, part.tokens,
             submission.times.get("submitted_at"), submission.times.get("ended_at"))
            for part, submission in self._sent()
        ]  # fmt: skip
        return pl.DataFrame(rows, schema=_BATCHES, orient="row")

    def warn_of_failures(self) -> None:
        """Warn once if rows did not succeed, with the counts by code."""
        message = self._failures()
        if message is not None:
            warn(f"{message}. See their error column, or run.errors()")

    def _failures(self) -> str | None:
        """Return how many rows did not succeed, by code; None where all did."""
        code = pl.col(self._settings.prefix + "error").struct.field("code").alias("code")
        counted = self.scan().select(code).drop_nulls().group_by("code").len()
        codes = self._collected(counted.sort("len", "code", descending=[True, False]))
        if not codes.height:
            return None
        counts = ", ".join(f"{count} {code}" for code, count in codes.rows())
        return f"{codes['len'].sum()} of {self._rows} rows did not succeed: {counts}"

    @property
    def _from_lines(self) -> tuple[str, ...]:
        return tuple(name for name in self._settings.include if name in OF_LINES)

    @property
    def is_finished(self) -> bool:
        """Whether every row has its outcome, according to the disk."""
        return self._finished_at() is not None

    def _finished_at(self) -> tuple[int, int] | None:
        """Return how often a finished run was retried, and how many parts it has; None for one that is not finished."""
        # Another process may have retried the run since, or be about to: what that writes last is read first.
        now = (generation_of(self._folder), self._folder.count_parts())
        if self._finished == now:
            return now
        settled = settled_round(self._folder)
        states = part_states(self._folder)
        is_live = any(state.is_live for state in states)
        attempts = self._settings.max_attempts
        is_over = not is_live and (self._stop is not None or is_settled(self._folder, states, settled, attempts))
        finished = now if is_over else None
        self._finished = finished  # returned from here: another thread may set it at the same time
        return finished

    @property
    def _stop(self) -> StopRecord | None:
        """Why the run submits no more, unless it was retried since."""
        stop = read_stop(self._folder)
        return stop if stop is not None and stop.generation == generation_of(self._folder) else None

    @property
    def _end(self) -> tuple[str, str]:
        """The state of a finished run, and why it was stopped."""
        stop = self._stop
        return ("finished", "") if stop is None else ("stopped", stop.message)

    def _course(self, submissions: list[SubmissionRecord]) -> tuple[str, str]:
        """Return the state of a run that is not finished, and its last error."""
        trouble = read_trouble(self._folder)
        state = "running"
        if self._lease.holder() is None and not any(submission.is_in_flight for submission in submissions):
            is_there = any(submission.input_file_id or submission.batch_id for submission in submissions)
            if is_there and trouble is not None and not trouble.is_transient:
                state = "blocked"
            elif not any(submission.batch_id for submission in submissions):
                state = "not_submitted"
        return state, "" if trouble is None else trouble.message

    def _sent(self) -> list[tuple[PartRecord, SubmissionRecord]]:
        """Return each submission, with its part."""
        parts = [part for part in self._folder.parts() if part.reused_from is None]
        return [(part, submission) for part in parts for submission in self._folder.submissions(part.number)]

    def _submissions(self) -> list[SubmissionRecord]:
        return [submission for _, submission in self._sent()]

    def _status(self, report: PassReport) -> RunStatus:
        final = self._final_blocks()
        if final is not None:
            counts, usage = final.note.counts, final.note.usage
        else:
            counts, usage = dict.fromkeys(OUTCOMES, 0), dict.fromkeys(TOKENS, 0)
            with self._folder.assembling():
                for piece in chain.from_iterable(
                    current_blocks(self._folder, self._view, form=self._settings.answer_format)
                ):
                    add_counts(piece, counts, usage)
        submissions = self._submissions()
        statuses = pl.Series([submission.status for submission in submissions], dtype=pl.String).drop_nulls()
        is_done = final is not None
        state, trouble = self._end if is_done else self._course(submissions)
        return RunStatus(
            state=state,
            rows=self._rows,
            **counts,
            batches=dict(statuses.alias("status").value_counts(sort=True).rows()),
            usage=usage,
            cost=None,
            waiting_for="" if is_done else "; ".join(report.waiting_for) or self._awaited(submissions),
            trouble=trouble,
            done=is_done,
        )

    def _awaited(self, submissions: list[SubmissionRecord]) -> str:
        holder = self._lease.holder()
        if holder is not None:
            return str(holder)
        if any(submission.is_in_flight for submission in submissions):
            return "its batches to end"
        return "someone to resume it: none of its batches is running"
