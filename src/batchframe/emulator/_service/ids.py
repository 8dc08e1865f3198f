"""Ids in the forms of the services."""

from __future__ import annotations

import random
import string
import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_BASE62 = string.digits + string.ascii_letters
# Crockford's alphabet in lower case, as in ULIDs.
_BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"
_DRAWS: dict[str, Callable[[random.Random], str]] = {
    "base62": lambda source: "".join(source.choices(_BASE62, k=24)),
    "base32": lambda source: "".join(source.choices(_BASE32, k=23)),
    "hex": lambda source: f"{source.getrandbits(128):032x}",
    "uuid": lambda source: str(uuid.UUID(int=source.getrandbits(128))),
}


class Ids:
    """Draws ids; a seed makes them repeatable."""

    def __init__(self, seed: int | None) -> None:
        self.random = random.Random(seed)  # noqa: S311 - names, not secrets

    def draw(self, form: str) -> str:
        """Draw an id of a form: ``file-{hex}``."""
        head, _, kind = form.rstrip("}").partition("{")
        return head + _DRAWS[kind](self.random)
