"""Send equal requests once: find the request that answers each row."""

from __future__ import annotations

import polars as pl

from batchframe._core.column_names import CUSTOM_ID, DIGEST, OURS, REQUEST
from batchframe._core.digests import digest_number

_KEY = OURS + "key"


class Repeats:
    """Finds the rows whose request equals that of an earlier row, slice by slice.

    Memory holds every distinct request of the slices so far: 16 bytes of digest and the custom_id.
    """

    def __init__(self) -> None:
        self._first = pl.DataFrame(schema={_KEY: pl.UInt128(), CUSTOM_ID: pl.String()})

    def requests(self, rows: pl.DataFrame) -> pl.Series:
        """Return, for each row of the next slice, the custom_id of the earlier request that answers it, or null."""
        keyed = rows.select(CUSTOM_ID, digest_number(DIGEST).alias(_KEY))
        in_slice = keyed.drop_nulls(_KEY).unique(_KEY, keep="first", maintain_order=True).select(_KEY, CUSTOM_ID)
        known = self._first.join(in_slice, on=_KEY, how="semi")
        new = in_slice.join(known, on=_KEY, how="anti")
        self._first = pl.concat([self._first, new])
        first = pl.concat([known, new]).rename({CUSTOM_ID: REQUEST})
        answered = keyed.join(first, on=_KEY, how="left", maintain_order="left")
        is_other = pl.col(REQUEST) != pl.col(CUSTOM_ID)
        return answered.select(pl.when(is_other).then(pl.col(REQUEST)).alias(REQUEST)).to_series()
