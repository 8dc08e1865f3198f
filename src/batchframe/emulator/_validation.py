"""Validation of an input file, line by line, before anything of it is executed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import msgspec

from batchframe.emulator import _tokens as tokens
from batchframe.emulator._endpoints import endpoint_of
from batchframe.emulator._model_table import known
from batchframe.emulator._refusals import refusal

if TYPE_CHECKING:
    import threading

    from batchframe.emulator._batches import LineError
    from batchframe.emulator._endpoints import Endpoint
    from batchframe.emulator._settings import Settings

_REQUIRED = ("custom_id", "method", "url", "body")
# Azure reads from the file which of these is meant, whatever the batch says.
_INTERCHANGEABLE = ("/chat/completions", "/responses")
# Over all requests of a batch for embeddings.
_MOST_INPUTS = 50_000
_BOM = b"\xef\xbb\xbf"
_decode = msgspec.json.Decoder().decode


class Validation(NamedTuple):
    """What was found in a file. Without errors it may be executed."""

    requests: int
    model: str | None
    """The model, or the deployment, as the lines name it."""
    errors: list[LineError]
    tokens: int = 0
    """What is enqueued; counted only when there is a limit."""


def model_behind(name: str, settings: Settings) -> str | None:
    """Return the model a line's ``model`` stands for: itself, or that of an Azure deployment; None: unknown."""
    if settings.speaks.is_azure and settings.deployments:
        return settings.deployments.get(name)
    return name if known(name) is not None or name in settings.models else None


def normalised(url: str, settings: Settings) -> str:
    """Return what has to be equal of a url and an endpoint: OpenAI all of it; Azure without ``/v1``."""
    return url.removeprefix("/v1") if settings.speaks.is_azure else url


def validate(
    file: BinaryIO, endpoint: str, settings: Settings, abort: threading.Event, *, is_forwarded: bool = False
) -> Validation:
    """Read `file` to its end, or until enough is wrong with it; one error a line, the first that applies.

    When the requests are forwarded, what stands in their bodies is the upstream's business.
    """
    checks = _Checks(endpoint, settings, is_forwarded=is_forwarded)
    is_azure = settings.speaks.is_azure
    most = settings.max_requests or settings.speaks.max_requests
    errors: list[LineError] = []
    requests = 0
    for number, line in enumerate(file, 1):
        if line.isspace():
            continue
        if is_azure and number == 1 and line.startswith(_BOM):
            return Validation(0, None, [refusal("byte_order_mark", is_azure=True)])
        requests += 1
        if requests > most:
            return Validation(requests, checks.model, [refusal("too_many", is_azure=is_azure, value=most)])
        found = checks.check(line)
        if found is not None:
            what, value = found
            errors.append(refusal(what, is_azure=is_azure, line=number, value=value))
        if checks.inputs > _MOST_INPUTS:
            return Validation(requests, checks.model, [refusal("too_many_inputs", is_azure=is_azure)])
        if len(errors) >= settings.max_errors or abort.is_set():
            break
    if not requests:
        errors.append(refusal("empty", is_azure=is_azure))
    return Validation(requests, checks.model, errors, checks.tokens)


class _Checks:
    """What a line is checked against: the batch's endpoint, the first model, the custom_ids so far."""

    def __init__(self, endpoint: str, settings: Settings, *, is_forwarded: bool) -> None:
        self._is_forwarded = is_forwarded
        self.model: str | None = None
        self.tokens = 0
        self._settings = settings
        self.inputs = 0
        self._endpoint = normalised(endpoint, settings)
        self._is_open = settings.speaks.is_azure and self._endpoint in _INTERCHANGEABLE
        self._counts_tokens = settings.limits_tokens
        self._custom_ids: set[str] = set()

    def check(self, line: bytes) -> tuple[str, object] | None:
        """Say what is wrong with a line, and the value that is."""
        try:
            request = _decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            request = None
        if not isinstance(request, dict):
            return "json", None
        for name in _REQUIRED:
            if request.get(name) is None:
                return "missing", name
        check_body = self._check_forwarded if self._is_forwarded else self._check_body
        return self._check_envelope(request) or check_body(request["body"])

    def _check_envelope(self, request: dict[str, Any]) -> tuple[str, object] | None:
        custom_id = request["custom_id"]
        if not isinstance(custom_id, str):
            return "custom_id", custom_id
        if custom_id in self._custom_ids:
            return "duplicate", custom_id
        self._custom_ids.add(custom_id)
        if request["method"] != "POST":
            return "method", request["method"]
        url = request["url"]
        if self._is_open and isinstance(url, str) and normalised(url, self._settings) in _INTERCHANGEABLE:
            self._endpoint, self._is_open = normalised(url, self._settings), False
        if not isinstance(url, str) or normalised(url, self._settings) != self._endpoint:
            return "url", url
        return None

    def _check_forwarded(self, body: Any) -> tuple[str, object] | None:
        if not isinstance(body, dict):
            return "body", None
        self.model = self.model or str(body.get("model") or "") or None
        # A stream is no line of a file.
        return ("stream", None) if body.get("stream") else None

    def _check_body(self, body: Any) -> tuple[str, object] | None:
        if not isinstance(body, dict):
            return "body", None
        model = body.get("model")
        if not isinstance(model, str) or not model:
            return "no_model", None
        if model != self.model:
            if model_behind(model, self._settings) is None:
                return "model", model
            if self._settings.speaks.is_azure and model in self._settings.standard_deployments:
                return "sku", model
            if self.model is not None:
                return "mismatch", model
            self.model = model
        return self._check_content(body)

    def _check_content(self, body: dict[str, Any]) -> tuple[str, object] | None:
        endpoint = endpoint_of(self._endpoint)
        if body.get(endpoint.required) is None:
            return endpoint.required, None
        if body.get("stream") and endpoint.streams is not None:
            return "stream", endpoint.streams
        if endpoint.operation == "embedding":
            self.inputs += _inputs(body)
        if self._counts_tokens:
            self.tokens += _enqueued(body, endpoint)
        return None


def _inputs(body: dict[str, Any]) -> int:
    given = body["input"]
    return len(tokens.split(given)) if isinstance(given, list) and given else 1


def _enqueued(body: dict[str, Any], endpoint: Endpoint) -> int:
    """Count a body's tokens, whatever is wrong with it: that is found out when it is executed."""
    try:
        return endpoint.count(body)
    except (AttributeError, KeyError, TypeError):
        return 0
