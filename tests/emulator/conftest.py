"""The emulator over real HTTP, with the real SDK."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from batchframe.testing import Emulator, emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import openai

TERMINAL = {"completed", "failed", "expired", "cancelled"}
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="session")
def shared() -> Iterator[Emulator]:
    with emulator() as service:
        yield service


@pytest.fixture
def service(shared: Emulator) -> Emulator:
    shared.reset()
    return shared


@pytest.fixture(scope="session")
def shared_client(shared: Emulator) -> openai.OpenAI:
    return shared.client(max_retries=0)


@pytest.fixture
def client(service: Emulator, shared_client: openai.OpenAI) -> openai.OpenAI:  # the order: reset, then use
    return shared_client


def body(text: str = "Say hello.", **more: Any) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **more}


def request(custom_id: str, request_body: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": request_body or body(custom_id), **more}


def jsonl(*lines: Any) -> bytes:
    return b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)


def upload(client: openai.OpenAI, content: bytes, name: str = "input.jsonl") -> str:
    return client.files.create(file=(name, content), purpose="batch").id


def create(client: openai.OpenAI, file_id: str, **more: Any) -> Any:
    return client.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h", **more)


def wait(client: openai.OpenAI, batch_id: str, until: Callable[[Any], bool] | None = None, seconds: float = 20) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        batch = client.batches.retrieve(batch_id)
        if until(batch) if until else batch.status in TERMINAL:
            return batch
        time.sleep(0.01)
    raise AssertionError(f"still {batch.status} after {seconds} s")


def ended(client: openai.OpenAI, *lines: Any) -> Any:
    """Upload, create, wait."""
    return wait(client, create(client, upload(client, jsonl(*lines))).id)


def read(client: openai.OpenAI, file_id: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in client.files.content(file_id).content.split(b"\n") if line]
