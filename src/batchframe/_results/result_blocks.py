"""The frame of results, a block at a time: what is known so far, or the files of a finished run."""

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
from batchframe._results.parsed_answers import forget_answers
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
    """``results.json``: what the result blocks hold. It is written after them, so that all of them are there with it.

    ``parts`` is how many parts the run had when it was found finished; a retry adds more. ``prefix`` is put before the
    names of the added columns in the blocks: nothing, unless the frame has a column of such a name. ``from_lines`` are
    the columns in them that are made of whole result lines, and ``group_rows`` how many rows may be held together where
    a block had to be cut for these. ``sizes`` are the bytes of each block: a block that was cut off is written again.
    ``reader`` is the version of what read the result lines; 0 for batchframe 0.1.0.
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
    """The result blocks of a finished run: the folder that has them, and what they hold."""

    folder: BlockFolder
    note: ResultNote

    def scan(self) -> pl.LazyFrame:
        """Return a scan of them.

        It may be read much later, when others have taken their place: of a retry, or with further columns. With a
        schema, Polars looks at a file only when it reads it.
        """
        paths = [self.folder.results_path(number) for number in range(self.note.blocks)]
        with self.folder.reading(paths[0]):
            schema = pl.read_parquet_schema(paths[0])
        frame = pl.scan_parquet(paths, schema=schema, extra_columns="ignore", glob=False)
        usage = self.note.prefix + "usage"
        if schema[usage] == USAGE:
            return frame
        # An earlier version wrote them, which knew fewer counts.
        known = {field.name for field in schema[usage].fields}  # type: ignore[attr-defined]
        count = {name: pl.col(usage).struct.field(name) for name in known}
        fields = [count.get(name, pl.lit(None, pl.Int64)).alias(name) for name in TOKENS]
        return frame.with_columns(pl.when(pl.col(usage).is_not_null()).then(pl.struct(fields)).alias(usage))


def blocks_so_far(
    folder: RunFolder, view: BlockFolder | None, *, from_lines: tuple[str, ...] = (), form: AnswerFormat
) -> Iterator[Iterable[pl.DataFrame]]:
    """Yield the blocks of the frame, each in its pieces: input columns, and added ones (as ``batchframe:…``).

    Parameters
    ----------
    folder
        The run.
    view
        Another arrangement of its rows to show it in, or None. This one holds all answers in memory.
    from_lines
        Which of the columns to add that are made of whole result lines.
    form
        What the answers are.
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
    """Give each row of another arrangement the answer to the same request, the n-th to the n-th.

    Where requests are sent once however often they occur, one may occur more often here: then the count begins anew.
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
        # Whether a row is sent can differ from the first arrangement: its own code comes before the request's.
        own = pl.struct(pl.col(CODE).alias("code"), pl.col(MESSAGE).alias("message"))
        error = pl.when(pl.col(CODE).is_not_null()).then(own).otherwise(pl.col(OURS + "error")).alias(OURS + "error")
        kept = [name for name in rows.columns if not name.startswith(OURS)]
        names = [name for name in answers.columns if name not in (DIGEST, nth, CUSTOM_ID)]
        filled = [with_default(pl.col(name), name.removeprefix(OURS)) for name in names if name != OURS + "error"]
        yield joined.with_columns(error, *filled).select(*kept, CUSTOM_ID, *names)


def own_successes(folder: RunFolder) -> Iterator[pl.DataFrame]:
    """Yield, block by block, the rows of a run whose own request succeeded, as far as is known now.

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
            with folder.assembling():  # another process may find it finished
                found = assembler.block(number).select(names)
        else:
            found = folder.read_frame(folder.results_path(number), names)
        is_own = rows[DIGEST].is_not_null() & rows[REQUEST].is_null()
        rows = rows.select(CUSTOM_ID, DIGEST).with_columns(found[names[1]].alias("batch_id"))
        yield rows.filter(is_own & found[names[0]].is_null())


def request_ids(folder: RunFolder, view: BlockFolder | None) -> pl.Series:
    """Return by row the custom_id of the request that answers it; null where the row is not sent."""
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
    """Write the result blocks of a finished run, unless they are there, and return what they hold.

    Parameters
    ----------
    parts
        How many parts the run had when it was found finished.
    is_watched
        Whether another process works on the run, and may read what was parsed.
    """
    target = _target(folder, view, form)
    note = _final_note(folder, target, from_lines, form)
    if note is not None:
        return FinalBlocks(target, note)
    with folder.assembling():
        note = _final_note(folder, target, from_lines, form)
        if note is not None:
            return FinalBlocks(target, note)  # another process was quicker
        before = _read_note(folder, target)
        wanted = from_lines
        from_lines = tuple(dict.fromkeys((*from_lines, *(before.from_lines if before is not None else ()))))
        try:
            if before is not None:
                _check_bytes(folder)
            note = _write_blocks(folder, view, target, from_lines, form, parts=parts)
        except (ResultsError, DamagedRunError) as error:
            if before is None or not _fits(before, wanted, form):
                raise
            warn(f"an earlier version of batchframe read these results, and they cannot be read anew: {error}")
            return FinalBlocks(target, before)
        if not is_watched:
            forget_answers(folder)
    return FinalBlocks(target, note)


