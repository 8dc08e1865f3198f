"""Files: what is known of each, and its bytes on disk. No HTTP."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from batchframe.emulator import _errors as errors

if TYPE_CHECKING:
    from pathlib import Path

    from batchframe.emulator._ids import Ids

PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
DEFAULT_LIFE_SECONDS = 2_592_000
SHORTEST_LIFE_SECONDS = 3_600
_BOM = b"\xef\xbb\xbf"


class File(msgspec.Struct, kw_only=True):
    """A file object, as the service shows it."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: str = "processed"
    status_details: str | None = None


class Files:
    """The files of one emulator."""

    def __init__(self, folder: Path, ids: Ids) -> None:
        self._folder = folder
        self._ids = ids
        self._files: dict[str, File] = {}

    def add(self, source: Path, *, filename: str, purpose: str, life_seconds: int | None = None) -> File:
        """Take over the bytes at `source`, which is moved."""
        now = int(time.time())
        if life_seconds is None and purpose in {"batch", "batch_output"}:
            life_seconds = DEFAULT_LIFE_SECONDS
        file = File(
            id=self._ids.file(),
            bytes=source.stat().st_size,
            created_at=now,
            expires_at=None if life_seconds is None else now + life_seconds,
            filename=filename,
            purpose=purpose,
        )
        source.replace(self.path(file.id))
        self._files[file.id] = file
        return file

    def path(self, file_id: str) -> Path:
        """Say where the bytes of a file are."""
        return self._folder / file_id

    def get(self, file_id: str) -> File:
        """Return a file, or refuse with 404."""
        file = self._files.get(file_id)
        if file is None:
            raise errors.no_such_file(file_id)
        if file.expires_at is not None and file.expires_at <= time.time():
            self._drop(file_id)
            raise errors.no_such_file(file_id)
        return file

    def delete(self, file_id: str) -> dict[str, Any]:
        """Delete a file and its bytes."""
        self.get(file_id)
        self._drop(file_id)
        return {"id": file_id, "object": "file", "deleted": True}

    def newest_first(self) -> list[File]:
        """List all files that have not expired."""
        now = time.time()
        return [file for file in reversed(self._files.values()) if file.expires_at is None or file.expires_at > now]

    def _drop(self, file_id: str) -> None:
        del self._files[file_id]
        self.path(file_id).unlink(missing_ok=True)


def check_batch_file(path: Path, filename: str) -> None:
    """Refuse what the service refuses at upload: another name, no bytes, a first line that is no JSON object.

    A blank first line passes, and a byte order mark too: the batch itself fails on them.
    """
    if not filename.endswith(".jsonl") or not path.stat().st_size:
        raise errors.wrong_format()
    with path.open("rb") as file:
        first = file.readline().removeprefix(_BOM).strip()
    try:
        if first and not isinstance(msgspec.json.decode(first), dict):
            raise errors.wrong_format()
    except msgspec.DecodeError as exc:
        raise errors.wrong_format() from exc
