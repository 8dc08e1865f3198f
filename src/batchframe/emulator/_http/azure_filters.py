"""Azure's ``$filter`` and ``$orderby`` of the list of batches."""

from __future__ import annotations

import operator
import re
from typing import TYPE_CHECKING

from batchframe.emulator import _errors as errors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batchframe.emulator._batches.batch_object import Batch

_AND = re.compile(r"\s+and\s+")
_CREATED = re.compile(r"created_at\s+(gt|ge|lt|le|eq)\s+([0-9]{1,18})")
_STATUS = re.compile(r"status\s+(eq|ne)\s+'(\w+)'")
_ORDER = re.compile(r"created_at(\s+(asc|desc))?")
_COMPARE: dict[str, Callable[[int, int], bool]] = {
    "gt": operator.gt,
    "ge": operator.ge,
    "lt": operator.lt,
    "le": operator.le,
    "eq": operator.eq,
}
# Capitalised, as the documents write 'Completed'; in_progress is accepted as 'In_progress' and 'InProgress'.
_STATUSES = {
    spelling: status
    for status in (
        "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled",
    )
    for spelling in (status.capitalize(), status.title().replace("_", ""))
}  # fmt: skip


def batch_filter(query: Mapping[str, str]) -> Callable[[Batch], bool]:
    """Parse ``$filter``."""
    text = query.get("$filter", "").strip()
    conditions = [_condition(part) for part in _AND.split(text)] if text else []
    return lambda batch: all(condition(batch) for condition in conditions)


def is_ascending(query: Mapping[str, str]) -> bool:
    """Parse ``$orderby``; without it, the newest come first."""
    text = query.get("$orderby", "created_at desc").strip()
    match = _ORDER.fullmatch(text)
    if match is None:
        raise errors.ApiError(f"Invalid $orderby clause: '{text}'.", param="$orderby")
    return match[2] != "desc"


def _condition(text: str) -> Callable[[Batch], bool]:
    if match := _CREATED.fullmatch(text):
        compare, bound = _COMPARE[match[1]], int(match[2])
        return lambda batch: compare(batch.created_at, bound)
    match = _STATUS.fullmatch(text)
    if match is None or match[2] not in _STATUSES:
        raise errors.ApiError(f"Invalid $filter clause: '{text}'.", param="$filter")
    status, is_equal = _STATUSES[match[2]], match[1] == "eq"
    return lambda batch: (batch.status == status) is is_equal
