"""What Azure OpenAI does differently, and only that; `_openai.py` asks here.

Facts: Microsoft's batch how-to and REST references, and what users met.
"""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import urlsplit

import openai

from batchframe._core.exceptions import OptionError

# What the service answers to a create while it still looks at the input file:
# "The input file 'file-…' is in 'pending' state. Only files with status 'Processed' are accepted …".
_NOT_PROCESSED = "Only files with status 'Processed' are accepted"

# How an interface goes on after the resource: v1, dated versions, these within a deployment.
_INTERFACE = re.compile(r"(/openai(/v1|/deployments/[^/]+)?)?/*$", re.IGNORECASE)

_NEXT_STEPS = {
    "quota for files": ". Delete files of the resource that are no longer needed, or wait until they expire",
    "deploymentnotfound": ". Check the model: on Azure it is the deployment's name",
    "model_not_found": ". Check the model: on Azure it is the name of a Global Batch or Data Zone Batch deployment",
    "operationnotsupported": ". The deployment must be of type Global Batch or Data Zone Batch",
    "resource not found": ". Check azure_endpoint and api_version (batches: 2024-10-21 or later), or the base URL",
}


def client_from_environment() -> openai.AzureOpenAI:
    """Return the Azure client that the SDK's own environment variables describe.

    Raises
    ------
    OptionError
        A variable is missing.
    """
    try:
        return openai.AzureOpenAI()
    except (openai.OpenAIError, ValueError) as error:
        told = [
            name
            for name in ("AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY", "OPENAI_API_VERSION")
            if name in os.environ
        ]
        msg = (
            f"the environment describes Azure OpenAI in part ({', '.join(told)}): {error}. AZURE_OPENAI_ENDPOINT, "
            "OPENAI_API_VERSION and AZURE_OPENAI_API_KEY are needed, or pass client=openai.AzureOpenAI(...)"
        )
        raise OptionError(msg) from error


def resource(base_url: str) -> str:
    """Return the resource of a base URL: files and batches are the resource's, whichever API version asks.

    What a gateway has before ``/openai`` stays: there may be a resource behind each.
    """
    parts = urlsplit(base_url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{_INTERFACE.sub('', parts.path)}"


def secrets_of(client: openai.OpenAI) -> list[str]:
    """Return the texts of a client that must not show in a message."""
    found = (client.api_key, getattr(client, "_azure_ad_token", None))
    return [secret for secret in found if isinstance(secret, str) and len(secret) > 3]  # noqa: PLR2004


def is_not_processed(message: str) -> bool:
    """Whether a create was refused because the service has not looked at the input file yet."""
    return _NOT_PROCESSED.casefold() in message.casefold()


def next_step(code: str, message: str) -> str:
    """Return what a person can do about a refusal of Azure's, as the end of a sentence; or nothing."""
    text = f"{code} {message}".casefold()
    return next((step for words, step in _NEXT_STEPS.items() if words in text), "")


def refusal(body: Any) -> dict[str, Any]:
    """Return the error object of a refusal: in ``error``, the first in ``errors.data``, or the body itself."""
    if not isinstance(body, dict):
        return {}
    errors = body.get("errors")
    data = errors.get("data") if isinstance(errors, dict) else errors
    if isinstance(data, list) and data and isinstance(data[0], dict):
        return data[0]
    inner = body.get("error")
    return inner if isinstance(inner, dict) else body
