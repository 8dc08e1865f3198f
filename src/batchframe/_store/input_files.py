"""Input files made of lines of other input files: another attempt, or what is left of a file that was refused.

A part is there when its record is, and that is written after its input file.
"""

from __future__ import annotations

import hashlib
import os
from typing import IO, TYPE_CHECKING

import msgspec
import polars as pl

from batchframe._core import wire_format
from batchframe._core.digests import digest, digest_sums
from batchframe._core.events import trigger
from batchframe._endpoints.token_estimate import estimated_tokens
from batchframe._store.splitter import Splitter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from batchframe._store.records import PartRecord
    from batchframe._store.run_folder import RunFolder


_SAMPLE_BYTES, _LARGE_SAMPLE_BYTES, _SAMPLE_LINES = 200_000, 4_000_000, 20


class PartFiles:
    """Deals request lines out to new parts.

    Parameters
    ----------
    folder
        The run.
    max_requests, max_bytes
        The limits of an input file.
    model
        What the new records have in common; numbers, sizes and requests are filled in.
    """

    def __init__(self, folder: RunFolder, max_requests: int, max_bytes: int, model: PartRecord) -> None:
        self._folder = folder
        self._model = model
        self._first = max((part.number for part in folder.parts()), default=-1) + 1
        self._splitter = Splitter(max_requests, max_bytes, part=self._first)
        self._records: list[PartRecord] = []
        self._handle: IO[bytes] | None = None
        self._writing: Path | None = None

    def add(self, custom_id: str, line: bytes) -> None:
        """Append the line of a request."""
        ((number, _, _),) = self._splitter.cuts((0, len(line)))
        if not self._records or self._records[-1].number != number:
            self._begin(number)
        record = self._records[-1]
        assert self._handle is not None
        assert record.custom_ids is not None
        self._handle.write(line)
        record.requests += 1
        record.bytes += len(line)
        record.custom_ids.append(custom_id)

    def finish(self) -> int:
        """Commit the parts, and return how many were made."""
        self._close()
        for record in self._records:
            record.tokens = tokens_of(self._folder, record)
            record.digest = f"{_digest_of(self._folder.input_path(record.number)):032x}"
            record.pieces = 1 if record.split_from is None else len(self._records)
            self._folder.write_part(record)
            trigger("after_part_record")
        return len(self._records)

    def _begin(self, number: int) -> None:
        self._close()
        # Under another name at first: a process that lost its lease must not cut off a file of the same number.
        self._writing = self._folder.input_path(number).with_name(f".input.jsonl.{os.getpid()}.tmp")
        self._folder.make_parent(self._writing)
        self._handle = self._writing.open("wb")
        self._records.append(msgspec.structs.replace(self._model, number=number, custom_ids=[]))

    def _close(self) -> None:
        if self._handle is not None and self._writing is not None:
            self._handle.flush()
            os.fsync(self._handle.fileno())
            self._handle.close()
            self._handle = None
            with self._folder.fence():
                self._writing.replace(self._folder.input_path(self._records[-1].number))
            trigger("after_part_input")


def split_up(folder: RunFolder, part: PartRecord, pieces: int) -> None:
    """Replace a part by so many of about the same size, or more where its lines differ much."""
    model = msgspec.structs.replace(part, requests=0, bytes=0, tokens=0, ranges=None, split_from=part.number)
    files = PartFiles(folder, -(-part.requests // pieces), -(-part.bytes // pieces), model)
    for custom_id, line in lines_of(folder, part.number):
        files.add(custom_id, line)
    files.finish()


def tokens_of(folder: RunFolder, part: PartRecord) -> int:
    """Return about how many input tokens a part's input file holds, by its first lines."""
    with folder.input_path(part.number).open("rb") as handle:
        sample = handle.readlines(_SAMPLE_BYTES)
        if len(sample) < _SAMPLE_LINES:  # with images a line may be longer than all that, and is like no other
            sample += handle.readlines(_LARGE_SAMPLE_BYTES)
        return estimated_tokens(sample, part.bytes)


def measured(folder: RunFolder, part: PartRecord, custom_ids: list[str]) -> PartRecord:
    """Return a part's record with what its input file tells; ``custom_ids`` are those of its lines, in their order."""
    path = folder.input_path(part.number)
    record = msgspec.structs.replace(
        part,
        requests=len(custom_ids),
        bytes=path.stat().st_size,
        digest=f"{_digest_of(path):032x}",
        custom_ids=custom_ids,
    )
    record.tokens = tokens_of(folder, record)
    return record


def lines_of(folder: RunFolder, part: int) -> Iterator[tuple[str, bytes]]:
    """Yield the custom_id and the line of each request of a part's input file."""
    with folder.input_path(part).open("rb") as handle:
        for line in handle:
            yield wire_format.custom_id_of_request(line), line


def hash_of(path: os.PathLike[str]) -> str:
    """Return the hash of a file's bytes: that of an input file tells which request has which custom_id in it."""
    hashed = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as handle:  # noqa: PTH123
        while chunk := handle.read(1_000_000):
            hashed.update(chunk)
    return hashed.hexdigest()


def _digest_of(path: os.PathLike[str]) -> int:
    """Return the order-free sum of the digests of a file's requests."""
    total = 0
    with open(path, "rb") as handle:  # noqa: PTH123
        while lines := handle.readlines(8_000_000):
            bodies = [wire_format.body_of_request(line).decode() for line in lines]
            total += digest_sums(pl.DataFrame({"body": bodies}).select(digest(pl.col("body"))).to_series())
    return total % 2**128
