"""Which row's request answers each row, where equal requests are sent once."""

from __future__ import annotations

import polars as pl

from batchframe._core.column_names import CUSTOM_ID, DIGEST, OURS, REQUEST
from batchframe._core.digests import digest_number

_KEY = OURS + "key"


class Repeats:
    """Finds the rows that ask what an earlier row asks, slice by slice.

    All distinct requests of the slices so far are held, each by 16 bytes of digest and its custom_id.
    """

    def __init__(self) -> None:
        self._first = pl.DataFrame(schema={_KEY: pl.UInt128(), CUSTOM_ID: pl.String()})

    def requests(self, rows: pl.DataFrame) -> pl.Series:
        """Return for each row of the next slice the custom_id of the request that answers it, null for its own."""
        keyed = rows.select(CUSTOM_ID, digest_number(DIGEST).alias(_KEY))
        here = keyed.drop_nulls(_KEY).unique(_KEY, keep="first", maintain_order=True).select(_KEY, CUSTOM_ID)
        known = self._first.join(here, on=_KEY, how="semi")
        new = here.join(known, on=_KEY, how="anti")
        self._first = pl.concat([self._first, new])
        first = pl.concat([known, new]).rename({CUSTOM_ID: REQUEST})
        answered = keyed.join(first, on=_KEY, how="left", maintain_order="left")
        is_other = pl.col(REQUEST) != pl.col(CUSTOM_ID)
        return answered.select(pl.when(is_other).then(pl.col(REQUEST)).alias(REQUEST)).to_series()
