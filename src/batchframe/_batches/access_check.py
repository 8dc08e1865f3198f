"""Whether this client sees what the run has at the service. With a key of another project it must submit nothing.

One file or batch that is not shown proves little: it may appear late, or somebody deleted it. One that is shown is
enough to go on. Where none is, the run stops; a client that sees it can resume it.
"""

from __future__ import annotations

import datetime as dt
import os
from typing import TYPE_CHECKING, NoReturn

from batchframe._core.exceptions import NotVisibleError, RunError, ServiceError

if TYPE_CHECKING:
    from batchframe._batches.pass_state import PassState
    from batchframe._store.records import PartRecord, SubmissionRecord

# What is older the service may have deleted. Both document that result files live 30 days, and Azure that input files
# do not live longer.
_KEPT = dt.timedelta(days=30)
_MOST_LOOKS = 3


def ensure_visible(state: PassState) -> None:
    """Make sure that the client sees something of the run, or that the run has nothing at the service yet.

    A process asks once, and only where the service has shown it nothing of the run so far.

    Raises
    ------
    ServiceError
        The service shows nothing of the run, and may do so soon.
    RunError
        It has shown nothing for ``settle_seconds``.
    """
    if state.shown:
        return
    state.is_held = True
    traces = _traces(state)
    hidden = [
        error for _, submission in traces if not state.shown and (error := _ask_for(state, submission)) is not None
    ]
    if hidden and not state.shown:
        lose_sight(state, *traces[0], hidden[0])
    state.is_held = False


def _ask_for(state: PassState, submission: SubmissionRecord) -> NotVisibleError | None:
    """Ask for what a submission has at the service, and return the error where it is not shown."""
    try:
        if submission.batch_id is not None:
            state.client.retrieve(submission.batch_id)
        else:
            state.client.retrieve_file(submission.input_file_id or "")
    except NotVisibleError as error:
        return error
    state.shown.add(submission.batch_id or submission.input_file_id or "")
    return None


def _traces(state: PassState) -> list[tuple[PartRecord, SubmissionRecord]]:
    """Return a few submissions of which the service still has something, batches first: files are cleaned up."""
    kept = [
        (part, submission)
        for part in state.folder.parts()
        if part.reused_from is None
        for submission in state.submissions.get(part.number) or state.folder.submissions(part.number)
        if _is_kept(state, submission)
    ]
    return sorted(kept, key=lambda each: each[1].batch_id is None)[:_MOST_LOOKS]


def _is_kept(state: PassState, submission: SubmissionRecord) -> bool:
    """Whether the service must still have the batch of a submission, or else its input file."""
    life = _KEPT
    if submission.batch_id is None:
        is_given_up = submission.stage == "ended" and "unseen_at" in submission.times
        is_deleted = submission.input_deleted_at is not None or submission.files_deleted_at is not None
        if submission.input_file_id is None or is_given_up or is_deleted:
            return False
        if state.settings.expires_after is not None:
            life = min(life, dt.timedelta(seconds=state.settings.expires_after))
    made_at = submission.created_at or submission.times.get("uploaded_at") or submission.adopted_at
    return made_at is None or state.clock.now() < made_at + life


def lose_sight(state: PassState, part: PartRecord, submission: SubmissionRecord, error: NotVisibleError) -> NoReturn:
    """Raise for a batch or file that the service does not show: first to ask again, then for good. Submit nothing."""
    state.is_held = True
    hidden_at = submission.times.get("hidden_at")
    submission.times["hidden_at"] = state.first_noted(hidden_at)
    if submission.times["hidden_at"] != hidden_at:
        state.write(part, submission)
    if state.is_within_settling(submission.times["hidden_at"]):
        raise ServiceError(str(error), call=error.call, status_code=404) from error
    why = "another key or project made it"
    if submission.batch_id is not None:
        what = f"batch {submission.batch_id}"
    else:
        what, why = f"the input file {submission.input_file_id}", f"{why}, or it was deleted"
    if submission.is_in_flight or submission.batch_id is not None:
        reuse = os.fspath(state.folder.path)
        step = f"pass another name= and reuse={reuse!r} to pay once more for the rows that have no answer"
    else:
        step = "where it was deleted, call Run.delete() and make the same call: no batch was asked for of it"
    msg = (
        f"part {part.number}: the service does not show {what} to this client ({error}): {why}. Nothing was submitted; "
        f"go on with the key of the first call, or {step}"
    )
    raise RunError(msg) from error
