"""Input files made of lines of other input files: another attempt, or what is left of a file that was refused.

A part is there when its record is, and that is written after its input file.
"""

from __future__ import annotations

import hashlib
import os
from typing import IO, TYPE_CHECKING

import msgspec
import polars as pl

from batchframe._events import trigger
from batchframe._input_files import Splitter, estimated_tokens
from batchframe._requests import digest, digest_sums

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchframe._limits import Limits
    from batchframe._store import RunFolder
    from batchframe._types import PartRecord


class PartFiles:
    """Deals request lines out to new parts.

    Parameters
    ----------
    folder
        The run.
    limits
        The limits of an input file, both set.
    model
        What the new records have in common; numbers, sizes and requests are filled in.
    """

    def __init__(self, folder: RunFolder, limits: Limits, model: PartRecord) -> None:
        assert limits.max_requests is not None
        assert limits.max_bytes is not None
        self._folder = folder
        self._model = model
        self._first = max((part.number for part in folder.parts()), default=-1) + 1
        self._splitter = Splitter(limits.max_requests, limits.max_bytes, part=self._first)
        self._record: PartRecord | None = None
        self._handle: IO[bytes] | None = None

    def add(self, source: int, custom_id: str, line: bytes) -> None:
        """Append a line that comes from the part ``source``."""
        ((number, _, _),) = self._splitter.cuts((0, len(line)))
        if self._record is None or self._record.number != number:
            self._commit()
            path = self._folder.input_path(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = path.open("wb")
            retry_of = None if self._model.split_from is not None else source
            self._record = msgspec.structs.replace(self._model, number=number, custom_ids=[], retry_of=retry_of)
        assert self._handle is not None
        assert self._record.custom_ids is not None
        self._handle.write(line)
        self._record.requests += 1
        self._record.bytes += len(line)
        self._record.custom_ids.append(custom_id)

    def finish(self) -> int:
        """Commit the last part, and return how many were made."""
        self._commit()
        return 0 if self._record is None else self._record.number - self._first + 1

    def _commit(self) -> None:
        if self._record is None or self._handle is None:
            return
        self._handle.flush()
        os.fsync(self._handle.fileno())
        self._handle.close()
        trigger("after_part_input")
        self._record.tokens = estimated_tokens(self._record.bytes)
        self._record.digest = f"{_digest_of(self._folder.input_path(self._record.number)):032x}"
        self._folder.write_part(self._record)
        trigger("after_part_record")


def measured(folder: RunFolder, part: PartRecord, custom_ids: list[str]) -> PartRecord:
    """Return a part's record with what its input file tells; ``custom_ids`` are those of its lines, in their order."""
    path = folder.input_path(part.number)
    size = path.stat().st_size
    return msgspec.structs.replace(
        part,
        requests=len(custom_ids),
        bytes=size,
        tokens=estimated_tokens(size),
        digest=f"{_digest_of(path):032x}",
        custom_ids=custom_ids,
    )


def lines_of(folder: RunFolder, part: int) -> Iterator[tuple[str, bytes]]:
    """Yield the custom_id and the line of each request of a part's input file."""
    with folder.input_path(part).open("rb") as handle:
        for line in handle:
            yield _decode_id(line).custom_id, line


def hash_of(path: os.PathLike[str]) -> str:
    """Return the hash of a file's bytes: that of an input file tells which request has which custom_id in it."""
    hashed = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as handle:  # noqa: PTH123
        while chunk := handle.read(1_000_000):
            hashed.update(chunk)
    return hashed.hexdigest()


class _Id(msgspec.Struct, gc=False):
    custom_id: str


_decode_id = msgspec.json.Decoder(_Id).decode


def _digest_of(path: os.PathLike[str]) -> int:
    """Return the order-free sum of the digests of a file's requests."""
    total = 0
    with open(path, "rb") as handle:  # noqa: PTH123
        while lines := handle.readlines(8_000_000):
            bodies = [line[line.index(b'"body":') + 7 : -2].decode() for line in lines]
            total += digest_sums(pl.DataFrame({"body": bodies}).select(digest(pl.col("body"))).to_series())
    return total % 2**128
