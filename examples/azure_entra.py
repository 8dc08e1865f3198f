"""Sign in to Azure OpenAI with Entra ID instead of a key.

    pip install "batchframe[azure]"
    AZURE_OPENAI_ENDPOINT=https://RESOURCE.openai.azure.com python examples/azure_entra.py DEPLOYMENT

DefaultAzureCredential takes the identity that runs the script: yours on your machine, a managed identity at Azure. The
role Cognitive Services OpenAI User is enough. The deployment must be of type Global Batch or Data Zone Batch.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import openai
import polars as pl

import batchframe as bf

DATA = Path(__file__).parent / "data" / "jargon.parquet"
PROMPT = "In one word, is this about people, software, hardware or culture? {term}: {definition}"


def entra_client() -> openai.AzureOpenAI:
    """Return a client that fetches a token when it needs one."""
    from azure.identity import DefaultAzureCredential, get_bearer_token_provider  # noqa: PLC0415  (an extra)

    scope = "https://cognitiveservices.azure.com/.default"
    return openai.AzureOpenAI(
        azure_endpoint=os.environ["AZURE_OPENAI_ENDPOINT"],
        azure_ad_token_provider=get_bearer_token_provider(DefaultAzureCredential(), scope),
        api_version="2024-10-21",
    )


def main(deployment: str, client: openai.OpenAI | None = None) -> None:
    """Classify the first terms and print the answers with the verdict of the content filter."""
    terms = pl.read_parquet(DATA).head(20)
    answered = bf.run(
        terms, PROMPT, model=deployment, temperature=0, include="content_filter", client=client or entra_client()
    )
    print(answered.select("term", "response", "content_filter"))


if __name__ == "__main__":
    main(sys.argv[1])
