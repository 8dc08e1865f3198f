"""Input files made of lines of other input files: another attempt, or what is left of a file that was refused.

A part is there when its record is, and that is written after its input file.
"""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING

import msgspec
import polars as pl

from batchframe._events import trigger
from batchframe._input_files import Splitter, estimated_tokens
from batchframe._requests import digest, digest_sums

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
        self._writing: Path | None = None

    def add(self, source: int, custom_id: str, line: bytes) -> None:
        """Append a line that comes from the part ``source``."""
        ((number, _, _),) = self._splitter.cuts((0, len(line)))
        if self._record is None or self._record.number != number:
            self._commit()
            # Under another name at first: a process that lost its lease must not cut off a file of the same number.
            self._writing = self._folder.input_path(number).with_name(f".input.jsonl.{os.getpid()}.tmp")
            self._writing.parent.mkdir(parents=True, exist_ok=True)
            self._handle = self._writing.open("wb")
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
        if self._record is None or self._handle is None or self._writing is None:
            return
        self._handle.flush()
        os.fsync(self._handle.fileno())
        self._handle.close()
        with self._folder.fence():
            self._writing.replace(self._folder.input_path(self._record.number))
        trigger("after_part_input")
        self._record.tokens = estimated_tokens(self._record.bytes)
        self._record.digest = f"{_digest_of(self._folder.input_path(self._record.number)):032x}"
        self._folder.write_part(self._record)
        trigger("after_part_record")


def lines_of(folder: RunFolder, part: int) -> Iterator[tuple[str, bytes]]:
    """Yield the custom_id and the line of each request of a part's input file."""
    with folder.input_path(part).open("rb") as handle:
        for line in handle:
            yield _decode_id(line).custom_id, line


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
