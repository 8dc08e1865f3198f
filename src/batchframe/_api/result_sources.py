"""What may hold a batch's answers (its id, its result files) → answers, in the order of the sources."""

from __future__ import annotations

import io
import os
import re
import tempfile
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import polars as pl

from batchframe._core import wire_format
from batchframe._core.exceptions import (
    APICallError,
    InputError,
    InputFileRejectedError,
    NotVisibleError,
    OptionError,
    ResultsError,
    RunPendingError,
    warn,
)
from batchframe._core.lenient import integer, mapping, text
from batchframe._endpoints.foreign import LOOKS_LIKE
from batchframe._endpoints.registry import DEFAULT
from batchframe._providers.limits import azure_quota_note
from batchframe._providers.service import Service
from batchframe._results.answer_format import AnswerFormat
from batchframe._results.extra_columns import EXTRA_COLUMNS, OF_LINES, columns_of_lines
from batchframe._results.result_lines import ANSWER_SCHEMA, PLACES, endpoint_of_line, read_answers

if TYPE_CHECKING:
    from collections.abc import Iterator

    import tenacity

    from batchframe._core.remote import RemoteBatch
    from batchframe._providers.client import BatchClient

_BOM = b"\xef\xbb\xbf"
# Ids of batches have neither; names of result files have at least one.
_PATH_LIKE = re.compile(r"[./\\]")
# A batch may be completed for a moment before its files are named, and a download may break.
_SETTLE_SECONDS = 10.0
_DOWNLOADS = 3
_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 60.0


class Read(NamedTuple):
    """What the lines of a result file say, and what was asked; None where no line tells."""

    frames: list[pl.DataFrame]
    endpoint: str | None


@dataclass
class Found:
    """The answers of some sources, in their order, and whether more may come."""

    extra: tuple[str, ...] = ()
    frames: list[pl.DataFrame] = field(default_factory=list)
    is_pending: bool = False
    _endpoint: str | None = None

    @property
    def form(self) -> AnswerFormat:
        """What the answers are, as far as they tell."""
        return AnswerFormat(self._endpoint or DEFAULT.path)

    def add(self, read: Read, name: str) -> None:
        """Take in what a result file says."""
        if read.endpoint is not None and self._endpoint not in (None, read.endpoint):
            msg = (
                f"{name} holds answers of {read.endpoint}, and those before it are of {self._endpoint}: read them one "
                "by one, since their columns differ"
            )
            raise InputError(msg)
        self._endpoint = self._endpoint or read.endpoint
        self.frames += read.frames

    @property
    def answers(self) -> pl.DataFrame:
        """All of them."""
        made = {name: EXTRA_COLUMNS[name].dtype_for(self.form) for name in self.extra if name in OF_LINES}
        return pl.concat([pl.DataFrame(schema=ANSWER_SCHEMA | made), *self.frames])


def read_sources(source: Any, client: Any, extra: tuple[str, ...], *, may_be_pending: bool) -> Found:
    """Return the answers that a source, or a list of sources, holds.

    Parameters
    ----------
    source
        The id of a batch, a path of a result file, its bytes, or a list of these.
    client
        The user's client, for batches; none is needed for files.
    extra
        The extra columns that the answers are wanted with.
    may_be_pending
        Whether a batch that has not ended is told in the answer, rather than raised.

    Raises
    ------
    OptionError, InputError, APICallError, InputFileRejectedError, RunPendingError, ResultsError
        As for `read_batch`.
    """
    found = Found(extra)
    with ExitStack() as stack:
        service: BatchClient | None = None
        for one in source if isinstance(source, (list, tuple)) else [source]:
            if isinstance(one, (bytes, bytearray, memoryview)):
                found.add(_read_handle(io.BytesIO(one), "the bytes", extra), "the bytes")
            elif isinstance(one, str) and not _is_path(one):
                if service is None:
                    service = stack.enter_context(closing(Service(client))).client
                _read_remote(service, one, found, may_be_pending=may_be_pending)
            elif isinstance(one, (str, os.PathLike)):
                found.add(_read_file(Path(one), extra), repr(os.fspath(one)))
            else:
                msg = (
                    "source must be the id of a batch, a path of an output or error file, its bytes, or a list of "
                    f"these, got {type(one).__name__}"
                )
                raise OptionError(msg)
    return found


