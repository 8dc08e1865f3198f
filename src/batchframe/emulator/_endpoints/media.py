"""The checks of images and files in requests. URLs are not fetched, and contents are not read."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from batchframe.emulator import _errors as errors
from batchframe.emulator._endpoints import parameter_kinds as kinds

_DETAILS = ("low", "high", "auto", "original")
_TYPES = ("image/png", "image/jpeg", "image/jpg", "image/gif", "image/webp")
_STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a")


def check_image(param: str, url: str, *, where: str) -> None:
    """Refuse an image URL that the service would refuse.

    The sentences were seen; `where` is their beginning, which differs between endpoints.
    """
    if url[:8].lower().startswith(("http://", "https://")):
        return
    expected = (
        f"{where} '{param}'. Expected a base64-encoded data URL with an image MIME type "
        "(e.g. 'data:image/png;base64,aW1nIGJ5dGVzIGhlcmU=')"
    )
    content = _decoded(param, url, expected, _TYPES)
    if not content.startswith(_STARTS) and not (content[:4] == b"RIFF" and content[8:12] == b"WEBP"):
        message = (
            "You uploaded an unsupported image. Please make sure your image has of one the following formats: "
            "['png', 'jpeg', 'gif', 'webp']."
        )
        raise errors.ApiError(message, code="invalid_image_format")


def check_detail(param: str, detail: Any) -> None:
    """Refuse an unknown detail."""
    if detail is not None:
        kinds.one_of(*_DETAILS)(param, detail)


def check_file(param: str, file: dict[str, Any], *, where: str, alternatives: tuple[str, ...] = ()) -> None:
    """Refuse a file without an id, without a name and data, and without any of the `alternatives`."""
    if any(isinstance(file.get(name), str) for name in ("file_id", *alternatives)):
        return
    data = file.get("file_data")
    if not isinstance(data, str) or not isinstance(file.get("filename"), str):
        raise errors.missing(f"{param}.file_id")  # the service says so even if only the name is missing
    expected = (
        f"{where} '{param}.file_data'. Expected a base64-encoded data URL with an application/pdf MIME type "
        "(e.g. 'data:application/pdf;base64,SGVsbG8sIFdvcmxkIQ==')"
    )
    # The file guide lists further types than PDF; which ones are accepted is not checked.
    _decoded(f"{param}.file_data", data, expected, None)


def _decoded(param: str, url: str, expected: str, types: tuple[str, ...] | None) -> bytes:
    """Decode a data URL."""
    head, comma, encoded = url.partition(",")
    kind, *options = head.removeprefix("data:").split(";")
    content = b""
    problem = ""
    if not url.startswith("data:"):
        problem = "a value without the 'data:' prefix"
    elif not comma or "base64" not in options:
        problem = "a value without the ';base64' separator"
    elif types is not None and kind.lower() not in types:
        problem = f"unsupported MIME type '{kind}'"
    elif not encoded:
        problem = "empty base64-encoded bytes"
    else:
        try:
            content = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            problem = "an invalid base64-encoded value"
    if problem:
        raise errors.ApiError(f"{expected}, but got {problem}.", param=param, code="invalid_value")
    return content
