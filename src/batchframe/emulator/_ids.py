"""Ids in the services' forms."""

from __future__ import annotations

import random
import string
import uuid

_BASE62 = string.digits + string.ascii_letters


class Ids:
    """Draws ids; with a seed, the same ones each time."""

    def __init__(self, seed: int | None) -> None:
        self.random = random.Random(seed)  # noqa: S311 - names, not secrets

    def file(self, *, is_azure: bool = False, is_output: bool = False) -> str:
        """Draw the id of a file."""
        if is_azure:
            drawn = uuid.UUID(int=self.random.getrandbits(128))
            return f"file-{drawn if is_output else drawn.hex}"
        return "file-" + "".join(self.random.choices(_BASE62, k=24))

    def batch(self, *, is_azure: bool = False) -> str:
        """Draw the id of a batch."""
        drawn = uuid.UUID(int=self.random.getrandbits(128))
        return f"batch_{drawn if is_azure else drawn.hex}"
