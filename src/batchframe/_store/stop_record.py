"""``stopped.json``: why a run submits no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchframe._store.records import PartRecord, StopRecord

if TYPE_CHECKING:
    from batchframe._store.run_folder import RunFolder

_NOTE = "stopped.json"


def read_stop(folder: RunFolder) -> StopRecord | None:
    """Return why the run submits no more, or None."""
    return folder.read_order(_NOTE, StopRecord)


def write_stop(folder: RunFolder, stop: StopRecord) -> None:
    """Have the run submit no more of this generation."""
    folder.write_note(_NOTE, stop)


def is_covered(part: PartRecord, stop: StopRecord | None) -> bool:
    """Whether a part is not to be submitted any more."""
    return stop is not None and part.generation <= stop.generation
