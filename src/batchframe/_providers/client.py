"""What a batch service can do for us, and nothing of how: the seam that `_openai.py` fills."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator

    from batchframe._core.remote import Account, RemoteBatch, RemoteFile
    from batchframe._providers.profiles import Provider


class BatchClient(Protocol):
    """The calls of the Files and Batches endpoints that a run needs.

    Every method raises an `APICallError` and no error of another library. ``upload`` and ``create`` are sent once:
    a retry of either inside a library could pay twice.
    """

    @property
    def account(self) -> Account:
        """Whose batches these are."""

    @property
    def provider(self) -> Provider:
        """What the service allows."""

    @property
    def min_poll_seconds(self) -> float:
        """How long the service wants to be left alone between two looks at a batch."""

    def close(self) -> None:
        """Close what was opened here."""

    def upload(self, handle: IO[bytes], filename: str, expires_after: int | None) -> RemoteFile:
        """Upload an input file."""

    def retrieve_file(self, file_id: str) -> RemoteFile:
        """Return what the service knows of a file."""

    def list_files(self) -> Iterator[RemoteFile]:
        """Yield the account's input files, the newest first, a page at a time."""

    def delete_file(self, file_id: str) -> None:
        """Delete a file; one that is gone already is deleted."""

    def create(
        self,
        input_file_id: str,
        endpoint: str,
        completion_window: str,
        metadata: dict[str, str],
        expires_after: int | None,
    ) -> RemoteBatch:
        """Create a batch: this is the call that spends money."""

    def retrieve(self, batch_id: str) -> RemoteBatch:
        """Return where a batch stands."""

    def list(self) -> Iterator[RemoteBatch]:
        """Yield the account's batches, the newest first, a page at a time."""

    def list_matching(self, since: dt.datetime | None, status: str | None) -> Iterator[RemoteBatch]:
        """Yield the account's batches, the newest first, perhaps only those created since and with that status."""

    def cancel(self, batch_id: str) -> RemoteBatch:
        """Ask for a batch to be cancelled."""

    def download(self, file_id: str, handle: IO[bytes]) -> None:
        """Write a file's bytes to ``handle`` as they come."""
