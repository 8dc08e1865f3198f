"""Enqueued tokens: held by a batch from its validation to its end, limited per model."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from batchframe.emulator._refusals import refusal

if TYPE_CHECKING:
    from batchframe.emulator._batches import LineError
    from batchframe.emulator._settings import Settings

_THOUSAND, _MILLION = 1_000, 1_000_000


class Quota:
    """The tokens that are enqueued, by owner and model (Azure: deployment)."""

    def __init__(self) -> None:
        self._held: Counter[tuple[str, str]] = Counter()

    def enter(self, owner: str, model: str, tokens: int, settings: Settings) -> LineError | None:
        """Hold the tokens of a batch, or say why not."""
        limit = settings.token_limit(model)
        if limit is None or self._held[owner, model] + tokens <= limit:
            self.hold(owner, model, tokens)
            return None
        return refusal(
            "tokens",
            is_azure=settings.speaks.is_azure,
            model=model,
            organization=settings.organization,
            limit=limit,
            short_limit=_short(limit),
        )

    def hold(self, owner: str, model: str, tokens: int) -> None:
        """Hold tokens; negative ones are let go."""
        self._held[owner, model] += tokens


def _short(number: int) -> str:
    """Write a number as Azure does: ``30K``."""
    for size, letter in ((_MILLION, "M"), (_THOUSAND, "K")):
        if number >= size and number % size == 0:
            return f"{number // size}{letter}"
    return str(number)
