"""Execution of a validated input file by an upstream: its lines are posted, a few at a time."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any

import msgspec

from batchframe.emulator._completions import Response, ResultLine
from batchframe.emulator._execution import Execution
from batchframe.emulator._ledger import canonical, record
from batchframe.emulator._upstream import StoppedError

if TYPE_CHECKING:
    from batchframe.emulator._upstream import Reply, Upstream

_encode = msgspec.json.Encoder().encode


class _Line(msgspec.Struct):
    custom_id: str
    url: str
    # Posted as the bytes it came as: no number or escape is written anew.
    body: msgspec.Raw


_decode = msgspec.json.Decoder(_Line).decode


class Forwarding(Execution):
    """One batch being answered by an upstream, on the event loop's thread.

    In memory are the lines that are being answered, no more: each worker reads the next line when it is done with one.
    """

    def __init__(self, upstream: Upstream, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # The upstream's lines are passed on as they are; Azure's have no id.
        self._encode = _encode_azure if self._is_azure else _encode
        self._upstream = upstream
        self._stopped = asyncio.Event()
        self._given_up: list[bytes] = []

    def stop(self) -> None:
        """Begin no request any more; what the upstream has at the moment is waited for, and kept."""
        self._stopped.set()

    async def forward(self) -> None:
        """Have every line answered."""
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
                self._given_up.append(raw)
                return
            self._take(line, reply)

    def _next(self) -> bytes | None:
        """Return what has not been answered, when the batch was stopped."""
        return self._given_up.pop() if self._given_up else super()._next()

    def _take(self, line: _Line, reply: Reply) -> None:
        ids = f"{self._random.getrandbits(256):064x}"
        if not reply.is_transient:
            # Before the result: when the process dies between the two the line is executed again, and counted again.
            digest = hashlib.sha256(canonical(msgspec.json.decode(line.body))).digest()
            packed = record(digest, line.custom_id, billed=reply.is_answer)
            self._ledger.add(packed, executions=1, billed=int(reply.is_answer))
        if reply.status:
            response = Response(reply.status, reply.request_id or ids[:32], reply.body)
            result = ResultLine(f"batch_req_{ids[32:]}", line.custom_id, response, None)
        else:
            error = {"code": "upstream_unreachable", "message": f"The upstream did not reply: {reply.body}"}
            result = ResultLine(f"batch_req_{ids[32:]}", line.custom_id, None, error)
        is_failed = not (reply.is_answer or self._dialect.fails_into_output)
        self._write(result, in_output=not is_failed)
        self.flush()
        if reply.is_answer:
            self._count(reply.body)
        self.done += 1
        self.completed += not is_failed
        self.failed += is_failed


def _encode_azure(line: ResultLine) -> bytes:
    return msgspec.json.encode({"custom_id": line.custom_id, "response": line.response, "error": line.error})
