"""Cut request lines into input files by the limits on requests and bytes."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# With more than one part, part 0 holds at most a tenth of the limits, so that first answers and errors arrive early.
FIRST_PART_SHARE = 10


class Cut(NamedTuple):
    """Lines ``start`` to ``stop`` of a slice go to ``part``."""

    part: int
    start: int
    stop: int


@dataclass
class Splitter:
    """Assigns lines to parts in order; a part is full when the next line would not fit.

    Parameters
    ----------
    max_requests, max_bytes
        The limits of an input file. No line may be longer than ``max_bytes``.
    part
        The number of the first part.
    first_share
        Part 0 may take one n-th of the limits; this is n.
    """

    max_requests: int
    max_bytes: int
    part: int = 0
    first_share: int = FIRST_PART_SHARE
    requests: int = 0
    bytes: int = 0
    total_requests: int = 0
    total_bytes: int = 0

    def cuts(self, offsets: Sequence[int]) -> Iterator[Cut]:
        """Yield the cuts of a slice of lines.

        Parameters
        ----------
        offsets
            The start of each line, then the end of the last: one more value than there are lines.
        """
        start, lines = 0, len(offsets) - 1
        while start < lines:
            share = self.first_share if self.part == 0 else 1
            room_bytes = self.max_bytes // share - self.bytes
            room_requests = max(1, self.max_requests // share) - self.requests
            # The last line whose end is within the room.
            stop = min(bisect_right(offsets, offsets[start] + room_bytes) - 1, start + room_requests)
            if stop <= start:
                if self.requests:
                    self.end_part()
                    continue
                stop = start + 1  # a line beyond the first part's share gets that part for itself
            self._take(stop - start, offsets[stop] - offsets[start])
            yield Cut(self.part, start, stop)
            start = stop

    def end_part(self) -> None:
        """Start a new part with the next line, unless the current one is empty."""
        if self.requests:
            self.part, self.requests, self.bytes = self.part + 1, 0, 0

    def _take(self, requests: int, n_bytes: int) -> None:
        self.requests += requests
        self.bytes += n_bytes
        self.total_requests += requests
        self.total_bytes += n_bytes

    @property
    def fits_in_one(self) -> bool:
        """Whether all lines so far fit in a single input file."""
        return self.total_requests <= self.max_requests and self.total_bytes <= self.max_bytes
