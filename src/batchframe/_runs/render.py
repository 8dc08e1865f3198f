"""Write the rows and the input files of a run in one pass over its frame. Sends nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl

from batchframe._core.column_names import DIGEST, LINE, REQUEST
from batchframe._core.digests import digest_sums
from batchframe._providers.limits import file_limits
from batchframe._requests.dedupe import Repeats
from batchframe._requests.renderer import refuse_duplicates
from batchframe._store.filesystem import naming
from batchframe._store.input_files import InputFileWriter
from batchframe._store.records import PartRecord

if TYPE_CHECKING:
    from batchframe._providers.limits import Limits
    from batchframe._requests.renderer import MapBlocks, Renderer
    from batchframe._runs.reuse import Reuse
    from batchframe._store.run_folder import RunFolder


@dataclass
class Prepared:
    """Rows and parts in a scratch folder, and the sum of the request digests.

    ``requests`` and ``digest`` cover all requests, also those that another run answers.
    """

    folder: RunFolder
    blocks: list[int] = field(default_factory=list)
    requests: int = 0
    digest: int = 0

    def add(self, rows: pl.DataFrame) -> None:
        """Count a block and its request lines."""
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
    map_blocks: MapBlocks = map,
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
        The number of first rows that get an input file of their own.
    dedupe
        Whether equal requests are sent once.
    reuse
        The answers of other runs that rows may take. Requests with such an answer are in no input file.
    map_blocks
        Runs the rendering of the blocks, such as the ``map`` of an executor. What depends on their order is done here.

    Raises
    ------
    InputError
        A custom_id occurs twice, is null, or cannot be one.
    """
    # Where other runs answer some rows, ranges of rows alone do not tell which requests a part holds.
    custom_ids: list[str] | None = None if reuse is None else []
    model = PartRecord(number=0, requests=0, bytes=0, tokens=0, ranges=[], custom_ids=custom_ids)
    prepared = Prepared(folder)
    repeats = Repeats() if dedupe else None
    with naming(folder.path), InputFileWriter(folder, *file_limits(limits), model, pilot=pilot) as writer:
        for block, rendered in enumerate(renderer.slices(map_blocks)):
            rows = rendered.with_columns(pl.lit(None, pl.String).alias(REQUEST))
            if repeats is not None:
                rows = _keep_lines(rows.with_columns(repeats.requests(rows)), pl.col(REQUEST).is_null())
            folder.write_frame(folder.rows_path(block), rows.drop(LINE))
            prepared.add(rows)
            if reuse is not None:
                rows = _keep_lines(rows, ~pl.lit(reuse.take(block, rows)))
            writer.add_rows(block, rows)
        writer.commit()
    if renderer.custom_id is not None:
        paths = [folder.rows_path(block) for block in range(len(prepared.blocks))]
        refuse_duplicates(pl.scan_parquet(paths, glob=False), renderer.custom_id)
    return prepared


def _keep_lines(rows: pl.DataFrame, kept: pl.Expr) -> pl.DataFrame:
    return rows.with_columns(pl.when(kept).then(pl.col(LINE)).alias(LINE))
