"""The service's errors: codes, sentences, and their envelope."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

TYPE_NAMES = {
    str: "a string",
    int: "an integer",
    float: "a decimal",
    bool: "a boolean",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


# The gateway's own refusals carry the status as their code; the others are those of Azure's REST guidelines.
_AZURE_CODES = {
    401: "401",
    404: "404",
    405: "MethodNotAllowed",
    409: "Conflict",
    413: "RequestEntityTooLarge",
    429: "429",
    500: "InternalServerError",
    501: "NotImplemented",
    503: "ServiceUnavailable",
}


class ApiError(Exception):
    """A refusal: an HTTP reply, or the response of a line in the error file."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
        line_errors: list[Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.line_errors = line_errors
        self.message = message
        self.status = status
        self.kind = kind
        self.param = param
        self.code = code
        self.headers = headers

    def body(self) -> dict[str, Any]:
        """Return the envelope."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    def azure_body(self) -> dict[str, Any]:
        """Return Azure's envelope, which has fewer members; a refused input file is a list of errors."""
        if self.line_errors is not None:
            return {"errors": {"object": "list", "data": self.line_errors}}
        return {"error": {"code": self.code or _AZURE_CODES.get(self.status, "BadRequest"), "message": self.message}}


def type_name(value: object) -> str:
    """Name the JSON type of `value` as the service does: ``an array``."""
    return TYPE_NAMES[type(value)]


def quoted_list(values: Iterable[str]) -> str:
    """Quote and join: ``'a', 'b', and 'c'``."""
    quoted = [f"'{value}'" for value in values]
    if len(quoted) < 3:  # noqa: PLR2004 - the comma before "and" comes with the third
        return " and ".join(quoted)
    return ", ".join(quoted[:-1]) + ", and " + quoted[-1]


# ---------------------------------------------------------------------------------------------- about a parameter


def missing(param: str) -> ApiError:
    """Refuse a body without a required parameter."""
    return ApiError(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")


def unknown(param: str) -> ApiError:
    """Refuse a parameter that does not exist."""
    return ApiError(f"Unknown parameter: '{param}'.", param=param, code="unknown_parameter")


def unsupported(param: str) -> ApiError:
    """Refuse a parameter of OpenAI's that the service does not take; its sentence is not known."""
    return ApiError(f"Unsupported parameter: '{param}'.", param=param, code="unsupported_parameter")


def wrong_type(param: str, expected: str, value: object) -> ApiError:
    """Refuse a value of the wrong JSON type."""
    message = f"Invalid type for '{param}': expected {expected}, but got {type_name(value)} instead."
    return ApiError(message, param=param, code="invalid_type")


def wrong_value(param: str, value: object, supported: Iterable[str]) -> ApiError:
    """Refuse an unsupported string."""
    message = f"Invalid value: '{value}'. Supported values are: {quoted_list(supported)}."
    return ApiError(message, param=param, code="invalid_value")


def out_of_range(param: str, value: float, bound: float, *, above: bool) -> ApiError:
    """Refuse a number out of range."""
    noun = "integer" if isinstance(value, int) and isinstance(bound, int) else "decimal"
    side, sign, code = ("above maximum", "<=", "above_max") if above else ("below minimum", ">=", "below_min")
    message = f"Invalid '{param}': {noun} {side} value. Expected a value {sign} {bound}, but got {value} instead."
    return ApiError(message, param=param, code=f"{noun}_{code}_value")


def too_long(param: str, text: str, maximum: int) -> ApiError:
    """Refuse a string longer than `maximum` characters."""
    message = (
        f"Invalid '{param}': string too long. Expected a string with maximum length {maximum}, "
        f"but got a string with length {len(text)} instead."
    )
    return ApiError(message, param=param, code="string_above_max_length")


def array_length(param: str, length: int, bound: int, *, above: bool) -> ApiError:
    """Refuse an array that is empty, too short or too long."""
    if not length:
        message = (
            f"Invalid '{param}': empty array. Expected an array with minimum length {bound}, "
            "but got an empty array instead."
        )
        return ApiError(message, param=param, code="empty_array")
    side, word, code = ("too long", "maximum", "above_max") if above else ("too short", "minimum", "below_min")
    message = (
        f"Invalid '{param}': array {side}. Expected an array with {word} length {bound}, "
        f"but got an array with length {length} instead."
    )
    return ApiError(message, param=param, code=f"array_{code}_length")


def too_many_keys(param: str, count: int, maximum: int) -> ApiError:
    """Refuse an object with more than `maximum` keys."""
    message = (
        f"Invalid '{param}': too many properties. Expected an object with at most {maximum} properties, "
        f"but got an object with {count} properties instead."
    )
    return ApiError(message, param=param, code="object_above_max_properties")


def endless_schema() -> ApiError:
    """Refuse a schema that requires itself, so that no answer can be finite. The service's sentence is not known."""
    message = "Invalid schema: a value that requires another one of its own kind has no end."
    return ApiError(message, code="invalid_value")


# ------------------------------------------------------------------------------------------------- about the call


def foreign_host(name: str) -> ApiError:
    """Refuse a call under a foreign host name."""
    message = (
        f"The emulator does not answer to the host name {name!r}, so that no web page can reach it under a name of its "
        "own. It answers to localhost, to the address it listens on, and to the names it was started with. If this one "
        f"is yours, start it with --allowed-host {name}, or with allowed_hosts=[{name!r}]."
    )
    return ApiError(message, status=403, kind="emulator_error", code="foreign_host")


def foreign_page(origin: str) -> ApiError:
    """Refuse a call by a web page; `origin` is the browser's word for the page."""
    message = f"The emulator takes no calls from web pages, and this one comes from a page (origin: {origin!r})."
    return ApiError(message, status=403, kind="emulator_error", code="foreign_page")


def unauthorized() -> ApiError:
    """Refuse a call without a key."""
    return ApiError(
        "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
        "(i.e. Authorization: Bearer YOUR_KEY), or as the password field (with blank username) if you're accessing the "
        "API from your browser and are prompted for a username and password. You can obtain an API key from "
        "https://platform.openai.com/account/api-keys.",
        status=401,
    )


def wrong_key(key: str) -> ApiError:
    """Refuse a wrong key, showing no more of it than the service does."""
    shown = f"{key[:4]}***{key[-3:]}" if len(key) > 7 else "***"  # noqa: PLR2004 - shorter ones would be shown whole
    return ApiError(
        f"Incorrect API key provided: {shown}. You can find your API key at "
        "https://platform.openai.com/account/api-keys.",
        status=401,
        code="invalid_api_key",
    )


def azure_unauthorized() -> ApiError:
    """Refuse a call to Azure without a key, or with a wrong one."""
    return ApiError(
        "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an "
        "active subscription and use a correct regional API endpoint for your resource.",
        status=401,
    )


def azure_not_found() -> ApiError:
    """Refuse a path that Azure does not have, or an unknown API version."""
    return ApiError("Resource not found", status=404)


def azure_version(version: str) -> ApiError:
    """Refuse a dated API version, which v1 does not take."""
    return ApiError(f"API version not supported: '{version}'", code="BadRequest")


def file_not_processed(file_id: str, status: str | None) -> ApiError:
    """Refuse a batch whose file Azure has not processed."""
    return ApiError(
        f"The input file '{file_id}' is in '{status}' state. Only files with status 'Processed' are accepted for "
        "batch inferencing. Please check the file status and try again"
    )


def too_many_files(maximum: int, *, have_expiry: bool) -> ApiError:
    """Refuse one more file. The sentence for files with an expiry is modelled on the one for those without."""
    preposition = "with" if have_expiry else "without"
    return ApiError(f"The quota for files {preposition} expiry is reached. The maximum is {maximum}.")


def storage_full(maximum: int) -> ApiError:
    """Refuse a file that exceeds the storage. The beginning of the sentence was seen, with "100 GB"."""
    size = f"{maximum / 1e9:g} GB" if maximum >= 1e9 else f"{maximum} bytes"  # noqa: PLR2004 - GB read better from here on
    return ApiError(f"Organizations are limited to {size} of files. Please delete old files to upload more.")


def refused_file(line_errors: list[Any]) -> ApiError:
    """Refuse to create a batch whose file is invalid."""
    return ApiError(line_errors[0].message, code=line_errors[0].code, line_errors=line_errors)


def no_such_path(method: str, path: str) -> ApiError:
    """Refuse a path that the service does not have."""
    return ApiError(f"Invalid URL ({method} {path})", status=404)


def wrong_method(method: str, path: str) -> ApiError:
    """Refuse a method that the path does not take."""
    message = f"Not allowed to {method} on {path}. (HINT: Perhaps you meant to use a different HTTP method?)"
    return ApiError(message, status=405)


def not_emulated(feature: str) -> ApiError:
    """Refuse what the service can do and the emulator cannot; 501, so that nobody takes it for the service's reply."""
    return ApiError(f"the emulator does not execute {feature} yet", status=501, kind="emulator_error")


def unreadable_body() -> ApiError:
    """Refuse a body that is not JSON."""
    return ApiError(
        "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP library "
        "correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON.)"
    )


def no_such_file(file_id: str) -> ApiError:
    """Refuse an unknown or deleted file."""
    return ApiError(f"No such File object: {file_id}", status=404, param="id")


def no_such_batch(batch_id: str) -> ApiError:
    """Refuse an unknown batch."""
    return ApiError(f"No batch found with id '{batch_id}'.", status=404)


def not_cancellable(status: str) -> ApiError:
    """Refuse to cancel a batch that has ended."""
    return ApiError(f"Cannot cancel a batch with status '{status}'.", status=409)


def wrong_format() -> ApiError:
    """Refuse a batch file by its name or first line."""
    return ApiError("Invalid file format for Batch API. Must be .jsonl")


def file_too_large(limit_bytes: int) -> ApiError:
    """Refuse an upload. The status 413 was seen, the sentence was not."""
    return ApiError(f"The file is too large. The limit is {limit_bytes} bytes for this purpose.", status=413)


def too_many_batches(per_hour: int, organization: str) -> ApiError:
    """Refuse one more batch this hour. The limit is documented, the sentence is not."""
    message = f"Rate limit reached for batch creation in organization {organization}. Limit: {per_hour} / hour."
    return ApiError(message, status=429, kind="requests", code="rate_limit_exceeded")


def by_status(status: int, headers: dict[str, str]) -> ApiError:
    """Make the reply of an injected fault."""
    if status == 429:  # noqa: PLR2004
        return ApiError(
            "Rate limit reached for requests", status=429, kind="requests", code="rate_limit_exceeded", headers=headers
        )
    message = "The server had an error while processing your request. Sorry about that!"
    kind = "server_error" if status >= 500 else "invalid_request_error"  # noqa: PLR2004
    return ApiError(message, status=status, kind=kind, headers=headers)
