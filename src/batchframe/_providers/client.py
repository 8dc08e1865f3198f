"""``BatchClient``: the interface of a batch service. `openai.py` implements it."""

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
    """An uploaded input file.

    Parameters
    ----------
    id
        The id that `BatchClient.upload` returned. Each upload serves one create, so it identifies a batch.
    open
        Open the local copy, for a service whose create call takes the requests themselves.
    """

    id: str
    open: Callable[[], IO[bytes]]


class BatchClient(Protocol):
    """A client of a batch service.

    Every method raises `APICallError`, and no error of another library. ``upload`` and ``create`` are sent once: a
    retry inside a library could pay twice.

    A service without files needs no special case. In ``upload`` its client sends nothing and makes up an id. In
    ``create`` it sends the requests together with that id (for example as metadata), and it returns the id as the
    ``input_file_id`` of its batches. An id of its own, such as ``"results of batch_1"``, stands for the result file
    that ``download`` writes.
    """

    @property
    def account(self) -> Account:
        """The account that owns the batches."""

    @property
    def provider(self) -> Provider:
        """The profile of the service."""

    @property
    def min_poll_seconds(self) -> float:
        """The minimum time between two polls of a batch."""

    def close(self) -> None:
        """Close the connections that this client opened."""

    def upload(self, handle: IO[bytes], filename: str, expires_after: int | None) -> RemoteFile:
        """Upload an input file. For a service without files, make up an id."""

    def retrieve_file(self, file_id: str) -> RemoteFile:
        """Return a file's status at the service."""

    def list_files(self) -> Iterator[RemoteFile]:
        """Yield the account's input files, the newest first, a page at a time."""

    def delete_file(self, file_id: str) -> None:
        """Delete a file. A file that is already gone is no error."""

    def create(
        self,
        input_file: InputFile,
        endpoint: str,
        completion_window: str,
        metadata: dict[str, str],
        expires_after: int | None,
    ) -> RemoteBatch:
        """Create a batch. This call spends money."""

    def retrieve(self, batch_id: str) -> RemoteBatch:
        """Return the current state of a batch."""

    def list(self) -> Iterator[RemoteBatch]:
        """Yield the account's batches, the newest first, a page at a time."""

    def list_matching(self, since: dt.datetime | None, status: str | None) -> Iterator[RemoteBatch]:
        """Yield the account's batches, the newest first. The service may filter by creation time and status."""

    def cancel(self, batch_id: str) -> RemoteBatch:
        """Request that a batch is cancelled."""

    def download(self, file_id: str, handle: IO[bytes]) -> None:
        """Write the unchanged bytes of a file to ``handle``."""
