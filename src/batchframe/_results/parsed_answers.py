"""What a part's result files say, parsed once and kept as Arrow files: whoever asks later reads those."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from batchframe._core.exceptions import ResultsError
from batchframe._endpoints.registry import ENDPOINTS
from batchframe._results.columns import best_answers
from batchframe._results.result_lines import ANSWER_SCHEMA, PLACES, READER, read_answers
from batchframe._store.filesystem import open_to_read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from batchframe._store.records import PartRecord
    from batchframe._store.run_folder import DownloadedFile, RunFolder

# Where an answer comes from.
_SOURCE = {"batch_id": pl.String(), "generation": pl.UInt16()}
# The result file, as the run's folder calls it, and where in it the line is.
LINES = {"line_file": pl.String()} | PLACES


def known_schema(*, lines: bool) -> dict[str, pl.DataType]:
    """Return the columns of the Arrow files."""
    return ANSWER_SCHEMA | _SOURCE | (LINES if lines else {})


class ResultFile(NamedTuple):
    """A result file of a part.

    Parameters
    ----------
    path
        Where it is.
    name
        What the run's folder calls it.
    batch_id
        The batch that wrote it.
    renames
        A Parquet file with ``theirs`` and ``ours``, where the batch was found in the account and its requests have
        other ids; None where they are ours.
    """

    path: Path
    name: str
    batch_id: str | None
    renames: Path | None


class ParseTask(NamedTuple):
    """All that parsing a part takes, so that any process that sees the files can do it.

    Parameters
    ----------
    endpoint
        The path of the endpoint.
    many
        Whether several choices were asked for.
    lines
        Whether to keep where the line of each answer is.
    generation
        Which call of `Run.retry` asked for the part.
    rejected
        The custom_ids of requests that the service refused, each with its reason.
    files
        The result files, in the order in which they were asked for.
    """

    endpoint: str
    many: bool
    lines: bool
    generation: int
    rejected: list[tuple[str, str]]
    files: list[ResultFile]


def parse_part(task: ParseTask, target: Path) -> None:
    """Write what the result files of a part say as numbered Arrow files; the same files give the same bytes.

    Parameters
    ----------
    task
        What to parse.
    target
        An empty folder.
    """
    schema = known_schema(lines=task.lines)
    generation = pl.lit(task.generation, _SOURCE["generation"]).alias("generation")
    index = 0
    if task.rejected:
        rows = [(custom_id, "input_rejected", reason, False) for custom_id, reason in task.rejected]
        rejected = pl.DataFrame(rows, schema=["custom_id", "code", "message", "again"], orient="row")
        absent = [pl.lit(None, dtype).alias(name) for name, dtype in schema.items() if name not in rejected.columns]
        rejected.with_columns(*absent).with_columns(generation).select(*schema).write_ipc(target / "000000.arrow")
        index = 1
    for file in task.files:
        source = [pl.lit(file.batch_id, pl.String).alias("batch_id"), pl.lit(file.name).alias("line_file"), generation]
        renames = None if file.renames is None else pl.read_parquet(file.renames)
        with open_to_read(file.path) as handle:
            for read in read_answers(handle, ENDPOINTS[task.endpoint], many=task.many, places=task.lines):
                answers = read if renames is None else _renamed(read, renames)
                answers.with_columns(source).select(*schema).write_ipc(target / f"{index:06d}.arrow")
                index += 1


def _renamed(answers: pl.DataFrame, renames: pl.DataFrame) -> pl.DataFrame:
    """Return the answers of a batch that was found in the account under our ids; others are not to requests of ours."""
    joined = answers.join(renames, left_on="custom_id", right_on="theirs", how="inner", maintain_order="left")
    return joined.with_columns(pl.col("ours").alias("custom_id")).drop("ours")


def part_answers(folder: RunFolder, part: PartRecord, *, lines: bool = False) -> list[Path]:
    """Return the Arrow files of a part's answers, in the order in which they were asked for.

    They may be removed as soon as `RunFolder.assembling`, which the caller holds, is let go.

    Parameters
    ----------
    folder
        The run.
    part
        The part.
    lines
        Whether with where the line of each is.
    """
    files = folder.result_files(part.number)  # once: another thread may be downloading more of them
    name = _name(folder, part, files)
    if name is None:
        return []
    _parse_missing(folder, [(part, files)], lines=lines, map_parts=map)
    paths = folder.parsed_answers(name, lines=lines)
    if paths is None:  # on a file system without locks; no answer must pass for a missing one
        folder.ensure_exists()
        msg = f"part {part.number}: another process removed its parsed answers just now. Make the same call again"
        raise ResultsError(msg)
    return paths


def parse_parts(
    folder: RunFolder,
    parts: Iterable[PartRecord],
    *,
    lines: bool = False,
    map_parts: Callable[..., Iterable[None]] = map,
) -> None:
    """Parse those of some parts that are not parsed yet.

    Parameters
    ----------
    folder
        The run.
    parts
        The parts.
    lines
        Whether with where the line of each answer is.
    map_parts
        What runs `parse_part` over them, such as the ``map`` of an executor.
    """
    _parse_missing(
        folder, [(part, folder.result_files(part.number)) for part in parts], lines=lines, map_parts=map_parts
    )


def _parse_missing(
    folder: RunFolder,
    parts: list[tuple[PartRecord, list[DownloadedFile]]],
    *,
    lines: bool,
    map_parts: Callable[..., Iterable[None]],
) -> None:
    missing = [
        (name, _task(folder, part, files, lines=lines))
        for part, files in parts
        if (name := _name(folder, part, files)) is not None and folder.parsed_answers(name, lines=lines) is None
    ]
    with ExitStack() as stack:
        making = [stack.enter_context(folder.parsing(name, lines=lines)) for name, _ in missing]
        for _ in map_parts(parse_part, [task for _, task in missing], making):
            pass


def _name(folder: RunFolder, part: PartRecord, files: list[DownloadedFile]) -> str | None:
    """Return what the parsed answers of a part are called; None where it has none yet."""
    if not files and not part.rejected:
        return None
    # Result files are never changed, but more of them may come, or another version of what reads them.
    size = sum(folder.size_of(file.path) or 0 for file in files)
    return f"{part.number:04d}-{len(files)}-{size}-r{READER}"


def _task(folder: RunFolder, part: PartRecord, files: list[DownloadedFile], *, lines: bool) -> ParseTask:
    record = folder.record()
    result_files = [
        ResultFile(
            path,
            folder.name_of(path),
            submission.batch_id,
            folder.renamed_path(part.number) if part.adopted and submission.adopted_at is not None else None,
        )
        for submission, _, path in files
    ]
    return ParseTask(
        endpoint=record.identity.endpoint,
        many=record.options.get("choices", 1) > 1,
        lines=lines,
        generation=part.generation,
        rejected=[(request.custom_id, f"{request.code}: {request.message}") for request in part.rejected],
        files=result_files,
    )


def answers_of_part(folder: RunFolder, part: PartRecord, columns: Iterable[str] = ()) -> pl.DataFrame:
    """Return every answer that a part's files tell of: its id, its code, its generation and these columns."""
    schema = known_schema(lines=False)
    names = ["custom_id", "code", "generation", *columns]
    frames = [pl.DataFrame(schema={name: schema[name] for name in names})]
    with folder.assembling():  # a process that finds the run finished removes the files
        frames += [pl.scan_ipc(path).select(names).collect() for path in part_answers(folder, part)]
    return pl.concat(frames)


def best_of_part(folder: RunFolder, part: PartRecord, columns: Iterable[str]) -> pl.DataFrame:
    """Return the answer that counts of each request that a part's files tell of, with these columns and its id."""
    return best_answers(answers_of_part(folder, part, columns))


def forget_answers(folder: RunFolder) -> None:
    """Remove the Arrow files: they are made anew from the bytes when they are needed."""
    folder.remove_parsed_answers()
