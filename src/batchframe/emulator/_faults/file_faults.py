"""Faults of uploaded files. A new file takes all that are due."""

from __future__ import annotations

from typing import Literal

import msgspec

FileKind = Literal["pending", "error", "null_status", "cannot_find", "gone", "short"]


class FileFault(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One fault of uploads.

    ``pending``: the file stays pending for `polls` polls. ``error``: its status becomes ``error`` after `polls` polls.
    ``null_status``: its status is null. ``cannot_find``: the first `polls` batches created from it fail with "Cannot
    find file". ``gone``: its first `polls` retrieves get 404. ``short``: only the fraction `at` of its bytes is stored.
    """

    kind: FileKind
    times: int | None = 1
    """How many uploads are hit; None: all."""
    skip: int = 0
    """How many uploads pass before the first is hit."""
    polls: int = 1
    at: float = 0.5

    def __post_init__(self) -> None:
        """Refuse values that make no sense."""
        if not 0 <= self.at < 1:
            raise ValueError(f"'at' is the fraction of the bytes that is stored: expected 0 <= at < 1, got {self.at}")
