"""What a run keeps on disk: ``run.json``, the parts, their submissions, and the notes beside them."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003  (msgspec reads the annotations at run time)
from typing import Any, Literal

import msgspec

from batchframe._core.lenient import moment
from batchframe._core.remote import Account  # noqa: TC001

SCHEMA_VERSION = 1

Stage = Literal["written", "uploading", "uploaded", "submitting", "submitted", "ended", "downloaded"]


class Identity(msgspec.Struct, frozen=True):
    """What makes a run this run: the multiset of its request bodies, and where they are sent.

    ``digest`` is the sum modulo 2^128 of the first 128 bits of each body's BLAKE3 digest, in hex: it does not depend
    on the order of the rows, and a body that occurs twice counts twice, with ``dedupe`` once. Requests that another
    run answers count like those that are sent: without ``reuse`` the run is the same.
    """

    digest: str
    requests: int
    endpoint: str
    account: Account
    name: str | None = None


class RunRecord(msgspec.Struct):
    """``run.json``: written once, when the run is made."""

    run_id: str
    identity: Identity
    rows: int
    blocks: list[int]
    options: dict[str, Any]
    created_at: datetime
    batchframe_version: str
    schema_version: int = SCHEMA_VERSION


class RejectedRequest(msgspec.Struct):
    """A request line that the service refused when it validated an input file."""

    custom_id: str
    line: int
    code: str
    message: str


class PartRecord(msgspec.Struct):
    """``part.json``: which requests one input file holds.

    A first attempt holds ranges of rows, ``[block, start, stop]``; a retry or a split may hold any rows, by the
    ``custom_id`` of their requests. One with both holds these requests, and they lie within these ranges. ``digest``
    is the order-free sum over its requests, as in `Identity`; ``tokens`` is an estimate. A part that was split is
    replaced by those that name it in ``split_from``, as soon as all ``pieces`` of them are there; ``rejected`` are the
    lines of it that are not sent again. ``generation`` counts what was asked for by `Run.retry`, ``attempt`` what went
    again by itself since. ``adopted``: made of a batch that was found in the account, under ids of its own;
    ``renamed.parquet`` beside it says which of them are whose.

    ``reader`` is the version of what read the answers that another attempt was prepared by; 0 for batchframe 0.1.0.

    A part with ``reused_from`` has no input file: its answers are copies of those that one batch of that run gave.
    Its attempt is 0, it is downloaded from the beginning, and its requests are some of those within its ranges.
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
    """``retries/N.json``: what `Run.retry` was asked for; ``N.parquet`` beside it holds the requests and their changes.

    ``key`` is a digest of the call: the same call again asks for no request a second time.
    """

    generation: int
    key: str
    where: str
    codes: list[str] | None
    changes: dict[str, Any]
    requests: int
    at: datetime


class StopRecord(msgspec.Struct):
    """``stopped.json``: parts of this generation and those before it that were not submitted yet never are."""

    generation: int
    reason: Literal["cancelled", "stop_loss", "pilot"]
    message: str
    at: datetime


class UnreadReply(msgspec.Struct, frozen=True):
    """How often one call was answered with JSON of the wrong shape, and nothing else, since when."""

    first_at: datetime
    last_at: datetime
    times: int = 1


class TroubleRecord(msgspec.Struct):
    """``trouble.json``: the last error of the run; there is none once a pass went well.

    ``at`` is when it was first met. ``is_transient``: whether waiting may mend it. ``unread``: replies that cannot be
    read, by call.
    """

    message: str
    at: datetime
    is_transient: bool
    unread: dict[str, UnreadReply] = {}


class SubmissionRecord(msgspec.Struct):
    """``submissions/N.json``: one upload and one create of a part's input file.

    ``stage`` is ours and only moves forward. A submission that ended without a ``batch_id`` never became a batch;
    ``reason`` says why. ``said`` keeps the service's words as they came. ``refused`` is true while the last create is
    known to have come to nothing; a submission that is ``submitting`` without it is in doubt. ``adopted_at`` is set
    where the batch was not made from here, but found in the account.
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
        """When the service made its batch, or else its input file."""
        return moment((self.batch or {}).get("created_at")) or self.input_file_created_at

    @property
    def is_in_flight(self) -> bool:
        """Whether a batch of it is at the service, or may be."""
        return self.stage in {"submitting", "submitted"} and not self.refused

    @property
    def is_alive(self) -> bool:
        """Whether it has answers, or may have: its batch runs, or ended with result files."""
        return self.is_in_flight or self.has_files

    @property
    def has_files(self) -> bool:
        """Whether it ended as a batch whose result files can be fetched."""
        return self.batch_id is not None and self.status in {"completed", "expired", "cancelled"}
