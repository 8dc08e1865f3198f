"""What a part's result files say, parsed once and kept as Arrow files: whoever asks later reads those."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from batchframe._endpoints.registry import ENDPOINTS
from batchframe._results.columns import best_answers
from batchframe._results.result_lines import ANSWER_SCHEMA, PLACES, READER, read_answers

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from batchframe._store.records import PartRecord
    from batchframe._store.run_folder import RunFolder

# Where an answer comes from.
_SOURCE = {"batch_id": pl.String(), "generation": pl.UInt16()}
# The result file, as the run's folder calls it, and where in it the line is.
LINES = {"line_file": pl.String()} | PLACES


def known_schema(*, lines: bool) -> dict[str, pl.DataType]:
    """Return the columns of the Arrow files."""
    return ANSWER_SCHEMA | _SOURCE | (LINES if lines else {})


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
    files = folder.result_files(part.number)
    if not files and not part.rejected:
        return []
    # Result files are never changed, but more of them may come, or another version of what reads them.
    size = sum(folder.size_of(file.path) or 0 for file in files)
    name = f"{part.number:04d}-{len(files)}-{size}-r{READER}"
    parsed = folder.parsed_answers(name, lines=lines)
    if parsed is None:
        with folder.parsing(name, lines=lines) as making:
            _parse(folder, part, making, lines=lines)
        parsed = folder.parsed_answers(name, lines=lines)
    return parsed or []


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


def _parse(folder: RunFolder, part: PartRecord, making: Path, *, lines: bool) -> None:
    schema = known_schema(lines=lines)
    record = folder.record()
    endpoint, many = ENDPOINTS[record.identity.endpoint], record.options.get("choices", 1) > 1
    generation = pl.lit(part.generation, _SOURCE["generation"]).alias("generation")
    index = 0
    if part.rejected:
        told = [(found.custom_id, "input_rejected", f"{found.code}: {found.message}", False) for found in part.rejected]
        rejected = pl.DataFrame(told, schema=["custom_id", "code", "message", "again"], orient="row")
        absent = [pl.lit(None, dtype).alias(name) for name, dtype in schema.items() if name not in rejected.columns]
        rejected.with_columns(*absent).with_columns(generation).select(*schema).write_ipc(making / "000000.arrow")
        index = 1
    for submission, _, path in folder.result_files(part.number):
        source = [
            pl.lit(submission.batch_id, pl.String).alias("batch_id"),
            pl.lit(folder.name_of(path)).alias("line_file"),
            generation,
        ]
        with folder.open(path) as handle:
            for answers in read_answers(handle, endpoint, many=many, places=lines):
                if part.adopted and submission.adopted_at is not None:
                    answers = _renamed(folder, part, answers)  # noqa: PLW2901
                answers.with_columns(source).select(*schema).write_ipc(making / f"{index:06d}.arrow")
                index += 1


def _renamed(folder: RunFolder, part: PartRecord, answers: pl.DataFrame) -> pl.DataFrame:
    """Return the answers of a batch that was found in the account under our ids; others are not to requests of ours."""
    names = folder.read_frame(folder.renamed_path(part.number))
    joined = answers.join(names, left_on="custom_id", right_on="theirs", how="inner", maintain_order="left")
    return joined.with_columns(pl.col("ours").alias("custom_id")).drop("ours")
