"""Validation of an input file, line by line, before anything of it is executed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import msgspec

from batchframe.emulator._batches import LineError
from batchframe.emulator._model_table import known

if TYPE_CHECKING:
    import threading

    from batchframe.emulator._settings import Settings

_REQUIRED = ("custom_id", "method", "url", "body")
_decode = msgspec.json.Decoder().decode


class Validation(NamedTuple):
    """What was found in a file. Without errors it may be executed."""

    requests: int
    model: str | None
    errors: list[LineError]


def cannot_find_file(file_id: str, organization: str) -> LineError:
    """Say that the input file is not there."""
    message = f"Cannot find file {file_id}, or organization {organization} does not have access to it."
    return LineError("invalid_request", message, "file_id")


def wrong_purpose(file_id: str, purpose: str) -> LineError:
    """Say that the file was uploaded for something else. The service's own words are not known."""
    message = f"Invalid purpose '{purpose}' of file {file_id}. Expected 'batch'."
    return LineError("invalid_request", message, "file_id")


def validate(file: BinaryIO, endpoint: str, settings: Settings, abort: threading.Event) -> Validation:
    """Read `file` to its end, or until enough is wrong with it; one error a line, the first that applies."""
    checks = _Checks(endpoint, settings)
    errors: list[LineError] = []
    requests = 0
    for number, line in enumerate(file, 1):
        if line.isspace():
            continue
        requests += 1
        if requests > settings.max_requests:
            # Code and sentence of this one are unverified; the limit is documented.
            text = f"The batch has more requests than allowed. Each batch may have at most {settings.max_requests}."
            return Validation(requests, checks.model, [LineError("batch_request_limit_exceeded", text)])
        error = checks.check(line)
        if error is not None:
            code, message, param = error
            errors.append(LineError(code, message, param, number))
        if len(errors) >= settings.max_errors or abort.is_set():
            break
    if not requests:
        text = "The input file is empty. Please ensure that the batch contains at least one request."
        errors.append(LineError("empty_file", text))
    return Validation(requests, checks.model, errors)


class _Checks:
    """What a line is checked against: the batch's endpoint, the first model, the custom_ids so far."""

    def __init__(self, endpoint: str, settings: Settings) -> None:
        self.model: str | None = None
        self._endpoint = endpoint
        self._also_known = frozenset(settings.models)
        self._custom_ids: set[str] = set()

    def check(self, line: bytes) -> tuple[str, str, str | None] | None:
        try:
            request = _decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            request = None
        if not isinstance(request, dict):
            return "invalid_json_line", "This line is not parseable as valid JSON.", None
        for name in _REQUIRED:
            if request.get(name) is None:
                return "missing_required_parameter", f"Missing required parameter: '{name}'.", name
        return self._check_envelope(request) or self._check_body(request["body"])

    def _check_envelope(self, request: dict[str, Any]) -> tuple[str, str, str | None] | None:
        custom_id = request["custom_id"]
        if not isinstance(custom_id, str):
            return "invalid_type", "Invalid type for 'custom_id': expected a string.", "custom_id"
        if custom_id in self._custom_ids:
            return (
                "duplicate_custom_id",
                (
                    f"The custom_id '{custom_id}' for this request is a duplicate of another request. "
                    "The custom_id parameter must be unique for each request in a batch."
                ),
                "custom_id",
            )
        self._custom_ids.add(custom_id)
        if request["method"] != "POST":
            return "invalid_value", f"Invalid value: '{request['method']}'. Supported values are: 'POST'", "method"
        if request["url"] != self._endpoint:
            return "invalid_url", "The URL provided for this request does not match the batch endpoint.", "url"
        return None

    def _check_body(self, body: Any) -> tuple[str, str, str | None] | None:  # noqa: PLR0911 - one a rule
        if not isinstance(body, dict):
            return "invalid_type", "Invalid type for 'body': expected an object.", "body"
        model = body.get("model")
        if not isinstance(model, str) or not model:
            return "invalid_request", "Model parameter is required.", "body.model"
        if model != self.model:
            if known(model) is None and model not in self._also_known:
                message = f"The provided model '{model}' is not supported by the Batch API."
                return "model_not_found", message, "body.model"
            if self.model is not None:
                return (
                    "mismatched_model",
                    (
                        f"The model '{model}' for this request does not match the rest of the batch. "
                        "Each batch must contain requests for a single model."
                    ),
                    "body.model",
                )
            self.model = model
        if body.get("messages") is None:
            return "invalid_request", "Messages parameter is required.", "body.messages"
        if body.get("stream"):
            message = "Chat Completions: Streaming is not supported in the Batch API."
            return "streaming_unsupported", message, "body.stream"
        return None
