"""Faults of API calls. ``connection_faults`` carries them out."""

from __future__ import annotations

from typing import Literal

import msgspec

CallKind = Literal["status", "reset_before", "reset_after", "late", "truncate", "delay", "slow"]
Call = Literal[
    "create_file",
    "list_files",
    "retrieve_file",
    "delete_file",
    "file_content",
    "create_batch",
    "list_batches",
    "retrieve_batch",
    "cancel_batch",
]
CREATING: tuple[Call, ...] = ("create_file", "create_batch")


class CallFault(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One fault of API calls.

    ``status``: the reply is `status`, with `retry_after` if given; the service does not act. ``reset_before``: the
    connection drops before the service acts. ``reset_after``: the service acts, and the reply is lost. ``late``: the
    reply is lost, and the service acts `seconds` later; only for calls that create. ``truncate``: the connection
    closes after the fraction `at` of the reply's bytes. ``delay``: the service waits `seconds`, then acts as usual.
    ``slow``: request and reply travel at `bytes_per_second`.
    """

    call: Call
    kind: CallKind
    status: int = 503
    retry_after: float | None = None
    headers: dict[str, str] = {}
    """Further headers of a ``status`` reply, such as ``x-should-retry``."""
    bytes_per_second: float = 1e6
    seconds: float = 1.0
    at: float = 0.5
    times: int | None = 1
    """How many calls are hit; None: all."""
    skip: int = 0
    """How many calls pass before the first is hit."""

    def __post_init__(self) -> None:
        """Refuse values that make no sense."""
        if self.kind == "late" and self.call not in CREATING:
            raise ValueError(f"a late {self.call} has no meaning: only {' and '.join(CREATING)} take effect")
        if not 0 <= self.at < 1:
            raise ValueError(f"'at' is the fraction of the bytes that arrive: expected 0 <= at < 1, got {self.at}")
        if self.bytes_per_second <= 0:
            raise ValueError(f"expected bytes_per_second above 0, got {self.bytes_per_second}")
        if not 400 <= self.status <= 599:  # noqa: PLR2004
            raise ValueError(f"expected a status from 400 to 599, got {self.status}")


class CallFaults:
    """The faults of API calls that are still to come."""

    def __init__(self) -> None:
        self.waiting: list[CallFault] = []

    def add(self, fault: CallFault) -> None:
        """Add a fault at the end."""
        self.waiting.append(fault)

    def clear(self) -> None:
        """Drop all of them."""
        self.waiting.clear()

    def take(self, call: str) -> CallFault | None:
        """Take the fault that hits this call; the first that is due wins."""
        for fault in self.waiting:
            if fault.call != call:
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            if fault.times is not None:
                fault.times -= 1
                if not fault.times:
                    self.waiting.remove(fault)
            return fault
        return None
