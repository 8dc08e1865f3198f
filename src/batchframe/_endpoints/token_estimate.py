"""How many input tokens request lines hold, about: enough to plan with, at the speed of reading.

A quarter token a byte of text is what OpenAI's own front door assumes, as far as it can be seen from outside; exact
counting with a tokenizer runs at 2 to 3 MB/s. What the service counted for the batches that ended corrects it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from batchframe._endpoints.registry import ENDPOINTS

if TYPE_CHECKING:
    from collections.abc import Sequence

_BYTES = 4
# Three tokens a message, three for the start of the reply (OpenAI cookbook). An image of low and of high detail, about:
# models differ, and the larger ones count 85 and 765 for 1,024 pixels square (OpenAI's images guide). A file: a page.
_PER_MESSAGE, _PER_REQUEST, _PER_LOW_IMAGE, _PER_IMAGE, _PER_FILE = 3, 3, 85, 765, 1_000
_AS_JSON = ("tools", "functions", "response_format", "text")


def estimated_tokens(sample: Sequence[bytes], n_bytes: int) -> int:
    """Return about how many input tokens a file of request lines holds.

    Parameters
    ----------
    sample
        Some of its lines.
    n_bytes
        The size of the file.
    """
    sample_bytes = sum(map(len, sample))
    if not sample_bytes:
        return 0
    return max(1, round(sum(map(_of_line, sample)) * n_bytes / sample_bytes))


def _of_line(line: bytes) -> int:
    body = msgspec.json.decode(line)["body"]
    members = {endpoint.prompt_member for endpoint in ENDPOINTS.values()} | {"instructions"}
    told = sum(_of_prompt(body[name]) for name in members & body.keys())
    shapes = sum(len(msgspec.json.encode(body[name])) for name in _AS_JSON if body.get(name))
    return _PER_REQUEST + told + -(-shapes // _BYTES)


def _of_prompt(value: Any) -> int:
    if isinstance(value, str):
        return -(-len(value.encode()) // _BYTES)
    if isinstance(value, list):
        if value and all(isinstance(token, int) for token in value):
            return len(value)  # tokens already
        return sum(map(_of_prompt, value))
    return _of_object(value) if isinstance(value, dict) else 0


def _of_object(value: dict[str, Any]) -> int:
    kind = str(value.get("type", ""))
    if kind in {"image_url", "input_image"}:  # never as text, which a data URL would be
        inner = value.get("image_url")
        detail = (inner if isinstance(inner, dict) else value).get("detail")
        return _PER_LOW_IMAGE if detail == "low" else _PER_IMAGE
    if kind in {"file", "input_file", "input_audio"}:
        return _PER_FILE
    inner_tokens = sum(_of_prompt(inner) for name, inner in value.items() if name != "role")
    return _PER_MESSAGE * ("role" in value) + inner_tokens
