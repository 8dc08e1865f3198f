"""What in the account is ours: the batch of a create in doubt, and all batches of a run whose folder is lost.

A create in doubt is settled by the id of its input file. A run that has submitted nothing yet asks the account once for
batches with its id. Equal ids mean the same requests, and not that they have the same custom_ids: a batch is ours as it
is only where the hash of its input file is that of a part of ours; every other is read, and matched by content.

A crash in between leaves batches that are adopted and others that are not, and no note; the next pass goes on with the
others. Nothing is submitted before the note is there.
"""

from __future__ import annotations

import datetime as dt
import shutil
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

import polars as pl

from batchframe._batches.match_requests import asked, claim, renamed, requests_in, without
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
    from pathlib import Path

    from batchframe._batches.pass_report import PassReport
    from batchframe._batches.pass_state import Desk
    from batchframe._core.remote import RemoteBatch

# The list is read back to the input file's own created_at, which is the service's clock and not ours; the margin is
# for two clocks within the service.
_MARGIN = dt.timedelta(minutes=5)
_NOTE = "account.json"
# Result files live 30 days from the end of the batch; and no account is read for ever: 20 pages of 100.
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


def is_new(desk: Desk) -> bool:
    """Whether a run has yet to ask the account: it submitted nothing, and has no note that it asked."""
    if not desk.parts or any(part.generation for part in desk.parts):  # what `Run.retry` asks for is to be asked for
        return False
    submitted = any(found.adopted_at is None for submissions in desk.submissions.values() for found in submissions)
    return not submitted and desk.folder.read_note(_NOTE) is None


def adopt(desk: Desk, seen: PassReport) -> None:
    """Take the account's batches of this run as the run's own, and let go of the hold on submitting.

    Raises
    ------
    RunError
        A batch of the run cannot be matched, since its input file is gone.
    """
    listed = _listed(desk)
    ours = [batch for batch in listed if batch.status != "failed" and _has_answers(batch)]
    refused = [batch for batch in listed if batch.status == "failed"]
    left: list[str] = []
    if listed:
        _leave_out_refused(desk, refused)
        others = _adopt_same_files(desk, ours)
        if others and any(batch.status == "validating" for batch in ours):
            # One that fails would be submitted again, and another one may hold its rows.
            seen.waiting_for.append("batches of this run, found in the account, to be validated")
            return
        found = _adopt_by_content(desk, others)
        if found is None:
            seen.waiting_for.append("the results of batches of this run, found in the account")
            seen.is_brief = True
            return
        left = found
    adopted = {batch.id: batch for batch in ours if batch.id not in left}
    trigger("before_account_note")
    desk.folder.write_note(_NOTE, {"at": desk.clock.now(), "adopted": list(adopted), "left": left})
    desk.open()
    desk.is_held = False
    _tell(desk, list(adopted.values()), left)


def _listed(desk: Desk) -> list[RemoteBatch]:
    """Return the batches of this run that are not too old, the oldest first, cancelled ones last."""
    earliest = desk.clock.now() - _LOOK_BACK
    found: dict[str, RemoteBatch] = {}
    for batch in islice(desk.client.list(), _MOST_BATCHES):
        if batch.created_at is not None and batch.created_at < earliest - _MARGIN:
            break
        found.setdefault(batch.id, batch)
    else:
        if len(found) >= _MOST_BATCHES:
            desk.notice(f"the account has many batches: the newest {len(found)} were searched for those of this run")
    run_id = desk.settings.run_id
    if any(mapping(batch.raw.get("metadata")) for batch in found.values()):
        ours = [batch for batch in found.values() if _told(batch, "run") == run_id]
    elif found:  # this service may drop metadata; it keeps the names of files
        prefix = f"batchframe-{run_id[:12]}-"
        files = islice(desk.client.list_files(), _MOST_FILES)
        named = {file.id for file in files if (file.name or "").startswith(prefix)}
        ours = [batch for batch in found.values() if batch.input_file_id in named]
    else:
        ours = []
    ours.reverse()  # several may be of one second
    ours = _asked_for(desk, ours)
    return sorted(ours, key=lambda batch: (batch.status == "cancelled", batch.created_at or _EARLIEST))


def _asked_for(desk: Desk, ours: list[RemoteBatch]) -> list[RemoteBatch]:
    """Return batches as they are, of those that the list shows before their validation: it may lag, or never move."""
    ours = [desk.asked[one.id] if one.id in desk.asked and is_behind(one, desk.asked[one.id]) else one for one in ours]
    for batch in [batch for batch in ours if batch.status == "validating"][:FEW]:
        with suppress(NotVisibleError):
            desk.asked[batch.id] = desk.client.retrieve(batch.id)
    return [desk.asked.get(batch.id, batch) if batch.status == "validating" else batch for batch in ours]


def _told(batch: RemoteBatch, name: str) -> str | None:
    return text(mapping(batch.raw.get("metadata")).get(f"batchframe_{name}"))


def _has_answers(batch: RemoteBatch) -> bool:
    """Whether a batch has answers, or may have; one that was cancelled before it began has none and never will."""
    return batch.status != "cancelled" or bool(batch.output_file_id or batch.error_file_id)


