"""The lines of an output or error file, collected on disk and put into another order at the end."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from pathlib import Path

# Lines are copied in another order by seeks; written out in pieces of about this size.
_PIECE_BYTES = 1 << 18


class ResultFile:
    """Lines on disk. In memory only their offsets: eight bytes a line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offsets = array("Q", [0])
        if path.exists():
            self._find_lines()
        self._file = path.open("ab", buffering=_PIECE_BYTES)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def _find_lines(self) -> None:
        """Take up what an earlier process wrote; a last line that it did not finish is cut off."""
        with self._path.open("r+b") as file:
            for line in file:
                if line.endswith(b"\n"):
                    self._offsets.append(self._offsets[-1] + len(line))
            file.truncate(self._offsets[-1])

    def lines(self) -> Iterator[bytes]:
        """Read the lines that have been written."""
        self.flush()
        with self._path.open("rb") as file:
            yield from file

    def flush(self) -> None:
        """Hand what was written to the operating system, which keeps it when this process dies."""
        self._file.flush()

    def write(self, line: bytes) -> None:
        """Append one line; it brings its newline."""
        self._offsets.append(self._offsets[-1] + self._file.write(line))

    def close(self) -> None:
        """Close the file; it goes with the folder of its batch."""
        self._file.close()

    def finish(self, order: random.Random | None) -> Path | None:
        """Close the file, its lines shuffled by `order`, and return where it is; None when it has no lines."""
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
        # Unbuffered: what a buffer would read ahead is not what comes next.
        with self._path.open("rb", buffering=0) as source, shuffled.open("wb", buffering=_PIECE_BYTES) as target:
            for number in numbers:
                start = self._offsets[number]
                source.seek(start)
                target.write(source.read(self._offsets[number + 1] - start))
        return shuffled
