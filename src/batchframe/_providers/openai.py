"""The batch client over the openai SDK. Errors of the SDK and its transport are mapped here and nowhere else."""

from __future__ import annotations

import datetime as dt
import email.utils
import importlib
import math
import os
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import msgspec
import openai

from batchframe._core import lenient
from batchframe._core.exceptions import (
    APICallError,
    AuthenticationError,
    ConnectionFailedError,
    FileNotReadyError,
    InvalidCallError,
    NoRoomError,
    NotVisibleError,
    OptionError,
    RateLimitError,
    ServiceError,
    UnreadableReplyError,
)
from batchframe._core.lenient import mapping, read_json, text
from batchframe._core.remote import Account, RemoteBatch, RemoteFile
from batchframe._providers import azure as _azure
from batchframe._providers.limits import is_queue_full

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from batchframe._providers.client import InputFile
    from batchframe._providers.profiles import Provider


_PAGE = 100  # maximum page size of the list: OpenAI's API specification
_EXCERPT_BYTES = 200
# httpx2 is the transport of the current SDK, httpx of older ones.
_TRANSPORTS = tuple(
    importlib.import_module(name) for name in ("httpx2", "httpx") if importlib.util.find_spec(name) is not None
)
_TRANSPORT_ERRORS = tuple(
    error for module in _TRANSPORTS for error in (module.HTTPError, module.StreamError, module.InvalidURL)
)
_NOT_SENT = tuple(
    error for module in _TRANSPORTS for error in (module.ConnectError, module.ConnectTimeout, module.PoolTimeout)
)
_INVALID_CALL = tuple(
    error
    for module in _TRANSPORTS
    for error in (module.UnsupportedProtocol, module.InvalidURL, module.LocalProtocolError, module.TooManyRedirects)
)


def client_from_environment() -> openai.OpenAI:
    """Return the client, of OpenAI or Azure, for the SDK's environment variables.

    Raises
    ------
    OptionError
        The variables name no service, or two.
    """
    has_openai = bool(os.environ.get("OPENAI_API_KEY"))
    azure = [name for name in ("AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY") if os.environ.get(name)]
    if has_openai and azure:
        msg = (
            f"the environment names two services: OPENAI_API_KEY and {' and '.join(azure)} are set. Unset one, or pass "
            "client=openai.OpenAI() or client=openai.AzureOpenAI()"
        )
        raise OptionError(msg)
    if azure:
        return _azure.client_from_environment()
    if not has_openai:
        msg = "no API key: set OPENAI_API_KEY (and OPENAI_BASE_URL for another service), or pass client=openai.OpenAI()"
        raise OptionError(msg)
    return openai.OpenAI()


