"""The names of the oddities: how other services, or other times, spell the batch object.

An oddity changes what clients see, never what the emulator does.
"""

from __future__ import annotations

from typing import Literal, get_args

# Azure's, as its documents print them.
_AzureOddity = Literal[
    "capital_status",
    "iso_timestamps",
    "null_counts",
    "null_endpoint",
    "empty_ids",
    "null_in_progress_at",
    "completed_at_of_failed",
    "unplaced_errors",
]
# Those of compatible servers, and of other times.
_OtherOddity = Literal[
    "canceled",
    "bare_errors",
    "text_errors",
    "no_metadata",
    "no_counts",
    "wrong_counts",
    "top_counts",
    "null_expires_at",
    "omit_nulls",
    "progress_status",
    "upper_status",
]
BatchOddity = Literal[_AzureOddity, _OtherOddity]
Oddity = Literal[BatchOddity, "value_list", "null_file_status"]
BATCH_ODDITIES: frozenset[str] = frozenset(get_args(BatchOddity))
AZURE_ODDITIES: tuple[Oddity, ...] = (*get_args(_AzureOddity), "value_list", "null_file_status")