def _is_path(source: str) -> bool:
    if not source.strip():
        msg = "source is an empty text: pass the id of a batch, or a path of an output or error file"
        raise OptionError(msg)
    return bool(_PATH_LIKE.search(source)) or (not source.startswith("batch") and Path(source).is_file())


def _read_file(path: Path, extra: tuple[str, ...]) -> Read:
    name = os.fspath(path)
    try:
        with path.expanduser().open("rb") as handle:
            return _read_handle(handle, repr(name), extra)
    except OSError as error:
        msg = f"the result file {name!r} cannot be read: {error.strerror or error}"
        raise InputError(msg) from error


def _read_handle(handle: IO[bytes], name: str, extra: tuple[str, ...], *, is_ours: bool = False) -> Read:
    """Return what the lines of a result file say.

    Parameters
    ----------
    handle
        The file.
    name
        How to call it in a message.
    extra
        The extra columns.
    is_ours
        Whether it was downloaded here: then it is a result file, whatever is in it.
    """
    start = len(_BOM) if handle.read(len(_BOM)) == _BOM else 0
    handle.seek(start)
    number, first = next(_lines(handle), (0, b""))
    if not is_ours and wire_format.is_request(first):  # each line would look like an answer without a response
        msg = f"{name}, line {number} is a request: this is an input file. Pass the output or error file of the batch"
        raise InputError(msg)
    handle.seek(start)
    endpoint = next(filter(None, (endpoint_of_line(line) for line in handle)), None)
    handle.seek(start)
    made = tuple(name for name in extra if name in OF_LINES)
    frames = list(read_answers(handle, endpoint or DEFAULT, places=bool(made)))
    if made:
        form = AnswerFormat((endpoint or DEFAULT).path)
        frames = [_with_lines(frame, handle, start, made, form) for frame in frames]
    handle.seek(start)
    lines = sum(1 for _ in _lines(handle))
    answered = sum(frame.height for frame in frames)
    if not is_ours and lines and all(frame["code"].eq_missing("malformed_line").all() for frame in frames):
        reason = wire_format.not_a_result_message(first)
        msg = f"{name}, line {number}: {reason}. Expected an output or error file of a batch (JSONL)"
        raise InputError(msg)
    _warn_of_foreign(frames, name)
    if answered < lines:
        handle.seek(start)
        nobody = next(number for number, line in _lines(handle) if wire_format.custom_id_of_result(line) is None)
        warn(
            f"{lines - answered} of {lines} lines of {name} name no custom_id, and so belong to no row: the first is "
            f"line {nobody}"
        )
    return Read(frames, None if endpoint is None else endpoint.path)


def _warn_of_foreign(frames: list[pl.DataFrame], name: str) -> None:
    """Warn of answers of an endpoint that is none of ours: there are no columns for them."""
    said = pl.concat([pl.Series(dtype=pl.String), *(frame["message"] for frame in frames)])
    found = said.str.extract(LOOKS_LIKE + r"(\S+)$").drop_nulls()
    if found.len():
        warn(
            f"{found.len()} of {said.len()} answers in {name} look like answers of {found[0]}, which have no columns "
            'here: include="raw" gives their lines as they came'
        )


def _with_lines(
    frame: pl.DataFrame, handle: IO[bytes], start: int, names: tuple[str, ...], form: AnswerFormat
) -> pl.DataFrame:
    """Return answers with columns that are made of their lines, in the place of where these are."""
    lines: list[bytes | None] = []
    for at, size in frame.select(*PLACES).iter_rows():
        handle.seek(start + at)
        lines.append(handle.read(size))
    return frame.drop(*PLACES).hstack(columns_of_lines(lines, names, form))


