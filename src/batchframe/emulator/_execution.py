"""Execution of a validated input file: each request is answered or refused, and the ledger told."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from batchframe.emulator._answers import respond
from batchframe.emulator._bodies import check_body
from batchframe.emulator._completions import Response, ResultLine
from batchframe.emulator._errors import ApiError
from batchframe.emulator._ledger import Ledger, canonical, record
from batchframe.emulator._results import ResultFile

if TYPE_CHECKING:
    import random
    from pathlib import Path

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Execution:
    """One batch being executed, in slices, by one worker thread at a time."""

    def __init__(self, source: BinaryIO, folder: Path, *, requests: int, ledger: Ledger, order: random.Random) -> None:
        self._source = source
        self._ledger = ledger
        self._random = order
        self._output = ResultFile(folder / "output")
        self._errors = ResultFile(folder / "error")
        self._input_tokens = 0
        self._output_tokens = 0
        self._reasoning_tokens = 0
        self.requests = requests
        self.completed = 0
        self.failed = 0

    @property
    def done(self) -> int:
        """How many requests were executed."""
        return self.completed + self.failed

    def run(self, requests: int, seconds: float) -> None:
        """Execute the next `requests`, or as many of them as take `seconds`."""
        now = int(time.time())
        until = time.monotonic() + seconds
        completed, failed, records = 0, 0, []
        for _ in range(requests):
            line = self._next()
            if line is None:
                break
            succeeded, packed = self._execute(line, now)
            records.append(packed)
            completed += succeeded
            failed += not succeeded
            if time.monotonic() > until:
                break
        self._ledger.add(b"".join(records), executions=completed + failed, billed=completed)
        self.completed += completed
        self.failed += failed

    def abandon(self, code: str, message: str) -> None:
        """Give every request that was not executed an error line that says why."""
        error = {"code": code, "message": message}
        while (line := self._next()) is not None:
            line_id = f"batch_req_{self._random.getrandbits(128):032x}"
            self._errors.write(_encode(ResultLine(line_id, _decode(line)["custom_id"], None, error)) + b"\n")

    def finish(self, *, shuffle: bool) -> tuple[Path | None, Path | None]:
        """Close all files; return those of the output and the errors, None for one without lines."""
        self._source.close()
        order = self._random if shuffle else None
        return self._output.finish(order), self._errors.finish(order)

    def close(self) -> None:
        """Drop everything."""
        self._source.close()
        self._output.close()
        self._errors.close()

    def usage(self) -> dict[str, Any]:
        """Sum the usage, under the names of the batch object."""
        return usage_object(self._input_tokens, self._output_tokens, self._reasoning_tokens)

    def _next(self) -> bytes | None:
        while line := self._source.readline():
            if not line.isspace():
                return line
        return None

    def _execute(self, line: bytes, now: int) -> tuple[bool, bytes]:
        request = _decode(line)
        custom_id, body = request["custom_id"], request["body"]
        digest = hashlib.sha256(canonical(body)).digest()
        # One draw for both ids of the line.
        ids = f"{self._random.getrandbits(256):064x}"
        try:
            prompt_tokens = check_body(body)
        except ApiError as refusal:
            response = Response(refusal.status, ids[:32], refusal.body())
            self._errors.write(_encode(ResultLine(f"batch_req_{ids[32:]}", custom_id, response, None)) + b"\n")
            return False, record(digest, custom_id, billed=False)
        answer = respond(body, digest, prompt_tokens, now)
        response = Response(200, ids[:32], answer)
        self._output.write(_encode(ResultLine(f"batch_req_{ids[32:]}", custom_id, response, None)) + b"\n")
        self._input_tokens += prompt_tokens
        self._output_tokens += answer.usage.completion_tokens
        self._reasoning_tokens += answer.usage.completion_tokens_details.reasoning_tokens
        return True, record(digest, custom_id, billed=True)


def usage_object(input_tokens: int = 0, output_tokens: int = 0, reasoning: int = 0) -> dict[str, Any]:
    """Make the usage of a batch object, whose names are those of the Responses endpoint."""
    return {
        "input_tokens": input_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": input_tokens + output_tokens,
    }
