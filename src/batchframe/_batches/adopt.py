"""Find batches of ours in the account: the batch of a create in doubt, and all batches of a run whose folder is lost.

A create in doubt is settled by the id of its input file. A run that has submitted nothing yet searches the account once
for batches with its id. Equal ids mean equal requests, but their custom_ids may differ. If the hash of a batch's input
file is that of one of our parts, the batch is adopted for that part. Otherwise its input file is downloaded, and its
requests are matched by content.

A crash in between leaves some batches adopted and no note; the next pass adopts the rest. Nothing is submitted before
the note exists.
"""

from __future__ import annotations

import datetime as dt
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

import polars as pl

from batchframe._batches.match_requests import match, remove_requests, requests_in, requests_of_run, write_renamed
from batchframe._batches.rejected_lines import rejected_lines, split_off
from batchframe._batches.watch import FEW, is_behind
from batchframe._core.events import trigger
from batchframe._core.exceptions import NotVisibleError, RunError
from batchframe._core.lenient import mapping, text
from batchframe._store.input_files import hash_of
from batchframe._store.parts import ids_of
from batchframe._store.records import PartRecord, SubmissionRecord

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchframe._batches.pass_report import PassReport
    from batchframe._batches.pass_state import PassState
    from batchframe._core.remote import RemoteBatch

# The list is read back to the input file's own created_at, which is the service's clock and not ours; the margin is
# for two clocks within the service.
_MARGIN = dt.timedelta(minutes=5)
_NOTE = "account.json"
# Result files live 30 days from the end of the batch. The search ends after 20 pages of 100 batches.
_LOOK_BACK, _MOST_BATCHES, _MOST_FILES = dt.timedelta(days=30), 2_000, 20_000
_EARLIEST = dt.datetime.min.replace(tzinfo=dt.timezone.utc)


def batch_of_input_file(
    batches: Iterable[RemoteBatch], input_file_id: str, file_created_at: dt.datetime | None
) -> RemoteBatch | None:
    """Return the batch that was made of an input file, or None.

    Parameters
    ----------
    batches
        The account's batches, the newest first; read only as far back as is needed.
    input_file_id
        The file. Each upload serves one submission, so its batch is that submission's.
    file_created_at
        When the service received the file: no batch of it can be older. None: all batches are read.
    """
    for batch in batches:
        if batch.input_file_id == input_file_id:
            return batch
        if (
            file_created_at is not None
            and batch.created_at is not None
            and batch.created_at < file_created_at - _MARGIN
        ):
            return None
    return None


def is_new(state: PassState) -> bool:
    """Whether a run has yet to search the account: it has submitted nothing, and has no note of a search."""
    if not state.parts or any(part.generation for part in state.parts):  # the requests of `Run.retry` are new
        return False
    submitted = any(each.adopted_at is None for submissions in state.submissions.values() for each in submissions)
    return not submitted and state.folder.read_note(_NOTE) is None


def adopt(state: PassState, report: PassReport) -> None:
    """Adopt the account's batches of this run, and then allow it to submit.

    Raises
    ------
    RunError
        A batch of the run cannot be matched, since its input file is gone.
    """
    listed = _listed(state)
    ours = [batch for batch in listed if batch.status != "failed" and _has_answers(batch)]
    refused = [batch for batch in listed if batch.status == "failed"]
    left: list[str] = []
    if listed:
        _leave_out_refused(state, refused)
        others = _adopt_same_files(state, ours)
        if others and any(batch.status == "validating" for batch in ours):
            # A batch that fails validation is submitted again, and another batch may hold its rows.
            report.waiting_for.append("batches of this run, found in the account, to be validated")
            return
        unmatched = _adopt_by_content(state, others)
        if unmatched is None:
            report.waiting_for.append("the results of batches of this run, found in the account")
            report.is_brief = True
            return
        left = unmatched
    adopted = {batch.id: batch for batch in ours if batch.id not in left}
    trigger("before_account_note")
    state.folder.write_note(_NOTE, {"at": state.clock.now(), "adopted": list(adopted), "left": left})
    state.reload()
    state.is_held = False
    _report(state, list(adopted.values()), left)


