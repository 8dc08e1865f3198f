"""A client with a check before each call that changes something at the service."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchframe._providers.client import BatchClient

_CHANGING = frozenset({"upload", "create", "cancel", "delete_file"})


class GuardedClient:
    """A `BatchClient` with a check before each upload, create, cancel and delete.

    Parameters
    ----------
    client
        The client that makes the calls.
    check
        The check. If it raises, the call is not made.
    """

    def __init__(self, client: BatchClient, check: Callable[[], None]) -> None:
        self._client = client
        self._check = check

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if name not in _CHANGING:
            return method

        @functools.wraps(method)
        def checked(*arguments: Any, **options: Any) -> Any:
            self._check()
            return method(*arguments, **options)

        return checked
