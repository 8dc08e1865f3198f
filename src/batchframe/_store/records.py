"""The records of a run on disk: ``run.json``, its parts, their submissions, and smaller notes."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003  (msgspec reads the annotations at run time)
from typing import Any, Literal

import msgspec

from batchframe._core.lenient import moment
from batchframe._core.remote import Account  # noqa: TC001

SCHEMA_VERSION = 1

Stage = Literal["written", "uploading", "uploaded", "submitting", "submitted", "ended", "downloaded"]


class Identity(msgspec.Struct, frozen=True):
    """The identity of a run: the multiset of its request bodies, and where they are sent.

    ``digest`` is the sum modulo 2^128 of the first 128 bits of each body's BLAKE3 digest, in hex. It does not depend
    on the order of the rows. A body that occurs twice counts twice, or once with ``dedupe``. Requests answered by
    another run count like those that are sent, so ``reuse`` does not change the identity.
    """

    digest: str
    requests: int
    endpoint: str
    account: Account
    name: str | None = None


class RunRecord(msgspec.Struct):
    """``run.json``: written once, when the run is created."""

    run_id: str
    identity: Identity
    rows: int
    blocks: list[int]
    options: dict[str, Any]
    created_at: datetime
    batchframe_version: str
    schema_version: int = SCHEMA_VERSION


class RejectedRequest(msgspec.Struct):
    """A request line that the service rejected when it validated an input file."""

    custom_id: str
    line: int
    code: str
    message: str


class PartRecord(msgspec.Struct):
    """``part.json``: the requests of one input file.

    A first attempt lists ranges of rows, ``[block, start, stop]``. A retry or a split may hold any rows and lists
    ``custom_ids``. Where both are set, the part holds the ids, and the ranges say where their rows are. ``digest`` is
    the order-free sum over the requests, as in `Identity`; ``tokens`` is an estimate.

    A split part is replaced by the parts that name it in ``split_from``, once all ``pieces`` of them exist.
    ``rejected`` lists its lines that are not resent. ``generation`` counts the calls of `Run.retry`, and ``attempt``
    the automatic retries since. ``adopted`` is true for a part made from a batch found in the account, whose ids
    differ; ``renamed.parquet`` beside it maps them to ours.

    ``reader`` is the version of the reader whose answers decided what this attempt resends; 0 for batchframe 0.1.0.

    A part with ``reused_from`` has no input file: its answers are copied from one batch of that run. Its attempt is 0,
    it counts as downloaded from the start, and its requests are some of the rows within its ranges.
    """

    number: int
    requests: int
    bytes: int
    tokens: int
    digest: str = ""
    attempt: int = 1
    ranges: list[tuple[int, int, int]] | None = None
    custom_ids: list[str] | None = None
    split_from: int | None = None
    pieces: int = 1
    generation: int = 0
    rejected: list[RejectedRequest] = []
    reused_from: str | None = None
    adopted: bool = False
    reader: int = 0


class RetryRecord(msgspec.Struct):
    """``retries/N.json``: one call of `Run.retry`; ``N.parquet`` beside it holds the requests and their changes.

    ``key`` is a digest of the call, so that an identical call does not retry the same requests twice.
    """

    generation: int
    key: str
    where: str
    codes: list[str] | None
    changes: dict[str, Any]
    requests: int
    at: datetime


class StopRecord(msgspec.Struct):
    """``stopped.json``: unsubmitted parts of this generation and of earlier ones are never submitted."""

    generation: int
    reason: Literal["cancelled", "stop_loss", "pilot"]
    message: str
    at: datetime


class UnreadReply(msgspec.Struct, frozen=True):
    """How many consecutive replies to one API call were JSON of the wrong shape, and since when."""

    first_at: datetime
    last_at: datetime
    times: int = 1


class TroubleRecord(msgspec.Struct):
    """``trouble.json``: the last error of the run; removed after a pass without errors.

    ``at`` is when the error first occurred. ``is_transient`` says whether waiting may help. ``unread`` counts
    unreadable replies by API call.
    """

    message: str
    at: datetime
    is_transient: bool
    unread: dict[str, UnreadReply] = {}


class SubmissionRecord(msgspec.Struct):
    """``submissions/N.json``: one upload and one create of a part's input file.

    ``stage`` is our own progress and only moves forward. A submission that ended without a ``batch_id`` never became
    a batch; ``reason`` says why. ``said`` keeps the service's messages verbatim. ``refused`` is true while the last
    create is known to have failed; a ``submitting`` record without it is in doubt. ``adopted_at`` is set where the
    batch was not created from here, but found in the account.
    """

    number: int
    stage: Stage = "written"
    input_file_id: str | None = None
    input_file_created_at: datetime | None = None
    file_status: str | None = None
    batch_id: str | None = None
    status: str | None = None
    batch: dict[str, Any] | None = None
    reason: str | None = None
    said: list[dict[str, Any]] = []
    times: dict[str, datetime] = {}
    refused: bool = False
    doubt_at: datetime | None = None
    fetched_again_at: datetime | None = None
    input_deleted_at: datetime | None = None
    cancel_asked_at: datetime | None = None
    output_expired_at: datetime | None = None
    files_deleted_at: datetime | None = None
    adopted_at: datetime | None = None

    @property
    def created_at(self) -> datetime | None:
        """When the service created the batch, or else its input file."""
        return moment((self.batch or {}).get("created_at")) or self.input_file_created_at

    @property
    def is_in_flight(self) -> bool:
        """Whether the service has, or may have, a batch of it that has not ended."""
        return self.stage in {"submitting", "submitted"} and not self.refused

    @property
    def is_alive(self) -> bool:
        """Whether it has, or may get, answers: its batch is running, or ended with result files."""
        return self.is_in_flight or self.has_files

    @property
    def has_files(self) -> bool:
        """Whether its batch ended in a status that has result files."""
        return self.batch_id is not None and self.status in {"completed", "expired", "cancelled"}