class OpenAIClient:
    """`BatchClient` over an `openai.OpenAI` or `AzureOpenAI`. It copies the user's client and never changes it.

    Parameters
    ----------
    client
        The user's client. None makes one from the environment variables.
    provider
        The service's profile.

    Raises
    ------
    OptionError
        The client is async, or from another library; or the environment variables name no service, or two.
    """

    def __init__(self, client: Any, provider: Provider) -> None:
        self._is_ours = client is None
        if client is None:
            client = client_from_environment()
        if isinstance(client, (openai.AsyncOpenAI, openai.AsyncAzureOpenAI)):
            sync = type(client).__name__.removeprefix("Async")
            msg = f"the client is an {type(client).__name__}: pass the sync one, client=openai.{sync}(...)"
            raise OptionError(msg)
        if not isinstance(client, openai.OpenAI):
            msg = f"client must be an openai.OpenAI, got {type(client).__module__}.{type(client).__qualname__}"
            raise OptionError(msg)
        self.provider = provider
        self._client = client
        self._once = client.with_options(max_retries=0)
        self._header = self.provider.idempotency_header
        self.account = Account(
            provider=self.provider.name,
            base_url=self._address(str(client.base_url)),
            organization=client.organization or None,
            project=client.project or None,
        )

    @property
    def min_poll_seconds(self) -> float:
        """The minimum time between two polls of a batch."""
        return self.provider.min_poll_seconds

    @property
    def is_azure(self) -> bool:
        """Whether the service is Azure OpenAI."""
        return self.provider.name == "azure"

    def _address(self, base_url: str) -> str:
        return _azure.resource(base_url) if self.is_azure else _without_credentials(base_url)

    def close(self) -> None:
        """Close the connections of a client that was made here. The user's own client stays open."""
        if self._is_ours:
            self._client.close()

    def upload(self, handle: IO[bytes], filename: str, expires_after: int | None) -> RemoteFile:
        """Upload an input file from an open handle, without reading it into memory."""
        extra: dict[str, Any] = {}
        if expires_after is None:
            expires_after = self.provider.expires_files
        if expires_after is not None:
            extra["expires_after"] = {"anchor": "created_at", "seconds": expires_after}
        with self._mapped("upload"):
            reply = self._once.files.with_raw_response.create(file=(filename, handle), purpose="batch", **extra)
            return _remote_file(_object(reply))

    def retrieve_file(self, file_id: str) -> RemoteFile:
        """Return a file's status at the service."""
        with self._mapped("retrieve_file"):
            return _remote_file(_object(self._client.files.with_raw_response.retrieve(file_id)))

    def list_files(self) -> Iterator[RemoteFile]:
        """Yield the account's input files, the newest first, a page at a time."""
        more: dict[str, Any] = {}
        while True:
            with self._mapped("list_files"):
                page = _object(self._client.files.with_raw_response.list(purpose="batch", **more))
                data = [_remote_file(item) for item in _items(page)]
            yield from data
            if not (page.get("has_more") and data):
                return
            more = {"after": data[-1].id}

    def delete_file(self, file_id: str) -> None:
        """Delete a file. A file that is already gone is no error."""
        try:
            with self._mapped("delete_file"):
                reply = self._client.files.with_raw_response.delete(file_id)
                if reply.http_response.content.strip():
                    _object(reply)  # raise if a proxy replied with a page: then nothing was deleted
        except NotVisibleError:
            pass

    def create(
        self,
        input_file: InputFile,
        endpoint: str,
        completion_window: str,
        metadata: dict[str, str],
        expires_after: int | None,
    ) -> RemoteBatch:
        """Create a batch, without any retry. This call spends money.

        If the service supports idempotency keys, the call is retried as often as the user's client allows. Each upload
        serves one create, so the id of its file is the key.
        """
        more: dict[str, Any] = dict(self.provider.batch_parameters)
        if expires_after is not None:
            more["output_expires_after"] = {"anchor": "created_at", "seconds": expires_after}
        window: Any = completion_window
        path: Any = endpoint
        client = self._once if self._header is None else self._client
        with self._mapped("create_batch"):
            reply = client.batches.with_raw_response.create(
                input_file_id=input_file.id,
                endpoint=path,
                completion_window=window,
                metadata=metadata,
                extra_body=more or None,
                extra_headers=None if self._header is None else {self._header: input_file.id},
            )
            return _remote_batch(_object(reply))

    def retrieve(self, batch_id: str) -> RemoteBatch:
        """Return the current state of a batch."""
        with self._mapped("retrieve_batch"):
            return _remote_batch(_object(self._client.batches.with_raw_response.retrieve(batch_id)))

    def list(self) -> Iterator[RemoteBatch]:
        """Yield the account's batches, the newest first, a page at a time."""
        return self._listed({})

    def list_matching(self, since: dt.datetime | None, status: str | None) -> Iterator[RemoteBatch]:
        """Yield the account's batches, the newest first. If the service can filter, yield only those that match."""
        terms = [] if since is None else [f"created_at gt {math.floor(since.timestamp()) - 1}"]
        if status is not None and status.isalpha():  # 'Completed' is documented, the spelling of in_progress is not
            terms.append(f"status eq '{status.capitalize()}'")
        matching: Iterator[RemoteBatch] = iter(())
        if terms and self.provider.filters_batches:
            matching = self._listed({"$filter": " and ".join(terms), "$orderby": "created_at desc"})
        try:
            first = next(matching, None)
        except (InvalidCallError, NotVisibleError, UnreadableReplyError):  # an API version without filters
            first = None
        if first is None:  # no match, or the service understood the filter differently: read the whole list
            yield from self.list()
        else:
            yield first
            yield from matching

    def _listed(self, query: dict[str, str]) -> Iterator[RemoteBatch]:
        more: dict[str, str] = {}
        while True:
            with self._mapped("list_batches"):
                reply = self._client.batches.with_raw_response.list(limit=_PAGE, extra_query=query | more)
                page = _object(reply)
                data = [_remote_batch(item) for item in _items(page)]
            yield from data
            cursor = text(mapping(page.get("paging")).get("next_cursor"))  # Groq
            if cursor:
                more = {"cursor": cursor}
            elif page.get("has_more") and data:
                more = {"after": data[-1].id}
            else:
                return

    def cancel(self, batch_id: str) -> RemoteBatch:
        """Request that a batch is cancelled."""
        with self._mapped("cancel_batch"):
            return _remote_batch(_object(self._once.batches.with_raw_response.cancel(batch_id)))

    def download(self, file_id: str, handle: IO[bytes]) -> None:
        """Write the unchanged bytes of a file to ``handle``. An error in the middle comes from the transport."""
        with self._mapped("download"), self._client.files.with_streaming_response.content(file_id) as reply:
            # The content is not checked, except for a proxy's page: the file itself can still be downloaded.
            is_page = "html" in reply.headers.get("content-type", "").casefold()
            for chunk in reply.iter_bytes():
                if is_page and chunk.lstrip().startswith(b"<"):
                    raise _no_reply(chunk, "file of JSON lines", reply.http_response)
                handle.write(chunk)

    @contextmanager
    def _mapped(self, call: str) -> Iterator[None]:
        try:
            yield
        except (openai.OpenAIError, *_TRANSPORT_ERRORS, _NoReplyError) as error:
            raise map_error(error, call, _azure.secrets_of(self._client), is_azure=self.is_azure) from error


