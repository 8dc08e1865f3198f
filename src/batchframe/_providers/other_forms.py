"""Services with a batch API of their own, by host. They are refused at once, with the reason and an alternative.

Confidence as in `profiles.py`: S an SDK's source; D the vendor's documentation. Read on 2026-11-28.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class OtherForm(NamedTuple):
    """A service without OpenAI's batch API."""

    service: str
    hosts: str
    """A pattern of its hosts."""
    reason: str
    has_openai_results: bool = False
    """Whether its result files have OpenAI's lines, which `read_batch` reads."""

    def has(self, host: str) -> bool:
        """Whether a host is this service's."""
        return re.fullmatch(self.hosts, host) is not None

    def refusal(self, host: str) -> str:
        """Return the message for a base URL with this host."""
        then = ", and read the result file with bf.read_batch(path, frame)" if self.has_openai_results else ""
        return (
            f"{host} belongs to {self.service}, whose batch API is not OpenAI's: {self.reason}. Nothing was sent. Make "
            f"the batch with the service's own tools{then}, or use a gateway that offers OpenAI's batch API for it. To "
            'send it anyway, pass provider="openai" or a bf.Provider(...)'
        )


OTHER_FORMS = (
    # Source: together 3.1.1, types/batch_job.py and lib/resources/files.py (S).
    OtherForm(
        "Together",
        r"api\.together\.(ai|xyz)",
        "input files go to storage in three steps, with the purpose 'batch-api', and batches keep no metadata to find "
        "a lost one",
        has_openai_results=True,
    ),
    # Source: ai.google.dev/gemini-api/docs/openai, "Batch API" (D).
    OtherForm(
        "Gemini",
        r"generativelanguage\.googleapis\.com",
        "files are uploaded and downloaded through an API of Google's own",
        has_openai_results=True,
    ),
    # Source: docs.cloud.google.com, batchPredictionJobs (D).
    OtherForm(
        "Vertex AI",
        r"([a-z0-9-]+-)?aiplatform\.googleapis\.com",
        "input and results are in Cloud Storage or BigQuery",
    ),
    # Source: AWS user guide, "inference-openai-batch" (D).
    OtherForm(
        "Amazon Bedrock",
        r"bedrock-(runtime|mantle)\..+\.(amazonaws\.com(\.cn)?|api\.aws)",
        "there are no files to upload: input and results are in S3",
    ),
    # Source: docs.anthropic.com, Message Batches; anthropic 2.14.0 (S).
    OtherForm(
        "Anthropic",
        r"api\.anthropic\.com",
        "requests are sent inline to /v1/messages/batches, in the form of its own API",
    ),
    # Source: docs.mistral.ai; mistralai 3.7.0 (S).
    OtherForm(
        "Mistral",
        r"api\.mistral\.ai",
        "batches are jobs under /v1/batch/jobs, with one model per job",
        has_openai_results=True,
    ),
    # Source: docs.x.ai; xai-sdk (S).
    OtherForm("xAI", r"api\.x\.ai", "batches have counters instead of a status, and results are read in pages"),
    # Source: openrouter.ai/docs/batch-quickstart (D).
    OtherForm(
        "OpenRouter", r"openrouter\.ai", "requests are sent inline, at most 5,000 of them, and nothing is uploaded"
    ),
    # Source: docs.fireworks.ai/guides/batch-inference (D).
    OtherForm("Fireworks", r"api\.fireworks\.ai", "batches are jobs over datasets"),
    # Source: cohere 7.3.1, batches (S).
    OtherForm("Cohere", r"api\.cohere\.(ai|com)", "batches are made of datasets"),
    # Source: docs.digitalocean.com, "How to Use Batch Inference" (D).
    OtherForm("DigitalOcean", r"inference\.do-ai\.run", "a create takes file_id, provider and request_id"),
    # Source: www.volcengine.com/docs, batch inference jobs (D).
    OtherForm("Volcengine", r"ark\.[a-z0-9-]+\.volces\.com", "batches are jobs over files in its object storage"),
)
