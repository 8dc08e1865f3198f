"""The lines of an output or error file, collected on disk and shuffled at the end."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from pathlib import Path

# The size of the write buffer.
_PIECE_BYTES = 1 << 18


class ResultFile:
    """Lines on disk; only their offsets are in memory, eight bytes per line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offsets = array("Q", [0])
        if path.exists():
            self._find_lines()
        self._file = path.open("ab", buffering=_PIECE_BYTES)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def _find_lines(self) -> None:
        """Index the lines of an earlier process; an unfinished last one is cut off."""
        with self._path.open("r+b") as file:
            for line in file:
                if line.endswith(b"\n"):
                    self._offsets.append(self._offsets[-1] + len(line))
            file.truncate(self._offsets[-1])

    def lines(self) -> Iterator[bytes]:
        """Read the lines written so far."""
        self.flush()
        with self._path.open("rb") as file:
            yield from file

    def flush(self) -> None:
        """Hand the lines to the operating system, so that they outlive this process."""
        self._file.flush()

    def write(self, line: bytes) -> None:
        """Append one line, which includes its newline."""
        self._offsets.append(self._offsets[-1] + self._file.write(line))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def finish(self, order: random.Random | None) -> Path | None:
        """Close the file, shuffle its lines by `order`, and return its path; None if it has no lines."""
        if not len(self):
            self.close()
            return None
        if order is None:
            self._file.close()
            return self._path
        numbers = array("L", range(len(self)))
        order.shuffle(numbers)
        shuffled = self._path.with_suffix(".shuffled")
        self._file.close()
        # Unbuffered: reading ahead is wasted on seeks.
        with self._path.open("rb", buffering=0) as source, shuffled.open("wb", buffering=_PIECE_BYTES) as target:
            for number in numbers:
                start = self._offsets[number]
                source.seek(start)
                target.write(source.read(self._offsets[number + 1] - start))
        return shuffled
