"""Events of a run for listeners such as the progress bar, and named points where tests can stop a process."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("batchframe")


@dataclass(frozen=True)
class Event:
    """An event in a run.

    Parameters
    ----------
    kind
        ``"notice"`` for a message to show, ``"status"`` after each pass.
    message
        The message.
    done, total
        The number of requests that the service reported as done, and of all requests. For display only.
    """

    kind: str
    message: str = ""
    done: int = 0
    total: int = 0


class Listener(Protocol):
    """A callable that receives the events of a run."""

    def __call__(self, event: Event) -> None:
        """Handle an event."""


def ignore(event: Event) -> None:
    """Only log the event."""
    logger.debug("%s: %s %d/%d", event.kind, event.message, event.done, event.total)


# A process can crash between any two writes or calls. A test names one of these points and kills the process there.
_triggers: dict[str, Callable[[], None]] = {}


def trigger(point: str) -> None:
    """Run the action that a test set on this point. Does nothing in production."""
    action = _triggers.get(point)
    if action is not None:
        action()


def set_trigger(point: str, action: Callable[[], None] | None) -> None:
    """Set the action of a named point, or remove it with None."""
    if action is None:
        _triggers.pop(point, None)
    else:
        _triggers[point] = action
