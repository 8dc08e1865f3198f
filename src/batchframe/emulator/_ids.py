"""Ids in the service's forms."""

from __future__ import annotations

import random
import string

_BASE62 = string.digits + string.ascii_letters


class Ids:
    """Draws ids; with a seed, the same ones each time."""

    def __init__(self, seed: int | None) -> None:
        self.random = random.Random(seed)  # noqa: S311 - names, not secrets

    def file(self) -> str:
        """Draw the id of a file."""
        return "file-" + "".join(self.random.choices(_BASE62, k=24))

    def batch(self) -> str:
        """Draw the id of a batch."""
        return f"batch_{self.random.getrandbits(128):032x}"
