"""What a frame becomes in the requests, for tests of frames from other libraries."""

from __future__ import annotations

import json

import pytest

import batchframe as bf


def texts(frame, prompt="{v}"):
    """Return the prompt text of each row; None for a row that is not sent."""
    rows = bf.requests(frame, prompt, model="m")
    return [line and json.loads(line)["body"]["messages"][-1]["content"] for line in rows["request"]]


def refusal(frame):
    """Return the message of the error for a frame."""
    with pytest.raises(bf.InputError) as caught:
        bf.requests(frame, "{id}", model="m")
    return str(caught.value)
