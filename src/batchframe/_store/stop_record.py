"""``stopped.json``: why a run stopped submitting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchframe._store.records import PartRecord, StopRecord

if TYPE_CHECKING:
    from batchframe._store.run_folder import RunFolder

_NOTE = "stopped.json"


def read_stop(folder: RunFolder) -> StopRecord | None:
    """Return why the run stopped submitting; None if it did not."""
    return folder.read_order(_NOTE, StopRecord)


def write_stop(folder: RunFolder, stop: StopRecord) -> None:
    """Stop submitting the parts of this generation and of earlier ones."""
    folder.write_note(_NOTE, stop)


def is_covered(part: PartRecord, stop: StopRecord | None) -> bool:
    """Whether a stop record applies to a part."""
    return stop is not None and part.generation <= stop.generation
