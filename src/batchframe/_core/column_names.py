"""Names of the internal columns that batchframe adds to slices, ``rows/*.parquet`` and result blocks."""

from __future__ import annotations

# Our columns stand beside the user's, so they carry a prefix that nobody uses by chance.
OURS = "batchframe:"

CUSTOM_ID = OURS + "custom_id"
DIGEST = OURS + "digest"
REQUEST = OURS + "request"
CODE = OURS + "code"
MESSAGE = OURS + "message"
LINE = OURS + "line"
