"""Files: their objects, and their bytes on disk. No HTTP."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from batchframe.emulator import _errors as errors
from batchframe.emulator._json import UnreadableError, decode

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from batchframe.emulator._faults.file_faults import FileFault

PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
_BOM = b"\xef\xbb\xbf"


class File(msgspec.Struct, kw_only=True):
    """A file object; the order of the fields is the service's."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: str | None = "processed"
    status_details: str | None = None


class Handling(msgspec.Struct):
    """What clients do not see of a file: its owner, and how far its faults have run."""

    owner: str = ""
    pending: int = 0
    """Polls until the file is processed."""
    ends_as: str = "processed"
    has_null_status: bool = False
    lost: int = 0
    """Batches that will not find the file."""
    gone: int = 0
    """Retrieves that will not find it."""


class Files:
    """The files of one emulator. To a caller, another owner's files do not exist."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, File] = {}
        self._handling: dict[str, Handling] = {}

    def add(self, source: Path, file: File, handling: Handling) -> File:
        """Add a file; the bytes at `source` are moved."""
        source.replace(self.path(file.id))
        self._files[file.id] = file
        self._handling[file.id] = handling
        return file

    def path(self, file_id: str) -> Path:
        """Return where the bytes of a file are."""
        return self._folder / file_id

    def get(self, file_id: str, owner: str) -> File:
        """Return a file, or refuse with 404."""
        file = self._files.get(file_id)
        if file is None or self._handling[file_id].owner != owner:
            raise errors.no_such_file(file_id)
        if file.expires_at is not None and file.expires_at <= time.time():
            self._drop(file_id)
            raise errors.no_such_file(file_id)
        return file

    def retrieve(self, file_id: str, owner: str) -> File:
        """Return a file to a client, which counts as a poll."""
        file, handling = self.get(file_id, owner), self._handling[file_id]
        if handling.gone:
            handling.gone -= 1
            raise errors.no_such_file(file_id)
        self.poll(file)
        return file

    def poll(self, file: File) -> None:
        """Count a poll of a file; after enough of them it is processed."""
        handling = self._handling[file.id]
        if file.status in {"pending", "uploaded"}:
            if not handling.pending:
                file.status = handling.ends_as
            handling.pending -= 1

    def status(self, file: File) -> str | None:
        """Return the status of a file as clients see it."""
        return None if self._handling[file.id].has_null_status else file.status

    def is_lost(self, file: File) -> bool:
        """Say whether this batch must not find the file, although it exists; counts down."""
        handling = self._handling[file.id]
        handling.lost -= 1
        return handling.lost >= 0

    def delete(self, file_id: str, owner: str) -> dict[str, Any]:
        """Delete a file and its bytes."""
        self.get(file_id, owner)
        self._drop(file_id)
        return {"id": file_id, "object": "file", "deleted": True}

    def newest_first(self, owner: str) -> list[File]:
        """List the files of an owner that have not expired."""
        now = time.time()
        return [
            file
            for file in reversed(self._files.values())
            if self._handling[file.id].owner == owner and (file.expires_at is None or file.expires_at > now)
        ]

    def total_bytes(self) -> int:
        """Return the size of all files together."""
        return sum(file.bytes for file in self._files.values())

    def count_batch_inputs(self, *, have_expiry: bool) -> int:
        """Count the input files with an expiry, or those without."""
        files = self._files.values()
        return sum(file.purpose == "batch" and (file.expires_at is not None) is have_expiry for file in files)

    def _drop(self, file_id: str) -> None:
        del self._files[file_id], self._handling[file_id]
        self.path(file_id).unlink(missing_ok=True)


def new_handling(faults: Iterable[FileFault], owner: str, pending: int) -> Handling:
    """Make the handling of a new file from its faults."""
    handling = Handling(owner, pending)
    for fault in faults:
        if fault.kind == "pending":
            handling.pending = fault.polls
        elif fault.kind == "error":
            handling.pending, handling.ends_as = fault.polls, "error"
        elif fault.kind == "null_status":
            handling.has_null_status = True
        elif fault.kind == "cannot_find":
            handling.lost = fault.polls
        elif fault.kind == "gone":
            handling.gone = fault.polls
    return handling


def check_batch_file(path: Path, filename: str) -> None:
    """Refuse what the service refuses at upload: another extension, no bytes, a first line that is not a JSON object.

    A name without an extension passes: httpx calls plain bytes "upload", and a reply in which OpenAI accepts that name
    is on record (lmwrapper, tests/test_batching.py; there is none of Azure's). So do a blank first line and a byte
    order mark: the batch itself fails on them.
    """
    if ("." in filename and not filename.endswith(".jsonl")) or not path.stat().st_size:
        raise errors.wrong_format()
    with path.open("rb") as file:
        first = file.readline().removeprefix(_BOM).strip()
    try:
        if first and not isinstance(decode(first), dict):
            raise errors.wrong_format()
    except UnreadableError as exc:
        raise errors.wrong_format() from exc
