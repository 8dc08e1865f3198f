"""Faults of uploaded files: what, which, how often."""

from __future__ import annotations

from typing import Literal

import msgspec

FileKind = Literal["pending", "error", "null_status", "cannot_find", "gone", "short"]


class FileFault(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One fault of uploads.

    ``pending``: not processed for `polls` looks at it. ``error``: its status becomes ``error`` after `polls` looks.
    ``null_status``: its status is null. ``cannot_find``: `polls` batches created of it fail with "Cannot find file".
    ``gone``: its first `polls` retrieves are answered with 404. ``short``: only the fraction `at` of its bytes is kept.
    """

    kind: FileKind
    times: int | None = 1
    """How many uploads are hit; None: all."""
    skip: int = 0
    """How many uploads pass before the first is hit."""
    polls: int = 1
    at: float = 0.5

    def __post_init__(self) -> None:
        """Refuse what could not be carried out."""
        if not 0 <= self.at < 1:
            raise ValueError(f"'at' is the fraction of the bytes that is kept: expected 0 <= at < 1, got {self.at}")
