"""The client of the upstream, an OpenAI-compatible server: one POST, with retries."""

from __future__ import annotations

import asyncio
import email.utils
import importlib
import importlib.util
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import tenacity

from batchframe.emulator._json import UnreadableError, decode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from batchframe.emulator._config.backing import Backing

# The transport of the openai SDK: httpx2, or httpx for older versions.
_transport: Any = importlib.import_module("httpx2" if importlib.util.find_spec("httpx2") else "httpx")

_ATTEMPTS = 8
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0
# A local model may take long to answer, but not to accept a connection.
_TIMEOUT_SECONDS, _CONNECT_SECONDS = 600.0, 10.0
_REQUEST_TIMEOUT, _TOO_MANY, _SERVER_ERROR = 408, 429, 500
_ANSWERED = range(200, 300)


class Reply(NamedTuple):
    """The outcome of a request. Status 0: there was no reply, and `body` is the reason."""

    status: int
    request_id: str | None
    body: Any
    retry_after: float | None = None

    @property
    def is_answer(self) -> bool:
        """Whether the upstream answered."""
        return self.status in _ANSWERED

    @property
    def is_transient(self) -> bool:
        """Whether a retry may succeed."""
        return self.status in {0, _REQUEST_TIMEOUT, _TOO_MANY} or self.status >= _SERVER_ERROR


class StoppedError(Exception):
    """The batch was stopped before the request was answered."""


class Upstream:
    """The upstream, and the slots that limit its concurrent requests."""

    def __init__(self, backing: Backing) -> None:
        assert backing.upstream is not None
        self.concurrency = backing.concurrency
        self._base_url = backing.upstream.rstrip("/")
        self._slots = asyncio.Semaphore(backing.concurrency)
        headers = {"Content-Type": "application/json"}
        if backing.upstream_key is not None:
            headers["Authorization"] = f"Bearer {backing.upstream_key}"
        self._client = _transport.AsyncClient(
            headers=headers,
            timeout=_transport.Timeout(_TIMEOUT_SECONDS, connect=_CONNECT_SECONDS),
            # The slots are the limit; waiting for a connection would time out and count as a failure.
            limits=_transport.Limits(max_connections=None, max_keepalive_connections=backing.concurrency),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def post(self, endpoint: str, body: bytes, stopped: asyncio.Event) -> Reply:
        """Post a request until it is answered, refused for good, or failed too often; no attempt once `stopped`."""
        # The slot is held during the pauses too, so that an overloaded upstream gets fewer requests.
        async with self._slots:
            retrying = tenacity.AsyncRetrying(
                retry=tenacity.retry_if_result(lambda reply: reply.is_transient),
                stop=tenacity.stop_after_attempt(_ATTEMPTS),
                wait=_pause,
                sleep=_until(stopped),
                retry_error_callback=_last,
            )
            reply: Reply = await retrying(self._post, endpoint, body, stopped)
        return reply

    async def _post(self, endpoint: str, body: bytes, stopped: asyncio.Event) -> Reply:
        if stopped.is_set():
            raise StoppedError
        # The base URL has the version already, with which the endpoint of a line begins (Azure's may lack it).
        url = self._base_url + endpoint.removeprefix("/v1")
        try:
            async with self._client.stream("POST", url, content=body) as response:
                content = await _body(response)
        except _transport.RequestError as exc:
            return Reply(0, None, _described(exc))
        headers = response.headers
        return Reply(response.status_code, headers.get("x-request-id"), content, _seconds(headers.get("retry-after")))


async def _body(response: Any) -> Any:
    """Read a reply as JSON, or as text: the whole text of an answer, the beginning of any other reply.

    A damaged answer still counts as one: a retry would generate it again.
    """
    is_answer = response.status_code in _ANSWERED
    content, problem = bytearray(), "was empty"
    try:
        async for piece in response.aiter_bytes():
            content += piece
    except _transport.RequestError as exc:
        if not is_answer:
            raise
        problem = f"could not be read: {_described(exc)}"
    try:
        return decode(content)
    except UnreadableError:
        text = content.decode(errors="replace")
    if is_answer:
        return text or f"the upstream's reply {problem}"
    # A proxy's page, for instance; wrapped as an error, so that clients find the text.
    error = {"message": text[:1000], "type": "upstream_error", "param": None, "code": "upstream_not_json"}
    return {"error": error}


def _described(exc: Exception) -> str:
    return f"{type(exc).__name__}: {exc}".rstrip(": ")


_backoff = tenacity.wait_random_exponential(multiplier=_FIRST_WAIT, max=_LONGEST_WAIT)
_jitter = tenacity.wait_random(0, _FIRST_WAIT)


def _pause(state: tenacity.RetryCallState) -> float:
    """Wait as Retry-After says, with jitter so that not all return at once; else back off exponentially."""
    reply: Reply | None = state.outcome.result() if state.outcome is not None else None
    if reply is None or reply.retry_after is None:
        return _backoff(state)
    return min(reply.retry_after, _LONGEST_WAIT) + _jitter(state)


def _until(stopped: asyncio.Event) -> Callable[[float], Awaitable[None]]:
    async def sleep(seconds: float) -> None:
        wait = asyncio.ensure_future(stopped.wait())
        await asyncio.wait({wait}, timeout=seconds)
        wait.cancel()

    return sleep


def _last(state: tenacity.RetryCallState) -> Any:
    return state.outcome.result() if state.outcome is not None else None


def _seconds(header: str | None) -> float | None:
    """Parse a Retry-After header: seconds, or a date."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return None
