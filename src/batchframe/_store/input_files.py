"""Read and write input files.

A part exists once its record does, and the record is written after the input file.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING

import msgspec
import polars as pl

from batchframe._core import wire_format
from batchframe._core.column_names import CUSTOM_ID, DIGEST, LINE
from batchframe._core.digests import digest, digest_sums
from batchframe._core.events import trigger
from batchframe._endpoints.token_estimate import estimated_tokens
from batchframe._store.splitter import FIRST_PART_SHARE, Cut, Splitter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from typing_extensions import Self

    from batchframe._store.records import PartRecord
    from batchframe._store.run_folder import RunFolder

# Bytes per write, and bytes of single lines that are collected into one slice.
_WRITE_BYTES, _SLICE_BYTES = 1_000_000, 8_000_000
_READ_BYTES = 1_000_000
_SAMPLE_BYTES, _LARGE_SAMPLE_BYTES, _SAMPLE_LINES = 200_000, 4_000_000, 20


class InputFileWriter:
    """Appends request lines to input files, and starts a new part when one is full.

    A file gets its name when it is complete, so that a process that lost its lease cannot truncate a file of the same
    number.

    Parameters
    ----------
    folder
        The run, or the scratch folder that becomes one.
    max_requests, max_bytes
        The limits of an input file.
    model
        The template of the new records. Numbers, sizes and digests are filled in; so are ``ranges`` and
        ``custom_ids`` if they are lists.
    first
        The number of the first part; None for the run's next number.
    pilot
        The number of rows of a pilot, which get a part of their own whatever its size. None for no pilot: then part 0
        is small if there are several parts.
    """

    def __init__(
        self,
        folder: RunFolder,
        max_requests: int,
        max_bytes: int,
        model: PartRecord,
        *,
        first: int | None = None,
        pilot: int | None = None,
    ) -> None:
        if first is None:
            first = max((part.number for part in folder.parts()), default=-1) + 1
        self._folder = folder
        self._model = model
        self._pilot = pilot
        share = FIRST_PART_SHARE if pilot is None else 1
        self._splitter = Splitter(max_requests, max_bytes, part=first, first_share=share)
        self._rows = 0
        self._records: list[PartRecord] = []
        self._digests: list[int] = []
        self._open_file = ExitStack()
        self._handle: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            # The file is abandoned. The error is not passed on to it: it may come from the user's frame, such as a
            # missing file, and would be mistaken for a missing run.
            self._open_file.__exit__(GeneratorExit, GeneratorExit(), None)

    def add_rows(self, block: int, rows: pl.DataFrame) -> None:
        """Append the lines of a block's rows; rows without a line are not sent.

        Parameters
        ----------
        block
            The number of the block.
        rows
            All rows of the block, with their custom_ids, digests and lines.
        """
        indices = rows[LINE].is_not_null().arg_true()
        lines, digests, custom_ids = rows[LINE].drop_nulls(), rows[DIGEST].gather(indices), rows[CUSTOM_ID]
        start_row, self._rows = self._rows, self._rows + rows.height
        pilot_lines = None
        if self._pilot is not None and start_row < self._pilot <= self._rows:
            pilot_lines = int((indices < self._pilot - start_row).sum())
        for record, start, stop in self._append(lines, digests, custom_ids.gather(indices), pilot_lines):
            assert record.ranges is not None
            record.ranges.append((block, indices[start], indices[stop - 1] + 1))

    def add_lines(self, lines: Iterable[tuple[str, bytes]]) -> None:
        """Append single lines, each with its custom_id."""
        for pairs in _in_slices(lines):
            custom_ids = pl.Series([custom_id for custom_id, _ in pairs], dtype=pl.String)
            bodies = pl.DataFrame({"body": [wire_format.body_of_request(line).decode() for _, line in pairs]})
            digests = bodies.select(digest(pl.col("body"))).to_series()
            del bodies  # a single line may be hundreds of megabytes long
            self._append(pl.Series([line.decode() for _, line in pairs]), digests, custom_ids)

    def begin(self, number: int) -> PartRecord:
        """Open the file of a part, unless it is already open, and return its record so far."""
        if not self._records or self._records[-1].number != number:
            self._close()
            path = self._folder.input_path(number)
            self._handle = self._open_file.enter_context(self._folder.receiving(path))
            record = msgspec.structs.replace(self._model, number=number, requests=0, bytes=0, tokens=0)
            record.ranges = None if record.ranges is None else []
            record.custom_ids = None if record.custom_ids is None else []
            self._records.append(record)
            self._digests.append(0)
        return self._records[-1]

    def finish(self) -> list[PartRecord]:
        """Close the last file, and return the complete records, which are not written yet."""
        self._close()
        if len(self._records) > 1 and self._pilot is None and self._splitter.fits_in_one:
            self._merge()
        for record, total in zip(self._records, self._digests, strict=True):
            record.tokens = tokens_of(self._folder, record)
            record.digest = f"{total % 2**128:032x}"
        return self._records

    def commit(self) -> int:
        """Finish, write the records, and return the number of parts."""
        records = self.finish()
        for record in records:
            record.pieces = 1 if record.split_from is None else len(records)
            self._folder.write_part(record)
            self._reach("after_part_record")
        return len(records)

    def _append(
        self, lines: pl.Series, digests: pl.Series, custom_ids: pl.Series, pilot_lines: int | None = None
    ) -> list[tuple[PartRecord, int, int]]:
        """Append lines; return the record of each part that took lines, with their ``start`` and ``stop``."""
        sizes = lines.str.len_bytes().cast(pl.Int64)
        ends = pl.concat([pl.Series(sizes.name, [0], pl.Int64), sizes]).cum_sum().rechunk()
        # The start of each line, then the end of the last: one buffer of 64-bit integers.
        offsets = memoryview(ends.to_arrow().buffers()[1]).cast("q")
        appended = []
        for part, start, stop in self._cuts(offsets, pilot_lines):
            record = self.begin(part)
            n_bytes = offsets[stop] - offsets[start]
            self._write(lines[start:stop], n_bytes)
            record.requests += stop - start
            record.bytes += n_bytes
            self._digests[-1] += digest_sums(digests[start:stop])
            if record.custom_ids is not None:
                record.custom_ids += custom_ids[start:stop].to_list()
            appended.append((record, start, stop))
        return appended

    def _cuts(self, offsets: memoryview, pilot_lines: int | None) -> Iterator[Cut]:
        """Yield the cuts of some lines; the first line after the pilot starts a new part."""
        if pilot_lines is None:
            yield from self._splitter.cuts(offsets)
            return
        yield from self._splitter.cuts(offsets[: pilot_lines + 1])
        self._splitter.end_part()
        for part, start, stop in self._splitter.cuts(offsets[pilot_lines:]):
            yield Cut(part, start + pilot_lines, stop + pilot_lines)

    def _write(self, lines: pl.Series, n_bytes: int) -> None:
        """Write lines a few at a time, so that the memory that joins them is reused."""
        assert self._handle is not None
        step = max(1, len(lines) * _WRITE_BYTES // n_bytes)
        for start in range(0, len(lines), step):
            piece = lines[start : start + step].rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
            # A large_string array: 64-bit offsets into one buffer.
            _, offsets_buffer, data_buffer = piece.buffers()
            offsets = memoryview(offsets_buffer).cast("q")
            end = piece.offset + len(piece)
            self._handle.write(memoryview(data_buffer)[offsets[piece.offset] : offsets[end]])

    def _close(self) -> None:
        if self._handle is not None:
            self._handle = None
            self._open_file.close()
            self._reach("after_part_input")

    def _reach(self, point: str) -> None:
        if not self._folder.is_scratch:  # an unfinished run is discarded after a crash, so there is nothing to test
            trigger(point)

    def _merge(self) -> None:
        """Join the small first part and the second, once it is known that one file is enough."""
        first, second = self._records
        path = self._folder.input_path(second.number)
        with self._folder.input_path(first.number).open("ab") as target, open_input(path) as rest:
            shutil.copyfileobj(rest, target, _READ_BYTES)
            target.flush()
            os.fsync(target.fileno())
        path.unlink()
        path.parent.rmdir()
        first.requests += second.requests
        first.bytes += second.bytes
        first.ranges = None if first.ranges is None else first.ranges + (second.ranges or [])
        first.custom_ids = None if first.custom_ids is None else first.custom_ids + (second.custom_ids or [])
        self._records, self._digests = [first], [sum(self._digests)]


def _in_slices(lines: Iterable[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    """Collect single lines into slices of a few megabytes."""
    pairs: list[tuple[str, bytes]] = []
    n_bytes = 0
    for custom_id, line in lines:
        pairs.append((custom_id, line))
        n_bytes += len(line)
        if n_bytes >= _SLICE_BYTES:
            yield pairs
            pairs, n_bytes = [], 0
    if pairs:
        yield pairs


def split_up(folder: RunFolder, part: PartRecord, pieces: int) -> None:
    """Replace a part by ``pieces`` of about equal size, or by more if its lines differ much in length."""
    model = msgspec.structs.replace(part, ranges=None, custom_ids=[], split_from=part.number)
    with InputFileWriter(folder, -(-part.requests // pieces), -(-part.bytes // pieces), model) as writer:
        writer.add_lines(lines_of(folder, part.number))
        writer.commit()


def write_input_file(folder: RunFolder, part: PartRecord, lines: Iterable[tuple[str, bytes]]) -> PartRecord:
    """Write the input file of one part, which may hold no lines at all.

    Parameters
    ----------
    folder
        The run.
    part
        The part's record, without the values that depend on the lines.
    lines
        The lines, each with its custom_id.

    Returns
    -------
    PartRecord
        The complete record, which is not written yet.
    """
    model = msgspec.structs.replace(part, ranges=None, custom_ids=[])
    with InputFileWriter(folder, sys.maxsize, sys.maxsize, model, first=part.number) as writer:
        writer.begin(part.number)
        writer.add_lines(lines)
        (record,) = writer.finish()
    return record


def open_input(path: Path) -> IO[bytes]:
    """Open an input file for reading its lines."""
    return path.open("rb")


def lines_of(folder: RunFolder, part: int) -> Iterator[tuple[str, bytes]]:
    """Yield the custom_id and the line of each request of a part's input file."""
    with open_input(folder.input_path(part)) as handle:
        for line in handle:
            yield wire_format.custom_id_of_request(line), line


def tokens_of(folder: RunFolder, part: PartRecord) -> int:
    """Estimate a part's input tokens from the first lines of its input file."""
    with open_input(folder.input_path(part.number)) as handle:
        sample = handle.readlines(_SAMPLE_BYTES)
        if len(sample) < _SAMPLE_LINES:  # lines with images are long, and differ from each other
            sample += handle.readlines(_LARGE_SAMPLE_BYTES)
        return estimated_tokens(sample, part.bytes)


def hash_of(path: Path) -> str:
    """Return the hash of an input file's bytes: files with equal hashes have equal requests and custom_ids."""
    hasher = hashlib.blake2b(digest_size=16)
    with open_input(path) as handle:
        while chunk := handle.read(_READ_BYTES):
            hasher.update(chunk)
    return hasher.hexdigest()
