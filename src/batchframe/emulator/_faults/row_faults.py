"""Faults of rows and of result files. ``row_effects`` carries them out."""

from __future__ import annotations

import hashlib
import random
import threading
from collections import Counter
from typing import Literal

import msgspec

RowKind = Literal[
    "status",
    "rate_limited",
    "server_error",
    "content_filter",
    "refusal",
    "length",
    "separators",
    "missing",
    "malformed",
    "duplicate",
    "unknown_id",
    "no_body",
    "body_as_text",
    "in_output_file",
    "in_error_file",
    "truncated_last_line",
    "crlf",
    "blank_lines",
    "no_final_newline",
    "rewritten",
]
FILE_KINDS = frozenset({"truncated_last_line", "crlf", "blank_lines", "no_final_newline"})
_DEFAULT_STATUS = {"status": 500, "rate_limited": 429, "server_error": 500}


class RowFault(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One fault of rows.

    A row is hit if all given selectors match it. Rows that are not executed: ``status`` (any, including 0),
    ``rate_limited``, ``server_error``. Altered answers: ``content_filter``, ``refusal``, ``length``, ``separators``
    (U+2028, U+2029, U+0085 unescaped). Altered lines: ``missing``, ``malformed`` (cut after the fraction `at`),
    ``duplicate``, ``unknown_id`` (one extra line), ``rewritten`` (`old` replaced by `new` throughout the JSON of the
    line), ``no_body``, ``body_as_text``, ``in_output_file`` (a failed line, counted as completed), ``in_error_file``
    (an answer). Whole files, without selectors: ``crlf``, ``blank_lines``, ``no_final_newline``,
    ``truncated_last_line``.
    """

    kind: RowKind
    custom_ids: tuple[str, ...] | None = None
    containing: str | None = None
    """A text that the request line contains."""
    share: float | None = None
    """The fraction of rows to hit, chosen by their bodies, so that a row sent again is chosen again."""
    every: int | None = None
    """Every n-th request of a file."""
    attempts: int | None = 1
    """How many executions of a row are hit (for whole files: how many batches); None: all.

    Rows are counted by custom_id if `custom_ids` are given, else by body.
    """
    status: int | None = None
    code: str | None = None
    message: str | None = None
    type: str | None = None
    body: Literal["null", "empty", "absent", "error"] | None = None
    """How an absent body is written, by ``no_body``, or by a ``status`` without the usual error."""
    at: float = 0.5
    copy: Literal["same", "error"] = "same"
    """The second line of a ``duplicate``: the same line, or a failure in the error file."""
    old: str = ""
    new: str = ""
    """``rewritten`` replaces `old` by `new`, to write the bytes that a faulty service would."""

    def __post_init__(self) -> None:
        """Refuse values that make no sense."""
        selectors = (self.custom_ids, self.containing, self.share, self.every)
        if self.kind in FILE_KINDS and any(selector is not None for selector in selectors):
            raise ValueError(f"'{self.kind}' hits whole files: it takes no custom_ids, containing, share or every")
        if self.share is not None and not 0 < self.share <= 1:
            raise ValueError(f"'share' is a fraction of the rows: expected 0 < share <= 1, got {self.share}")
        if self.every is not None and self.every < 1:
            raise ValueError(f"'every' counts rows: expected at least 1, got {self.every}")
        if self.kind == "rewritten" and not self.old:
            raise ValueError("'rewritten' needs 'old', the text of a result line that 'new' replaces")
        if not 0 <= self.at < 1:
            raise ValueError(f"'at' is the fraction of a line that is written: expected 0 <= at < 1, got {self.at}")
        if self.status is not None and self.status != 0 and not 400 <= self.status <= 599:  # noqa: PLR2004
            raise ValueError(f"expected a status of 0 or from 400 to 599, got {self.status}")

    @property
    def shown_status(self) -> int:
        """The status of a line that fails by this fault."""
        return _DEFAULT_STATUS.get(self.kind, 500) if self.status is None else self.status


class RowFaults:
    """The faults of rows, and how often each has hit. Used from worker threads."""

    def __init__(self, seed: int | None) -> None:
        self.waiting: list[RowFault] = []
        self.reseed(seed)
        self._hits: Counter[tuple[int, str | bytes]] = Counter()
        self._lock = threading.Lock()

    def reseed(self, seed: int | None) -> None:
        """Set the seed that decides which rows a share hits."""
        self._salt = random.Random(seed).getrandbits(64)  # noqa: S311 - a choice of rows, not a secret

    def add(self, fault: RowFault) -> None:
        """Add a fault at the end; several may hit one row."""
        self.waiting.append(fault)

    def clear(self) -> None:
        """Drop all faults, and the counts of their hits."""
        with self._lock:
            self.waiting.clear()
            self._hits.clear()

    def of_row(self, custom_id: str, digest: bytes, position: int, line: bytes) -> list[RowFault]:
        """Take the faults that hit one execution of a row."""
        return [
            fault
            for number, fault in enumerate(list(self.waiting))
            if fault.kind not in FILE_KINDS
            and (fault.custom_ids is None or custom_id in fault.custom_ids)
            and (fault.containing is None or fault.containing.encode() in line)
            and (fault.every is None or position % fault.every == 0)
            and (fault.share is None or self._draw(number, digest) < fault.share)
            and self._take(number, fault, digest if fault.custom_ids is None else custom_id)
        ]

    def of_files(self) -> list[RowFault]:
        """Take the faults that hit the files of one batch."""
        return [
            fault
            for number, fault in enumerate(list(self.waiting))
            if fault.kind in FILE_KINDS and self._take(number, fault, "")
        ]

    def _draw(self, number: int, digest: bytes) -> float:
        salt = self._salt.to_bytes(8, "big") + number.to_bytes(8, "big")
        drawn = hashlib.blake2b(digest, digest_size=6, salt=salt).digest()
        return int.from_bytes(drawn, "big") / (1 << 48)

    def _take(self, number: int, fault: RowFault, key: str | bytes) -> bool:
        if fault.attempts is None:
            return True
        with self._lock:
            self._hits[number, key] += 1
            return self._hits[number, key] <= fault.attempts
