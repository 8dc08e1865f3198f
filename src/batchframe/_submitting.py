"""What a pass submits: input files are uploaded, and batches created, where there is room."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchframe import _lenient
from batchframe._desk import NO_ROOM
from batchframe._events import trigger
from batchframe._exceptions import APICallError, InputFileRejectedError, RunError, ServiceError
from batchframe._part_files import hash_of
from batchframe._types import SubmissionRecord

if TYPE_CHECKING:
    import datetime as dt

    from batchframe._desk import Desk, Pass
    from batchframe._types import PartRecord

# A file in one of these states is still being looked at (Azure); no state at all, or another, is tried.
_LOOKED_AT = frozenset({"pending", "running", "notrunning", "uploading"})
_LOOK_SECONDS = 1_800


class Submitter:
    """Takes parts from an input file on disk to a batch at the service."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._folder = desk.folder
        self._client = desk.client

    def submit(self, part: PartRecord, seen: Pass) -> None:
        """Submit a part, unless a submission of it is under way, or there is no room."""
        submission = self._desk.last(part)
        if submission is not None and submission.stage == "ended" and not submission.has_files:
            submission = None  # it came to nothing, and cost nothing: the file goes again
        if submission is None:
            if not self._has_room(part, seen):
                return
            submission = SubmissionRecord(number=len(self._desk.submissions[part.number]))
            self._desk.submissions[part.number].append(submission)
            self._desk.move(part, submission, "written")
        if submission.stage in {"written", "uploading"}:
            self._upload(part, submission)
        if submission.stage == "uploaded" or submission.refused:
            if self._is_file_ready(part, submission):
                self._create(part, submission)
            else:
                seen.waiting_for.append("the service to look at an input file")
                seen.is_brief = True
        elif submission.stage == "submitting":
            seen.waiting_for.append("what became of a create that got no answer")

    def _has_room(self, part: PartRecord, seen: Pass) -> bool:
        in_flight = sum(self._desk.is_in_flight(other) for other in self._desk.parts)
        limit = self._desk.settings.max_in_flight
        if limit is not None and in_flight >= limit:
            seen.waiting_for.append(f"one of {in_flight} batches in flight to end (limits.max_in_flight={limit})")
            return False
        last = self._desk.last(part)
        if in_flight and last is not None and _codes_of(last) & NO_ROOM:
            seen.waiting_for.append("room in the queue of enqueued tokens")
            return False
        return True

    def _upload(self, part: PartRecord, submission: SubmissionRecord) -> None:
        self._desk.move(part, submission, "uploading")
        trigger("before_upload")
        filename = f"batchframe-{self._desk.settings.run_id[:12]}-{part.number:04d}.jsonl"
        with self._folder.input_path(part.number).open("rb") as handle:
            file = self._client.upload(handle, filename, self._desk.settings.expires_after)
        self._desk.accepted_calls += 1
        trigger("after_upload_call")
        if file.bytes is not None and file.bytes != part.bytes:
            self._client.delete_file(file.id)
            msg = f"upload: the service received {file.bytes} of the {part.bytes} bytes of part {part.number}"
            raise ServiceError(msg, call="upload")
        submission.input_file_id, submission.input_file_created_at = file.id, file.created_at
        submission.file_status = file.status
        self._desk.move(part, submission, "uploaded")
        trigger("after_upload")

    def _is_file_ready(self, part: PartRecord, submission: SubmissionRecord) -> bool:
        """Whether a batch can be made of the uploaded file; some services look at it first, which takes a while."""
        assert submission.input_file_id is not None
        if submission.file_status not in _LOOKED_AT:
            return True
        submission.file_status = self._client.retrieve_file(submission.input_file_id).status
        if submission.file_status == "error":
            submission.reason = "the service refused the input file after the upload"
            self._desk.move(part, submission, "ended")
            msg = (
                f"part {part.number}: the service gave the input file {submission.input_file_id} the status 'error'. "
                f"Nothing was charged. The file is {self._folder.input_path(part.number)}; the same call sends it anew"
            )
            raise InputFileRejectedError(msg)
        if submission.file_status not in _LOOKED_AT:
            return True
        if self._desk.seconds_since(submission.times["uploaded_at"]) > _LOOK_SECONDS:
            submission.reason = f"the service had not looked at the input file after {_LOOK_SECONDS} seconds"
            self._desk.move(part, submission, "ended")
            msg = f"part {part.number}: {submission.reason}. Nothing was charged; the same call uploads it anew"
            raise RunError(msg)
        return False

    def _create(self, part: PartRecord, submission: SubmissionRecord) -> None:
        assert submission.input_file_id is not None
        submission.refused = False
        self._desk.move(part, submission, "submitting")
        trigger("before_create")
        metadata = self._desk.settings.metadata | {
            "batchframe_run": self._desk.settings.run_id,
            "batchframe_part": str(part.number),
            "batchframe_digest": part.digest,
            "batchframe_tokens": str(part.tokens),
            "batchframe_file": hash_of(self._folder.input_path(part.number)),
        }
        settings = self._desk.settings
        try:
            batch = self._client.create(
                submission.input_file_id,
                settings.endpoint,
                settings.completion_window,
                metadata,
                settings.expires_after,
            )
        except APICallError as error:
            submission.said.append(_said(error, self._desk.clock.now()))
            if error.is_in_doubt:
                submission.doubt_at = self._desk.clock.now()
                self._desk.write(part, submission)
            elif error.is_transient:
                submission.refused = True
                self._desk.write(part, submission)
            else:
                submission.reason = str(error)
                self._desk.move(part, submission, "ended")
            raise
        self._desk.accepted_calls += 1
        trigger("after_create_call")
        submission.batch_id, submission.status, submission.batch = batch.id, batch.status, batch.raw
        self._desk.move(part, submission, "submitted")
        trigger("after_create")


def _said(error: APICallError, at: dt.datetime) -> dict[str, Any]:
    what = {"call": error.call, "status_code": error.status_code, "code": error.code, "request_id": error.request_id}
    return {"at": at, **what, "message": str(error)}


def _codes_of(submission: SubmissionRecord) -> set[str]:
    return {code for _, code, _ in _lenient.batch_errors((submission.batch or {}).get("errors"))}
