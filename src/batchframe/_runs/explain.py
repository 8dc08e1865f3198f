"""``Run.explain``: the request of one row, its submissions and its result lines."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from batchframe._core.exceptions import OptionError
from batchframe._core.wire_format import custom_id_of_result
from batchframe._results.result_blocks import request_ids
from batchframe._store.input_files import lines_of
from batchframe._store.parts import part_states

if TYPE_CHECKING:
    from batchframe._store.block_folder import BlockFolder
    from batchframe._store.records import PartRecord
    from batchframe._store.run_folder import RunFolder


# Of a line, in characters.
_SHOWN = 4_000


@dataclass(frozen=True)
class Explanation:
    """Everything about one row.

    Parameters
    ----------
    row
        The row number, from 0.
    custom_id
        The id of the request that answers the row; None if it was not sent.
    outcome
        The added columns of the row, by name without prefix.
    requests
        The row's request lines, in the order of their attempts.
    submissions
        One dict per submission of a part that holds the row: ``part``, ``attempt``, ``generation``, ``submission``,
        ``stage``, ``batch_id``, ``status``, ``reason``, and ``lines``, the row's unchanged result lines.
    """

    row: int
    custom_id: str | None
    outcome: dict[str, Any]
    requests: list[str] = field(default_factory=list)
    submissions: list[dict[str, Any]] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"row {self.row}, request {self.custom_id}"]
        lines += [f"  {name}: {_cut(repr(value))}" for name, value in self.outcome.items()]
        lines += [f"  request line: {_cut(line)}" for line in self.requests]
        for submission in self.submissions:
            lines.append("  " + ", ".join(f"{name} {value}" for name, value in submission.items() if name != "lines"))
            lines += [f"    {_cut(line)}" for line in submission["lines"]]
        return "\n".join(lines)


def _cut(line: str) -> str:
    """Return a line cut to a readable length: images and vectors can be very long."""
    line = line.rstrip()
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}… ({len(line):,} characters)"


def explain(
    folder: RunFolder, view: BlockFolder | None, results: pl.DataFrame, prefix: str, row: int | str
) -> Explanation:
    """Return what the run's files hold about a row; see `Explanation`.

    Raises
    ------
    OptionError
        The row does not exist.
    """
    number = _number(results, prefix, row)
    custom_id = request_ids(folder, view)[number]
    names = [name for name in ("response", "finish_reason", "usage", "error") if prefix + name in results.columns]
    outcome = {name: results[prefix + name].slice(number, 1).to_list()[0] for name in names}
    explanation = Explanation(number, custom_id, outcome)
    for state in part_states(folder) if custom_id is not None else []:
        line = next((line for line_id, line in lines_of(folder, state.record.number) if line_id == custom_id), None)
        if line is not None:
            explanation.requests.append(line.decode())
            explanation.submissions.extend(_submissions(folder, state.record, custom_id))
    return explanation


def _submissions(folder: RunFolder, part: PartRecord, custom_id: str) -> list[dict[str, Any]]:
    files = folder.result_files(part.number)
    submissions = []
    for submission in folder.submissions(part.number):
        lines = []
        called = custom_id
        if part.adopted and submission.adopted_at is not None:
            names = folder.read_frame(folder.renamed_path(part.number))
            called = names.filter(pl.col("ours") == custom_id)["theirs"].item()
        for owner, _, path in files:
            if owner.number == submission.number:
                with folder.open(path) as handle:
                    named = (line for line in handle if called.encode() in line)
                    lines += [line.decode(errors="replace") for line in named if custom_id_of_result(line) == called]
        submissions.append(
            {
                "part": part.number,
                "attempt": part.attempt,
                "generation": part.generation,
                "submission": submission.number,
                "stage": submission.stage,
                "batch_id": submission.batch_id,
                "status": submission.status,
                "reason": submission.reason,
                "lines": lines,
            }
        )
    return submissions


def _number(results: pl.DataFrame, prefix: str, row: int | str) -> int:
    if isinstance(row, str):
        rows = (results[prefix + "custom_id"] == row).arg_true()
        if len(rows):
            return int(rows[0])
        msg = f"no row has the custom_id {row!r}"
        raise OptionError(msg)
    if isinstance(row, bool) or not isinstance(row, int) or not -results.height <= row < results.height:
        msg = f"row must be a custom_id or a number from 0 to {results.height - 1}, got {row!r}"
        raise OptionError(msg)
    return row % results.height
