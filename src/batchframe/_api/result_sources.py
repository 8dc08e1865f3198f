"""Read the answers of batches and result files, in the order of the sources."""

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
# A batch id has no such character; the path of a result file has at least one.
_PATH_LIKE = re.compile(r"[./\\]")
# A batch may be completed shortly before the service names its files, and a download may break.
_SETTLE_SECONDS = 10.0
_DOWNLOADS = 3
_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 60.0


class Read(NamedTuple):
    """The answers in a result file, and their endpoint; None if no line shows it."""

    frames: list[pl.DataFrame]
    endpoint: str | None


@dataclass
class SourceAnswers:
    """The answers of all sources, in their order, and whether more may come."""

    extra: tuple[str, ...] = ()
    frames: list[pl.DataFrame] = field(default_factory=list)
    is_pending: bool = False
    _endpoint: str | None = None

    @property
    def form(self) -> AnswerFormat:
        """The format of the answers."""
        return AnswerFormat(self._endpoint or DEFAULT.path)

    def add(self, read: Read, name: str) -> None:
        """Add the answers of a result file."""
        if read.endpoint is not None and self._endpoint not in (None, read.endpoint):
            msg = (
                f"there are answers of {read.endpoint} in {name}, but earlier sources hold answers of "
                f"{self._endpoint}: their columns differ, so read them separately"
            )
            raise InputError(msg)
        self._endpoint = self._endpoint or read.endpoint
        self.frames += read.frames

    @property
    def answers(self) -> pl.DataFrame:
        """The answers of all sources."""
        dtypes = {name: EXTRA_COLUMNS[name].dtype_for(self.form) for name in self.extra if name in OF_LINES}
        return pl.concat([pl.DataFrame(schema=ANSWER_SCHEMA | dtypes), *self.frames])


def read_sources(source: Any, client: Any, extra: tuple[str, ...], *, may_be_pending: bool) -> SourceAnswers:
    """Return the answers of a source, or of a list of sources.

    Parameters
    ----------
    source
        The id of a batch, a path of a result file, its bytes, or a list of these.
    client
        The user's client, for batches. Files need none.
    extra
        The requested extra columns.
    may_be_pending
        Whether a batch may still be running. Otherwise such a batch raises `RunPendingError`.

    Raises
    ------
    OptionError, InputError, APICallError, InputFileRejectedError, RunPendingError, ResultsError
        As for `read_batch`.
    """
    answers = SourceAnswers(extra)
    with ExitStack() as stack:
        service: BatchClient | None = None
        for item in source if isinstance(source, (list, tuple)) else [source]:
            if isinstance(item, (bytes, bytearray, memoryview)):
                answers.add(_read_handle(io.BytesIO(item), "the bytes", extra), "the bytes")
            elif isinstance(item, str) and not _is_path(item):
                if service is None:
                    service = stack.enter_context(closing(Service(client))).client
                _read_remote(service, item, answers, may_be_pending=may_be_pending)
            elif isinstance(item, (str, os.PathLike)):
                answers.add(_read_file(Path(item), extra), repr(os.fspath(item)))
            else:
                msg = (
                    "source must be the id of a batch, a path of an output or error file, its bytes, or a list of "
                    f"these, got {type(item).__name__}"
                )
                raise OptionError(msg)
    return answers


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
    """Return the answers in a result file.

    Parameters
    ----------
    handle
        The file.
    name
        Its name in messages.
    extra
        The requested extra columns.
    is_ours
        Whether it was downloaded here. Then it is a result file, whatever its content.
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
            f"{lines - answered} of {lines} lines of {name} have no custom_id, so they match no row: the first is "
            f"line {nobody}"
        )
    return Read(frames, None if endpoint is None else endpoint.path)


def _warn_of_foreign(frames: list[pl.DataFrame], name: str) -> None:
    """Warn of answers of an unsupported endpoint, which have no columns."""
    messages = pl.concat([pl.Series(dtype=pl.String), *(frame["message"] for frame in frames)])
    endpoints = messages.str.extract(LOOKS_LIKE + r"(\S+)$").drop_nulls()
    if endpoints.len():
        warn(
            f"{endpoints.len()} of {messages.len()} answers in {name} look like answers of {endpoints[0]}, which has "
            'no columns in batchframe: include="raw" returns their unchanged lines'
        )


def _with_lines(
    frame: pl.DataFrame, handle: IO[bytes], start: int, names: tuple[str, ...], form: AnswerFormat
) -> pl.DataFrame:
    """Return answers with the columns made from their lines, in place of the lines' positions."""
    lines: list[bytes | None] = []
    for at, size in frame.select(*PLACES).iter_rows():
        handle.seek(start + at)
        lines.append(handle.read(size))
    return frame.drop(*PLACES).hstack(columns_of_lines(lines, names, form))


