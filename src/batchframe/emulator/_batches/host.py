"""What a batch needs of the service that runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from batchframe.emulator._batches.batch_record import BatchRecord
    from batchframe.emulator._batches.files import Files
    from batchframe.emulator._batches.ledger import Ledger
    from batchframe.emulator._batches.quota import Quota
    from batchframe.emulator._batches.upstream import Upstream
    from batchframe.emulator._batches.validation import Validation
    from batchframe.emulator._config.settings import Settings
    from batchframe.emulator._faults.row_faults import RowFaults

T = TypeVar("T")


class BatchStorage(Protocol):
    """Where batches keep their state."""

    def keep(self, record: BatchRecord) -> None:
        """Record the state of a batch."""

    def own_input(self, batch_id: str, path: Path) -> Path:
        """Return the batch's own name for its input file."""

    def movable_copy(self, path: Path) -> Path:
        """Return a path of a result file that may be moved away."""


class Host(Protocol):
    """The service, as a batch sees it."""

    settings: Settings
    files: Files
    ledger: Ledger
    quota: Quota
    row_faults: RowFaults
    upstream: Upstream | None

    @property
    def storage(self) -> BatchStorage:
        """Where batches keep their state."""

    def draw_id(self, form: str) -> str:
        """Draw an id: ``file-{hex}``."""

    async def in_thread(self, function: Callable[[], T]) -> T:
        """Run work on files beside the event loop."""

    async def validate(self, source: BinaryIO, endpoint: str) -> Validation:
        """Validate an input file."""
