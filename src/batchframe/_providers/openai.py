"""The batch client over the openai SDK; errors of the SDK and of its transport are mapped here and nowhere else."""

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
from batchframe._providers.limits import tells_of_no_room

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from batchframe._providers.client import InputFile
    from batchframe._providers.profiles import Provider


_PAGE = 100  # the most that one page of the list may hold: OpenAI's API specification
_SHOWN = 200
# httpx2 is the transport of today's SDK, httpx that of older ones.
_TRANSPORTS = tuple(
    importlib.import_module(name) for name in ("httpx2", "httpx") if importlib.util.find_spec(name) is not None
)
_TRANSPORT_ERRORS = tuple(
    error for module in _TRANSPORTS for error in (module.HTTPError, module.StreamError, module.InvalidURL)
)
_NEVER_SENT = tuple(
    error for module in _TRANSPORTS for error in (module.ConnectError, module.ConnectTimeout, module.PoolTimeout)
)
_OUR_MISTAKE = tuple(
    error
    for module in _TRANSPORTS
    for error in (module.UnsupportedProtocol, module.InvalidURL, module.LocalProtocolError, module.TooManyRedirects)
)


def client_from_environment() -> openai.OpenAI:
    """Return the client, of OpenAI or Azure, that the SDK's own environment variables describe.

    Raises
    ------
    OptionError
        None is described, or two.
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
    """`BatchClient` over an `openai.OpenAI` or `AzureOpenAI`; the user's client is copied, never changed.

    Parameters
    ----------
    client
        The user's client; None for the one of the environment.
    provider
        The service's profile.

    Raises
    ------
    OptionError
        The client is async, or of another library; or the environment describes none, or two.
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
        """How long the service wants to be left alone between two looks at a batch."""
        return self.provider.min_poll_seconds

    @property
    def is_azure(self) -> bool:
        """Whether the service is Azure OpenAI."""
        return self.provider.name == "azure"

    def _address(self, base_url: str) -> str:
        return _azure.resource(base_url) if self.is_azure else _without_credentials(base_url)

    def close(self) -> None:
        """Close the connections of a client that was made here; the user's own is left open."""
        if self._is_ours:
            self._client.close()

    def upload(self, handle: IO[bytes], filename: str, expires_after: int | None) -> RemoteFile:
        """Upload an input file from an open handle, which the SDK streams."""
        extra: dict[str, Any] = {}
        if expires_after is None:
            expires_after = self.provider.expires_files
        if expires_after is not None:
            extra["expires_after"] = {"anchor": "created_at", "seconds": expires_after}
        with self._mapped("upload"):
            reply = self._once.files.with_raw_response.create(file=(filename, handle), purpose="batch", **extra)
            return _remote_file(_object(reply))

    def retrieve_file(self, file_id: str) -> RemoteFile:
        """Return what the service knows of a file."""
        with self._mapped("retrieve_file"):
            return _remote_file(_object(self._client.files.with_raw_response.retrieve(file_id)))

    def list_files(self) -> Iterator[RemoteFile]:
        """Yield the account's input files, the newest first, a page at a time."""
        more: dict[str, Any] = {}
        while True:
            with self._mapped("list_files"):
                page = _object(self._client.files.with_raw_response.list(purpose="batch", **more))
                data = [_remote_file(found) for found in _items(page)]
            yield from data
            if not (page.get("has_more") and data):
                return
            more = {"after": data[-1].id}

    def delete_file(self, file_id: str) -> None:
        """Delete a file; one that is gone already is deleted."""
        try:
            with self._mapped("delete_file"):
                reply = self._client.files.with_raw_response.delete(file_id)
                if reply.http_response.content.strip():
                    _object(reply)  # a proxy's page deleted nothing
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
        """Create a batch, without any retry: this is the call that spends money.

        A service that knows a repeated create by its key is asked as often as the user's client is set to. Each upload
        serves one create, so that the id of its file is the key.
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
        """Return where a batch stands."""
        with self._mapped("retrieve_batch"):
            return _remote_batch(_object(self._client.batches.with_raw_response.retrieve(batch_id)))

    def list(self) -> Iterator[RemoteBatch]:
        """Yield the account's batches, the newest first, a page at a time."""
        return self._listed({})

    def list_matching(self, since: dt.datetime | None, status: str | None) -> Iterator[RemoteBatch]:
        """Yield the account's batches, the newest first; where the service can filter, only those that match."""
        terms = [] if since is None else [f"created_at gt {math.floor(since.timestamp()) - 1}"]
        if status is not None and status.isalpha():  # 'Completed' is documented, the spelling of in_progress is not
            terms.append(f"status eq '{status.capitalize()}'")
        matching: Iterator[RemoteBatch] = iter(())
        if terms and self.provider.filters_batches:
            matching = self._listed({"$filter": " and ".join(terms), "$orderby": "created_at desc"})
        try:
            first = next(matching, None)
        except (InvalidCallError, NotVisibleError, UnreadableReplyError):  # an API version that cannot
            first = None
        if first is None:  # nothing, or a filter that is understood differently: the whole list decides
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
                data = [_remote_batch(found) for found in _items(page)]
            yield from data
            cursor = text(mapping(page.get("paging")).get("next_cursor"))  # Groq
            if cursor:
                more = {"cursor": cursor}
            elif page.get("has_more") and data:
                more = {"after": data[-1].id}
            else:
                return

    def cancel(self, batch_id: str) -> RemoteBatch:
        """Ask for a batch to be cancelled."""
        with self._mapped("cancel_batch"):
            return _remote_batch(_object(self._once.batches.with_raw_response.cancel(batch_id)))

    def download(self, file_id: str, handle: IO[bytes]) -> None:
        """Write a file's bytes to ``handle`` as they come; an error in their middle is the transport's."""
        with self._mapped("download"), self._client.files.with_streaming_response.content(file_id) as reply:
            # Kept as it came, whatever it is; but a proxy's page is not the file, which can still be fetched.
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
    """Return our error for one of the SDK's or of its transport's.

    Parameters
    ----------
    error
        The foreign error.
    call
        The call in which it came.
    secrets
        Texts to keep out of the message.
    is_azure
        Whether to end a message with what helps on Azure.
    """
    text = _without(secrets, str(error))
    if isinstance(error, openai.APIStatusError):
        return _map_status(error, call, secrets, is_azure=is_azure)
    if isinstance(error, (openai.APIConnectionError, *_TRANSPORT_ERRORS)):
        cause = error.__cause__ if isinstance(error, openai.APIConnectionError) and error.__cause__ else error
        told = f"{text} ({type(cause).__name__}: {cause})" if cause is not error else text or type(error).__name__
        told = _without(secrets, told)
        if isinstance(cause, _OUR_MISTAKE):
            msg = f"{call}: the call could not be made: {told}. Check the base URL"
            return InvalidCallError(msg, call=call, was_sent=False)
        if isinstance(cause, _NEVER_SENT):
            msg = f"{call}: the service cannot be reached: {told}. Check the base URL and the network"
            return ConnectionFailedError(msg, call=call, was_sent=False)
        return ConnectionFailedError(f"{call}: the connection broke: {told}", call=call)
    if isinstance(error, (_NoReplyError, openai.APIResponseValidationError)):
        is_ours = isinstance(error, _NoReplyError)
        told = f"{call}: the service answered with something that {'is no' if is_ours else 'cannot be read:'} {text}"
        step = "Check the base URL: a proxy may have answered, or a service that does not speak this API"
        is_json = getattr(error, "is_json", True)
        return UnreadableReplyError(f"{told.rstrip('.')}. {step}", call=call, status_code=200, is_json=is_json)
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
    403: ". The key lacks a permission for it: files and batches are both needed",
    413: ". Lower limits=bf.Limits(max_bytes=…)",
}


