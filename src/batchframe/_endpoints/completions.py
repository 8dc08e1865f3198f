"""``/v1/completions``, the legacy endpoint for plain text."""

from __future__ import annotations

from typing import Any

import msgspec

from batchframe._core.lenient import mapping, number, read_json
from batchframe._endpoints.base import Answer, Endpoint, as_text, choices_of, empty, text_of, unreadable
from batchframe._endpoints.parameter_table import PARAMETERS


def _read(body: dict[str, Any]) -> Answer:
    choices = choices_of(body)
    return _read_choice(choices[0]) if choices else unreadable("no choices")


def _read_choice(choice: dict[str, Any]) -> Answer:
    answer = Answer(finish_reason=text_of(choice.get("finish_reason")))
    text = choice.get("text")
    return answer._replace(response=text) if isinstance(text, str) else empty(answer, "no text")


def _logprobs(choice: dict[str, Any]) -> list[dict[str, Any]] | None:
    logprobs = choice.get("logprobs")
    logprobs = mapping(read_json(logprobs) if isinstance(logprobs, msgspec.Raw) else logprobs)
    tokens, values, alternatives = (logprobs.get(name) for name in ("tokens", "token_logprobs", "top_logprobs"))
    if not isinstance(tokens, list):
        return None
    values, alternatives = (column if isinstance(column, list) else [] for column in (values, alternatives))
    return [
        {
            "token": as_text(token),
            "logprob": number(values[index]) if index < len(values) else None,
            "top_logprobs": [
                {"token": other, "logprob": number(value)}
                for other, value in mapping(alternatives[index] if index < len(alternatives) else None).items()
            ],
        }
        for index, token in enumerate(tokens)
    ]


COMPLETIONS = Endpoint(
    path="/v1/completions",
    parameters=PARAMETERS["/v1/completions"],
    prompt_member="prompt",
    answer_member="choices",
    object_name="text_completion",
    read=_read,
    read_choice=_read_choice,
    renamed_parameters={"max_completion_tokens": "max_tokens", "max_output_tokens": "max_tokens"},
    logprobs_request=("logprobs", None, "logprobs=1, or more for the alternatives"),
    choices=choices_of,
    logprobs=_logprobs,
)
