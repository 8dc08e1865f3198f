"""An input file that the service refused: which of its lines, and what is sent without them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchframe._providers.limits import file_limits
from batchframe._store.input_files import InputFileWriter, lines_of
from batchframe._store.records import PartRecord, RejectedRequest

if TYPE_CHECKING:
    from batchframe._providers.limits import Limits
    from batchframe._store.run_folder import RunFolder

Errors = list[tuple[int | None, str, str]]

# Errors about something that all lines share: leaving lines out does not help. Codes of OpenAI, Azure and compatible
# services.
_ABOUT_ALL = frozenset(
    {
        "model_not_found",
        "mismatched_model",
        "model_mismatch",
        "invalid_model",
        "deployment_not_found",
        "deploymentnotfound",
        "invalid_url",
        "url_mismatch",
        "invalid_method",
        "streaming_unsupported",
        "empty_file",
        "empty_batch",
        "too_many_tasks",
    }
)
# Some services name one line at a time, and may go on to name them all.
_MAX_SPLITS = 10


def rejected_lines(errors: Errors, requests: int) -> dict[int, tuple[str, str]]:
    """Return the lines to leave out, with code and message; empty when that would not help.

    Parameters
    ----------
    errors
        The service's ``(line, code, message)``; lines count from 1.
    requests
        How many lines the file has.
    """
    rejected: dict[int, tuple[str, str]] = {}
    for line, code, message in errors:
        if line is None or not 1 <= line <= requests or code.casefold() in _ABOUT_ALL or _names_model(message):
            return {}
        rejected.setdefault(line, (code, message))
    return rejected if len(rejected) < requests else {}


def _names_model(message: str) -> bool:
    text = message.casefold()
    return "the provided model" in text or "model parameter is required" in text


def split_off(folder: RunFolder, part: PartRecord, lines: dict[int, tuple[str, str]], limits: Limits) -> bool:
    """Replace a part by one without some of its lines; the new record also names those lines.

    Returns
    -------
    bool
        False when lines were left out so often before that this one is refused for good.
    """
    if _splits_before(folder, part) >= _MAX_SPLITS:
        return False
    rejected = [
        RejectedRequest(custom_id, number, *lines[number])
        for number, (custom_id, _) in enumerate(lines_of(folder, part.number), start=1)
        if number in lines
    ]
    model = PartRecord(
        number=0,
        requests=0,
        bytes=0,
        tokens=0,
        attempt=part.attempt,
        generation=part.generation,
        split_from=part.number,
        rejected=[*part.rejected, *rejected],
        custom_ids=[],
    )
    numbered = enumerate(lines_of(folder, part.number), start=1)
    with InputFileWriter(folder, *file_limits(limits), model) as writer:
        writer.add_lines(pair for number, pair in numbered if number not in lines)
        writer.commit()
    return True


def _splits_before(folder: RunFolder, part: PartRecord) -> int:
    by_number = {other.number: other for other in folder.parts()}
    count = 0
    while part.split_from is not None:
        part, count = by_number[part.split_from], count + 1
    return count


def summary(errors: Errors) -> str:
    """Return the service's reasons, each once, with its line, or with how many lines it is about."""
    reasons: dict[tuple[str, str], list[int | None]] = {}
    for line, code, message in errors:
        reasons.setdefault((code, message), []).append(line)
    shown = []
    for (code, message), lines in list(reasons.items())[:5]:
        where = f"line {lines[0]}: " if len(lines) == 1 else f"{len(lines)} lines from line {lines[0]}: "
        shown.append(f"{where if lines[0] else ''}{code}: {message.rstrip('.')}")
    more = f"; and {len(reasons) - len(shown)} other reasons" if len(reasons) > len(shown) else ""
    return f"{'; '.join(shown) or 'it gave no reason'}{more}."
