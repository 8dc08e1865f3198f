"""The parsed answers of a part: its result files are parsed once, and later reads use the Arrow files."""

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

# The origin of an answer.
_SOURCE = {"batch_id": pl.String(), "generation": pl.UInt16()}
# The result file, relative to the run's folder, and the place of the line in it.
LINES = {"line_file": pl.String()} | PLACES


def parsed_schema(*, lines: bool) -> dict[str, pl.DataType]:
    """Return the schema of the Arrow files."""
    return ANSWER_SCHEMA | _SOURCE | (LINES if lines else {})


class ResultFile(NamedTuple):
    """A result file of a part.

    Parameters
    ----------
    path
        The path of the file.
    name
        The path relative to the run's folder.
    batch_id
        The batch that wrote it.
    renames
        A Parquet file with ``theirs`` and ``ours``, for a batch that was found in the account and has other ids; None
        if its ids are ours.
    """

    path: Path
    name: str
    batch_id: str | None
    renames: Path | None


class ParseTask(NamedTuple):
    """The input of `parse_part`, complete, so that any process that sees the files can run it.

    Parameters
    ----------
    endpoint
        The path of the endpoint.
    many
        Whether each request asks for several choices.
    lines
        Whether to store the place of the line of each answer.
    generation
        The generation of the part: the call of `Run.retry` it belongs to.
    rejected
        The custom_ids of requests that the service rejected, each with the reason.
    files
        The result files, oldest first.
    """

    endpoint: str
    many: bool
    lines: bool
    generation: int
    rejected: list[tuple[str, str]]
    files: list[ResultFile]


def parse_part(task: ParseTask, target: Path) -> None:
    """Parse the result files of a part into numbered Arrow files; the same input gives the same bytes.

    Parameters
    ----------
    task
        The files to parse.
    target
        An empty folder.
    """
    schema = parsed_schema(lines=task.lines)
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
            for frame in read_answers(handle, ENDPOINTS[task.endpoint], many=task.many, places=task.lines):
                answers = frame if renames is None else _renamed(frame, renames)
                answers.with_columns(source).select(*schema).write_ipc(target / f"{index:06d}.arrow")
                index += 1


def _renamed(answers: pl.DataFrame, renames: pl.DataFrame) -> pl.DataFrame:
    """Return the answers of an adopted batch under our ids; answers to requests that are not ours are dropped."""
    joined = answers.join(renames, left_on="custom_id", right_on="theirs", how="inner", maintain_order="left")
    return joined.with_columns(pl.col("ours").alias("custom_id")).drop("ours")


def part_answers(folder: RunFolder, part: PartRecord, *, lines: bool = False) -> list[Path]:
    """Return the Arrow files of a part's answers, oldest first.

    The caller holds `RunFolder.assembling`; the files may be removed as soon as that is released.

    Parameters
    ----------
    folder
        The run.
    part
        The part.
    lines
        Whether to include the place of the line of each answer.
    """
    files = folder.result_files(part.number)  # read once, since another thread may be downloading more
    name = _name(folder, part, files)
    if name is None:
        return []
    paths = folder.parsed_answers(name, lines=lines)
    if paths is None:
        _parse(folder, {name: _task(folder, part, files, lines=lines)}, lines=lines, map_parts=map)
        paths = folder.parsed_answers(name, lines=lines)
    if paths is None:  # possible without file locks; the answers must not count as missing
        folder.ensure_exists()
        msg = f"part {part.number}: another process just removed its parsed answers. Repeat the call"
        raise ResultsError(msg)
    return paths


def parse_parts(
    folder: RunFolder,
    parts: Iterable[PartRecord],
    *,
    lines: bool = False,
    map_parts: Callable[..., Iterable[None]] = map,
) -> None:
    """Parse the parts that are not parsed yet.

    Parameters
    ----------
    folder
        The run.
    parts
        The parts.
    lines
        Whether to include the place of the line of each answer.
    map_parts
        Runs `parse_part` over them, such as the ``map`` of an executor.
    """
    downloaded = [(part, folder.result_files(part.number)) for part in parts]
    missing = {
        name: _task(folder, part, files, lines=lines)
        for part, files in downloaded
        if (name := _name(folder, part, files)) is not None and folder.parsed_answers(name, lines=lines) is None
    }
    _parse(folder, missing, lines=lines, map_parts=map_parts)


def _parse(
    folder: RunFolder, tasks: dict[str, ParseTask], *, lines: bool, map_parts: Callable[..., Iterable[None]]
) -> None:
    """Run tasks, each into the folder of its name."""
    with ExitStack() as stack:
        targets = [stack.enter_context(folder.parsing(name, lines=lines)) for name in tasks]
        for _ in map_parts(parse_part, tasks.values(), targets):
            pass


def _name(folder: RunFolder, part: PartRecord, files: list[DownloadedFile]) -> str | None:
    """Return the key of a part's parsed answers; None if it has no answers yet."""
    if not files and not part.rejected:
        return None
    # Result files never change, but their number may grow, and the version of the reader may change.
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
    """Return all answers in a part's files: custom_id, code, generation and ``columns``."""
    schema = parsed_schema(lines=False)
    names = ["custom_id", "code", "generation", *columns]
    frames = [pl.DataFrame(schema={name: schema[name] for name in names})]
    with folder.assembling():  # else a process that finds the run finished removes the files
        frames += [pl.scan_ipc(path).select(names).collect() for path in part_answers(folder, part)]
    return pl.concat(frames)


def best_of_part(folder: RunFolder, part: PartRecord, columns: Iterable[str]) -> pl.DataFrame:
    """Return the best answer to each request in a part's files, with ``columns`` as in `answers_of_part`."""
    return best_answers(answers_of_part(folder, part, columns))
