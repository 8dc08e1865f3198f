"""Execution of a validated input file: each request is answered or refused, and the ledger told."""

from __future__ import annotations

import hashlib
import time
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import msgspec

from batchframe.emulator import _azure_lines as azure_lines
from batchframe.emulator import _errors as errors
from batchframe.emulator import _resuming as resuming
from batchframe.emulator import _row_effects as effects
from batchframe.emulator._completions import Response, ResultLine
from batchframe.emulator._endpoints import ENDPOINTS
from batchframe.emulator._errors import ApiError
from batchframe.emulator._ledger import Ledger, canonical, record
from batchframe.emulator._results import ResultFile

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable
    from pathlib import Path

    from batchframe.emulator._dialects import Dialect
    from batchframe.emulator._endpoints import Endpoint
    from batchframe.emulator._model_table import Model
    from batchframe.emulator._row_faults import RowFault, RowFaults

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class _Row(NamedTuple):
    """What one request came to: its record for the ledger (None: not executed), and how it is counted."""

    packed: bytes | None
    is_failed: bool
    is_billed: bool


class Execution:
    """One batch being executed, in slices, by one worker thread at a time."""

    def __init__(
        self,
        source: BinaryIO,
        folder: Path,
        *,
        requests: int,
        ledger: Ledger,
        order: random.Random,
        faults: RowFaults,
        model: Model,
        dialect: Dialect,
        bad_lines: Iterable[int | None] = (),
    ) -> None:
        self._model = model
        self._dialect = dialect
        # Numbers of lines that are left out; the others have been executed, or will be.
        self._bad_lines = frozenset(bad_lines)
        self._lines_read = 0
        self._is_azure = dialect.is_azure
        self._encode = (
            partial(azure_lines.encode, has_details=not dialect.is_old_object) if dialect.is_azure else _encode
        )
        self._source = source
        self._ledger = ledger
        self._random = order
        self._faults = faults
        self._output = ResultFile(folder / "output")
        self._errors = ResultFile(folder / "error")
        self._input_tokens = 0
        self._output_tokens = 0
        self._reasoning_tokens = 0
        self.requests = requests
        self.done = 0
        self.completed = 0
        self.failed = 0
        self._known: set[str] = set()
        self._take_up()

    def run(self, requests: int, seconds: float) -> None:
        """Execute the next `requests`, or as many of them as take `seconds`."""
        now = int(time.time())
        until = time.monotonic() + seconds
        failed, billed, done, records = 0, 0, 0, []
        for _ in range(requests):
            line = self._next()
            if line is None:
                break
            done += 1
            row = self._execute(line, now, self.done + done)
            if row.packed is not None:
                records.append(row.packed)
            failed += row.is_failed
            billed += row.is_billed
            if time.monotonic() > until:
                break
        self._ledger.add(b"".join(records), executions=len(records), billed=billed)
        self.flush()
        self.completed += done - failed
        self.failed += failed
        self.done += done

    def abandon(self, code: str, message: str) -> None:
        """Give every request that was not executed an error line that says why."""
        error = {"code": code, "message": message}
        while (line := self._next()) is not None:
            line_id = f"batch_req_{self._random.getrandbits(128):032x}"
            self._write(ResultLine(line_id, _decode(line)["custom_id"], None, error), in_output=False)

    def finish(self, *, shuffle: bool) -> tuple[Path | None, Path | None]:
        """Close all files; return those of the output and the errors, None for one without lines."""
        self._source.close()
        order = self._random if shuffle else None
        hits = self._faults.of_files()
        output, error = (file.finish(order) for file in (self._output, self._errors))
        return output and effects.dress(output, hits), error and effects.dress(error, hits)

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
            self._lines_read += 1
            if self._lines_read in self._bad_lines:
                continue
            if not line.isspace() and not (self._known and _decode(line)["custom_id"] in self._known):
                return line
        return None

    def flush(self) -> None:
        """Make what was written outlive this process."""
        self._output.flush()
        self._errors.flush()

    def _take_up(self) -> None:
        """Count what an earlier process has written, and do not execute it again."""
        for file, is_output in ((self._output, True), (self._errors, False)):
            for line in resuming.read(file.lines()):
                self._known.add(line.custom_id)
                if is_output:
                    self._count(line.body)
                self.completed += is_output
                self.failed += not (is_output or line.was_abandoned)
        self.done = len(self._known)

    def _count(self, body: Any) -> None:
        used = resuming.tokens_of(body)
        self._input_tokens += used.input
        self._output_tokens += used.output
        self._reasoning_tokens += used.reasoning

    def _path(self, url: str) -> str:
        """Return the endpoint that a line means."""
        return self._dialect.endpoints.get(url, url)

    def _execute(self, line: bytes, now: int, position: int) -> _Row:
        request = _decode(line)
        custom_id, body = request["custom_id"], request["body"]
        endpoint = ENDPOINTS[self._path(request["url"])]
        digest = hashlib.sha256(canonical(body)).digest()
        hits: list[RowFault] = []
        if self._faults.waiting:
            hits = self._faults.of_row(custom_id, digest, position, line)
        refusal = effects.refused(hits, is_azure=self._is_azure) if hits else None
        is_executed = refusal is None or effects.was_executed(refusal[0])
        answer = None
        if refusal is None:
            try:
                answer = self._answer(endpoint, body, digest, now)
            except ApiError as exc:
                refusal = exc.status, exc.body()
            else:
                self._account(endpoint, answer, hits)
        # One draw for both ids of the line.
        ids = f"{self._random.getrandbits(256):064x}"
        status, content = (200, answer) if refusal is None else refusal
        result = ResultLine(f"batch_req_{ids[32:]}", custom_id, Response(status, ids[:32], content), None)
        is_failed = answer is None and not self._dialect.fails_into_output
        if hits:
            for made, in_output in effects.lines(result, hits, in_output=not is_failed, encode=self._encode):
                self._write(made, in_output=in_output)
            is_failed = is_failed and effects.counts_as_failed(status, hits)
        else:
            self._write(result, in_output=not is_failed)
        packed = record(digest, custom_id, billed=answer is not None) if is_executed else None
        return _Row(packed, is_failed, answer is not None)

    def _answer(self, endpoint: Endpoint, body: dict[str, Any], digest: bytes, now: int) -> Any:
        prompt_tokens = endpoint.admit(body, self._model, is_azure=self._is_azure)
        model = self._model
        if self._is_azure and endpoint.operation == "responses":
            # Azure names the deployment there, and the model elsewhere.
            model = model._replace(snapshot=body["model"])
        try:
            return endpoint.respond(body, digest, prompt_tokens, now, model)
        except RecursionError as exc:
            raise errors.endless_schema() from exc

    def _account(self, endpoint: Endpoint, answer: Any, hits: list[RowFault]) -> None:
        if hits:
            endpoint.alter(answer, hits)
        used, written, reasoning = endpoint.spent(answer)
        self._input_tokens += used
        self._output_tokens += written
        self._reasoning_tokens += reasoning

    def _write(self, line: ResultLine | bytes, *, in_output: bool) -> None:
        file = self._output if in_output else self._errors
        file.write((line if isinstance(line, bytes) else self._encode(line)) + b"\n")


def usage_object(input_tokens: int = 0, output_tokens: int = 0, reasoning: int = 0) -> dict[str, Any]:
    """Make the usage of a batch object, whose names are those of the Responses endpoint."""
    return {
        "input_tokens": input_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": input_tokens + output_tokens,
    }
