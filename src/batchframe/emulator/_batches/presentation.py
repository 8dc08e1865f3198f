"""The batch object as clients see it, respelled by its oddities."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection

    from batchframe.emulator._batches.batch_object import Batch

# The members that oddities replace by null.
_NULLED = {
    "no_metadata": "metadata",
    "null_endpoint": "endpoint",
    "null_expires_at": "expires_at",
    "null_in_progress_at": "in_progress_at",
}


def present(batch: Batch, oddities: Collection[str]) -> dict[str, Any]:
    """Return a batch object, respelled by `oddities`."""
    view: dict[str, Any] = msgspec.to_builtins(batch)
    if not oddities:
        return view
    view.update((name, None) for oddity, name in _NULLED.items() if oddity in oddities)
    if "completed_at_of_failed" in oddities and view["failed_at"] is not None:
        view["completed_at"], view["failed_at"] = view["failed_at"], None
    if "empty_ids" in oddities:
        view.update({name: view[name] or "" for name in ("output_file_id", "error_file_id")})
    if view["errors"] is not None:
        _respell_errors(view, oddities)
    _miscount(view["request_counts"], view, oddities)
    view["status"] = _status(view["status"], oddities)
    if "iso_timestamps" in oddities:
        view.update((name, _iso(value)) for name, value in view.items() if name.endswith("_at") and value is not None)
    if "omit_nulls" in oddities:
        view = {name: value for name, value in view.items() if value is not None}
    return view


def _status(status: str, oddities: Collection[str]) -> str:
    if "canceled" in oddities and status == "cancelled":
        status = "canceled"
    if "progress_status" in oddities and status == "in_progress":
        status = "progress"
    if "upper_status" in oddities:
        return status.upper()
    return status.capitalize() if "capital_status" in oddities else status


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.0000000+00:00")


def _respell_errors(view: dict[str, Any], oddities: Collection[str]) -> None:
    if "unplaced_errors" in oddities:
        view["errors"]["data"] = [{key: error[key] for key in ("code", "message")} for error in view["errors"]["data"]]
    if "bare_errors" in oddities:
        view["errors"] = view["errors"]["data"]
    elif "text_errors" in oddities:
        entries = [(f"line {error['line']}: " if error.get("line") else "", error) for error in view["errors"]["data"]]
        view["errors"] = "; ".join(f"{where}{error['code']}: {error['message']}" for where, error in entries)


def _miscount(counts: dict[str, int], view: dict[str, Any], oddities: Collection[str]) -> None:
    if "wrong_counts" in oddities and counts["completed"] + counts["failed"] == counts["total"]:
        counts.update(completed=counts["total"], failed=0)
    if "null_counts" in oddities:
        view["request_counts"] = dict.fromkeys(counts)
    if "top_counts" in oddities:
        view.update(view["request_counts"])
    if {"no_counts", "top_counts"} & {*oddities}:
        view["request_counts"] = None
