"""The differences of Azure OpenAI, used by `openai.py`.

Sources: Microsoft's batch how-to and REST references, and reports of users.
"""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import urlsplit

import openai

from batchframe._core.exceptions import OptionError

# The service's reply to a create call while it still processes the input file:
# "The input file 'file-…' is in 'pending' state. Only files with status 'Processed' are accepted …".
_NOT_PROCESSED = "Only files with status 'Processed' are accepted"

# The path after the resource: v1, dated versions, dated versions within a deployment.
_INTERFACE = re.compile(r"(/openai(/v1|/deployments/[^/]+)?)?/*$", re.IGNORECASE)

_NEXT_STEPS = {
    "quota for files": ". Delete files of the resource that are no longer needed, or wait until they expire",
    "deploymentnotfound": ". Check the model: on Azure it is the deployment's name",
    "model_not_found": ". Check the model: on Azure it is the name of a Global Batch or Data Zone Batch deployment",
    "operationnotsupported": ". The deployment must be of type Global Batch or Data Zone Batch",
    "resource not found": ". Check azure_endpoint and api_version (batches: 2024-10-21 or later), or the base URL",
}


def client_from_environment() -> openai.AzureOpenAI:
    """Return the Azure client for the SDK's environment variables.

    Raises
    ------
    OptionError
        A variable is missing.
    """
    try:
        return openai.AzureOpenAI()
    except (openai.OpenAIError, ValueError) as error:
        names = [
            name
            for name in ("AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY", "OPENAI_API_VERSION")
            if name in os.environ
        ]
        msg = (
            f"the environment variables for Azure OpenAI are incomplete ({', '.join(names)}): {error}. Set "
            "AZURE_OPENAI_ENDPOINT, OPENAI_API_VERSION and AZURE_OPENAI_API_KEY, or pass client=openai.AzureOpenAI(...)"
        )
        raise OptionError(msg) from error


def resource(base_url: str) -> str:
    """Return the resource of a base URL. Files and batches belong to the resource, whatever the API version.

    A gateway's path before ``/openai`` stays, since each path may lead to another resource.
    """
    parts = urlsplit(base_url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{_INTERFACE.sub('', parts.path)}"


def secrets_of(client: openai.OpenAI) -> list[str]:
    """Return the secrets of a client, which must not appear in a message."""
    secrets = (client.api_key, getattr(client, "_azure_ad_token", None))
    return [secret for secret in secrets if isinstance(secret, str) and len(secret) > 3]  # noqa: PLR2004


def is_not_processed(message: str) -> bool:
    """Whether a create was refused because the service has not processed the input file yet."""
    return _NOT_PROCESSED.casefold() in message.casefold()


def next_step(code: str, message: str) -> str:
    """Return the next step after a refusal of Azure's, as the end of a message; empty if there is none."""
    text = f"{code} {message}".casefold()
    return next((step for phrase, step in _NEXT_STEPS.items() if phrase in text), "")


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
