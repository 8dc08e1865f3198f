"""Files, batches and accounts at a service."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003  (msgspec reads the annotations at run time)
from typing import Any

import msgspec

TERMINAL = frozenset({"completed", "failed", "expired", "cancelled"})


class RemoteFile(msgspec.Struct, frozen=True):
    """A file at the service. Fields that the service did not send are None."""

    id: str
    bytes: int | None = None
    created_at: datetime | None = None
    status: str | None = None
    name: str | None = None


class RemoteBatch(msgspec.Struct, frozen=True):
    """A batch at the service. ``status`` is the service's own, in lower case.

    ``raw`` is the whole object as received. Counts are for display only: rows are counted from result lines.
    """

    id: str
    status: str
    input_file_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: datetime | None = None
    completed_requests: int = 0
    failed_requests: int = 0
    errors: list[tuple[int | None, str, str]] = []
    raw: dict[str, Any] = {}

    @property
    def is_terminal(self) -> bool:
        """Whether the batch has ended. An unknown status counts as still running."""
        return self.status in TERMINAL


class Account(msgspec.Struct, frozen=True):
    """The account that owns the batches. Never holds a key, or anything derived from one."""

    provider: str
    base_url: str
    organization: str | None = None
    project: str | None = None
