"""The result frame, a block at a time: the results so far, or the files of a finished run."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import polars as pl

from batchframe._core.column_names import CODE, CUSTOM_ID, DIGEST, MESSAGE, OURS, REQUEST
from batchframe._core.exceptions import DamagedRunError, ResultsError, warn
from batchframe._endpoints.usage import TOKENS
from batchframe._results.assemble import Assembler
from batchframe._results.columns import CORE, USAGE, with_default
from batchframe._results.extra_columns import EXTRA_COLUMNS
from batchframe._results.result_lines import READER
from batchframe._schemas.response_format import AnswerType

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from batchframe._results.answer_format import AnswerFormat
    from batchframe._store.block_folder import BlockFolder
    from batchframe._store.run_folder import RunFolder

OUTCOMES = ("succeeded", "failed", "not_sent", "pending")
NOT_SENT = ("null_input", "invalid_input", "request_too_large", "not_submitted")
_NOTE = "results.json"


class ResultNote(msgspec.Struct):
    """``results.json``: a description of the result blocks. It is written last, so with it they are complete.

    ``parts`` is the number of parts the run had when it finished; a retry adds more. ``prefix`` precedes the names of
    the added columns in the blocks; it is empty unless the frame has a column of such a name. ``from_lines`` lists the
    columns that were read from whole result lines, and ``group_rows`` how many rows fit in memory together if a block
    had to be cut for them. ``sizes`` are the bytes of each block: a truncated block is written again. ``reader`` is the
    version of the reader of the result lines; 0 for batchframe 0.1.0.
    """

    blocks: int
    prefix: str
    counts: dict[str, int]
    usage: dict[str, int]
    answer_type: AnswerType | None = None
    parts: int = -1
    from_lines: tuple[str, ...] = ()
    group_rows: int | None = None
    sizes: list[int | None] | None = None
    reader: int = 0


class FinalBlocks(NamedTuple):
    """The result blocks of a finished run: their folder and their description."""

    folder: BlockFolder
    note: ResultNote

    def scan(self) -> pl.LazyFrame:
        """Scan the blocks.

        The scan may be collected much later, when a retry or further columns have replaced the blocks. Given a schema,
        Polars opens a file only when it reads it.
        """
        paths = [self.folder.results_path(number) for number in range(self.note.blocks)]
        with self.folder.reading(paths[0]):
            schema = pl.read_parquet_schema(paths[0])
        frame = pl.scan_parquet(paths, schema=schema, extra_columns="ignore", glob=False)
        usage = self.note.prefix + "usage"
        if schema[usage] == USAGE:
            return frame
        # Written by an earlier version with fewer token counts.
        known = {field.name for field in schema[usage].fields}  # type: ignore[attr-defined]
        count = {name: pl.col(usage).struct.field(name) for name in known}
        fields = [count.get(name, pl.lit(None, pl.Int64)).alias(name) for name in TOKENS]
        return frame.with_columns(pl.when(pl.col(usage).is_not_null()).then(pl.struct(fields)).alias(usage))


def current_blocks(
    folder: RunFolder, view: BlockFolder | None, *, from_lines: tuple[str, ...] = (), form: AnswerFormat
) -> Iterator[Iterable[pl.DataFrame]]:
    """Yield the result blocks of the run as it stands now, each in pieces.

    They have the input columns, and the added ones as ``batchframe:…``.

    Parameters
    ----------
    folder
        The run.
    view
        Another arrangement of the rows, or None. With one, all answers are held in memory.
    from_lines
        The columns to add that are read from whole result lines.
    form
        The format of the answers.
    """
    count = len(folder.record().blocks)
    assembler = Assembler(folder, from_lines, form)
    if view is not None:
        blocks = (assembler.block(number) for number in range(count))
        yield from ((block,) for block in _arranged(blocks, view))
        return
    for number in range(count):
        yield (piece.drop(DIGEST) for piece in assembler.pieces(number))


def _arranged(blocks: Iterable[pl.DataFrame], view: BlockFolder) -> Iterator[pl.DataFrame]:
    """Yield the blocks of another arrangement: the n-th row of a request gets the n-th answer to it.

    With ``dedupe`` a request may occur more often here than it has answers: then the answers repeat from the first.
    """
    added = [OURS + name for name in (*CORE, *EXTRA_COLUMNS)]
    answers = pl.concat([block.select(DIGEST, *(name for name in added if name in block.columns)) for block in blocks])
    nth, times = OURS + "nth", OURS + "times"
    answers = answers.filter(pl.col(DIGEST).is_not_null()).with_columns(pl.int_range(pl.len()).over(DIGEST).alias(nth))
    counts = answers.group_by(DIGEST).agg(pl.len().cast(pl.Int64).alias(times))
    stored = [view.read_frame(view.rows_path(number)) for number in range(len(view_blocks(view)))]
    ordinals = (
        pl.concat([rows.select(DIGEST) for rows in stored]).select(pl.int_range(pl.len()).over(DIGEST)).to_series()
    )
    offset = 0
    for rows in stored:
        keyed = rows.with_columns(ordinals[offset : offset + rows.height].alias(nth))
        keyed = keyed.join(counts, on=DIGEST, how="left", maintain_order="left")
        keyed = keyed.with_columns(pl.col(nth) % pl.col(times))
        offset += rows.height
        joined = keyed.join(answers, on=[DIGEST, nth], how="left", maintain_order="left")
        # A row may be unsent here though its request was sent: its own error takes precedence.
        own = pl.struct(pl.col(CODE).alias("code"), pl.col(MESSAGE).alias("message"))
        error = pl.when(pl.col(CODE).is_not_null()).then(own).otherwise(pl.col(OURS + "error")).alias(OURS + "error")
        columns = [name for name in rows.columns if not name.startswith(OURS)]
        names = [name for name in answers.columns if name not in (DIGEST, nth, CUSTOM_ID)]
        filled = [with_default(pl.col(name), name.removeprefix(OURS)) for name in names if name != OURS + "error"]
        yield joined.with_columns(error, *filled).select(*columns, CUSTOM_ID, *names)


def successful_requests(folder: RunFolder) -> Iterator[pl.DataFrame]:
    """Yield, block by block, the rows of a run whose own request has succeeded so far.

    Yields
    ------
    pl.DataFrame
        Their custom_id and digest, and the ``batch_id`` of the answer.
    """
    note = _read_note(folder, folder)
    assembler = Assembler(folder) if note is None or note.reader != READER else None
    for number in range(len(folder.record().blocks)):
        rows = folder.read_frame(folder.rows_path(number), [CUSTOM_ID, DIGEST, REQUEST])
        prefix = OURS if note is None or assembler is not None else note.prefix
        names = [prefix + "error", prefix + "batch_id"]
        if assembler is not None:
            with folder.assembling():  # else a process that finds the run finished removes what is read
                results = assembler.block(number).select(names)
        else:
            results = folder.read_frame(folder.results_path(number), names)
        is_own = rows[DIGEST].is_not_null() & rows[REQUEST].is_null()
        rows = rows.select(CUSTOM_ID, DIGEST).with_columns(results[names[1]].alias("batch_id"))
        yield rows.filter(is_own & results[names[0]].is_null())


def request_ids(folder: RunFolder, view: BlockFolder | None) -> pl.Series:
    """Return the custom_id of the request of each row; null for a row that is not sent."""
    keyed = pl.concat(
        folder.read_frame(folder.rows_path(number), [CUSTOM_ID, REQUEST, DIGEST])
        for number in range(len(folder.record().blocks))
    ).select(DIGEST, pl.when(pl.col(DIGEST).is_not_null()).then(pl.coalesce(REQUEST, CUSTOM_ID)).alias("id"))
    if view is None:
        return keyed["id"]
    nth = pl.int_range(pl.len()).over(DIGEST).alias("nth")
    rows = pl.concat(view.read_frame(view.rows_path(number), [DIGEST]) for number in range(len(view_blocks(view))))
    return rows.with_columns(nth).join(
        keyed.with_columns(nth), on=[DIGEST, "nth"], how="left", maintain_order="left"
    )["id"]  # fmt: skip


def view_blocks(view: BlockFolder) -> list[int]:
    """Return the heights of a view's blocks."""
    return msgspec.convert(view.read_note("view.json"), list[int])