def _lines(handle: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank, with their numbers from 1."""
    return ((number, line) for number, line in enumerate(handle, 1) if not line.isspace())


def _read_remote(client: BatchClient, batch_id: str, found: Found, *, may_be_pending: bool) -> None:
    """Add what the result files of a batch say."""
    batch = _settled(client, batch_id)
    counts = mapping(batch.raw.get("request_counts"))
    if batch.status == "failed":
        raise _refused(batch)
    if not batch.is_terminal:
        if may_be_pending:
            found.is_pending = True
            return
        total = integer(counts.get("total"))
        done = "" if total is None else f", {batch.completed_requests + batch.failed_requests} of {total} requests done"
        msg = (
            f"batch {batch_id} has not ended: it is {batch.status}{done}. Read it when it has, or pass the frame to "
            "get its rows as pending"
        )
        raise RunPendingError(msg)
    blob = text(batch.raw.get("output_blob")) or text(batch.raw.get("error_blob"))
    if blob and not (batch.output_file_id or batch.error_file_id):
        msg = f"the results of batch {batch_id} are in Blob storage: download {blob}, and pass the path of the file"
        raise ResultsError(msg)
    told = 0
    for kind, file_id, expected in (
        ("output", batch.output_file_id, True),
        ("error", batch.error_file_id, bool(batch.failed_requests)),
    ):
        if file_id is None:
            continue
        with tempfile.TemporaryFile() as handle:
            try:
                _download(client, file_id, handle)
            except NotVisibleError as error:
                if not expected:  # an error file that is not there has nothing to tell
                    continue
                msg = (
                    f"the {kind} file {file_id} of batch {batch_id} is not there: it was deleted or has expired, or "
                    f"belongs to another project ({error})"
                )
                raise ResultsError(msg) from error
            handle.seek(0)
            read = _read_handle(handle, f"the {kind} file {file_id}", found.extra, is_ours=True)
            found.add(read, f"the {kind} file {file_id}")
            told += sum(frame.height for frame in read.frames)
    # Answers may stand in the error file; only where they stand nowhere is there a file still to come.
    if batch.output_file_id is None and told < batch.completed_requests:
        msg = (
            f"batch {batch_id} is {batch.status} with {batch.completed_requests} requests completed, and the service "
            "names no output file: read it again later"
        )
        raise ResultsError(msg)


def _settled(client: BatchClient, batch_id: str) -> RemoteBatch:
    """Return a batch; one that is completed and names no output file is asked for again for a while."""
    until = time.monotonic() + _SETTLE_SECONDS
    while True:
        batch = client.retrieve(batch_id)
        names_enough = batch.output_file_id or (batch.error_file_id and not batch.completed_requests)
        if batch.status != "completed" or names_enough or text(batch.raw.get("output_blob")):
            return batch
        if time.monotonic() + _PAUSE_SECONDS > until:
            return batch
        time.sleep(_PAUSE_SECONDS)


def _refused(batch: RemoteBatch) -> InputFileRejectedError:
    said = [
        f"{code}{f' (line {line})' if line is not None else ''}: {message.rstrip('.')}."
        for line, code, message in batch.errors
    ]
    more = f" And {len(said) - 3} more." if len(said) > 3 else ""  # noqa: PLR2004
    if any(code == "token_limit_exceeded" for _, code, _ in batch.errors):
        more += " The same file can be submitted again when other batches have ended."
        more += f" {azure_quota_note(text(batch.raw.get('model')) or '')}".rstrip()
    msg = (
        f"batch {batch.id} failed: the service refused its input file, and nothing of it was executed or charged. "
        f"{' '.join(said[:3]) or 'It gave no reason.'}{more}"
    )
    return InputFileRejectedError(msg, batch.errors)


def _download(client: BatchClient, file_id: str, handle: IO[bytes]) -> None:
    """Write a file's bytes to ``handle``, from the beginning again where the connection broke."""
    import tenacity  # noqa: PLC0415 - takes a while to import

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda error: isinstance(error, APICallError) and error.is_transient),
        stop=tenacity.stop_after_attempt(_DOWNLOADS),
        wait=_pause,
        reraise=True,
    )
    for attempt in retrying:
        with attempt:
            handle.seek(0)
            handle.truncate()
            client.download(file_id, handle)


def _pause(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    asked = error.retry_after_seconds if isinstance(error, APICallError) else None
    return min(asked or _PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
