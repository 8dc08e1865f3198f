"""Names of the columns that batchframe adds to the user's: in slices, in ``rows/*.parquet`` and in result blocks."""

from __future__ import annotations

# Columns of ours, beside the user's in rows/*.parquet and in the slices, carry a prefix that no one uses by chance.
OURS = "batchframe:"

CUSTOM_ID = OURS + "custom_id"
DIGEST = OURS + "digest"
REQUEST = OURS + "request"
CODE = OURS + "code"
MESSAGE = OURS + "message"
LINE = OURS + "line"
