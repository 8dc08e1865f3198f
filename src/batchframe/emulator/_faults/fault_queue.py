"""A queue of faults. The next batch, or the next file, takes all that are due."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar


class _Counted(Protocol):
    times: int | None
    skip: int


F = TypeVar("F", bound=_Counted)


class FaultQueue(Generic[F]):
    """The faults of one kind that are still to come."""

    def __init__(self) -> None:
        self.waiting: list[F] = []

    def add(self, fault: F) -> None:
        """Add a fault at the end."""
        self.waiting.append(fault)

    def clear(self) -> None:
        """Drop all faults that were not taken."""
        self.waiting.clear()

    def take(self) -> list[F]:
        """Take the faults that are due."""
        return [fault for fault in list(self.waiting) if self._is_due(fault)]

    def _is_due(self, fault: F) -> bool:
        if fault.skip:
            fault.skip -= 1
            return False
        if fault.times is not None:
            fault.times -= 1
            if not fault.times:
                self.waiting.remove(fault)
        return True
