"""A provider is one module: a profile, and a client where it does not speak through the openai SDK.

The service made up here has no files: a create takes the requests themselves, and results are read by batch.
"""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

import polars as pl
import pytest

import batchframe as bf
from batchframe._core.exceptions import ConnectionFailedError, NotVisibleError
from batchframe._core.remote import Account, RemoteBatch, RemoteFile
from batchframe._providers.profiles import PROVIDERS
from batchframe._providers.service import CLIENTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchframe._providers.client import InputFile

# -- what would be the module batchframe/_providers/toy.py

TOY = bf.Provider(name="toy", limits=bf.Limits(max_requests=2, max_bytes=100_000))


class ToyClient:
    """`BatchClient` of a service that takes the requests with the create."""

    min_poll_seconds = 0.0

    def __init__(self, service: ToyService, provider: bf.Provider) -> None:
        self._service = service
        self.provider = provider
        self.account = Account("toy", "toy://local")

    def close(self) -> None:
        """Nothing is open."""

    def upload(self, handle: IO[bytes], filename: str, expires_after: int | None) -> RemoteFile:
        """Send nothing: the name is of the run and the part, and each upload gets a number."""
        self._service.uploads += 1
        return RemoteFile(f"{filename}-{self._service.uploads}", len(handle.read()))

    def retrieve_file(self, file_id: str) -> RemoteFile:
        return RemoteFile(file_id)

    def list_files(self) -> Iterator[RemoteFile]:
        return iter(())

    def delete_file(self, file_id: str) -> None:
        """Nothing is there."""

    def create(
        self,
        input_file: InputFile,
        endpoint: str,
        completion_window: str,
        metadata: dict[str, str],
        expires_after: int | None,
    ) -> RemoteBatch:
        with input_file.open() as handle:
            requests = [json.loads(line) for line in handle]
        return self._batch(self._service.create(input_file.id, requests, metadata))

    def retrieve(self, batch_id: str) -> RemoteBatch:
        if batch_id not in self._service.jobs:
            raise NotVisibleError(f"no batch {batch_id}", call="retrieve_batch", status_code=404)
        return self._batch(batch_id)

    def list(self) -> Iterator[RemoteBatch]:
        return map(self._batch, reversed(self._service.jobs))

    def list_matching(self, since: dt.datetime | None, status: str | None) -> Iterator[RemoteBatch]:
        return self.list()

    def cancel(self, batch_id: str) -> RemoteBatch:
        return self._batch(batch_id)

    def download(self, file_id: str, handle: IO[bytes]) -> None:
        for request in self._service.jobs[file_id.removeprefix("results of ")].requests:
            message = {"role": "assistant", "content": request["body"]["messages"][0]["content"].upper()}
            body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
            response = {"status_code": 200, "request_id": "r", "body": body}
            handle.write(json.dumps({"custom_id": request["custom_id"], "response": response}).encode() + b"\n")

    def _batch(self, batch_id: str) -> RemoteBatch:
        job = self._service.jobs[batch_id]
        raw = {"metadata": job.metadata, "output_file_id": f"results of {batch_id}"}
        return RemoteBatch(batch_id, "completed", job.key, raw["output_file_id"], created_at=job.created_at, raw=raw)


# -- the service


@dataclass
class Job:
    key: str
    requests: list[dict]
    metadata: dict[str, str]
    created_at: dt.datetime


@dataclass
class ToyService:
    """Jobs by id; it may lose the reply to a create."""

    jobs: dict[str, Job] = field(default_factory=dict)
    uploads: int = 0
    replies_to_lose: int = 0

    def create(self, key: str, requests: list[dict], metadata: dict[str, str]) -> str:
        job_id = f"job-{len(self.jobs)}"
        self.jobs[job_id] = Job(key, requests, metadata, dt.datetime.now(dt.timezone.utc))
        if self.replies_to_lose:
            self.replies_to_lose -= 1
            raise ConnectionFailedError("create_batch: the connection broke", call="create_batch")
        return job_id

    def executed(self) -> Counter[str]:
        return Counter(request["custom_id"] for job in self.jobs.values() for request in job.requests)


FRAME = pl.DataFrame({"text": ["a", "b", "c", "d", "e"]})


@pytest.fixture
def service(monkeypatch):
    monkeypatch.setitem(PROVIDERS, "toy", TOY)
    monkeypatch.setitem(CLIENTS, "toy", ToyClient)
    return ToyService()


def test_a_service_without_files_runs_like_any_other(service):
    out = bf.run(FRAME, "{text}!", model="m", provider="toy", client=service, poll_seconds=0.01)
    assert out["response"].to_list() == ["A!", "B!", "C!", "D!", "E!"]
    assert len(service.jobs) == 3
    assert set(service.executed().values()) == {1}


def test_a_lost_reply_is_found_by_the_key_of_its_create(service):
    service.replies_to_lose = 2
    out = bf.run(FRAME, "{text}!", model="m", provider="toy", client=service, poll_seconds=0.01)
    assert out["error"].null_count() == 5
    assert set(service.executed().values()) == {1}


def test_the_same_call_from_an_empty_disk_adopts_the_batches(service, tmp_path):
    arguments = {"model": "m", "provider": "toy", "client": service, "poll_seconds": 0.01}
    bf.run(FRAME, "{text}!", run_dir=tmp_path / "one", **arguments)
    out = bf.run(FRAME, "{text}!", run_dir=tmp_path / "two", **arguments)
    assert out["error"].null_count() == 5
    assert set(service.executed().values()) == {1}
