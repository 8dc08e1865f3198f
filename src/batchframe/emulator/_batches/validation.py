"""Validation of an input file, line by line, before any of it is executed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import msgspec

from batchframe.emulator._batches.quota import Load
from batchframe.emulator._batches.refusals import refusal
from batchframe.emulator._endpoints.registry import ENDPOINTS
from batchframe.emulator._json import UnreadableError, decode
from batchframe.emulator._model.model_table import known_model

if TYPE_CHECKING:
    import threading

    from batchframe.emulator._batches.batch_object import LineError
    from batchframe.emulator._config.settings import Settings
    from batchframe.emulator._endpoints.base import Endpoint

_REQUIRED = ("custom_id", "method", "url", "body")
# Azure takes either of these from the lines, whichever the batch names.
_INTERCHANGEABLE = ("/v1/chat/completions", "/v1/responses")
_BOM = b"\xef\xbb\xbf"


class Validation(NamedTuple):
    """The outcome of a validation; a file without errors can be executed."""

    requests: int
    model: str | None
    """The model or deployment that the lines name."""
    errors: list[LineError]
    tokens: int = 0
    """The tokens to enqueue; counted only if there is a limit."""
    is_for_embeddings: bool = False

    @property
    def load(self) -> Load:
        """What the batch holds in the queue."""
        return Load(self.model or "", self.tokens, self.requests if self.is_for_embeddings else 0)

    def without_bad_lines(self) -> Validation:
        """Return the validation of the other lines; itself, if there are none."""
        remaining = self.requests - len(self.errors)
        if not remaining or any(error.line is None for error in self.errors):
            return self
        return self._replace(requests=remaining, errors=[])


def model_behind(name: str, settings: Settings) -> str | None:
    """Return the model that a line's ``model`` stands for, itself or that of an Azure deployment; None: unknown."""
    if settings.profile.is_azure and settings.deployments:
        return settings.deployments.get(name)
    is_known = name in settings.profile.models if settings.profile.models else known_model(name) is not None
    return name if is_known or name in settings.models else None


def validate(
    file: BinaryIO, endpoint: str, settings: Settings, abort: threading.Event, *, is_forwarded: bool = False
) -> Validation:
    """Validate `file` to its end, or until it has too many errors. Each line has at most one error, the first one.

    The bodies of forwarded requests are not checked: that is up to the upstream.
    """
    checks = _Checks(endpoint, settings, is_forwarded=is_forwarded)
    is_azure, codes = settings.profile.is_azure, settings.profile.codes
    max_requests, max_bytes = checks.max_requests, checks.max_bytes
    errors: list[LineError] = []
    requests = size_bytes = 0
    for number, line in enumerate(file, 1):
        if line.isspace():
            continue
        if is_azure and number == 1 and line.startswith(_BOM):
            return Validation(0, None, [refusal("byte_order_mark", is_azure=True)])
        requests += 1
        size_bytes += len(line)
        if size_bytes > max_bytes:
            return Validation(requests, checks.model, [refusal("too_large", is_azure=is_azure, value=max_bytes)])
        if requests > max_requests:
            return Validation(requests, checks.model, [refusal("too_many", is_azure=is_azure, value=max_requests)])
        problem = checks.check(line)
        if problem is not None:
            reason, value = problem
            error = refusal(reason, is_azure=is_azure, line=number, value=value)
            errors.append(msgspec.structs.replace(error, code=codes.get(reason, error.code)))
        if checks.inputs > settings.max_embedding_inputs:
            value = settings.max_embedding_inputs
            return Validation(requests, checks.model, [refusal("too_many_inputs", is_azure=is_azure, value=value)])
        if len(errors) >= settings.max_errors or abort.is_set():
            break
    if not requests:
        errors.append(refusal("empty", is_azure=is_azure))
    return Validation(requests, checks.model, errors, checks.tokens, checks.inputs > 0)