def _check_bytes(folder: RunFolder) -> None:
    """Refuse to replace blocks when result files are gone; errors as for `RunFolder.result_files`."""
    for part in folder.parts():
        folder.result_files(part.number)


def _target(folder: RunFolder, view: BlockFolder | None, form: AnswerFormat) -> BlockFolder:
    """Return which folder has the result blocks of an arrangement, read as some type."""
    own = msgspec.convert(folder.record().options.get("answer_type"), AnswerType | None)
    arranged = view or folder
    if form.answer_type == own:
        return arranged
    return arranged.reparsed(hashlib.blake2b(msgspec.json.encode(form.answer_type), digest_size=8).hexdigest())


def _final_note(
    folder: RunFolder, target: BlockFolder, from_lines: tuple[str, ...], form: AnswerFormat
) -> ResultNote | None:
    note = _read_note(folder, target)
    return note if note is not None and note.reader == READER and _fits(note, from_lines, form) else None


def _fits(note: ResultNote, from_lines: tuple[str, ...], form: AnswerFormat) -> bool:
    """Whether the result blocks hold what is wanted."""
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
            tally(piece, counts, usage)
            if {*CORE, *EXTRA_COLUMNS} & set(piece.columns):
                prefix = OURS
            yield piece.rename({OURS + name: prefix + name for name in (*CORE, *EXTRA_COLUMNS)}, strict=False)

    heights = [
        target.write_pieces(target.results_path(number), counted(pieces))
        for number, pieces in enumerate(blocks_so_far(folder, view, from_lines=from_lines, form=form))
    ]
    if counts["pending"] and folder.count_parts() == parts:  # nobody asked for more in the meantime
        what = f"does not hold all that the run asked for ({counts['pending']} rows are in no part of it)"
        raise folder.damaged("parts", what)
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


def forget_results(folder: RunFolder) -> None:
    """Note that the result blocks are not final any more, since more answers are to come."""
    for target in folder.results():
        target.remove_note(_NOTE)


def _read_note(folder: RunFolder, target: BlockFolder) -> ResultNote | None:
    try:
        note = msgspec.convert(target.read_note(_NOTE), ResultNote | None)
    except msgspec.ValidationError:
        return None  # somebody changed it: the blocks are written again
    if note is None or note.parts != folder.count_parts():
        return None
    sizes = target.result_sizes(note.blocks)
    return note if None not in sizes and sizes == (note.sizes or sizes) else None


def shown(frame: pl.LazyFrame, stored_prefix: str, include: Iterable[str], prefix: str) -> pl.LazyFrame:
    """Return the input columns and the added ones that were asked for, in the order and under the names of the call."""
    places = {name: place for place, name in enumerate(frame.collect_schema())}
    stored = {stored_prefix + name for name in (*CORE, *EXTRA_COLUMNS)}
    own = [name for name in places if name not in stored]
    # Column order on disk comes from earlier calls. A column of the user's own is not added.
    added = {stored_prefix + name: prefix + name for name in (*CORE, *include) if prefix + name not in own}
    # By place, not by name: the frame may have a column called "*".
    return frame.select(pl.nth([places[name] for name in (*own, *added)])).rename(mapping=added)


def tally(block: pl.DataFrame, counts: dict[str, int], usage: dict[str, int]) -> None:
    """Add a block's rows by outcome, and its tokens, to what was counted so far."""
    code = pl.col(OURS + "error").struct.field("code")
    outcome = (
        pl.when(code.is_null()).then(pl.lit("succeeded"))
        .when(code == "pending").then(pl.lit("pending"))
        .when(code.is_in(NOT_SENT)).then(pl.lit("not_sent"))
        .otherwise(pl.lit("failed"))
    )  # fmt: skip
    for name, count in block.select(outcome.alias("outcome")).group_by("outcome").len().rows():
        counts[name] += count
    is_ours = ~pl.col(OURS + "reused")  # what another run used was counted there
    sums = block.select(pl.col(OURS + "usage").struct.field(name).filter(is_ours).sum().alias(name) for name in TOKENS)
    for name, total in sums.row(0, named=True).items():
        usage[name] += total
