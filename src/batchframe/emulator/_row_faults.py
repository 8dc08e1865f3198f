"""Faults of single rows and of result files: what, which rows, how often. What they do is in ``_row_effects``."""

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

    A row is hit when every selector that is given selects it. Rows that were not executed: ``status`` (any, 0
    included), ``rate_limited``, ``server_error``. Other answers: ``content_filter``, ``refusal``, ``length``,
    ``separators`` (U+2028, U+2029, U+0085 unescaped). Other lines: ``missing``, ``malformed`` (cut after the fraction
    `at`), ``duplicate``, ``unknown_id`` (one line more), ``rewritten`` (`new` in the place of `old`, wherever that is
    in the JSON of the line), ``no_body``, ``body_as_text``, ``in_output_file`` (a failed line, counted as completed),
    ``in_error_file`` (an answer). Whole files, which take no selectors: ``crlf``, ``blank_lines``,
    ``no_final_newline``, ``truncated_last_line``.
    """

    kind: RowKind
    custom_ids: tuple[str, ...] | None = None
    containing: str | None = None
    """A text in the request line."""
    share: float | None = None
    """This fraction of the rows, chosen by their bodies, so that a row sent again is chosen again."""
    every: int | None = None
    """Each n-th request of a file."""
    attempts: int | None = 1
    """How many executions of a row are hit, of a file kind: how many batches; None: all.

    Rows are told apart by custom_id when `custom_ids` are given, else by their bodies.
    """
    status: int | None = None
    code: str | None = None
    message: str | None = None
    type: str | None = None
    body: Literal["null", "empty", "absent", "error"] | None = None
    """How a missing body is written: of ``no_body``, and of a ``status`` whose body is not the usual error."""
    at: float = 0.5
    copy: Literal["same", "error"] = "same"
    """What the second line of a ``duplicate`` is: the same, or a failure in the error file."""
    old: str = ""
    new: str = ""
    """What is ``rewritten``, and into what: the bytes that a service with a fault of its own would write."""

    def __post_init__(self) -> None:
        """Refuse what could not be carried out."""
        selectors = (self.custom_ids, self.containing, self.share, self.every)
        if self.kind in FILE_KINDS and any(selector is not None for selector in selectors):
            raise ValueError(f"'{self.kind}' is about whole files: it takes no custom_ids, containing, share or every")
        if self.share is not None and not 0 < self.share <= 1:
            raise ValueError(f"'share' is a fraction of the rows: expected 0 < share <= 1, got {self.share}")
        if self.every is not None and self.every < 1:
            raise ValueError(f"'every' counts rows: expected at least 1, got {self.every}")
        if self.kind == "rewritten" and not self.old:
            raise ValueError("'rewritten' takes 'old', the text of a result line that 'new' takes the place of")
        if not 0 <= self.at < 1:
            raise ValueError(f"'at' is the fraction of a line that is written: expected 0 <= at < 1, got {self.at}")
        if self.status is not None and self.status != 0 and not 400 <= self.status <= 599:  # noqa: PLR2004
            raise ValueError(f"expected a status of 0 or from 400 to 599, got {self.status}")

    @property
    def shown_status(self) -> int:
        """The status of a line that failed by this fault."""
        return _DEFAULT_STATUS.get(self.kind, 500) if self.status is None else self.status


class RowFaults:
    """The faults of rows, and how often each has hit. Asked from worker threads."""

    def __init__(self, seed: int | None) -> None:
        self.waiting: list[RowFault] = []
        self.reseed(seed)
        self._hits: Counter[tuple[int, str | bytes]] = Counter()
        self._lock = threading.Lock()

    def reseed(self, seed: int | None) -> None:
        """Let the rows of a share be drawn by `seed`."""
        self._salt = random.Random(seed).getrandbits(64)  # noqa: S311 - a choice of rows, not a secret

    def add(self, fault: RowFault) -> None:
        """Put a fault behind the others; a row may be hit by several."""
        self.waiting.append(fault)

    def clear(self) -> None:
        """Forget all of them, and what they have hit."""
        with self._lock:
            self.waiting.clear()
            self._hits.clear()

    def of_row(self, custom_id: str, digest: bytes, position: int, line: bytes) -> list[RowFault]:
        """Return the faults that hit one execution, using them up."""
        return [
            fault
            for number, fault in enumerate(list(self.waiting))
            if fault.kind not in FILE_KINDS
            and (fault.custom_ids is None or custom_id in fault.custom_ids)
            and (fault.containing is None or fault.containing.encode() in line)
            and (fault.every is None or position % fault.every == 0)
            and (fault.share is None or self._drawn(number, digest) < fault.share)
            and self._use(number, fault, digest if fault.custom_ids is None else custom_id)
        ]

    def of_files(self) -> list[RowFault]:
        """Return the faults that hit the files of one batch, using them up."""
        return [
            fault
            for number, fault in enumerate(list(self.waiting))
            if fault.kind in FILE_KINDS and self._use(number, fault, "")
        ]

    def _drawn(self, number: int, digest: bytes) -> float:
        drawn = hashlib.blake2b(digest, digest_size=6, salt=self._salt.to_bytes(8, "big") + number.to_bytes(8, "big"))
        return int.from_bytes(drawn.digest(), "big") / (1 << 48)

    def _use(self, number: int, fault: RowFault, key: str | bytes) -> bool:
        if fault.attempts is None:
            return True
        with self._lock:
            self._hits[number, key] += 1
            return self._hits[number, key] <= fault.attempts
