"""What may be submitted now, so that the queue of enqueued tokens is used and not overrun.

The services count the input tokens of an account's batches, by model, until each batch ends; no endpoint tells the
limit, and the refusal may come after a create that went well. It costs nothing but the upload.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

# "Limit: 2,000,000 enqueued tokens" (OpenAI), "the configured limit of 30K" (Azure).
_LIMIT = re.compile(r"limit(?::| of)\s*(\d[\d.,]*)\s*([KMB]?)\b", re.IGNORECASE)
_LETTERS = {"": 1, "K": 1_000, "M": 1_000_000, "B": 1_000_000_000}
# While no limit is known, so many batches may be waiting for their validation, and one more for each that passed.
_FIRST_WINDOW = 10
_MAX_PAUSE = 32

Verdict = Literal["submit", "wait", "split"]


def told_limit(message: str) -> int | None:
    """Return the limit of enqueued tokens that a refusal names."""
    found = _LIMIT.search(message)
    if found is None:
        return None
    number, letter = found[1].rstrip(".,").replace(",", ""), found[2].upper()
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
    """

    limit: int | None = None
    scale: float = 1.0
    """What the service counted, by what was estimated."""
    _ceiling: float | None = None
    _refusals: dict[int, int] = field(default_factory=dict)
    _in_a_row: int = 0
    _pause: int = 0

    @property
    def is_tight(self) -> bool:
        """Whether the tokens of other runs matter."""
        return self.limit is not None or self._ceiling is not None or bool(self._refusals)

    def begin_pass(self) -> None:
        """Take in that another look is taken at everything."""
        self._pause = max(0, self._pause - 1)

    def refused(self, part: int, tokens: int, in_flight: int, message: str, *, others: bool, chance: float) -> None:
        """Take in that a part found no room.

        Parameters
        ----------
        part, tokens
            The part, and the estimate of its tokens.
        in_flight
            The estimate for what else of ours was enqueued.
        message
            The service's words.
        others
            Whether others are, or may be, in the queue: they try again too, and should not do it at the same moment.
        chance
            A random number from 0 to 1.
        """
        told = told_limit(message)
        self.limit = told if self.limit is None else min(self.limit, told or self.limit)
        self._ceiling = in_flight + tokens
        if not in_flight:
            self._refusals[part] = self._refusals.get(part, 0) + 1
        if others or not in_flight:
            self._in_a_row += 1
            most = min(2**self._in_a_row, _MAX_PAUSE)
            self._pause = 1 + round(most / 2 * (1 + chance))

    def ended(self) -> None:
        """Take in that a batch of ours ended: there is room again, though nobody says how much."""
        self._ceiling, self._in_a_row = None, 0

    def verdict(self, part: int, tokens: int, requests: int, in_flight: int) -> Verdict:
        """Say what to do with a part.

        Parameters
        ----------
        part, tokens, requests
            The part, the estimate of its tokens, and how many requests could be parted.
        in_flight
            The estimate for what of ours is enqueued already, other runs included.
        """
        size, queued = tokens * self.scale, in_flight * self.scale
        if self.limit is not None and size > self.limit and requests > 1:
            return "split"
        if queued:
            is_over = self.limit is not None and queued + size > self.limit
            return (
                "wait" if is_over or (self._ceiling is not None and in_flight + tokens >= self._ceiling) else "submit"
            )
        # Nothing of ours is enqueued: others hold the queue, or the part is larger than it was estimated.
        if self._refusals.get(part, 0) > 1 and requests > 1 and (self.limit is None or 4 * size > self.limit):
            return "split"
        return "wait" if self._pause else "submit"

    def window(self, passed: int) -> int | None:
        """Return how many batches may wait for their validation at once; None for any number."""
        return None if self.limit is not None else _FIRST_WINDOW + passed
