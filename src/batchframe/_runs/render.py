"""A frame becomes a run's rows and input files on disk: one pass, a slice at a time, nothing sent."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

import polars as pl

from batchframe._core.column_names import CUSTOM_ID, DIGEST, LINE, REQUEST
from batchframe._core.digests import digest_sums
from batchframe._providers.limits import file_limits
from batchframe._requests.dedupe import Repeats
from batchframe._requests.renderer import refuse_duplicates
from batchframe._store.filesystem import naming
from batchframe._store.input_files import tokens_of
from batchframe._store.records import PartRecord
from batchframe._store.splitter import Cut, Splitter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

    from batchframe._providers.limits import Limits
    from batchframe._requests.renderer import Renderer
    from batchframe._runs.reuse import Reuse
    from batchframe._store.run_folder import RunFolder

# About how much is written at once.
_WRITTEN_BYTES = 1_000_000


@dataclass
class Prepared:
    """What was rendered: rows and parts in a scratch folder, and the sum of the request digests.

    ``requests`` and ``digest`` are of all requests, whether they are sent or answered by another run.
    """

    folder: RunFolder
    blocks: list[int] = field(default_factory=list)
    requests: int = 0
    digest: int = 0

    @property
    def rows(self) -> int:
        """The height of the frame."""
        return sum(self.blocks)

    def add(self, rows: pl.DataFrame) -> None:
        """Count a block and the requests of its own that it has lines for."""
        self.blocks.append(rows.height)
        own = rows[DIGEST].filter(rows[LINE].is_not_null())
        self.requests += len(own)
        self.digest = (self.digest + digest_sums(own)) % 2**128


def prepare(
    folder: RunFolder,
    renderer: Renderer,
    limits: Limits,
    pilot: int | None = None,
    *,
    dedupe: bool = False,
    reuse: Reuse | None = None,
) -> Prepared:
    """Render a frame into a scratch folder.

    Parameters
    ----------
    folder
        An empty folder.
    renderer
        The frame and its prompt.
    limits
        The limits of an input file, both set.
    pilot
        How many of the first rows are an input file of their own.
    dedupe
        Whether equal requests are sent once.
    reuse
        The answers of other runs that rows may take; their requests are in no input file.

    Raises
    ------
    InputError
        A custom_id occurs twice, is null, or cannot be one.
    """
    prepared = Prepared(folder)
    repeats = Repeats() if dedupe else None
    with naming(folder.path), _PartWriter(folder, limits, pilot, by_id=reuse is not None) as writer:
        for block, rendered in enumerate(renderer.slices()):
            rows = rendered.with_columns(pl.lit(None, pl.String).alias(REQUEST))
            if repeats is not None:
                rows = _keep_lines(rows.with_columns(repeats.requests(rows)), pl.col(REQUEST).is_null())
            folder.write_frame(folder.rows_path(block), rows.drop(LINE))
            prepared.add(rows)
            if reuse is not None:
                rows = _keep_lines(rows, ~pl.lit(reuse.take(block, rows)))
            writer.add(block, rows)
        writer.finish()
    if renderer.custom_id is not None:
        refuse_duplicates(pl.scan_parquet(sorted((folder.path / "rows").glob("*.parquet"))), renderer.custom_id)
    return prepared


def _keep_lines(rows: pl.DataFrame, kept: pl.Expr) -> pl.DataFrame:
    return rows.with_columns(pl.when(kept).then(pl.col(LINE)).alias(LINE))


class _PartWriter:
    """Appends lines to input files, and closes a part when it is full.

    Parameters
    ----------
    folder, limits, pilot
        As for `prepare`.
    by_id
        Whether a part names each of its requests: the ranges of rows alone do not tell which of them it holds.
    """

    def __init__(self, folder: RunFolder, limits: Limits, pilot: int | None, *, by_id: bool) -> None:
        self._folder = folder
        self._by_id = by_id
        # A pilot is as large as it was asked for; else the first part is small, unless one is enough.
        self._splitter = Splitter(*file_limits(limits), **({"first_share": 1} if pilot else {}))
        self._pilot = pilot
        self._rows = 0
        self._handle: IO[bytes] | None = None
        self._parts: list[PartRecord] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def add(self, block: int, rows: pl.DataFrame) -> None:
        """Append the lines of a block's rows that are sent."""
        sent = rows[LINE].is_not_null().arg_true()
        self._rows += rows.height
        if not len(sent):
            return
        lines = rows[LINE].drop_nulls()
        sizes = lines.str.len_bytes().cast(pl.Int64)
        ends = pl.concat([pl.Series(sizes.name, [0], pl.Int64), sizes]).cum_sum().rechunk()
        # Where each line begins, and where the last one ends: one buffer of 64-bit integers.
        offsets = memoryview(ends.to_arrow().buffers()[1]).cast("q")
        digests = rows[DIGEST].gather(sent)
        for part, start, stop in self._cuts(offsets, sent, rows.height):
            record = self._part(part)
            self._write(lines[start:stop], offsets[stop] - offsets[start])
            record.requests += stop - start
            record.bytes += offsets[stop] - offsets[start]
            first, last = sent[start], sent[stop - 1] + 1
            record.digest = f"{(int(record.digest, 16) + digest_sums(digests[start:stop])) % 2**128:032x}"
            assert record.ranges is not None
            record.ranges.append((block, first, last))
            if self._by_id:
                record.custom_ids = (record.custom_ids or []) + rows[CUSTOM_ID].gather(sent[start:stop]).to_list()

    def _write(self, lines: pl.Series, n_bytes: int) -> None:
        """Write lines as they are, so few at once that the memory which holds them end to end is used again."""
        assert self._handle is not None
        step = max(1, len(lines) * _WRITTEN_BYTES // n_bytes)
        for start in range(0, len(lines), step):
            piece = lines[start : start + step].rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
            # A large_string array: 64-bit offsets into one buffer.
            _, offsets_buffer, data_buffer = piece.buffers()
            offsets = memoryview(offsets_buffer).cast("q")
            end = piece.offset + len(piece)
            self._handle.write(memoryview(data_buffer)[offsets[piece.offset] : offsets[end]])

    def _cuts(self, offsets: memoryview, sent: pl.Series, rows: int) -> Iterator[Cut]:
        """Deal out the lines of a block; what follows the pilot begins a part."""
        begin = self._rows - rows
        if self._pilot is None or not begin < self._pilot <= self._rows:
            yield from self._splitter.cuts(offsets)
            return
        lines = int((sent < self._pilot - begin).sum())
        yield from self._splitter.cuts(offsets[: lines + 1])
        self._splitter.end_part()
        for part, start, stop in self._splitter.cuts(offsets[lines:]):
            yield Cut(part, start + lines, stop + lines)

    def _part(self, number: int) -> PartRecord:
        if number == len(self._parts):
            self._close()
            path = self._folder.input_path(number)
            path.parent.mkdir(parents=True)
            self._handle = path.open("wb")
            self._parts.append(PartRecord(number=number, requests=0, bytes=0, tokens=0, digest="0", ranges=[]))
        return self._parts[number]

    def _close(self) -> None:
        if self._handle is not None:
            self._handle.flush()
            os.fsync(self._handle.fileno())
            self._handle.close()
            self._handle = None

    def finish(self) -> None:
        """Close the last part, and write the records."""
        self._close()
        if len(self._parts) > 1 and self._pilot is None and self._splitter.fits_in_one:
            self._merge()
        for record in self._parts:
            record.tokens = tokens_of(self._folder, record)
            self._folder.write_part(record)

    def _merge(self) -> None:
        """Join the small first part and the second: it showed only now that one file is enough."""
        first, second = self._parts
        with self._folder.input_path(0).open("ab") as target, self._folder.input_path(1).open("rb") as rest:
            while chunk := rest.read(1_000_000):
                target.write(chunk)
            target.flush()
            os.fsync(target.fileno())
        self._folder.input_path(1).unlink()
        self._folder.part_path(1).rmdir()
        first.requests += second.requests
        first.bytes += second.bytes
        first.digest = f"{(int(first.digest, 16) + int(second.digest, 16)) % 2**128:032x}"
        assert first.ranges is not None
        first.ranges += second.ranges or []
        if self._by_id:
            first.custom_ids = (first.custom_ids or []) + (second.custom_ids or [])
        self._parts = [first]