class _Checks:
    """The checks of the lines: of each by itself, and against the batch and the lines before it."""

    def __init__(self, endpoint: str, settings: Settings, *, is_forwarded: bool) -> None:
        self._is_forwarded = is_forwarded
        self.model: str | None = None
        self.tokens = 0
        self._settings = settings
        self.inputs = 0
        profile = settings.profile
        self._endpoint_spelling = endpoint
        self._endpoint = profile.endpoints.get(endpoint, endpoint)
        self._is_open = profile.is_azure and self._endpoint in _INTERCHANGEABLE
        self.trial = profile.trial if profile.trial is not None and profile.trial.endpoint == endpoint else None
        self._counts_tokens = settings.limits_tokens
        self._custom_ids: set[str] = set()

    @property
    def max_requests(self) -> int:
        """The most requests of the file."""
        maximum = self._settings.effective_max_requests
        return maximum if self.trial is None else min(maximum, self.trial.max_requests)

    @property
    def max_bytes(self) -> float:
        """The most bytes of the file, beyond the check at its upload."""
        return math.inf if self.trial is None else self.trial.max_bytes

    def check(self, line: bytes) -> tuple[str, object] | None:
        """Return the reason to refuse a line, and the value that the sentence names; None: the line is valid."""
        max_line_bytes = self._settings.profile.max_line_bytes
        if max_line_bytes is not None and len(line) > max_line_bytes:
            return "long_line", max_line_bytes
        try:
            request = decode(line)
        except UnreadableError:
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
        return None if self._is_url_right(request["url"]) else ("url", request["url"])

    def _is_url_right(self, url: Any) -> bool:
        """Say whether a line has its batch's endpoint; Azure accepts another spelling of it."""
        if not self._settings.profile.is_azure:
            return bool(url == self._endpoint_spelling)
        endpoint = self._settings.profile.endpoints.get(url) if isinstance(url, str) else None
        if self._is_open and endpoint in _INTERCHANGEABLE:
            self._endpoint, self._is_open = str(endpoint), False
        return endpoint == self._endpoint

    def _check_forwarded(self, body: Any) -> tuple[str, object] | None:
        if not isinstance(body, dict):
            return "body", None
        self.model = self.model or str(body.get("model") or "") or None
        # A stream cannot become a line of a file.
        return ("stream", None) if body.get("stream") else None

    def _check_body(self, body: Any) -> tuple[str, object] | None:
        if not isinstance(body, dict):
            return "body", None
        model = body.get("model")
        if not isinstance(model, str) or not model:
            return "no_model", None
        if model != self.model:
            is_known = model_behind(model, self._settings) is not None
            if not is_known if self.trial is None else model != self.trial.model:
                return "model", model
            if self._settings.profile.is_azure and model in self._settings.standard_deployments:
                return "sku", model
            if self.model is not None:
                return "mismatch", model
            self.model = model
        return self._check_content(body)

    def _check_content(self, body: dict[str, Any]) -> tuple[str, object] | None:
        endpoint = ENDPOINTS[self._endpoint]
        if body.get(endpoint.required) is None:
            return endpoint.required, None
        if body.get("stream") and endpoint.streams is not None:
            return "stream", endpoint.streams
        if self._settings.profile.ends_with_user and not _ends_with_user(body):
            return "last_message", None
        if endpoint.count_inputs is not None:
            self.inputs += endpoint.count_inputs(body)
        if self._counts_tokens:
            self.tokens += _enqueued(body, endpoint)
        return None


def _ends_with_user(body: dict[str, Any]) -> bool:
    """Say whether the last message is the user's. Malformed messages pass: the execution refuses them."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not isinstance(messages[-1], dict):
        return True
    return messages[-1].get("role") == "user"


def _enqueued(body: dict[str, Any], endpoint: Endpoint) -> int:
    """Count a body's tokens; a malformed body counts as none, as the execution refuses it."""
    try:
        return endpoint.count(body)
    except (AttributeError, LookupError, TypeError):
        return 0
