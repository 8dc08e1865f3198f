"""When a run stops submitting: its pilot had no success, or all rows of its first batches failed with one error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from batchframe._results.parsed_answers import best_of_part
from batchframe._store.records import StopRecord

if TYPE_CHECKING:
    import datetime as dt

    from batchframe._store.records import PartRecord
    from batchframe._store.run_folder import RunFolder

# Fewer rows than this may fail with the same error by chance.
_MIN_ROWS = 10
_GO_ON = "Correct the call and make it anew; or go on all the same: run.retry(codes='not_submitted')"


@dataclass(frozen=True)
class Outcome:
    """How the requests of one part ended; ``alike`` is the error if all of them failed with the same one."""

    requests: int
    succeeded: int
    alike: tuple[str, str] | None


def outcome_of(folder: RunFolder, part: PartRecord) -> Outcome:
    """Return how the requests of a downloaded part ended.

    ``alike`` is the code, and the first message, when every request failed with that code, and none is worth another
    attempt.
    """
    answers = best_of_part(folder, part, ["message", "again"])
    failed = answers.filter(pl.col("code").is_not_null())
    is_alike = failed.height == part.requests and failed["code"].n_unique() == 1 and not failed["again"].any()
    alike = (failed["code"][0], failed["message"][0] or "") if is_alike else None
    return Outcome(part.requests, answers.height - failed.height, alike)


def stop_for(outcomes: list[Outcome], left: int, generation: int, at: dt.datetime) -> StopRecord | None:
    """Return a stop if all rows of the first finished batches failed with one error.

    Parameters
    ----------
    outcomes
        The outcome of each finished part.
    left
        The number of requests not submitted yet.
    """
    rows = sum(outcome.requests for outcome in outcomes)
    codes = {outcome.alike and outcome.alike[0] for outcome in outcomes}
    if rows < _MIN_ROWS or len(codes) != 1 or None in codes or outcomes[0].alike is None:
        return None
    code, message = outcomes[0].alike
    batches = "first batch" if len(outcomes) == 1 else f"first {len(outcomes)} batches"
    reason = f"all {rows} rows of the {batches} failed with the same error, {code}: {message.rstrip('.')}"
    return StopRecord(generation, "stop_loss", f"{reason}. The other {left} were not submitted. {_GO_ON}", at)


def stop_after_pilot(pilot: Outcome, left: int, at: dt.datetime) -> StopRecord | None:
    """Return a stop if no row of the pilot succeeded."""
    if pilot.succeeded:
        return None
    reason = f": {pilot.alike[0]}: {pilot.alike[1].rstrip('.')}" if pilot.alike else ""
    message = f"all {pilot.requests} rows of the pilot failed{reason}. The other {left} were not submitted. {_GO_ON}"
    return StopRecord(0, "pilot", message, at)
