"""What may be submitted now, so that the queue of enqueued tokens is used and not overrun.

The services count the input tokens of an account's batches, by model, until each batch ends, and of embeddings the
requests too; no endpoint tells the limit, and the refusal may come after a create that went well. It costs nothing but
the upload.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

# "Limit: 2,000,000 enqueued tokens" (OpenAI), "the configured limit of 30K" (Azure).
_LIMIT = re.compile(r"limit(?::| of)\s*(\d[\d.,]*)\s*([KMB]?)\b", re.IGNORECASE)
_LETTERS = {"": 1, "K": 1_000, "M": 1_000_000, "B": 1_000_000_000}
# While no limit is known, so many batches may be waiting for their validation, and one more for each that passed.
_FIRST_WINDOW = 10
_MAX_PAUSE = 32

_OF_REQUESTS = re.compile(r"enqueued requests?\b", re.IGNORECASE)

Verdict = Literal["submit", "wait", "split"]


class Load(NamedTuple):
    """What is enqueued, or is to be."""

    tokens: int = 0
    """An estimate."""
    requests: int = 0

    def __add__(self, other: Load) -> Load:  # type: ignore[override]  # a sum, not a tuple of four
        """Return both together."""
        return Load(self.tokens + other.tokens, self.requests + other.requests)


def told_limit(message: str) -> int | None:
    """Return the limit, of enqueued tokens or requests, that a refusal names."""
    match = _LIMIT.search(message)
    if match is None:
        return None
    number, letter = match[1].rstrip(".,").replace(",", ""), match[2].upper()
    try:
        return round(float(number) * _LETTERS[letter]) or None
    except ValueError:
        return None


@dataclass
class Admission:
    """What is known of the queue.

    Parameters
    ----------
    limit
        Tokens that may be enqueued, or None where nobody told.
    max_requests
        Requests that may be enqueued, or None where they are not counted.
    """

    limit: int | None = None
    max_requests: int | None = None
    scale: float = 1.0
    """What the service counted, by what was estimated."""
    _ceiling: float | None = None
    _refusals: dict[int, int] = field(default_factory=dict)
    _in_a_row: int = 0
    _pause: int = 0

    @property
    def is_tight(self) -> bool:
        """Whether it matters what other runs have enqueued."""
        limits = (self.limit, self.max_requests, self._ceiling)
        return any(limit is not None for limit in limits) or bool(self._refusals)

    def begin_pass(self) -> None:
        """Take in that another look is taken at everything."""
        self._pause = max(0, self._pause - 1)

    def refused(self, part: int, load: Load, in_flight: Load, message: str, *, others: bool, chance: float) -> None:
        """Take in that a part found no room.

        Parameters
        ----------
        part, load
            The part, and what it would have enqueued.
        in_flight
            What else of ours was enqueued.
        message
            The service's words.
        others
            Whether others are, or may be, in the queue: they try again too, and should not do it at the same moment.
        chance
            A random number from 0 to 1.
        """
        limit = told_limit(message)
        is_alone = not any(in_flight)
        if _OF_REQUESTS.search(message):
            self.max_requests = limit or self.max_requests
        else:
            self.limit = limit if self.limit is None else min(self.limit, limit or self.limit)
            self._refusals[part] = self._refusals.get(part, 0) + is_alone
        self._ceiling = in_flight.tokens + load.tokens
        if others or is_alone:
            self._in_a_row += 1
            most = min(2**self._in_a_row, _MAX_PAUSE)
            self._pause = 1 + round(most / 2 * (1 + chance))

    def ended(self) -> None:
        """Take in that a batch of ours ended: there is room again, though nobody says how much."""
        self._ceiling, self._in_a_row = None, 0

    def verdict(self, part: int, load: Load, in_flight: Load) -> Verdict:
        """Say what to do with a part.

        Parameters
        ----------
        part, load
            The part, and what it would enqueue.
        in_flight
            What of ours is enqueued already, other runs included.
        """
        size, queued = load.tokens * self.scale, in_flight.tokens * self.scale
        if load.requests > 1 and self.pieces(load) > 1:
            return "split"
        if any(in_flight):
            is_over = self.limit is not None and queued + size > self.limit
            is_as_before = self._ceiling is not None and in_flight.tokens + load.tokens >= self._ceiling
            return "wait" if is_over or is_as_before or self.is_short_of_requests(load, in_flight) else "submit"
        # Nothing of ours is enqueued: others hold the queue, or the part is larger than it was estimated.
        if self._refusals.get(part, 0) > 1 and load.requests > 1 and (self.limit is None or 4 * size > self.limit):
            return "split"
        return "wait" if self._pause else "submit"

    def pieces(self, load: Load) -> int:
        """Return in how many pieces a part would fit into the empty queue, one after the other."""
        by_tokens = 1 if self.limit is None else -(-round(load.tokens * self.scale) // self.limit)
        by_requests = 1 if self.max_requests is None else -(-load.requests // self.max_requests)
        return max(1, by_tokens, by_requests)

    def is_short_of_requests(self, load: Load, in_flight: Load) -> bool:
        """Whether the number of requests keeps a part waiting; whether the limit itself may be reached is not known."""
        return self.max_requests is not None and in_flight.requests + load.requests >= self.max_requests

    def window(self, passed: int) -> int | None:
        """Return how many batches may wait for their validation at once; None for any number."""
        return None if self.limit is not None else _FIRST_WINDOW + passed