def map_error(error: Exception, call: str, secrets: Iterable[str] = (), *, is_azure: bool = False) -> APICallError:
    """Return the `APICallError` for an error of the SDK or its transport.

    Parameters
    ----------
    error
        The error of the other library.
    call
        The name of the failed call.
    secrets
        Texts to remove from the message.
    is_azure
        Whether to add a next step for Azure.
    """
    text = _without(secrets, str(error))
    if isinstance(error, openai.APIStatusError):
        return _map_status(error, call, secrets, is_azure=is_azure)
    if isinstance(error, (openai.APIConnectionError, *_TRANSPORT_ERRORS)):
        cause = error.__cause__ if isinstance(error, openai.APIConnectionError) and error.__cause__ else error
        reason = f"{text} ({type(cause).__name__}: {cause})" if cause is not error else text or type(error).__name__
        reason = _without(secrets, reason)
        if isinstance(cause, _INVALID_CALL):
            msg = f"{call}: the call could not be made: {reason}. Check the base URL"
            return InvalidCallError(msg, call=call, was_sent=False)
        if isinstance(cause, _NOT_SENT):
            msg = f"{call}: the service cannot be reached: {reason}. Check the base URL and the network"
            return ConnectionFailedError(msg, call=call, was_sent=False)
        return ConnectionFailedError(f"{call}: the connection broke: {reason}", call=call)
    if isinstance(error, (_NoReplyError, openai.APIResponseValidationError)):
        expected = "is no" if isinstance(error, _NoReplyError) else "cannot be read:"
        message = f"{call}: the service sent a reply that {expected} {text}"
        step = "Check the base URL: the reply may come from a proxy, or from a service without this API"
        is_json = getattr(error, "is_json", True)
        return UnreadableReplyError(f"{message.rstrip('.')}. {step}", call=call, status_code=200, is_json=is_json)
    return APICallError(f"{call}: {type(error).__name__}: {text}", call=call, was_sent=False)


def _without(secrets: Iterable[str], text: str) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


_BY_STATUS: dict[int, type[APICallError]] = {
    401: AuthenticationError,
    403: AuthenticationError,
    404: NotVisibleError,
    408: ServiceError,
    409: ServiceError,
    429: RateLimitError,
}
_NEXT_STEP = {
    401: ". Check the key: OPENAI_API_KEY, or client=openai.OpenAI(api_key=…)",
    403: ". The key lacks a permission: it needs access to files and batches",
    413: ". Lower limits=bf.Limits(max_bytes=…)",
}


def _map_status(error: openai.APIStatusError, call: str, secrets: Iterable[str], *, is_azure: bool) -> APICallError:
    status = error.status_code
    body = _azure.refusal(error.body)
    message, code = str(body.get("message") or error.message), body.get("code") or body.get("type")
    kind = _BY_STATUS.get(status) or (ServiceError if status >= 500 else InvalidCallError)  # noqa: PLR2004
    if kind is InvalidCallError and is_queue_full(f"{code} {message}"):
        kind = NoRoomError
    elif kind is InvalidCallError and _azure.is_not_processed(message):
        kind = FileNotReadyError
    step = (_azure.next_step(str(code), message) if is_azure else "") or _NEXT_STEP.get(status, "")
    return kind(
        _without(
            secrets, f"{call}: the service answered {status}{f' {code}' if code else ''}: {message.rstrip('.')}{step}"
        ),
        call=call,
        status_code=status,
        code=str(code) if code else None,
        request_id=error.request_id,
        retry_after_seconds=_retry_after(error.response.headers),
    )