def final_blocks(
    folder: RunFolder,
    view: BlockFolder | None,
    *,
    from_lines: tuple[str, ...] = (),
    form: AnswerFormat,
    parts: int,
    is_watched: bool,
) -> FinalBlocks:
    """Return the result blocks of a finished run; write them first unless they exist.

    Parameters
    ----------
    parts
        The number of parts the run had when it finished.
    is_watched
        Whether another process works on the run, and may read the parsed answers.
    """
    target = _target(folder, view, form)
    note = _final_note(folder, target, from_lines, form)
    if note is not None:
        return FinalBlocks(target, note)
    with folder.assembling():
        note = _final_note(folder, target, from_lines, form)
        if note is not None:
            return FinalBlocks(target, note)  # another process has written them
        previous = _read_note(folder, target)
        requested = from_lines
        from_lines = tuple(dict.fromkeys((*from_lines, *(previous.from_lines if previous is not None else ()))))
        try:
            if previous is not None:
                _check_result_files(folder)
            note = _write_blocks(folder, view, target, from_lines, form, parts=parts)
        except (ResultsError, DamagedRunError) as error:
            if previous is None or not _fits(previous, requested, form):
                raise
            warn(f"these results were read by an earlier version of batchframe and cannot be read again: {error}")
            return FinalBlocks(target, previous)
        if not is_watched:
            folder.remove_parsed_answers()
    return FinalBlocks(target, note)


def _check_result_files(folder: RunFolder) -> None:
    """Raise if result files are gone, before blocks are replaced; errors as for `RunFolder.result_files`."""
    for part in folder.parts():
        folder.result_files(part.number)


