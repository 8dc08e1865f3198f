"""Faults of whole batches: what, which batches, how often. A batch takes all that are due when it is created."""

from __future__ import annotations

from typing import Literal

import msgspec

from batchframe.emulator._oddities import BatchOddity

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

    ``expire`` and ``cancel`` end the batch after the fraction `at` of its rows; what was not executed gets error lines
    or, as `unexecuted` says, stands in neither file. ``fail`` fails it with `code`, `message`, `param` and `lines`;
    ``cannot_find_file`` with the service's text for a file that is not there. ``stuck`` holds it for ever, ``slow``
    for `seconds`, in `phase` (of in_progress: after the fraction `at`). ``late_output`` shows no output id for `polls`
    retrieves after the end. ``outputs_expired`` deletes both files at the end and makes the batch 30 days older, the
    life of result files. ``absent_id`` spells the id of a file without lines as `spelling`. ``unknown_status`` shows
    `status` for `polls` retrieves. ``list_late`` hides it from the list for `seconds` or for `polls` calls.
    ``list_still`` lists it as it was when it was created, or at the last of its first `polls` retrieves (None: of all).
    ``gone`` answers its first `polls` retrieves with 404. The names of the oddities are kinds too, and last.
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
        """Refuse what could not be carried out."""
        if not 0 <= self.at < 1:
            raise ValueError(f"'at' is the fraction of the rows executed: expected 0 <= at < 1, got {self.at}")
        if self.kind == "list_late" and (self.seconds is None) == (self.polls is None):
            raise ValueError("'list_late' takes either 'seconds' or 'polls'")