def _lines(handle: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield the non-blank lines with their numbers, from 1."""
    return ((number, line) for number, line in enumerate(handle, 1) if not line.isspace())


def _read_remote(client: BatchClient, batch_id: str, answers: SourceAnswers, *, may_be_pending: bool) -> None:
    """Add the answers of a batch."""
    batch = _settled(client, batch_id)
    counts = mapping(batch.raw.get("request_counts"))
    if batch.status == "failed":
        raise _rejection(batch)
    if not batch.is_terminal:
        if may_be_pending:
            answers.is_pending = True
            return
        total = integer(counts.get("total"))
        done = "" if total is None else f", {batch.completed_requests + batch.failed_requests} of {total} requests done"
        msg = (
            f"batch {batch_id} has not ended: it is {batch.status}{done}. Read it later, or pass frame to get "
            "its rows as pending"
        )
        raise RunPendingError(msg)
    blob = text(batch.raw.get("output_blob")) or text(batch.raw.get("error_blob"))
    if blob and not (batch.output_file_id or batch.error_file_id):
        msg = f"the results of batch {batch_id} are in Blob storage: download {blob}, and pass the path of the file"
        raise ResultsError(msg)
    answered = 0
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
                if not expected:  # without failed requests, no error file is needed
                    continue
                msg = (
                    f"the {kind} file {file_id} of batch {batch_id} does not exist: it was deleted, has expired, or "
                    f"belongs to another project ({error})"
                )
                raise ResultsError(msg) from error
            handle.seek(0)
            read = _read_handle(handle, f"the {kind} file {file_id}", answers.extra, is_ours=True)
            answers.add(read, f"the {kind} file {file_id}")
            answered += sum(frame.height for frame in read.frames)
    # Answers may be in the error file. Only if they are in neither file is one still missing.
    if batch.output_file_id is None and answered < batch.completed_requests:
        msg = (
            f"batch {batch_id} is {batch.status} with {batch.completed_requests} requests completed, but the service "
            "names no output file: read it again later"
        )
        raise ResultsError(msg)


def _settled(client: BatchClient, batch_id: str) -> RemoteBatch:
    """Return a batch. If it is completed without an output file, poll it for some seconds."""
    until = time.monotonic() + _SETTLE_SECONDS
    while True:
        batch = client.retrieve(batch_id)
        names_enough = batch.output_file_id or (batch.error_file_id and not batch.completed_requests)
        if batch.status != "completed" or names_enough or text(batch.raw.get("output_blob")):
            return batch
        if time.monotonic() + _PAUSE_SECONDS > until:
            return batch
        time.sleep(_PAUSE_SECONDS)


def _rejection(batch: RemoteBatch) -> InputFileRejectedError:
    reasons = [
        f"{code}{f' (line {line})' if line is not None else ''}: {message.rstrip('.')}."
        for line, code, message in batch.errors
    ]
    more = f" And {len(reasons) - 3} more." if len(reasons) > 3 else ""  # noqa: PLR2004
    if any(code == "token_limit_exceeded" for _, code, _ in batch.errors):
        more += " The same file can be submitted again once other batches have ended."
        more += f" {azure_quota_note(text(batch.raw.get('model')) or '')}".rstrip()
    msg = (
        f"batch {batch.id} failed: the service refused its input file. Nothing was executed or billed. "
        f"{' '.join(reasons[:3]) or 'It gave no reason.'}{more}"
    )
    return InputFileRejectedError(msg, batch.errors)


def _download(client: BatchClient, file_id: str, handle: IO[bytes]) -> None:
    """Write a file's bytes to ``handle``. Restart from the beginning if the connection breaks."""
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
    seconds = error.retry_after_seconds if isinstance(error, APICallError) else None
    return min(seconds or _PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
