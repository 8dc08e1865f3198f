"""Which rows are sent again: those that may succeed later, and those that `Run.retry` chose.

Attempts go in rounds. When every part of a round is done, its rows that may succeed later go together into as few files
as the limits allow. What is due is computed from the files alone, so a crash between two of the new parts loses no row:
those that are in no part of the next round yet are still due.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec
import polars as pl

from batchframe._core import wire_format
from batchframe._providers.limits import file_limits
from batchframe._results.parsed_answers import answers_of_part, best_of_part
from batchframe._results.result_lines import READER
from batchframe._store.input_files import InputFileWriter, lines_of
from batchframe._store.parts import ids_of
from batchframe._store.records import PartRecord

if TYPE_CHECKING:
    from batchframe._providers.limits import Limits
    from batchframe._store.parts import PartState
    from batchframe._store.run_folder import RunFolder

_NOTE = "retries.json"
# Codes of rows without a line that can be read. They are not sent again until the files were fetched once more.
NO_LINE = ("missing", "malformed_line")
_DUE = {"part": pl.Int64(), "custom_id": pl.String(), "code": pl.String()}


class Round(NamedTuple):
    """Parts that were prepared together; attempt 0 stands for what `Run.retry` chose, before it is in parts."""

    generation: int
    attempt: int


def generation_of(folder: RunFolder) -> int:
    """Return how often `Run.retry` chose rows."""
    return max((record.generation for record in folder.retries()), default=0)


def is_settled(folder: RunFolder, states: list[PartState], settled: Round, max_attempts: int) -> bool:
    """Whether a run whose parts are all done has nothing more to send.

    Parameters
    ----------
    states, settled
        Where the parts stand, and what `settled_round` returned before they were read: another process writes the
        parts of the next round first, and notes that the round is settled after them.
    """
    rounds = unsettled(folder, states, settled, max_attempts)
    return all(not due(folder, states, attempted).height for attempted in rounds)


def unsettled(folder: RunFolder, states: list[PartState], settled: Round, max_attempts: int) -> list[Round]:
    """Return the rounds that may be followed by another, and are not noted as settled.

    Parts of the next round are no proof that all of it was prepared: a crash may have come between two of them.
    `Run.retry` takes finished runs only, so only the rounds of its last call can be left.
    """
    generation = generation_of(folder)
    last = max((state.record.attempt for state in states if state.record.generation == generation), default=0)
    begin = settled.attempt + 1 if settled.generation == generation else 0
    return [Round(generation, attempt) for attempt in range(begin, min(last, max_attempts - 1) + 1)]


def due(folder: RunFolder, states: list[PartState], attempted: Round) -> pl.DataFrame:
    """Return the rows of a round that are worth another attempt and are in no part of a later one yet.

    Returns
    -------
    pl.DataFrame
        ``part: Int64`` that holds the request, ``custom_id: String``, ``code: String`` (``missing`` where the files
        have no line, null where `Run.retry` chose it).
    """
    taken: set[str] = {
        custom_id
        for state in states
        if state.record.generation == attempted.generation and state.record.attempt > attempted.attempt
        for custom_id in state.record.custom_ids or []
    }
    if not attempted.attempt:
        rows = [_chosen(folder, states, attempted.generation)]
    else:
        rows = [
            _due_of_part(folder, state.record)
            for state in states
            if (state.record.generation, state.record.attempt) == attempted and state.is_done and not state.is_replaced
        ]
    frame = pl.concat([pl.DataFrame(schema=_DUE), *rows])
    frame = frame.filter(~pl.col("custom_id").is_in(pl.Series(list(taken), dtype=pl.String).implode()))
    return _without_answered(folder, states, attempted, frame)


def _without_answered(
    folder: RunFolder, states: list[PartState], attempted: Round, wanted: pl.DataFrame
) -> pl.DataFrame:
    """Leave out rows that a part of another round answered: batches found in the account may hold a row twice."""
    if not wanted.height or not any(state.record.adopted for state in states):
        return wanted
    answered = [
        answers_of_part(folder, state.record).filter(pl.col("code").is_null()).select("custom_id")
        for state in states
        if state.record.generation == attempted.generation and state.record.attempt != attempted.attempt
    ]
    given = pl.concat([pl.DataFrame(schema={"custom_id": pl.String()}), *answered])
    return wanted.join(given, on="custom_id", how="anti", maintain_order="left")


def _chosen(folder: RunFolder, states: list[PartState], generation: int) -> pl.DataFrame:
    """Return what `Run.retry` chose, with the last part before it that holds each request."""
    held = [
        ids_of(folder, state.record).to_frame().with_columns(part=pl.lit(state.record.number, pl.Int64))
        for state in states
        if state.record.generation < generation and state.record.reused_from is None
    ]  # fmt: skip
    chosen = folder.read_frame(folder.retry_path(generation))
    parts = pl.concat(held).unique("custom_id", keep="last", maintain_order=True)
    joined = chosen.join(parts, on="custom_id", how="inner", maintain_order="left")
    return joined.select("part", "custom_id", pl.lit(None, pl.String).alias("code"))


def _due_of_part(folder: RunFolder, part: PartRecord) -> pl.DataFrame:
    requests = ids_of(folder, part).to_frame()
    answers = best_of_part(folder, part, ["again"]).with_columns(pl.lit(value=True).alias("has_line"))
    # A batch that was cancelled was meant to stop, and an output that expired was paid for. Rows without a line are not
    # sent again then, unless the user asks for it.
    submissions = folder.submissions(part.number)
    may_miss = any(submission.has_files and submission.status != "cancelled" for submission in submissions) and not any(
        submission.output_expired_at for submission in submissions
    )
    missing = pl.col("has_line").is_null() & pl.lit(value=may_miss)
    joined = requests.join(answers, on="custom_id", how="left", maintain_order="left")
    return joined.filter(missing | pl.col("again").fill_null(value=False)).select(
        pl.lit(part.number, pl.Int64).alias("part"),
        "custom_id",
        pl.col("code").fill_null("missing"),
    )


def prepare_retries(folder: RunFolder, attempted: Round, wanted: pl.DataFrame, limits: Limits) -> int:
    """Write the input files of the next round, and return how many.

    Parameters
    ----------
    folder
        The run.
    attempted
        The round that left rows to send again.
    wanted
        What `due` returned.
    limits
        The limits of an input file, both set.
    """
    changes = _changes(folder, attempted)
    attempt, generation = attempted.attempt + 1, attempted.generation
    model = PartRecord(0, 0, 0, 0, attempt=attempt, generation=generation, reader=READER, custom_ids=[])
    with InputFileWriter(folder, *file_limits(limits), model) as writer:
        for (part,), rows in wanted.group_by("part", maintain_order=True):
            custom_ids = set(rows["custom_id"])
            lines = (pair for pair in lines_of(folder, int(part)) if pair[0] in custom_ids)
            if changes:
                lines = ((custom_id, changed_line(line, changes[custom_id])) for custom_id, line in lines)
            writer.add_lines(lines)
        return writer.commit()


def answered_after_all(folder: RunFolder, part: PartRecord) -> set[str]:
    """Return the requests of an attempt that an earlier one answered after all.

    There are some where an earlier version, which could not read their result lines, prepared the attempt.
    """
    earlier = [
        answers_of_part(folder, other)
        for other in folder.parts()
        if other.generation == part.generation and 0 < other.attempt < part.attempt
    ]
    succeeded = pl.col("code").is_null()
    answered = {custom_id for answers in earlier for custom_id in answers.filter(succeeded)["custom_id"]}
    return answered.intersection(part.custom_ids or ())


def _changes(folder: RunFolder, attempted: Round) -> dict[str, str]:
    """Return by request what `Run.retry` changed, as JSON objects. From its first attempt on it is in the lines."""
    if attempted.attempt:
        return {}
    chosen = folder.read_frame(folder.retry_path(attempted.generation))
    return dict(chosen.select("custom_id", "changes").drop_nulls().rows())


def changed_line(line: bytes, changes: str) -> bytes:
    """Return a request line with other parameters in its body; a parameter that is changed to null is left out."""
    body = msgspec.json.decode(wire_format.body_of_request(line), type=dict[str, msgspec.Raw])
    body |= msgspec.json.decode(changes, type=dict[str, msgspec.Raw])
    kept = {name: value for name, value in body.items() if bytes(value) != b"null"}
    return wire_format.replace_body(line, msgspec.json.encode(kept))


def settled_round(folder: RunFolder) -> Round:
    """Return the last round whose due rows are all in parts of the next."""
    stored = folder.read_note(_NOTE)
    note = stored if isinstance(stored, dict) else {}
    # The first generation has no choice of rows to settle: its attempt 0 is settled from the beginning.
    return Round(note.get("generation", 0), note.get("settled_attempt", 0))


def settle(folder: RunFolder, attempted: Round) -> None:
    """Note that the due rows of this round, and of those before it, are all in parts of the next."""
    if attempted > settled_round(folder):
        folder.write_note(_NOTE, {"generation": attempted.generation, "settled_attempt": attempted.attempt})
