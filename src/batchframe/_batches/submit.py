"""What a pass submits: input files are uploaded, and batches created, where there is room."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from batchframe._batches.access_check import ensure_visible
from batchframe._batches.admission import Load
from batchframe._batches.pass_state import UNVALIDATED
from batchframe._core.events import trigger
from batchframe._core.exceptions import (
    APICallError,
    InputFileRejectedError,
    NoRoomError,
    NotVisibleError,
    RunError,
    ServiceError,
)
from batchframe._providers.client import InputFile
from batchframe._store.input_files import hash_of, open_input, split_up
from batchframe._store.records import SubmissionRecord
from batchframe._store.stop_record import is_covered, read_stop

if TYPE_CHECKING:
    import datetime as dt

    from batchframe._batches.pass_report import PassReport
    from batchframe._batches.pass_state import PassState
    from batchframe._store.records import PartRecord

# A file in one of these states is still being looked at (Azure); no state at all, or another, is tried.
_LOOKED_AT = frozenset({"pending", "running", "notrunning", "uploading"})
_LOOK_SECONDS = 1_800
_UNSENT = frozenset({"written", "uploading", "uploaded"})
# So many input files of a part may vanish at the service before the run stops.
_LOST_FILES = 3


class Submitter:
    """Takes parts from an input file on disk to a batch at the service."""

    def __init__(self, state: PassState) -> None:
        self._state = state
        self._folder = state.folder
        self._client = state.client

    def submit(self, part: PartRecord, report: PassReport) -> None:
        """Submit a part, unless a submission of it is under way, or there is no room."""
        submission = self._state.last(part)
        if submission is not None and submission.stage == "ended" and not submission.has_files:
            submission = None  # it came to nothing, and cost nothing: the file goes again
        if submission is not None and not submission.refused and submission.stage not in _UNSENT:
            if submission.stage == "submitting":
                report.waiting_for.append("what became of a create that got no answer")
            return
        if (submission is None or submission.refused) and not self._has_room(part, report):
            return
        ensure_visible(self._state)
        if submission is None:
            submission = SubmissionRecord(number=len(self._state.submissions[part.number]))
            self._state.submissions[part.number].append(submission)
            self._state.move(part, submission, "written")
        if submission.stage in {"written", "uploading"}:
            self._upload(part, submission)
        if self._is_file_ready(part, submission):
            self._create(part, submission)
        else:
            report.waiting_for.append("the service to look at an input file")
            report.is_brief = True

    def _has_room(self, part: PartRecord, report: PassReport) -> bool:
        """Whether a batch may be created now; a part that is larger than the queue is split."""
        active = [submission for submission in self._all() if submission.is_in_flight]
        most = self._state.settings.limits.max_in_flight
        if most is not None and len(active) >= most:
            report.waiting_for.append(f"one of {len(active)} batches in flight to end (limits.max_in_flight={most})")
            return False
        admission, load, in_flight = self._state.admission, _load(part), self._state.in_flight(part)
        fresh = sum(submission.status in UNVALIDATED for submission in active)
        window = admission.window(passed=self._passed())
        if window is not None and fresh >= window:
            report.waiting_for.append(
                f"the service to accept some of {fresh} batches, since its queue's limit is not known"
            )
            return False
        verdict = admission.verdict(part.number, load, in_flight)
        if verdict == "submit" and report.admitted and any(self._state.others):
            verdict = "wait"  # another run sees the same room at the same time: each takes a little of it
        report.admitted += verdict == "submit"
        if verdict == "split":
            self._split(part)
        elif verdict == "wait":
            of_requests = admission.is_short_of_requests(load, in_flight)
            what, most = ("requests", admission.max_requests) if of_requests else ("tokens", admission.limit)
            limit = "" if most is None else f" (limit: {most:,})"
            others = "" if any(in_flight) else ", which others hold"
            if admission.pieces(load) > 1:  # a single request, which cannot be split
                others = f", though its one request has about {load.tokens:,}: shorten it, or have the limit raised"
            report.waiting_for.append(f"room in the queue of enqueued {what}{limit}{others}")
        return verdict == "submit"

    def _passed(self) -> int:
        """Return how many batches of this run the service has taken into its queue."""
        return sum(one.batch_id is not None and one.status not in {*UNVALIDATED, "failed"} for one in self._all())

    def _all(self) -> list[SubmissionRecord]:
        return [submission for part in self._state.parts for submission in self._state.submissions[part.number]]

    def _split(self, part: PartRecord) -> None:
        pieces = min(max(self._state.admission.pieces(_load(part)), 2), part.requests)
        split_up(self._folder, part, pieces)
        self._state.is_stale = True
        self._state.notice(
            f"part {part.number} has {part.requests:,} requests of about {part.tokens:,} tokens, more than the queue "
            "takes: it is split"
        )

    def _upload(self, part: PartRecord, submission: SubmissionRecord) -> None:
        self._state.move(part, submission, "uploading")
        trigger("before_upload")
        path = self._folder.input_path(part.number)
        size = self._folder.input_size(part.number)
        if size != part.bytes:
            msg = (
                f"part {part.number}: {path} is not what was written: it has {size} of {part.bytes} bytes. It was not "
                "sent; bring it back, or call Run.delete() once no batch is running, and make the same call"
            )
            raise RunError(msg)
        filename = f"batchframe-{self._state.settings.run_id[:12]}-{part.number:04d}.jsonl"
        with open_input(path) as handle:
            file = self._client.upload(handle, filename, self._state.settings.expires_after)
        trigger("after_upload_call")
        if file.bytes is not None and file.bytes != part.bytes:
            self._client.delete_file(file.id)
            msg = f"upload: the service received {file.bytes} of the {part.bytes} bytes of part {part.number}"
            raise ServiceError(msg, call="upload")
        submission.input_file_id, submission.input_file_created_at = file.id, file.created_at
        submission.file_status = file.status
        self._state.shown.add(file.id)
        self._state.move(part, submission, "uploaded")
        trigger("after_upload")

    def _is_file_ready(self, part: PartRecord, submission: SubmissionRecord) -> bool:
        """Whether a batch can be made of the uploaded file; some services look at it first, which takes a while.

        What another process uploaded may have been deleted since.
        """
        assert submission.input_file_id is not None
        if submission.file_status not in _LOOKED_AT and submission.input_file_id in self._state.shown:
            return True
        try:
            submission.file_status = self._client.retrieve_file(submission.input_file_id).status
        except NotVisibleError:
            self._is_lost(part, submission)
            return False
        self._state.shown.add(submission.input_file_id)
        submission.times.pop("unseen_at", None)
        if submission.file_status == "error":
            submission.reason = "the service refused the input file after the upload"
            self._state.move(part, submission, "ended")
            msg = (
                f"part {part.number}: the service gave the input file {submission.input_file_id} the status 'error'. "
                f"Nothing was charged. The file is {self._folder.input_path(part.number)}; the same call sends it anew"
            )
            raise InputFileRejectedError(msg)
        if submission.file_status not in _LOOKED_AT:
            return True
        if self._state.seconds_since(submission.times["uploaded_at"]) > _LOOK_SECONDS:
            submission.reason = f"the service had not looked at the input file after {_LOOK_SECONDS} seconds"
            self._state.move(part, submission, "ended")
            msg = f"part {part.number}: {submission.reason}. Nothing was charged; the same call uploads it anew"
            raise RunError(msg)
        return False

    def _is_lost(self, part: PartRecord, submission: SubmissionRecord) -> bool:
        """Whether an uploaded file that the service does not show is given up, to be uploaded anew."""
        seen_at = submission.times["unseen_at"] = self._state.first_noted(submission.times.get("unseen_at"))
        if self._state.is_within_settling(seen_at):
            self._state.write(part, submission)
            return False
        submission.reason = f"the service did not show the input file {submission.input_file_id} that it had received"
        self._state.move(part, submission, "ended")
        return True

    def _create(self, part: PartRecord, submission: SubmissionRecord) -> None:
        assert submission.input_file_id is not None
        with self._folder.fence():
            # Somebody may have cancelled the run during this pass: whoever reads that finds either the note alone, or
            # the intent too.
            if is_covered(part, read_stop(self._folder)):
                return
            submission.refused = False
            self._state.move(part, submission, "submitting")
        trigger("before_create")
        metadata = self._state.settings.metadata | {
            "batchframe_run": self._state.settings.run_id,
            "batchframe_part": str(part.number),
            "batchframe_digest": part.digest,
            "batchframe_tokens": str(part.tokens),
            "batchframe_requests": str(part.requests),
            "batchframe_model": self._state.settings.model,
            "batchframe_file": hash_of(self._folder.input_path(part.number)),
        }
        settings, path = self._state.settings, self._folder.input_path(part.number)
        try:
            batch = self._client.create(
                InputFile(submission.input_file_id, partial(open_input, path)),
                settings.endpoint,
                settings.completion_window,
                metadata,
                settings.expires_after,
            )
        except APICallError as error:
            submission.said.append(_said(error, self._state.clock.now()))
            if isinstance(error, NotVisibleError) and submission.input_file_id in str(error):
                submission.refused = True
                is_lost = self._is_lost(part, submission)
                if not is_lost or submission.number < _LOST_FILES:
                    self._state.notice(f"{error}. The service had received that file. Trying again")
                    return
            elif error.is_in_doubt:
                submission.doubt_at = self._state.now()
                self._state.write(part, submission)
            elif error.is_transient:
                submission.refused = True
                self._state.write(part, submission)
                if isinstance(error, NoRoomError):
                    self._state.refused(part, str(error))
            else:
                submission.reason = str(error)
                self._state.move(part, submission, "ended")
            raise
        trigger("after_create_call")
        submission.batch_id, submission.status, submission.batch = batch.id, batch.status, batch.raw
        self._state.move(part, submission, "submitted")
        trigger("after_create")


def _load(part: PartRecord) -> Load:
    return Load(part.tokens, part.requests)


def _said(error: APICallError, at: dt.datetime) -> dict[str, Any]:
    what = {"call": error.call, "status_code": error.status_code, "code": error.code, "request_id": error.request_id}
    return {"at": at, **what, "message": str(error)}
