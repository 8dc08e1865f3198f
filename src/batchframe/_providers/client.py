"""What a run needs of a batch service, and nothing of how: `openai.py` is one that does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Iterator

    from batchframe._core.remote import Account, RemoteBatch, RemoteFile
    from batchframe._providers.profiles import Provider


@dataclass(frozen=True)
class InputFile:
    """An input file on this disk that was uploaded.

    Parameters
    ----------
    id
        Its id, as `BatchClient.upload` returned it. Each upload serves one create, so a batch is known by it.
    open
        Opens its bytes, for a service that takes the requests themselves with the create.
    """

    id: str
    open: Callable[[], IO[bytes]]


class BatchClient(Protocol):
    """What a run needs of a batch service.

    Every method raises an `APICallError` and no error of another library. ``upload`` and ``create`` are sent once:
    a retry of either inside a library could pay twice.

    A service without files is no special case. Its client sends nothing in ``upload`` and makes up an id, sends the
    requests in ``create`` together with that id (as metadata, say), and shows it as the ``input_file_id`` of its
    batches; an id of its own, such as ``"results of batch_1"``, stands for the result file that ``download`` writes.
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
        """Upload an input file; where the service has no files, make up an id for it."""

    def retrieve_file(self, file_id: str) -> RemoteFile:
        """Return what the service knows of a file."""

    def list_files(self) -> Iterator[RemoteFile]:
        """Yield the account's input files, the newest first, a page at a time."""

    def delete_file(self, file_id: str) -> None:
        """Delete a file; one that is gone already is deleted."""

    def create(
        self,
        input_file: InputFile,
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