def _map_status(error: openai.APIStatusError, call: str, secrets: Iterable[str], *, is_azure: bool) -> APICallError:
    status = error.status_code
    body = _azure.refusal(error.body)
    said, code = str(body.get("message") or error.message), body.get("code") or body.get("type")
    kind = _BY_STATUS.get(status) or (ServiceError if status >= 500 else InvalidCallError)  # noqa: PLR2004
    if kind is InvalidCallError and tells_of_no_room(f"{code} {said}"):
        kind = NoRoomError
    elif kind is InvalidCallError and _azure.is_not_processed(said):
        kind = FileNotReadyError
    step = (_azure.next_step(str(code), said) if is_azure else "") or _NEXT_STEP.get(status, "")
    return kind(
        _without(
            secrets, f"{call}: the service answered {status}{f' {code}' if code else ''}: {said.rstrip('.')}{step}"
        ),
        call=call,
        status_code=status,
        code=str(code) if code else None,
        request_id=error.request_id,
        retry_after_seconds=_retry_after(error.response.headers),
    )


def _retry_after(headers: Any) -> float | None:
    """Return how many seconds the service asks to wait; what cannot be read counts as nothing."""
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
    """A 2xx whose body is not what the call returns: what was expected, and what came."""

    def __init__(self, message: str, *, is_json: bool) -> None:
        super().__init__(message)
        self.is_json = is_json


