"""Faults that wait for the next batch or the next file, which takes all that are due."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar


class _Counted(Protocol):
    times: int | None
    skip: int


F = TypeVar("F", bound=_Counted)


class Dues(Generic[F]):
    """The faults of one kind that are still to come."""

    def __init__(self) -> None:
        self.waiting: list[F] = []

    def add(self, fault: F) -> None:
        """Put a fault behind the others."""
        self.waiting.append(fault)

    def clear(self) -> None:
        """Forget all of them; what has been taken stays."""
        self.waiting.clear()

    def take(self) -> list[F]:
        """Return what is due, using it up."""
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
