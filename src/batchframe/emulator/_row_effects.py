"""What the faults of rows do: to the answer, to the line, to the file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, UnsetType

from batchframe.emulator import _errors as errors
from batchframe.emulator import _tokens as tokens
from batchframe.emulator._completions import Response, ResultLine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from batchframe.emulator._completions import Completion
    from batchframe.emulator._row_faults import RowFault

SEPARATORS = "one\u2028two\u2029three\u0085four "
_NOT_EXECUTED = frozenset({"status", "rate_limited", "server_error"})
_ALTERING = frozenset({"content_filter", "refusal", "length", "separators"})
# In this order, whatever the order they were asked for in: what is missing is so twice, what is cut is cut at last.
_OF_LINES = ("duplicate", "unknown_id", "missing", "rewritten", "malformed")
_BETWEEN_WORDS = re.compile(r"(?<=\w) (?=\w)")
_REFUSAL = "I'm sorry, I can't assist with that."
_FILTERED = (
    "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. Please modify "
    "your prompt and retry. To learn more about our content filtering policies please read our documentation: "
    "https://go.microsoft.com/fwlink/?linkid=2198766"
)


def refused(hits: Sequence[RowFault], *, is_azure: bool) -> tuple[int, Any] | None:
    """Return status and body of a row that is not answered; the first fault that says so wins."""
    for fault in hits:
        if fault.kind in _NOT_EXECUTED:
            return fault.shown_status, _error_body(fault)
        if fault.kind == "content_filter" and is_azure:
            return 400, _filtered_body()
    for fault in hits:
        if fault.kind == "in_output_file":
            return fault.shown_status, _error_body(fault)
    return None


def was_executed(status: int) -> bool:
    """Say whether a refused row counts as executed: not when the service never came to it."""
    return 400 <= status < 500 and status != 429  # noqa: PLR2004


def counts_as_failed(status: int, hits: Sequence[RowFault]) -> bool:
    """Say how the batch counts a row: rows of status 0 have been seen counted as completed."""
    return status not in {0, 200} and all(fault.kind != "in_output_file" for fault in hits)


def alter(answer: Completion, hits: Iterable[RowFault]) -> None:
    """Change an answer that is billed all the same."""
    altering = [fault for fault in hits if fault.kind in _ALTERING]
    if not altering:
        return
    for fault in altering:
        for choice in answer.choices:
            message, text = choice.message, choice.message.content
            if fault.kind == "content_filter":
                message.content, choice.finish_reason = "", "content_filter"
            elif fault.kind == "refusal":
                message.content, message.refusal = None, _REFUSAL
            elif fault.kind == "length":
                message.content, choice.finish_reason = (text or "")[: len(text or "") // 2], "length"
            elif text is not None:
                # Into a gap of a JSON answer, which must stay JSON; before any other.
                message.content = _BETWEEN_WORDS.sub("\u2028", text) if text.startswith("{") else SEPARATORS + text
    usage = answer.usage
    said = sum(tokens.of_text(choice.message.content or choice.message.refusal or "") for choice in answer.choices)
    if all(choice.message.tool_calls is UNSET for choice in answer.choices):
        usage.completion_tokens = said + usage.completion_tokens_details.reasoning_tokens
        usage.total_tokens = usage.prompt_tokens + usage.completion_tokens


def lines(
    line: ResultLine, hits: Sequence[RowFault], *, in_output: bool, encode: Callable[[ResultLine], bytes]
) -> list[tuple[ResultLine | bytes, bool]]:
    """Return the lines a row gets, each with whether it goes to the output file."""
    made: list[tuple[ResultLine | bytes, bool]] = [(line, in_output)]
    for fault in hits:
        if fault.kind in {"in_output_file", "in_error_file"}:
            made = [(each, fault.kind == "in_output_file") for each, _ in made]
        elif fault.kind in {"no_body", "body_as_text"} and line.response is not None:
            line.response.body = (
                _absent(fault.body or "null")
                if fault.kind == "no_body"
                else msgspec.json.encode(line.response.body).decode()
            )
    for fault in [fault for kind in _OF_LINES for fault in hits if fault.kind == kind]:
        if fault.kind == "duplicate" and fault.copy == "same":
            made += made
        elif fault.kind == "duplicate":
            response = Response(fault.shown_status, line.id[-32:], _error_body(fault))
            made.append((ResultLine(f"{line.id}-2", line.custom_id, response, None), False))
        elif fault.kind == "unknown_id":
            made.append((msgspec.structs.replace(line, custom_id=f"unknown-{line.custom_id}"), in_output))
        elif fault.kind == "missing":
            made = [(each, where) for each, where in made if each is not line]
        elif fault.kind == "rewritten":
            old, new = fault.old.encode(), fault.new.encode()
            made = [
                ((each if isinstance(each, bytes) else encode(each)).replace(old, new), where) for each, where in made
            ]
        else:
            made = [(_cut(each if isinstance(each, bytes) else encode(each), fault.at), where) for each, where in made]
    return made


def dress(path: Path, hits: Iterable[RowFault]) -> Path:
    """Rewrite a result file as the faults of files say."""
    kinds = {fault.kind for fault in hits}
    if not kinds:
        return path
    dressed = path.with_suffix(".dressed")
    end = b"\r\n" if "crlf" in kinds else b"\n"
    with path.open("rb") as source, dressed.open("wb") as target:
        following = source.readline()
        while line := following:
            following = source.readline()
            line = line.rstrip(b"\n")
            if following:
                target.write(line + end + (end if "blank_lines" in kinds else b""))
            elif "truncated_last_line" in kinds:
                target.write(line[: len(line) // 2])
            else:
                target.write(line if "no_final_newline" in kinds else line + end)
    path.unlink()
    return dressed


def _cut(line: bytes, at: float) -> bytes:
    return line[: int(len(line) * at)]


def _absent(how: str) -> dict[str, Any] | UnsetType | None:
    return {"null": None, "empty": {}, "absent": UNSET}[how]


def _error_body(fault: RowFault) -> Any:
    status = fault.shown_status
    # A line of status 0 has been seen without any body; the others carry the service's usual error.
    how = fault.body or ("error" if status else "null")
    if how != "error":
        return _absent(how)
    usual = errors.by_status(status or 500, {})
    return {
        "error": {
            "message": fault.message or usual.message,
            "type": fault.type or usual.kind,
            "param": None,
            "code": fault.code or usual.code,
        }
    }


def _filtered_body() -> dict[str, Any]:
    """Make the error of the synchronous API; the line of a batch has not been seen."""
    found = {
        name: {"filtered": name == "violence", "severity": "high" if name == "violence" else "safe"}
        for name in ("hate", "self_harm", "sexual", "violence")
    }
    inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": found}
    error = {"message": _FILTERED, "type": None, "param": "prompt", "code": "content_filter", "status": 400}
    return {"error": {**error, "innererror": inner}}
