"""What the faults of rows do: to the answer, to the line, to the file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, UnsetType

from batchframe.emulator import _errors as errors
from batchframe.emulator._model.shapes import Response, ResultLine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from batchframe.emulator._faults.row_faults import RowFault

REFUSAL = "I'm sorry, I can't assist with that."
SEPARATORS = "one\u2028two\u2029three\u0085four "
_NOT_EXECUTED = frozenset({"status", "rate_limited", "server_error"})
# Applied in this order, whatever the order they were added in: a duplicate goes missing with its original, and cutting
# comes last.
_LINE_KINDS = ("duplicate", "unknown_id", "missing", "rewritten", "malformed")
_FILTERED = (
    "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. Please modify "
    "your prompt and retry. To learn more about our content filtering policies please read our documentation: "
    "https://go.microsoft.com/fwlink/?linkid=2198766"
)


def refusal(hits: Sequence[RowFault], *, is_azure: bool) -> tuple[int, Any] | None:
    """Return the status and body of a row that is refused; the first fault that refuses it wins."""
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
    """Say whether a refused row counts as executed; 429, 5xx and status 0 mean that the service never ran it."""
    return 400 <= status < 500 and status != 429  # noqa: PLR2004


def counts_as_failed(status: int, hits: Sequence[RowFault]) -> bool:
    """Say whether the batch counts a row as failed; rows of status 0 have been seen counted as completed."""
    return status not in {0, 200} and all(fault.kind != "in_output_file" for fault in hits)


def alter_text(text: str, fault: RowFault) -> str:
    """Apply a fault to the text of an answer. JSON is left alone by ``separators``, which would break it."""
    if fault.kind == "content_filter":
        return ""
    if fault.kind == "length":
        return text[: len(text) // 2]
    return SEPARATORS + text if fault.kind == "separators" and not text.startswith("{") else text


def lines(
    line: ResultLine, hits: Sequence[RowFault], *, in_output: bool, encode: Callable[[ResultLine], bytes]
) -> list[tuple[bytes, bool]]:
    """Return the encoded lines of a row, each with whether it goes to the output file."""
    in_this_file = in_output
    for fault in hits:
        if fault.kind in {"in_output_file", "in_error_file"}:
            in_this_file = fault.kind == "in_output_file"
        elif fault.kind in {"no_body", "body_as_text"} and line.response is not None:
            line.response.body = (
                _absent(fault.body or "null")
                if fault.kind == "no_body"
                else msgspec.json.encode(line.response.body).decode()
            )
    rows: list[tuple[ResultLine | bytes, bool]] = [(line, in_this_file)]
    for fault in [fault for kind in _LINE_KINDS for fault in hits if fault.kind == kind]:
        if fault.kind == "duplicate" and fault.copy == "same":
            rows += rows
        elif fault.kind == "duplicate":
            response = Response(fault.shown_status, line.id[-32:], _error_body(fault))
            rows.append((ResultLine(f"{line.id}-2", line.custom_id, response, None), False))
        elif fault.kind == "unknown_id":
            rows.append((msgspec.structs.replace(line, custom_id=f"unknown-{line.custom_id}"), in_output))
        elif fault.kind == "missing":
            rows = [(each, where) for each, where in rows if each is not line]
        else:
            rows = [(_damage(each if isinstance(each, bytes) else encode(each), fault), where) for each, where in rows]
    return [(each if isinstance(each, bytes) else encode(each), where) for each, where in rows]


def _damage(raw: bytes, fault: RowFault) -> bytes:
    if fault.kind == "rewritten":
        return raw.replace(fault.old.encode(), fault.new.encode())
    return raw[: int(len(raw) * fault.at)]


def rewrite(path: Path, hits: Iterable[RowFault]) -> Path:
    """Apply the faults of files to a result file; return its new path."""
    kinds = {fault.kind for fault in hits}
    if not kinds:
        return path
    rewritten = path.with_suffix(".rewritten")
    end = b"\r\n" if "crlf" in kinds else b"\n"
    with path.open("rb") as source, rewritten.open("wb") as target:
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
    return rewritten


def _absent(spelling: str) -> dict[str, Any] | UnsetType | None:
    return {"null": None, "empty": {}, "absent": UNSET}[spelling]


def _error_body(fault: RowFault) -> Any:
    status = fault.shown_status
    # A line of status 0 has been seen without any body; the others have the service's usual error.
    spelling = fault.body or ("error" if status else "null")
    if spelling != "error":
        return _absent(spelling)
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
    """Make the error that the synchronous API returns; the line of a batch has not been seen."""
    verdicts = {
        name: {"filtered": name == "violence", "severity": "high" if name == "violence" else "safe"}
        for name in ("hate", "self_harm", "sexual", "violence")
    }
    inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": verdicts}
    error = {"message": _FILTERED, "type": None, "param": "prompt", "code": "content_filter", "status": 400}
    return {"error": {**error, "innererror": inner}}
