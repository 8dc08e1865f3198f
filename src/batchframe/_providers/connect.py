"""The way to a service: which profile a call means, and its client, whose SDK is imported when one is first made.

Importing the SDK takes longer than importing everything else together. A process that previews requests, or reads what
is on disk, does without it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from batchframe._core.exceptions import OptionError
from batchframe._providers.profiles import Provider, provider_named, provider_of

if TYPE_CHECKING:
    from batchframe._providers.client import BatchClient


def connect(client: Any = None, provider: str | Provider | None = None) -> BatchClient:
    """Return the service behind a client.

    Parameters
    ----------
    client
        The user's client; None for the one of the environment.
    provider
        The service's profile; None to tell it from the client.

    Raises
    ------
    OptionError
        The client is async, or of another library; or the environment describes none, or two.
    """
    from batchframe._providers.openai import OpenAIClient  # noqa: PLC0415 - imports the SDK

    return OpenAIClient(client, provider)


def profile(provider: Any, client: Any = None) -> Provider:
    """Return the profile that a ``provider`` option means; None: the client's, or that of the environment."""
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
