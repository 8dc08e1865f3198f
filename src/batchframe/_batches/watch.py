"""Choose batches to retrieve by id although the account's list shows them: a list may be cached, lag, or never change.

A run must end wherever retrieving by id ends it. A list of a thousand batches takes ten calls, and retrieving each of
them would take a thousand in each pass. So the batches that the list has shown unchanged for some time take turns.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from batchframe._core.lenient import integer, mapping
from batchframe._core.remote import TERMINAL, RemoteBatch

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Mapping

    from batchframe._store.records import SubmissionRecord

# The number of batches retrieved in a pass, for each hundred in flight, which is a page of the list. A run with no more
# batches than that does without the list. A pass makes at most four times the calls of the list alone, and each batch
# has its turn within 34 passes, however many there are.
FEW, _PAGE = 3, 100
# The order in which a batch changes its status. Other statuses are not compared.
_ORDER = {"validating": 0, "in_progress": 1, "finalizing": 2, "cancelling": 3} | dict.fromkeys(TERMINAL, 4)
_TOLD_AT = "told_at"


def is_behind(listed: RemoteBatch, known: RemoteBatch | SubmissionRecord) -> bool:
    """Whether a list shows an earlier state of a batch than the one that is known."""
    one, other = _ORDER.get(listed.status), _ORDER.get(known.status or "")
    if one is None or other is None:
        return False
    before = known.raw if isinstance(known, RemoteBatch) else known.batch or {}
    return one < other or (one == other and _done(listed.raw) < _done(before))


def is_moved(seen: RemoteBatch, submission: SubmissionRecord) -> bool:
    """Whether a batch shows something new."""
    before = submission.batch or {}
    return any(seen.raw.get(name) != before.get(name) for name in ("status", "request_counts"))


def note_news(submission: SubmissionRecord, now: dt.datetime) -> None:
    """Note when a batch changed or was retrieved by id, so that others have their turn."""
    submission.times[_TOLD_AT] = now


def to_ask(
    submissions: Iterable[SubmissionRecord], listed: Mapping[str, RemoteBatch], now: dt.datetime, seconds: float
) -> set[str]:
    """Return the ids of the batches to retrieve by id: those that were unchanged or not retrieved for the longest.

    Parameters
    ----------
    submissions
        The submissions of the batches in flight.
    listed
        The batches in the list, by id. Batches that are not listed, or have ended, are retrieved anyway.
    now
        The time.
    seconds
        The time that the list must have shown a batch unchanged.
    """
    submissions = list(submissions)
    still = []
    for submission in submissions:
        batch = listed.get(submission.batch_id or "")
        if batch is None or batch.is_terminal or (is_moved(batch, submission) and not is_behind(batch, submission)):
            continue
        told_at = submission.times.get(_TOLD_AT) or submission.times.get("submitted_at")
        # A clock that was set back since is no reason to wait for it.
        if told_at is None or not 0 <= (now - told_at).total_seconds() < seconds:
            still.append((0.0 if told_at is None else told_at.timestamp(), batch.id))
    return {batch_id for _, batch_id in heapq.nsmallest(FEW * -(-len(submissions) // _PAGE), still)}


def _done(raw: Mapping[str, object]) -> int:
    counts = mapping(raw.get("request_counts"))
    return (integer(counts.get("completed")) or 0) + (integer(counts.get("failed")) or 0)