def _target(folder: RunFolder, view: BlockFolder | None, form: AnswerFormat) -> BlockFolder:
    """Return the folder of the result blocks of an arrangement and an answer type."""
    own = msgspec.convert(folder.record().options.get("answer_type"), AnswerType | None)
    arrangement = view or folder
    if form.answer_type == own:
        return arrangement
    return arrangement.reparsed(hashlib.blake2b(msgspec.json.encode(form.answer_type), digest_size=8).hexdigest())


def _final_note(
    folder: RunFolder, target: BlockFolder, from_lines: tuple[str, ...], form: AnswerFormat
) -> ResultNote | None:
    note = _read_note(folder, target)
    return note if note is not None and note.reader == READER and _fits(note, from_lines, form) else None


def _fits(note: ResultNote, from_lines: tuple[str, ...], form: AnswerFormat) -> bool:
    """Whether the result blocks have the requested type and columns."""
    return note.answer_type == form.answer_type and set(from_lines) <= {*note.from_lines}


def _write_blocks(
    folder: RunFolder,
    view: BlockFolder | None,
    target: BlockFolder,
    from_lines: tuple[str, ...],
    form: AnswerFormat,
    *,
    parts: int,
) -> ResultNote:
    counts, usage = dict.fromkeys(OUTCOMES, 0), dict.fromkeys(TOKENS, 0)
    prefix = ""

    def counted(pieces: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        nonlocal prefix
        for piece in pieces:
            add_counts(piece, counts, usage)
            if {*CORE, *EXTRA_COLUMNS} & set(piece.columns):
                prefix = OURS
            yield piece.rename({OURS + name: prefix + name for name in (*CORE, *EXTRA_COLUMNS)}, strict=False)

    heights = [
        target.write_pieces(target.results_path(number), counted(pieces))
        for number, pieces in enumerate(current_blocks(folder, view, from_lines=from_lines, form=form))
    ]
    if counts["pending"] and folder.count_parts() == parts:  # no retry came in between
        problem = f"is incomplete ({counts['pending']} rows are in no part)"
        raise folder.damaged("parts", problem)
    note = ResultNote(
        blocks=len(heights),
        prefix=prefix,
        counts=counts,
        usage=usage,
        answer_type=form.answer_type,
        parts=parts,
        from_lines=from_lines,
        group_rows=min((height for height in heights if height is not None), default=None),
        sizes=target.result_sizes(len(heights)),
        reader=READER,
    )
    target.write_note(_NOTE, note)
    return note


def mark_results_stale(folder: RunFolder) -> None:
    """Mark the result blocks as not final, since more answers are to come."""
    for target in folder.results():
        target.remove_note(_NOTE)


def _read_note(folder: RunFolder, target: BlockFolder) -> ResultNote | None:
    try:
        note = msgspec.convert(target.read_note(_NOTE), ResultNote | None)
    except msgspec.ValidationError:
        return None  # it was changed by hand: the blocks are written again
    if note is None or note.parts != folder.count_parts():
        return None
    sizes = target.result_sizes(note.blocks)
    return note if None not in sizes and sizes == (note.sizes or sizes) else None


def select_columns(frame: pl.LazyFrame, stored_prefix: str, include: Iterable[str], prefix: str) -> pl.LazyFrame:
    """Select the input columns and the requested added ones, in the order and under the names of the call."""
    places = {name: place for place, name in enumerate(frame.collect_schema())}
    stored = {stored_prefix + name for name in (*CORE, *EXTRA_COLUMNS)}
    own = [name for name in places if name not in stored]
    # Column order on disk comes from earlier calls. The user's own columns are not added again.
    added = {stored_prefix + name: prefix + name for name in (*CORE, *include) if prefix + name not in own}
    # By place, not by name: the frame may have a column called "*".
    return frame.select(pl.nth([places[name] for name in (*own, *added)])).rename(mapping=added)


def add_counts(block: pl.DataFrame, counts: dict[str, int], usage: dict[str, int]) -> None:
    """Add the outcomes and the tokens of a block to the totals so far."""
    code = pl.col(OURS + "error").struct.field("code")
    outcome = (
        pl.when(code.is_null()).then(pl.lit("succeeded"))
        .when(code == "pending").then(pl.lit("pending"))
        .when(code.is_in(NOT_SENT)).then(pl.lit("not_sent"))
        .otherwise(pl.lit("failed"))
    )  # fmt: skip
    for name, count in block.select(outcome.alias("outcome")).group_by("outcome").len().rows():
        counts[name] += count
    is_paid_here = ~pl.col(OURS + "reused")  # the tokens of reused answers count for the other run
    sums = block.select(
        pl.col(OURS + "usage").struct.field(name).filter(is_paid_here).sum().alias(name) for name in TOKENS
    )
    for name, total in sums.row(0, named=True).items():
        usage[name] += total
