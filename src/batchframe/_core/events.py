"""What the loop tells whoever listens (progress, tests), and the named points where tests stop a process."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("batchframe")


@dataclass(frozen=True)
class Event:
    """One thing that happened in a run.

    Parameters
    ----------
    kind
        ``"notice"`` for a sentence worth showing, ``"status"`` after each pass.
    message
        The sentence.
    done, total
        Requests the service reported as done, and all requests; for display only.
    """

    kind: str
    message: str = ""
    done: int = 0
    total: int = 0


class Listener(Protocol):
    """Whatever wants to know."""

    def __call__(self, event: Event) -> None:
        """Take one event."""


def ignore(event: Event) -> None:
    """Listen to nothing."""
    logger.debug("%s: %s %d/%d", event.kind, event.message, event.done, event.total)


# A crash can fall between any two local writes and calls; a test names one of these points and kills the process there.
_triggers: dict[str, Callable[[], None]] = {}


def trigger(point: str) -> None:
    """Run what a test hung on this point; nothing in production."""
    action = _triggers.get(point)
    if action is not None:
        action()


def set_trigger(point: str, action: Callable[[], None] | None) -> None:
    """Hang an action on a named point, or take it off with None."""
    if action is None:
        _triggers.pop(point, None)
    else:
        _triggers[point] = action
