"""The record of a batch in a state folder."""

from __future__ import annotations

from typing import Literal

import msgspec

from batchframe.emulator._batches.batch_object import Batch  # noqa: TC001 - msgspec reads the annotations


class BatchRecord(msgspec.Struct, kw_only=True):
    """A batch object, and what another process needs to go on with the batch."""

    number: int = 0
    """The batch's place in the order of creation; the storage fills it in."""
    batch: Batch
    owner: str
    deadline: float | None
    """None: the batch does not expire."""
    life_seconds: int | None
    stop: Literal["cancel", "expire"] | None
    deletes_input: bool = False
