"""``Service``: resolve the batch service of a call, and make its client when it is needed.

Importing the SDK takes longer than all other imports together. A process that previews requests, or reads a run on
disk, does not need it.
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


# The client of a provider by its name, for services that do not use the openai SDK.
CLIENTS: dict[str, Callable[[Any, Provider], BatchClient]] = {}


class Service:
    """A batch service, resolved once per call.

    Parameters
    ----------
    client
        The user's client. None makes one from the environment variables.
    provider
        The service's name or profile. None derives it from the client or the environment variables.

    Raises
    ------
    OptionError
        The provider is unknown, or the host's service has another batch API.
    """

    def __init__(self, client: Any = None, provider: str | Provider | None = None) -> None:
        self.provider = _resolve(provider, client)
        self._user_client = client
        self._client: BatchClient | None = None

    @property
    def client(self) -> BatchClient:
        """The client, made at first use, and again at first use after `close`.

        Raises
        ------
        OptionError
            The user's client is async, or from another library; or the environment variables name no service, or two.
        """
        if self._client is None:
            make = CLIENTS.get(self.provider.name, _openai_client)
            self._client = make(self._user_client, self.provider)
            # A run that nobody holds any more leaves no connection open.
            self._closing = weakref.finalize(self, self._client.close)
        return self._client

    def close(self) -> None:
        """Close the connections that were opened here. The user's own client stays open."""
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
        import openai  # noqa: PLC0415 - already imported by whoever made the client

        if isinstance(client, openai.AzureOpenAI):
            return provider_named("azure")
        if isinstance(client, openai.OpenAI):
            return provider_of(str(client.base_url))
    if os.environ.get("AZURE_OPENAI_ENDPOINT") and not os.environ.get("OPENAI_API_KEY"):
        return provider_named("azure")
    return provider_of(os.environ.get("OPENAI_BASE_URL") or "")