def _leave_out_refused(desk: Desk, refused: list[RemoteBatch]) -> None:
    """Send no line again that the service refused in the very same file; the rest of it is a part of its own."""
    by_file = {_told(batch, "file"): batch for batch in refused}
    waiting = waiting_parts(desk) if by_file else []
    while waiting:
        part = waiting.pop()
        batch = by_file.pop(hash_of(desk.folder.input_path(part.number)), None)
        lines = {} if batch is None else rejected_lines(batch.errors, part.requests)
        if lines and split_off(desk.folder, part, lines, desk.settings.limits):
            desk.notice(f"part {part.number}: {len(lines)} of its {part.requests} requests were refused before")
            desk.open()
            waiting += [found for found in desk.parts if found.split_from == part.number]


def waiting_parts(desk: Desk) -> list[PartRecord]:
    """Return the parts of which no batch runs or has run."""
    return [part for part in desk.parts if not any(is_held(found) for found in desk.submissions[part.number])]


def is_held(submission: SubmissionRecord) -> bool:
    """Whether a submission has, or may have, the answers to its part."""
    return submission.is_alive or submission.stage == "downloaded"


def _adopt_same_files(desk: Desk, ours: list[RemoteBatch]) -> list[RemoteBatch]:
    """Adopt what was made of the very files that are waiting here, one batch a file; return the other batches."""
    known = {found.batch_id for submissions in desk.submissions.values() for found in submissions}
    ours = [batch for batch in ours if batch.id not in known]
    waiting = {hash_of(desk.folder.input_path(part.number)): part for part in waiting_parts(desk)} if ours else {}
    others = []
    for batch in ours:
        part = waiting.pop(_told(batch, "file") or "", None)
        if part is None:
            others.append(batch)
        else:
            _submitted(desk, part, batch)
    return others


def _submitted(desk: Desk, part: PartRecord, batch: RemoteBatch) -> None:
    submissions = desk.submissions.setdefault(part.number, [])
    submission = SubmissionRecord(
        number=len(submissions),
        input_file_id=batch.input_file_id,
        batch_id=batch.id,
        status=batch.status,
        batch=batch.raw,
        adopted_at=desk.clock.now(),
    )
    submissions.append(submission)
    desk.shown.add(batch.id)
    desk.move(part, submission, "submitted")
    trigger("after_adopted")


def _adopt_by_content(desk: Desk, batches: list[RemoteBatch]) -> list[str] | None:
    """Adopt what was made of other files, request by request; return the ids of batches that hold nothing of ours.

    None where results have to be fetched before it can go on.
    """
    folder = desk.folder
    left: list[str] = []
    gone: list[RemoteBatch] = []
    _clear_unfinished(folder.path / "parts")
    if not batches and not any(part.adopted for part in desk.parts):
        return left
    requests = asked(folder, desk.parts, {part.number for part in waiting_parts(desk)})
    number = max(part.number for part in folder.parts()) + 1
    for batch in batches:
        theirs = folder.part_path(number) / "theirs.jsonl"
        try:
            with folder.receiving(theirs) as handle:
                desk.client.download(batch.input_file_id or "", handle)
        except NotVisibleError:
            gone.append(batch)
            continue
        trigger("after_adopted_input")
        names = claim(requests_in(theirs), requests, folder)
        if names is None:
            return None
        if not names.height:
            left.append(batch.id)
            continue
        again = requests["ours"].is_in(names["ours"].implode())
        attempt = 1 + int(requests.filter(again)["attempt"].max())  # type: ignore[arg-type]
        attempts = pl.when(again).then(attempt).otherwise(pl.col("attempt")).alias("attempt")
        requests = requests.with_columns(attempts)
        part = renamed(folder, theirs, names, PartRecord(number, 0, 0, 0, attempt=attempt, adopted=True))
        _submitted(desk, part, batch)
        folder.write_part(part)
        trigger("after_adopted_part")
        number += 1
    _clear_unfinished(folder.path / "parts")
    if gone:
        ids = ", ".join(batch.id for batch in gone)
        msg = (
            f"{len(gone)} batches of this run are in the account, and the service does not show their input files any "
            f"more, so that nobody can say which rows they answer: {ids}. Nothing was submitted. bf.read_batch(id) "
            "reads the answers of one; another name= pays for all rows anew"
        )
        raise RunError(msg)
    desk.open()
    submitted = requests.filter(pl.col("attempt") > 0)
    for part in waiting_parts(desk):
        taken = set(submitted.join(ids_of(folder, part).to_frame("ours"), on="ours", how="semi")["ours"])
        if taken:
            without(folder, part, taken)
    return left


def _clear_unfinished(parts: Path) -> None:
    """Remove folders of parts whose record is not there: a crash left them, and their numbers are given again."""
    for path in parts.iterdir():
        if not (path / "part.json").exists():
            shutil.rmtree(path)


def _tell(desk: Desk, adopted: list[RemoteBatch], left: list[str]) -> None:
    days = sorted({f"{batch.created_at:%Y-%m-%d}" for batch in adopted if batch.created_at is not None})
    made = f", made on {days[0]}" + (f" to {days[-1]}" if len(days) > 1 else "") if days else ""
    if adopted:
        desk.notice(
            f"found {len(adopted)} batches of this run in the account{made}: they are adopted, and what they answer is "
            "not paid for again. For fresh answers pass another name="
        )
    if left:
        desk.notice(
            f"{len(left)} batches of this run in the account ask for what is not in this call (Run.retry with other "
            f"parameters makes such), and are left alone: {', '.join(left)}. bf.read_batch(id) reads one"
        )