def _no_reply(content: bytes, expected: str, response: Any = None) -> _NoReplyError:
    is_json = False
    with suppress(msgspec.DecodeError):
        read_json(content)
        is_json = True
    beginning = " ".join(content[:_SHOWN].decode("utf-8", "replace").split())
    came = f"{beginning}…" if len(content) > _SHOWN else beginning or "an empty body"
    kind = "" if response is None else f"{response.status_code} {response.headers.get('content-type', '')}".strip()
    return _NoReplyError(f"{expected}: {kind}{': ' if kind else ''}{came}", is_json=is_json)


def _object(reply: Any) -> dict[str, Any]:
    """Return a reply's JSON object as it came: the SDK's models drop what they do not know."""
    content = reply.http_response.content
    with suppress(msgspec.DecodeError):
        found = read_json(content)  # a reply may hold half of a surrogate pair as well as a result line
        if isinstance(found, dict):
            return found
    raise _no_reply(content, "JSON object", reply.http_response)


def _items(page: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what a page of a list holds; single items without an id are left out.

    An object that is no list at all must not pass for an empty one: what it does not show would be paid for again.
    """
    listed = page.get("data") or page.get("value") or []
    items = listed if isinstance(listed, list) else []
    found = [item for item in items if isinstance(item, dict) and text(item.get("id"))]
    if not {"data", "value"} & page.keys() or (listed and not found):
        raise _no_reply(msgspec.json.encode(page), "JSON object with a list of objects with ids")
    return found


def _remote_file(found: dict[str, Any]) -> RemoteFile:
    status, size = found.get("status"), found.get("bytes")
    return RemoteFile(
        id=_id(found),
        bytes=size if isinstance(size, int) else None,
        created_at=lenient.moment(found.get("created_at")),
        status=status.casefold() if isinstance(status, str) else None,
        name=lenient.text(found.get("filename")),
    )


def _remote_batch(found: dict[str, Any]) -> RemoteBatch:
    counts = lenient.request_counts(found)
    return RemoteBatch(
        id=_id(found),
        status=_status(found.get("status")),
        input_file_id=lenient.text(found.get("input_file_id")),
        output_file_id=lenient.text(found.get("output_file_id")),
        error_file_id=lenient.text(found.get("error_file_id")),
        created_at=lenient.moment(found.get("created_at")),
        completed_requests=lenient.integer(counts.get("completed")) or 0,
        failed_requests=lenient.integer(counts.get("failed")) or 0,
        errors=lenient.batch_errors(found.get("errors")),
        raw=found,
    )


# Other spellings that services and their documentation use; "progress" is Novita's.
_ALIASES = {
    "canceled": "cancelled",
    "canceling": "cancelling",
    "complete": "completed",
    "progress": "in_progress",
    "succeeded": "completed",
}


def _status(status: Any) -> str:
    """Return a status in lower case and the usual spelling; what is not known counts as still running."""
    word = status.strip().casefold() if isinstance(status, str) else "unknown"
    return _ALIASES.get(word, word)


def _id(found: dict[str, Any]) -> str:
    if not isinstance(found.get("id"), str) or not found["id"]:
        raise _no_reply(msgspec.json.encode(found), "JSON object with an id")
    return str(found["id"])


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