def _retry_after(headers: Any) -> float | None:
    """Return the wait that the service requests, in seconds; None if there is none or it cannot be read."""
    try:
        if "retry-after-ms" in headers:
            seconds = float(headers["retry-after-ms"]) / 1000
        elif "retry-after" not in headers:
            return None
        elif headers["retry-after"].strip().replace(".", "", 1).isdigit():
            seconds = float(headers["retry-after"])
        else:
            at = email.utils.parsedate_to_datetime(headers["retry-after"])
            seconds = (at - dt.datetime.now(dt.timezone.utc)).total_seconds()
    except (TypeError, ValueError):
        return None
    return seconds if 0 < seconds < 86_400 else None  # noqa: PLR2004


class _NoReplyError(Exception):
    """A 2xx reply with an unexpected body. The message says what was expected, and what came."""

    def __init__(self, message: str, *, is_json: bool) -> None:
        super().__init__(message)
        self.is_json = is_json


def _no_reply(content: bytes, expected: str, response: Any = None) -> _NoReplyError:
    is_json = False
    with suppress(msgspec.DecodeError):
        read_json(content)
        is_json = True
    start = " ".join(content[:_EXCERPT_BYTES].decode("utf-8", "replace").split())
    excerpt = f"{start}…" if len(content) > _EXCERPT_BYTES else start or "an empty body"
    kind = "" if response is None else f"{response.status_code} {response.headers.get('content-type', '')}".strip()
    return _NoReplyError(f"{expected}: {kind}{': ' if kind else ''}{excerpt}", is_json=is_json)


def _object(reply: Any) -> dict[str, Any]:
    """Return the JSON object of a reply: the SDK's models drop unknown members."""
    content = reply.http_response.content
    with suppress(msgspec.DecodeError):
        value = read_json(content)  # like a result line, a reply may hold half of a surrogate pair
        if isinstance(value, dict):
            return value
    raise _no_reply(content, "JSON object", reply.http_response)


def _items(page: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the items of a list page, without items that have no id.

    An object that is no list must not pass for an empty list: batches that it does not show would be paid for again.
    """
    listed = page.get("data") or page.get("value") or []
    items = listed if isinstance(listed, list) else []
    valid = [item for item in items if isinstance(item, dict) and text(item.get("id"))]
    if not {"data", "value"} & page.keys() or (listed and not valid):
        raise _no_reply(msgspec.json.encode(page), "JSON object with a list of objects with ids")
    return valid


def _remote_file(raw: dict[str, Any]) -> RemoteFile:
    status, size = raw.get("status"), raw.get("bytes")
    return RemoteFile(
        id=_id(raw),
        bytes=size if isinstance(size, int) else None,
        created_at=lenient.moment(raw.get("created_at")),
        status=status.casefold() if isinstance(status, str) else None,
        name=lenient.text(raw.get("filename")),
    )


def _remote_batch(raw: dict[str, Any]) -> RemoteBatch:
    counts = lenient.request_counts(raw)
    return RemoteBatch(
        id=_id(raw),
        status=_status(raw.get("status")),
        input_file_id=lenient.text(raw.get("input_file_id")),
        output_file_id=lenient.text(raw.get("output_file_id")),
        error_file_id=lenient.text(raw.get("error_file_id")),
        created_at=lenient.moment(raw.get("created_at")),
        completed_requests=lenient.integer(counts.get("completed")) or 0,
        failed_requests=lenient.integer(counts.get("failed")) or 0,
        errors=lenient.batch_errors(raw.get("errors")),
        raw=raw,
    )


# Other spellings of services and their documentation. "progress" is Novita's.
_ALIASES = {
    "canceled": "cancelled",
    "canceling": "cancelling",
    "complete": "completed",
    "progress": "in_progress",
    "succeeded": "completed",
}


def _status(status: Any) -> str:
    """Return a status in lower case and OpenAI's spelling. An unknown status counts as still running."""
    name = status.strip().casefold() if isinstance(status, str) else "unknown"
    return _ALIASES.get(name, name)


def _id(raw: dict[str, Any]) -> str:
    if not isinstance(raw.get("id"), str) or not raw["id"]:
        raise _no_reply(msgspec.json.encode(raw), "JSON object with an id")
    return str(raw["id"])


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