def _listed(state: PassState) -> list[RemoteBatch]:
    """Return the batches of this run that are not too old, the oldest first, cancelled ones last."""
    earliest = state.clock.now() - _LOOK_BACK
    batches: dict[str, RemoteBatch] = {}
    for batch in islice(state.client.list(), _MOST_BATCHES):
        if batch.created_at is not None and batch.created_at < earliest - _MARGIN:
            break
        batches.setdefault(batch.id, batch)
    else:
        if len(batches) >= _MOST_BATCHES:
            state.notice(f"the account has many batches: the newest {len(batches)} were searched for those of this run")
    run_id = state.settings.run_id
    if any(mapping(batch.raw.get("metadata")) for batch in batches.values()):
        ours = [batch for batch in batches.values() if _metadata(batch, "run") == run_id]
    elif batches:  # this service may drop metadata; it keeps the names of files
        prefix = f"batchframe-{run_id[:12]}-"
        files = islice(state.client.list_files(), _MOST_FILES)
        named = {file.id for file in files if (file.name or "").startswith(prefix)}
        ours = [batch for batch in batches.values() if batch.input_file_id in named]
    else:
        ours = []
    ours.reverse()  # several may be of one second
    ours = _asked_for(state, ours)
    return sorted(ours, key=lambda batch: (batch.status == "cancelled", batch.created_at or _EARLIEST))


def _asked_for(state: PassState, ours: list[RemoteBatch]) -> list[RemoteBatch]:
    """Retrieve a few of the batches that the list shows as validating, since the list may lag or never change."""
    ours = [
        state.asked[one.id] if one.id in state.asked and is_behind(one, state.asked[one.id]) else one for one in ours
    ]
    for batch in [batch for batch in ours if batch.status == "validating"][:FEW]:
        with suppress(NotVisibleError):
            state.asked[batch.id] = state.client.retrieve(batch.id)
    return [state.asked.get(batch.id, batch) if batch.status == "validating" else batch for batch in ours]


def _metadata(batch: RemoteBatch, name: str) -> str | None:
    return text(mapping(batch.raw.get("metadata")).get(f"batchframe_{name}"))


def _has_answers(batch: RemoteBatch) -> bool:
    """Whether a batch has answers, or may have; a batch cancelled before it began never will."""
    return batch.status != "cancelled" or bool(batch.output_file_id or batch.error_file_id)


def _leave_out_refused(state: PassState, refused: list[RemoteBatch]) -> None:
    """Leave out the lines that the service rejected in the same input file; the others become a part of their own."""
    by_file = {_metadata(batch, "file"): batch for batch in refused}
    waiting = waiting_parts(state) if by_file else []
    while waiting:
        part = waiting.pop()
        batch = by_file.pop(hash_of(state.folder.input_path(part.number)), None)
        lines = {} if batch is None else rejected_lines(batch.errors, part.requests)
        if lines and split_off(state.folder, part, lines, state.settings.limits):
            state.notice(f"part {part.number}: {len(lines)} of its {part.requests} requests were refused before")
            state.reload()
            waiting += [piece for piece in state.parts if piece.split_from == part.number]


def waiting_parts(state: PassState) -> list[PartRecord]:
    """Return the parts without a batch that runs or has run."""
    return [part for part in state.parts if not any(map(is_held, state.submissions[part.number]))]


def is_held(submission: SubmissionRecord) -> bool:
    """Whether a submission has, or may have, the answers to its part."""
    return submission.is_alive or submission.stage == "downloaded"


