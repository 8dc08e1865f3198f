"""What was executed, and what of it was billed, how often: the means to prove that nothing was paid twice.

One record an execution is appended to a file, and counted only when somebody asks, so that a million rows cost no
memory while they run.
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
    """Pack one execution."""
    name = custom_id.encode()[:65_535]
    return _HEAD.pack(digest, billed, len(name)) + name


class Ledger:
    """The executions of one emulator. Records may be added from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self.executions = 0
        self.billed = 0
        if path.exists():
            self._take_up()
        self._file = path.open("ab")
        path.chmod(0o600)

    def add(self, records: bytes, *, executions: int, billed: int) -> None:
        """Append packed records, and what they sum to."""
        with self._lock:
            self._file.write(records)
            # What is in the operating system's hands outlives this process.
            self._file.flush()
            self.executions += executions
            self.billed += billed

    def _take_up(self) -> None:
        """Sum what an earlier process wrote; a last record that it did not finish is cut off."""
        whole = 0
        with self._path.open("r+b") as file:
            while len(head := file.read(_HEAD.size)) == _HEAD.size:
                _, is_billed, length = _HEAD.unpack(head)
                if len(file.read(length)) < length:
                    break
                whole += _HEAD.size + length
                self.executions += 1
                self.billed += is_billed
            file.truncate(whole)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def counts(self) -> dict[str, Any]:
        """Count the executions by custom_id and by body, and how often each body was billed."""
        by_custom_id: Counter[str] = Counter()
        by_body: Counter[str] = Counter()
        billed: Counter[str] = Counter()
        for digest, custom_id, is_billed in self._records():
            by_custom_id[custom_id.decode(errors="replace")] += 1
            by_body[digest.hex()] += 1
            if is_billed:
                billed[digest.hex()] += 1
        counted = {"by_custom_id": dict(by_custom_id), "by_body": dict(by_body), "billed_by_body": dict(billed)}
        return {**self._totals(), **counted}

    def summary(self) -> dict[str, Any]:
        """Count the executions, and how often the most repeated custom_id and body were executed."""
        # Hashes stand for the names: what is kept are two integers a row.
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
            left = self._file.tell()
        with self._path.open("rb") as file:
            while left > 0:
                digest, is_billed, length = _HEAD.unpack(file.read(_HEAD.size))
                yield digest, file.read(length), is_billed
                left -= _HEAD.size + length
