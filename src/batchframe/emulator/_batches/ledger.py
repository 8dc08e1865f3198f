"""The ledger: how often each request was executed and billed, to prove that nothing is paid twice.

Each execution appends a record to a file. The records are counted on demand, so that a million rows cost no memory
while they run.
"""

from __future__ import annotations

import struct
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_HEAD = struct.Struct("<32s?H")


def record(digest: bytes, custom_id: str, *, billed: bool) -> bytes:
    """Pack the record of one execution."""
    name = custom_id.encode()[:65_535]
    return _HEAD.pack(digest, billed, len(name)) + name


class Ledger:
    """The executions of one emulator; records may be added from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self.executions = 0
        self.billed = 0
        if path.exists():
            self._resume()
        self._file = path.open("ab")
        path.chmod(0o600)

    def add(self, records: bytes, *, executions: int, billed: int) -> None:
        """Append packed records, and their totals."""
        with self._lock:
            self._file.write(records)
            # Flushed, so that the records outlive this process.
            self._file.flush()
            self.executions += executions
            self.billed += billed

    def _resume(self) -> None:
        """Add up the records of an earlier process; an unfinished last one is cut off."""
        end = 0
        with self._path.open("r+b") as file:
            while len(head := file.read(_HEAD.size)) == _HEAD.size:
                _, is_billed, length = _HEAD.unpack(head)
                if len(file.read(length)) < length:
                    break
                end += _HEAD.size + length
                self.executions += 1
                self.billed += is_billed
            file.truncate(end)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def counts(self) -> dict[str, Any]:
        """Count the executions by custom_id and by body, and the bills by body."""
        by_custom_id: Counter[str] = Counter()
        by_body: Counter[str] = Counter()
        billed: Counter[str] = Counter()
        for digest, custom_id, is_billed in self._records():
            by_custom_id[custom_id.decode(errors="replace")] += 1
            by_body[digest.hex()] += 1
            if is_billed:
                billed[digest.hex()] += 1
        counts = {"by_custom_id": dict(by_custom_id), "by_body": dict(by_body), "billed_by_body": dict(billed)}
        return {**self._totals(), **counts}

    def summary(self) -> dict[str, Any]:
        """Return the totals, and the counts of the custom_id and the body that were executed most often."""
        # Counted by hash, to keep only two integers per row.
        by_custom_id: Counter[int] = Counter()
        by_body: Counter[int] = Counter()
        billed: Counter[int] = Counter()
        for digest, custom_id, is_billed in self._records():
            by_custom_id[hash(custom_id)] += 1
            by_body[hash(digest)] += 1
            if is_billed:
                billed[hash(digest)] += 1
        return {
            **self._totals(),
            "custom_ids": len(by_custom_id),
            "bodies": len(by_body),
            "max_by_custom_id": max(by_custom_id.values(), default=0),
            "max_by_body": max(by_body.values(), default=0),
            "max_billed_by_body": max(billed.values(), default=0),
        }

    def _totals(self) -> dict[str, Any]:
        return {"executions": self.executions, "billed": self.billed}

    def _records(self) -> Iterator[tuple[bytes, bytes, bool]]:
        with self._lock:
            self._file.flush()
            remaining = self._file.tell()
        with self._path.open("rb") as file:
            while remaining > 0:
                digest, is_billed, length = _HEAD.unpack(file.read(_HEAD.size))
                yield digest, file.read(length), is_billed
                remaining -= _HEAD.size + length
