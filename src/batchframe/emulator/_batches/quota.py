"""The queue: tokens, and requests for embeddings, held by a batch from its validation to its end, limited per model."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from batchframe.emulator._batches.refusals import refusal

if TYPE_CHECKING:
    from batchframe.emulator._batches.batch_object import LineError
    from batchframe.emulator._config.settings import Settings

_THOUSAND, _MILLION = 1_000, 1_000_000


class Load(NamedTuple):
    """What a batch holds in the queue of its model (Azure: its deployment)."""

    model: str
    tokens: int = 0
    requests: int = 0
    """Requests for embeddings; other endpoints are not limited."""


class Quota:
    """Enqueued tokens and requests, by owner and model."""

    def __init__(self) -> None:
        self._tokens: Counter[tuple[str, str]] = Counter()
        self._requests: Counter[tuple[str, str]] = Counter()

    def enter(self, owner: str, load: Load, settings: Settings) -> LineError | None:
        """Hold a load, or return why it does not fit."""
        key = owner, load.model
        checks = (
            ("tokens", self._tokens[key] + load.tokens, settings.token_limit(load.model)),
            ("requests", load.requests and self._requests[key] + load.requests, settings.request_limit),
        )
        for reason, enqueued, limit in checks:
            if limit is not None and enqueued > limit:
                return refusal(
                    reason,
                    is_azure=settings.profile.is_azure,
                    model=load.model,
                    organization=settings.organization,
                    limit=limit,
                    short_limit=_short(limit),
                )
        self.hold(owner, load)
        return None

    def hold(self, owner: str, load: Load) -> None:
        """Hold a load, whatever the limits."""
        self._tokens[owner, load.model] += load.tokens
        self._requests[owner, load.model] += load.requests

    def release(self, owner: str, load: Load) -> None:
        """Release a load."""
        self.hold(owner, Load(load.model, -load.tokens, -load.requests))


def _short(number: int) -> str:
    """Write a number as Azure does: ``30K``."""
    for size, letter in ((_MILLION, "M"), (_THOUSAND, "K")):
        if number >= size and number % size == 0:
            return f"{number // size}{letter}"
    return str(number)
