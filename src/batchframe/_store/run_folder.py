"""A run's folder: its record, its parts and their submissions, and the files that were sent and received."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from batchframe._core.events import trigger
from batchframe._core.exceptions import ResultsError, RunMismatchError, RunNotFoundError, StoreVersionError
from batchframe._store import filesystem
from batchframe._store.block_folder import RECORD, BlockFolder
from batchframe._store.records import SCHEMA_VERSION, PartRecord, RetryRecord, RunRecord, SubmissionRecord
from batchframe._store.scratch import is_scratch, remove_left_over, scratch_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    import polars as pl

# Result files without a line for some rows are downloaded once more. Both copies stay, and the better answer counts.
RESULT_KINDS = ("output", "error", "output.again", "error.again")
_PART = "part.json"


class DownloadedFile(NamedTuple):
    """A downloaded result file: its submission, its kind (of `RESULT_KINDS`) and its path."""

    submission: SubmissionRecord
    kind: str
    path: Path


class RunFolder(BlockFolder):
    """Reads and writes one run's folder: its file names and formats. It knows nothing of the service."""

    def fenced(self, fence: Callable[[], AbstractContextManager[None]]) -> RunFolder:
        """Return the same folder with another fence; both share one cache of records."""
        return RunFolder(self.path, fence, self._root, self._files)

    # -- the run

    @classmethod
    def all_in(cls, root: Path) -> list[RunFolder]:
        """Return the folders of a root that may be runs, ordered by name."""
        folders = [cls(root / name) for name in filesystem.names_in(root)]
        return [folder for folder in folders if not folder.is_scratch]

    @property
    def is_scratch(self) -> bool:
        """Whether the run is being created or deleted."""
        return is_scratch(self.path)

    def exists(self) -> bool:
        """Whether a run was committed here."""
        return filesystem.is_file(self.path / RECORD)

    def foreign_content_note(self) -> str:
        """Return a phrase for what is here instead of a run; empty for a run, or for an empty or missing folder."""
        if filesystem.is_file(self.path):
            return "it is a file"
        names = sorted(filesystem.names_in(self.path), key=_is_hidden)
        return f"it holds {names[0]!r}" if names and RECORD not in names else ""

    def record(self) -> RunRecord:
        """Return ``run.json``.

        Raises
        ------
        RunNotFoundError
            There is no such file.
        StoreVersionError
            It was written by a newer batchframe.
        DamagedRunError
            It cannot be read.
        """
        path = self.path / RECORD
        try:
            data = self._files.read(path)
        except (FileNotFoundError, NotADirectoryError):
            msg = f"there is no run in {self.path}: it has no {RECORD}. bf.run(...) creates one"
            raise RunNotFoundError(msg) from None
        with self.reading(path):
            version = msgspec.json.decode(data, type=_Version).schema_version
        if version > SCHEMA_VERSION:
            msg = (
                f"{self.path} has schema version {version}, and this batchframe reads up to {SCHEMA_VERSION}: "
                "a newer batchframe wrote it. Upgrade batchframe to read it"
            )
            raise StoreVersionError(msg)
        with self.reading(path):
            return msgspec.json.decode(data, type=RunRecord)

    def take(self, scratch: RunFolder, record: RunRecord) -> bool:
        """Turn a scratch folder into this run by one rename, so that a run exists whole or not at all.

        Returns
        -------
        bool
            False where another process created the same run in the meantime; ``scratch`` is then left alone.

        Raises
        ------
        RunMismatchError
            Something else is at this path.
        """
        scratch.write_note(RECORD, record)
        trigger("before_commit")
        try:
            filesystem.move(scratch.path, self.path)
        except OSError as error:
            if self.exists():
                return False
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
                raise
            msg = f"{self.path} exists and is not a run: move it away and repeat the call"
            raise RunMismatchError(msg) from error
        filesystem.sync_folder(self.path.parent)
        return True

    @classmethod
    def scratch(cls, parent: Path) -> RunFolder:
        """Create a ``.new-…`` folder in ``parent``, after removing those of dead processes."""
        filesystem.make_folder(parent)
        remove_left_over(parent)
        folder = cls(scratch_path(parent))
        try:
            filesystem.make_private(folder.path)
        except OSError:
            filesystem.remove_tree(folder.path)
            raise
        return folder

    # -- calls of `Run.retry`

    def retry_path(self, generation: int) -> Path:
        """Return the path of a retry's requests and their changes."""
        return self.path / "retries" / f"{generation:04d}.parquet"

    def retries(self) -> list[RetryRecord]:
        """Return the records of the calls of `Run.retry`, oldest first."""
        folder = self.path / "retries"
        names = [name for name in filesystem.names_in(folder) if name.endswith(".json")]
        records = [self._decoded(folder / name, RetryRecord) for name in names]
        return sorted((record for record in records if record is not None), key=lambda record: record.generation)

    def write_retry(self, record: RetryRecord, requests: pl.DataFrame) -> None:
        """Write a retry; its record is written last, so that a retry with a record is complete."""
        path = self.retry_path(record.generation)
        self.write_frame(path, requests)
        trigger("before_retry_record")
        self._write_json(path.with_suffix(".json"), record)

    # -- parts and their submissions

    def part_path(self, number: int) -> Path:
        """Return a part's folder."""
        return self.path / "parts" / f"{number:04d}"

    def input_path(self, number: int) -> Path:
        """Return a part's input file: exactly the bytes to upload."""
        return self.part_path(number) / "input.jsonl"

    def renamed_path(self, number: int) -> Path:
        """Return the path of the table of ids of an adopted batch: theirs and ours."""
        return self.part_path(number) / "renamed.parquet"

    def parts(self) -> list[PartRecord]:
        """Return the parts by number, without the pieces of a split that a crash interrupted."""
        records = [self._decoded(path, PartRecord) for path in self._part_records()]
        parts = [record for record in records if record is not None]
        siblings: dict[int | None, list[int]] = {}
        for part in parts:
            siblings.setdefault(part.split_from, []).append(part.pieces)
        whole = {source for source, pieces in siblings.items() if source is None or set(pieces) == {len(pieces)}}
        return sorted((part for part in parts if part.split_from in whole), key=lambda part: part.number)

    def count_parts(self) -> int:
        """Return the number of parts; it may grow until the run is finished."""
        return sum(filesystem.is_file(path) for path in self._part_records())

    def _part_records(self) -> list[Path]:
        """Return the path of each part's record, which may not exist yet."""
        folder = self.path / "parts"
        return [folder / name / _PART for name in filesystem.names_in(folder) if name.isdigit()]

    def remove_unfinished_parts(self) -> None:
        """Remove parts without a record, left by a crash: their numbers are used again."""
        for path in self._part_records():
            if not filesystem.is_file(path):
                filesystem.remove_tree(path.parent, must_go=True)  # else its submissions would belong to the next part

    def write_part(self, part: PartRecord) -> None:
        """Write ``part.json``, after the input file, so that a part with a record is complete."""
        self._write_json(self.part_path(part.number) / _PART, part)

    def submissions(self, number: int) -> list[SubmissionRecord]:
        """Return a part's submissions, oldest first."""
        folder = self.part_path(number) / "submissions"
        names = [name for name in filesystem.names_in(folder) if name.endswith(".json")]
        records = [self._decoded(folder / name, SubmissionRecord) for name in names if name[: -len(".json")].isdigit()]
        return sorted((record for record in records if record is not None), key=lambda record: record.number)

    def write_submission(self, number: int, submission: SubmissionRecord) -> None:
        """Write the record of a submission."""
        self._write_json(self.part_path(number) / "submissions" / f"{submission.number}.json", submission)

    def remove_submissions(self, number: int) -> None:
        """Remove the records of a part's submissions, for a new input file."""
        filesystem.remove_tree(self.part_path(number) / "submissions")

    def result_path(self, number: int, submission: int, kind: str) -> Path:
        """Return the path of a downloaded result file; ``kind`` is one of `RESULT_KINDS`."""
        return self.part_path(number) / "submissions" / f"{submission}.{kind}.jsonl"

    def has_result(self, number: int, submission: int, kind: str) -> bool:
        """Whether a result file of this kind was downloaded."""
        return filesystem.is_file(self.result_path(number, submission, kind))

    def result_files(self, number: int) -> list[DownloadedFile]:
        """Return the downloaded result files of a part, oldest first.

        Raises
        ------
        ResultsError
            A submission is recorded as downloaded, and has no file.
        """
        files: list[DownloadedFile] = []
        for submission in self.submissions(number):
            kinds = [kind for kind in RESULT_KINDS if self.has_result(number, submission.number, kind)]
            if submission.stage == "downloaded" and not kinds and submission.output_expired_at is None:
                path = self.result_path(number, submission.number, RESULT_KINDS[0])
                msg = f"{path} is gone: it was downloaded, so restore it from a copy of the run"
                raise ResultsError(msg)
            files += [
                DownloadedFile(submission, kind, self.result_path(number, submission.number, kind)) for kind in kinds
            ]
        return files

    # -- input files

    def input_size(self, number: int) -> int:
        """Return the size of a part's input file in bytes; 0 if there is none."""
        return filesystem.size_of(self.input_path(number)) or 0

    def foreign_input_path(self, number: int) -> Path:
        """Return the path of an adopted batch's input file, kept until its requests are matched."""
        return self.part_path(number) / "theirs.jsonl"


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


class _Version(msgspec.Struct):
    schema_version: int
