"""The files that a run has at the service, and their end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchframe._core import lenient

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Iterator

    from batchframe._providers.client import BatchClient
    from batchframe._store.records import SubmissionRecord
    from batchframe._store.run_folder import RunFolder


def clean_up(folder: RunFolder, client: BatchClient, now: Callable[[], dt.datetime]) -> int:
    """Delete the files of every submission that ended; return how many there were."""
    count = 0
    for part, submission in _to_clean(folder):
        for file_id in _files_of(submission):
            client.delete_file(file_id)
            count += 1
        submission.files_deleted_at = now()
        folder.write_submission(part, submission)
    return count


def has_files_left(folder: RunFolder) -> bool:
    """Whether there is something to delete, as far as is known here."""
    return any(_files_of(submission) for _, submission in _to_clean(folder))


def _to_clean(folder: RunFolder) -> Iterator[tuple[int, SubmissionRecord]]:
    for part in folder.parts():
        for submission in folder.submissions(part.number) if part.reused_from is None else []:
            if submission.files_deleted_at is None and _has_ended(submission):
                yield part.number, submission


def _has_ended(submission: SubmissionRecord) -> bool:
    """Whether nothing more is wanted of its files: fetched, or never to become a batch."""
    return submission.stage == "downloaded" or (submission.stage == "ended" and not submission.has_files)


def _files_of(submission: SubmissionRecord) -> list[str]:
    batch = submission.batch or {}
    ids = [submission.input_file_id, batch.get("output_file_id"), batch.get("error_file_id")]
    return [file_id for file_id in map(lenient.text, ids) if file_id is not None]
