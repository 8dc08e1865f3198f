"""The lines of an output or error file, collected on disk and put into another order at the end."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from pathlib import Path

# Lines are copied in another order by seeks; written out in pieces of about this size.
_PIECE_BYTES = 1 << 18


class ResultFile:
    """Lines on disk. In memory only their offsets: eight bytes a line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("wb", buffering=_PIECE_BYTES)
        self._offsets = array("Q", [0])

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def write(self, line: bytes) -> None:
        """Append one line; it brings its newline."""
        self._offsets.append(self._offsets[-1] + self._file.write(line))

    def close(self) -> None:
        """Close the file and remove it."""
        self._file.close()
        self._path.unlink(missing_ok=True)

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
        self._path.unlink()
        return shuffled
