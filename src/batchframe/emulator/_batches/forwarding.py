"""Execution of a validated input file by an upstream: its requests are posted there, a few at a time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from batchframe.emulator._batches.execution import Execution
from batchframe.emulator._batches.ledger import record
from batchframe.emulator._batches.upstream import StoppedError
from batchframe.emulator._json import canonical_digest
from batchframe.emulator._model.shapes import Response, ResultLine

if TYPE_CHECKING:
    from batchframe.emulator._batches.upstream import Reply, Upstream
    from batchframe.emulator._endpoints.base import Endpoint


class _Line(msgspec.Struct):
    custom_id: str
    url: str
    # Posted byte for byte, so that no number or escape changes its spelling.
    body: msgspec.Raw


_decode = msgspec.json.Decoder(_Line).decode


class Forwarding(Execution):
    """The execution of one batch by an upstream, on the event loop's thread.

    Only the lines under way are in memory: each worker reads its next line when it is done with the last one.
    """

    def __init__(self, upstream: Upstream, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._upstream = upstream
        self._stopped = asyncio.Event()
        self._returned: list[bytes] = []

    def stop(self) -> None:
        """Start no further request; those that the upstream is working on are waited for and kept."""
        self._stopped.set()

    async def forward(self) -> None:
        """Post every request."""
        workers = [asyncio.ensure_future(self._work()) for _ in range(min(self._upstream.concurrency, self.requests))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self) -> None:
        while (raw := super()._next()) is not None:
            line = _decode(raw)
            try:
                reply = await self._upstream.post(self._path(line.url), bytes(line.body), self._stopped)
            except StoppedError:
                self._returned.append(raw)
                return
            self._record(line, reply)

    def _next(self) -> bytes | None:
        """Return a line that a stopped worker gave back, else the next one."""
        return self._returned.pop() if self._returned else super()._next()

    def _record(self, line: _Line, reply: Reply) -> None:
        ids = f"{self._random.getrandbits(256):064x}"
        if not reply.is_transient:
            # Before the result: if the process dies between the two, the line is executed again, and counted again.
            digest = canonical_digest(msgspec.json.decode(line.body))
            packed = record(digest, line.custom_id, billed=reply.is_answer)
            self._ledger.add(packed, executions=1, billed=int(reply.is_answer))
        if reply.status:
            response = Response(reply.status, reply.request_id or ids[:32], reply.body)
            result = ResultLine(f"batch_req_{ids[32:]}", line.custom_id, response, None)
        else:
            error = {"code": "upstream_unreachable", "message": f"The upstream did not reply: {reply.body}"}
            result = ResultLine(f"batch_req_{ids[32:]}", line.custom_id, None, error)
        is_failed = not (reply.is_answer or self._dialect.fails_into_output)
        self._write(self._encode(result, None), in_output=not is_failed)
        self.flush()
        if reply.is_answer:
            self._add_usage(reply.body)
        self.done += 1
        self.completed += not is_failed
        self.failed += is_failed

    def _encode(self, line: ResultLine, endpoint: Endpoint | None) -> bytes:
        """Encode a line with the upstream's body as it is; Azure's lines have no id."""
        if self._is_azure:
            return msgspec.json.encode({"custom_id": line.custom_id, "response": line.response, "error": line.error})
        return super()._encode(line, endpoint)