def _adopt_same_files(state: PassState, ours: list[RemoteBatch]) -> list[RemoteBatch]:
    """Adopt a batch for each waiting input file with the same bytes; return the other batches."""
    known = {each.batch_id for submissions in state.submissions.values() for each in submissions}
    ours = [batch for batch in ours if batch.id not in known]
    waiting = {hash_of(state.folder.input_path(part.number)): part for part in waiting_parts(state)} if ours else {}
    others = []
    for batch in ours:
        part = waiting.pop(_metadata(batch, "file") or "", None)
        if part is None:
            others.append(batch)
        else:
            _submitted(state, part, batch)
    return others


def _submitted(state: PassState, part: PartRecord, batch: RemoteBatch) -> None:
    submissions = state.submissions.setdefault(part.number, [])
    submission = SubmissionRecord(
        number=len(submissions),
        input_file_id=batch.input_file_id,
        batch_id=batch.id,
        status=batch.status,
        batch=batch.raw,
        adopted_at=state.clock.now(),
    )
    submissions.append(submission)
    state.shown.add(batch.id)
    state.move(part, submission, "submitted")
    trigger("after_adopted")


def _adopt_by_content(state: PassState, batches: list[RemoteBatch]) -> list[str] | None:
    """Adopt batches of other input files, request by request; return the ids of those without a request of ours.

    None if results must be downloaded first.
    """
    folder = state.folder
    left: list[str] = []
    gone: list[RemoteBatch] = []
    folder.remove_unfinished_parts()
    if not batches and not any(part.adopted for part in state.parts):
        return left
    requests = requests_of_run(folder, state.parts, {part.number for part in waiting_parts(state)})
    number = max(part.number for part in folder.parts()) + 1
    for batch in batches:
        theirs = folder.foreign_input_path(number)
        try:
            with folder.receiving(theirs) as handle:
                state.client.download(batch.input_file_id or "", handle)
        except NotVisibleError:
            gone.append(batch)
            continue
        trigger("after_adopted_input")
        names = match(requests_in(theirs), requests, folder)
        if names is None:
            return None
        if not names.height:
            left.append(batch.id)
            continue
        again = requests["ours"].is_in(names["ours"].implode())
        attempt = 1 + int(requests.filter(again)["attempt"].max())  # type: ignore[arg-type]
        attempts = pl.when(again).then(attempt).otherwise(pl.col("attempt")).alias("attempt")
        requests = requests.with_columns(attempts)
        part = write_renamed(folder, theirs, names, PartRecord(number, 0, 0, 0, attempt=attempt, adopted=True))
        _submitted(state, part, batch)
        folder.write_part(part)
        trigger("after_adopted_part")
        number += 1
    folder.remove_unfinished_parts()
    if gone:
        ids = ", ".join(batch.id for batch in gone)
        msg = (
            f"{len(gone)} batches of this run are in the account, and the service does not show their input files any "
            f"more, so that nobody can say which rows they answer: {ids}. Nothing was submitted. bf.read_batch(id) "
            "reads the answers of one; another name= pays for all rows anew"
        )
        raise RunError(msg)
    state.reload()
    submitted = requests.filter(pl.col("attempt") > 0)
    for part in waiting_parts(state):
        taken = set(submitted.join(ids_of(folder, part).to_frame("ours"), on="ours", how="semi")["ours"])
        if taken:
            remove_requests(folder, part, taken)
    return left


def _report(state: PassState, adopted: list[RemoteBatch], left: list[str]) -> None:
    days = sorted({f"{batch.created_at:%Y-%m-%d}" for batch in adopted if batch.created_at is not None})
    made = f", made on {days[0]}" + (f" to {days[-1]}" if len(days) > 1 else "") if days else ""
    if adopted:
        state.notice(
            f"found {len(adopted)} batches of this run in the account{made}: they are adopted, and what they answer is "
            "not paid for again. For fresh answers pass another name="
        )
    if left:
        state.notice(
            f"{len(left)} batches of this run in the account ask for what is not in this call (Run.retry with other "
            f"parameters makes such), and are left alone: {', '.join(left)}. bf.read_batch(id) reads one"
        )
