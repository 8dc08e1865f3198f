"""Execution of a validated input file: each request is answered or refused, and recorded in the ledger."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import msgspec

from batchframe.emulator import _errors as errors
from batchframe.emulator._batches import azure_result_lines, resume
from batchframe.emulator._batches.ledger import Ledger, record
from batchframe.emulator._batches.result_files import ResultFile
from batchframe.emulator._endpoints.registry import ENDPOINTS
from batchframe.emulator._errors import ApiError
from batchframe.emulator._faults import row_effects
from batchframe.emulator._json import canonical_digest
from batchframe.emulator._model.shapes import Response, ResultLine

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable
    from pathlib import Path

    from batchframe.emulator._config.dialects import Dialect
    from batchframe.emulator._endpoints.base import Endpoint
    from batchframe.emulator._faults.row_faults import RowFault, RowFaults
    from batchframe.emulator._model.model_table import Model

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class _Row(NamedTuple):
    """The outcome of one request: its ledger record (None: not executed), and how it counts."""

    packed: bytes | None
    is_failed: bool
    is_billed: bool


class Execution:
    """The execution of one batch, in slices, by one worker thread at a time."""

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
        # The numbers of the lines to skip.
        self._bad_lines = frozenset(bad_lines)
        self._lines_read = 0
        self._is_azure = dialect.is_azure
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
        self._executed_ids: set[str] = set()
        self._resume()

    def run(self, requests: int, seconds: float) -> None:
        """Execute the next `requests`, or as many of them as fit into `seconds`."""
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
        """Write an error line for every request that was not executed."""
        error = {"code": code, "message": message}
        while (line := self._next()) is not None:
            line_id = f"batch_req_{self._random.getrandbits(128):032x}"
            result = ResultLine(line_id, _decode(line)["custom_id"], None, error)
            self._write(self._encode(result, None), in_output=False)

    def finish(self, *, shuffle: bool) -> tuple[Path | None, Path | None]:
        """Close all files; return the output and the error file, None for one without lines."""
        self._source.close()
        order = self._random if shuffle else None
        hits = self._faults.of_files()
        output, error = (file.finish(order) for file in (self._output, self._errors))
        return output and row_effects.rewrite(output, hits), error and row_effects.rewrite(error, hits)

    def close(self) -> None:
        """Close all files without finishing."""
        self._source.close()
        self._output.close()
        self._errors.close()

    def usage(self) -> dict[str, Any]:
        """Return the summed usage, under the names of the batch object."""
        return usage_object(self._input_tokens, self._output_tokens, self._reasoning_tokens)

    def flush(self) -> None:
        """Make the lines written so far outlive this process."""
        self._output.flush()
        self._errors.flush()

    def _next(self) -> bytes | None:
        while line := self._source.readline():
            self._lines_read += 1
            if self._lines_read in self._bad_lines:
                continue
            if not line.isspace() and not (self._executed_ids and _decode(line)["custom_id"] in self._executed_ids):
                return line
        return None

    def _resume(self) -> None:
        """Count the lines that an earlier process wrote; their requests are not executed again."""
        for file, is_output in ((self._output, True), (self._errors, False)):
            for line in resume.read(file.lines()):
                self._executed_ids.add(line.custom_id)
                if is_output:
                    self._add_usage(line.body)
                self.completed += is_output
                self.failed += not (is_output or line.was_abandoned)
        self.done = len(self._executed_ids)

    def _add_usage(self, body: Any) -> None:
        used = resume.tokens_of(body)
        self._input_tokens += used.input
        self._output_tokens += used.output
        self._reasoning_tokens += used.reasoning

    def _path(self, url: str) -> str:
        """Return the endpoint that a line's URL stands for."""
        return self._dialect.endpoints.get(url, url)

    def _execute(self, line: bytes, now: int, position: int) -> _Row:
        request = _decode(line)
        custom_id, body = request["custom_id"], request["body"]
        endpoint = ENDPOINTS[self._path(request["url"])]
        digest = canonical_digest(body)
        hits: list[RowFault] = []
        if self._faults.waiting:
            hits = self._faults.of_row(custom_id, digest, position, line)
        refusal = row_effects.refusal(hits, is_azure=self._is_azure) if hits else None
        is_executed = refusal is None or row_effects.was_executed(refusal[0])
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
            encode = partial(self._encode, endpoint=endpoint)
            for raw, in_output in row_effects.lines(result, hits, in_output=not is_failed, encode=encode):
                self._write(raw, in_output=in_output)
            is_failed = is_failed and row_effects.counts_as_failed(status, hits)
        else:
            self._write(self._encode(result, endpoint), in_output=not is_failed)
        packed = record(digest, custom_id, billed=answer is not None) if is_executed else None
        return _Row(packed, is_failed, answer is not None)

    def _answer(self, endpoint: Endpoint, body: dict[str, Any], digest: bytes, now: int) -> Any:
        prompt_tokens = endpoint.admit(body, self._model, is_azure=self._is_azure)
        model = self._model
        if self._is_azure and endpoint.names_deployment:
            model = model._replace(snapshot=body["model"])
        try:
            return endpoint.respond(body, digest, prompt_tokens, now, model)
        except RecursionError as exc:
            raise errors.endless_schema() from exc

    def _account(self, endpoint: Endpoint, answer: Any, hits: list[RowFault]) -> None:
        if hits:
            endpoint.alter(answer, hits)
        input_tokens, output_tokens, reasoning = endpoint.used_tokens(answer)
        self._input_tokens += input_tokens
        self._output_tokens += output_tokens
        self._reasoning_tokens += reasoning

    def _encode(self, line: ResultLine, endpoint: Endpoint | None) -> bytes:
        if self._is_azure:
            return azure_result_lines.encode(line, endpoint, has_details=not self._dialect.is_old_object)
        return _encode(line)

    def _write(self, raw: bytes, *, in_output: bool) -> None:
        (self._output if in_output else self._errors).write(raw + b"\n")


def usage_object(input_tokens: int = 0, output_tokens: int = 0, reasoning: int = 0) -> dict[str, Any]:
    """Make the usage of a batch object, whose names are those of the Responses endpoint."""
    return {
        "input_tokens": input_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": input_tokens + output_tokens,
    }
