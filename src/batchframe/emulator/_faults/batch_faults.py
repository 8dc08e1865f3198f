"""Faults of whole batches. A new batch takes all that are due."""

from __future__ import annotations

from typing import Literal

import msgspec

from batchframe.emulator._config.oddities import BatchOddity

_Kind = Literal[
    "expire",
    "cancel",
    "fail",
    "cannot_find_file",
    "stuck",
    "slow",
    "late_output",
    "outputs_expired",
    "absent_id",
    "unknown_status",
    "list_late",
    "list_still",
    "gone",
]
BatchKind = Literal[_Kind, BatchOddity]


class BatchFault(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One fault of batches.

    ``expire`` and ``cancel`` end the batch after the fraction `at` of its rows; rows that were not executed get error
    lines, or with ``unexecuted="nowhere"`` are in neither file. ``fail`` fails it with `code`, `message`, `param` and
    `lines`; ``cannot_find_file`` fails it with the service's sentence for a missing file. ``stuck`` holds it for ever,
    ``slow`` for `seconds`, in `phase` (in_progress: after the fraction `at`). ``late_output`` shows no output id for
    `polls` retrieves after the end. ``outputs_expired`` deletes both files at the end, and moves the timestamps back by
    30 days, the life of result files. ``absent_id`` writes the id of a file without lines as `spelling`.
    ``unknown_status`` shows `status` for `polls` retrieves. ``list_late`` hides the batch from lists for `seconds` or
    for `polls` calls. ``list_still`` lists it as it was at its creation, or at the last of its first `polls` retrieves
    (None: of all). ``gone`` answers the first `polls` retrieves with 404. The name of an oddity is a kind too; it
    lasts as long as the batch.
    """

    kind: BatchKind
    times: int | None = 1
    """How many batches are hit; None: all."""
    skip: int = 0
    """How many batches pass before the first is hit."""
    at: float = 0.5
    unexecuted: Literal["error_lines", "nowhere"] = "error_lines"
    code: str = "invalid_request"
    message: str = "The batch failed by a fault of the emulator."
    param: str | None = None
    lines: tuple[int, ...] = ()
    phase: Literal["validating", "in_progress", "finalizing"] = "in_progress"
    seconds: float | None = None
    polls: int | None = None
    spelling: Literal["null", "empty", "zero_bytes"] = "empty"
    status: str = "pre_schedule"

    def __post_init__(self) -> None:
        """Refuse values that make no sense."""
        if not 0 <= self.at < 1:
            raise ValueError(f"'at' is the fraction of the rows executed: expected 0 <= at < 1, got {self.at}")
        if self.kind == "list_late" and (self.seconds is None) == (self.polls is None):
            raise ValueError("'list_late' takes either 'seconds' or 'polls'")
