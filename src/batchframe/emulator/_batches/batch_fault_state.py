"""The faults of one batch, and how far each has run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from batchframe.emulator import _errors as errors
from batchframe.emulator._batches.batch_object import TERMINAL, Batch, Errors, LineError
from batchframe.emulator._batches.presentation import present
from batchframe.emulator._batches.refusals import refusal
from batchframe.emulator._config.oddities import BATCH_ODDITIES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from batchframe.emulator._faults.batch_faults import BatchFault


class BatchFaultState:
    """The faults of one batch."""

    def __init__(self, faults: Iterable[BatchFault] = ()) -> None:
        faults = list(faults)
        # The first of a kind wins, except among those that interrupt the execution.
        self._by_kind: dict[str, BatchFault] = {fault.kind: fault for fault in reversed(faults)}
        self._interruptions = sorted(
            (fault for fault in faults if fault.kind in {"expire", "cancel"} or _holds(fault, "in_progress")),
            key=lambda fault: fault.at,
        )
        self._holds: dict[str, BatchFault] = {
            fault.phase: fault for fault in reversed(faults) if fault.kind in {"stuck", "slow"}
        }
        self._oddities = [kind for kind in self._by_kind if kind in BATCH_ODDITIES]
        self._created = time.monotonic()
        self._polls = self._polls_after_end = self._lists = 0
        self._listed: dict[str, Any] = {}

    def of(self, kind: str) -> BatchFault | None:
        """Return the fault of a kind, if the batch has it."""
        return self._by_kind.get(kind)

    def hold(self, phase: str) -> BatchFault | None:
        """Return the fault that holds the batch in a phase other than its execution."""
        return self._holds.get(phase)

    def failure(self, batch: Batch, organization: str) -> Errors | None:
        """Return the errors of a batch that fails by a fault; None: it does not."""
        if "cannot_find_file" in self._by_kind:
            return Errors(data=[refusal("file", is_azure=False, value=batch.input_file_id, organization=organization)])
        fault = self._by_kind.get("fail")
        if fault is None:
            return None
        places: tuple[int | None, ...] = fault.lines or (None,)
        return Errors(data=[LineError(fault.code, fault.message, fault.param, line) for line in places])

    def next_interruption(self, requests: int) -> int | None:
        """Return the number of rows after which the execution is interrupted next."""
        return int(self._interruptions[0].at * requests) if self._interruptions else None

    def interrupt(self) -> BatchFault:
        """Take the next interruption."""
        return self._interruptions.pop(0)

    def count_retrieve(self, batch: Batch) -> None:
        """Count a retrieve; refuse it if the batch is gone."""
        self._polls += 1
        self._polls_after_end += batch.status in TERMINAL
        if self._is_on("gone", self._polls):
            raise errors.no_such_batch(batch.id)

    def is_listed(self) -> bool:
        """Count a list call, and say whether the batch is in it."""
        self._lists += 1
        fault = self._by_kind.get("list_late")
        if fault is None:
            return True
        if fault.seconds is not None:
            return time.monotonic() - self._created >= fault.seconds
        return not self._is_on("list_late", self._lists)

    def in_list(self, view: dict[str, Any]) -> dict[str, Any]:
        """Return the batch object as the list shows it."""
        return view if self.of("list_still") is None else self._listed

    def remember(self, view: dict[str, Any]) -> dict[str, Any]:
        """Return the object of a create or a retrieve, and remember it for a list that stands still."""
        fault = self.of("list_still")
        if fault is not None and (fault.polls is None or self._polls <= fault.polls):
            self._listed = view
        return view

    def present(self, batch: Batch, oddities: Collection[str]) -> dict[str, Any]:
        """Return the batch object as clients see it."""
        view = present(batch, [*oddities, *self._oddities])
        if self._is_on("unknown_status", self._polls):
            view["status"] = self._by_kind["unknown_status"].status
        if batch.status in TERMINAL and self._is_on("late_output", self._polls_after_end):
            view["output_file_id"] = "" if view.get("output_file_id") == "" else None
        return view

    def _is_on(self, kind: str, calls: int) -> bool:
        """Say whether a fault that lasts for some calls covers this one."""
        fault = self._by_kind.get(kind)
        return fault is not None and calls <= (1 if fault.polls is None else fault.polls)


def _holds(fault: BatchFault, phase: str) -> bool:
    return fault.kind in {"stuck", "slow"} and fault.phase == phase
