"""The batch service that a call means: its profile, and its client once one is needed.

Importing the SDK takes longer than importing everything else together. A process that previews requests, or reads what
is on disk, does without it.
"""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Any

from batchframe._core.exceptions import OptionError
from batchframe._providers.profiles import Provider, provider_named, provider_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchframe._providers.client import BatchClient


def _openai_client(client: Any, provider: Provider) -> BatchClient:
    from batchframe._providers.openai import OpenAIClient  # noqa: PLC0415 - imports the SDK

    return OpenAIClient(client, provider)


# What makes the client of a provider, by its name, where that does not speak through the openai SDK.
CLIENTS: dict[str, Callable[[Any, Provider], BatchClient]] = {}


class Service:
    """A batch service, resolved once a call.

    Parameters
    ----------
    client
        The user's client; None for the one that the environment describes.
    provider
        The service's name or profile; None to recognise it by the client, or by the environment.

    Raises
    ------
    OptionError
        There is no such provider, or the host's batches have another form.
    """

    def __init__(self, client: Any = None, provider: str | Provider | None = None) -> None:
        self.provider = _resolve(provider, client)
        self._user_client = client
        self._client: BatchClient | None = None

    @property
    def client(self) -> BatchClient:
        """The client: made when it is first asked for, and anew after `close`.

        Raises
        ------
        OptionError
            The user's client is async, or of another library; or the environment describes none, or two.
        """
        if self._client is None:
            make = CLIENTS.get(self.provider.name, _openai_client)
            self._client = make(self._user_client, self.provider)
            # A run that nobody holds any more leaves no connection open.
            self._closing = weakref.finalize(self, self._client.close)
        return self._client

    def close(self) -> None:
        """Close the connections that were opened here; the user's own client is left open."""
        if self._client is not None:
            self._closing()
        self._client = None


def _resolve(provider: Any, client: Any) -> Provider:
    if isinstance(provider, str):
        return provider_named(provider)
    if isinstance(provider, Provider):
        return provider
    if provider is not None:
        msg = f'provider must be a name such as "openai" or a bf.Provider(...), got {provider!r}'
        raise OptionError(msg)
    if client is not None:
        import openai  # noqa: PLC0415 - who has a client has imported it

        if isinstance(client, openai.AzureOpenAI):
            return provider_named("azure")
        if isinstance(client, openai.OpenAI):
            return provider_of(str(client.base_url))
    if os.environ.get("AZURE_OPENAI_ENDPOINT") and not os.environ.get("OPENAI_API_KEY"):
        return provider_named("azure")
    return provider_of(os.environ.get("OPENAI_BASE_URL") or "")
