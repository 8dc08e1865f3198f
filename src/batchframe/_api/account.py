"""``batches``: the batches of an account, in one schema for every service."""

from __future__ import annotations

import datetime as dt
import re
from contextlib import closing
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from batchframe._core.checks import is_count
from batchframe._core.exceptions import OptionError, suggestion
from batchframe._core.lenient import integer, mapping, moment, request_counts, text
from batchframe._providers.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from batchframe._core.remote import RemoteBatch

_TIME = pl.Datetime("us", "UTC")
SCHEMA: dict[str, Any] = {
    "batch_id": pl.String(),
    "status": pl.String(),
    "endpoint": pl.String(),
    "model": pl.String(),
    "created_at": _TIME,
    "in_progress_at": _TIME,
    "ended_at": _TIME,
    "expires_at": _TIME,
    "requests": pl.Int64(),
    "completed": pl.Int64(),
    "failed": pl.Int64(),
    "input_tokens": pl.Int64(),
    "output_tokens": pl.Int64(),
    "input_file_id": pl.String(),
    "output_file_id": pl.String(),
    "error_file_id": pl.String(),
    "errors": pl.List(pl.Struct({"line": pl.Int64(), "code": pl.String(), "message": pl.String()})),
    "metadata": pl.String(),
    "run": pl.String(),
}

# Sources: openai.types.batch and Microsoft's how-to. Other services have further statuses.
_STATUSES = ("validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled")
_ENDS = ("completed_at", "failed_at", "expired_at", "cancelled_at")
_AGE = re.compile(r"(\d{1,6})\s*([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
# Services list the newest batch first, but batches created at about the same time may be in another order.
_MARGIN = dt.timedelta(minutes=5)
_MAX_REPEATS = 100


def batches(
    client: Any = None,
    *,
    since: dt.datetime | dt.date | dt.timedelta | str | None = None,
    status: str | Iterable[str] | None = None,
    limit: int | None = None,
) -> pl.DataFrame:
    """Return the batches of an account, made by batchframe or not, in one schema for every service.

    Parameters
    ----------
    client
        An `openai.OpenAI` or `openai.AzureOpenAI`. None makes one from the environment variables.
    since
        Only batches created at this time or later: a datetime or date (UTC if it has no time zone), a timedelta back
        from now, or a text for either: ``"2026-11-01"``, ``"2026-11-01T08:00Z"``, ``"8h"``, ``"3d"``. None for all.
        Azure filters the list itself; elsewhere it is read back to that time in pages of 100.
    status
        Only batches with this status, or one of these: ``"completed"``, ``["validating", "in_progress"]``, ….
    limit
        Only this many, the newest.

    Returns
    -------
    pl.DataFrame
        One row per batch, the newest first, always with these columns: ``batch_id, status, endpoint, model: String``;
        ``created_at, in_progress_at, ended_at, expires_at: Datetime`` in UTC, where ``ended_at`` is when the batch
        completed, failed, expired or was cancelled; ``requests, completed, failed, input_tokens, output_tokens:
        Int64``, the service's counts, null if it does not report them; ``input_file_id, output_file_id, error_file_id:
        String``, null if there is none; ``errors: List(Struct{line, code, message})``, why the input file was refused,
        otherwise empty; ``metadata: String``, a JSON object or null, since the keys differ between batches
        (``pl.col("metadata").str.json_path_match("$.project")`` extracts one); ``run: String``, the id of the
        batchframe run that it belongs to, null for batches made elsewhere.

    Raises
    ------
    OptionError
        An argument is invalid, or there is no client.
    APICallError
        The call to the service failed.

    Examples
    --------
    >>> reviews = pl.DataFrame({"text": ["Great sound.", "Broke after a week."]})
    >>> question = "Classify as positive or negative: {text}"
    >>> out = bf.run(reviews, question, model="gpt-4o-mini", client=client, poll_seconds=0.1)
    >>> bf.batches(client, since="1h").select("status", "endpoint", "requests", "completed", "failed")
    shape: (1, 5)
    ┌───────────┬──────────────────────┬──────────┬───────────┬────────┐
    │ status    ┆ endpoint             ┆ requests ┆ completed ┆ failed │
    │ ---       ┆ ---                  ┆ ---      ┆ ---       ┆ ---    │
    │ str       ┆ str                  ┆ i64      ┆ i64       ┆ i64    │
    ╞═══════════╪══════════════════════╪══════════╪═══════════╪════════╡
    │ completed ┆ /v1/chat/completions ┆ 2        ┆ 2         ┆ 0      │
    └───────────┴──────────────────────┴──────────┴───────────┴────────┘
    """
    start, statuses = _start(since), _statuses(status)
    # Services report creation times in whole seconds. A batch created later in the same second must be included.
    start = None if start is None else start.replace(microsecond=0)
    if limit is not None and not is_count(limit):
        msg = f"limit must be a whole number of at least 1, or None for all, got {limit!r}"
        raise OptionError(msg)
    rows = []
    with closing(Service(client)) as service:
        only_status = next(iter(statuses)) if len(statuses) == 1 else None
        for row in _rows(service.client.list_matching(start, only_status), start):
            if (start is None or (row["created_at"] is not None and row["created_at"] >= start)) and (
                not statuses or row["status"] in statuses
            ):
                rows.append(row)
            if len(rows) == limit:
                break
    frame = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    return frame.sort("created_at", descending=True, nulls_last=True, maintain_order=True)


def _rows(listed: Iterator[RemoteBatch], start: dt.datetime | None) -> Iterator[dict[str, Any]]:
    """Yield one row per batch, back to ``start``. Stop if the service keeps returning the same page."""
    ids: set[str] = set()
    repeats = 0
    for batch in listed:
        if batch.id in ids:
            repeats += 1
            if repeats > _MAX_REPEATS:
                return
            continue
        ids.add(batch.id)
        repeats = 0
        row = _row(batch)
        if start is not None and row["created_at"] is not None and row["created_at"] < start - _MARGIN:
            return
        yield row


def _row(batch: RemoteBatch) -> dict[str, Any]:
    raw = batch.raw
    counts, usage, metadata = request_counts(raw), mapping(raw.get("usage")), mapping(raw.get("metadata"))
    ends = [moment(raw.get(name)) for name in _ENDS]
    return {
        "batch_id": batch.id,
        "status": batch.status,
        "endpoint": text(raw.get("endpoint")),
        "model": text(raw.get("model")),
        "created_at": moment(raw.get("created_at")),
        "in_progress_at": moment(raw.get("in_progress_at")),
        "ended_at": next((end for end in ends if end is not None), None),
        "expires_at": moment(raw.get("expires_at")),
        "requests": integer(counts.get("total")),
        "completed": integer(counts.get("completed")),
        "failed": integer(counts.get("failed")),
        "input_tokens": integer(usage.get("input_tokens")),
        "output_tokens": integer(usage.get("output_tokens")),
        "input_file_id": batch.input_file_id,
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "errors": [{"line": integer(line), "code": code, "message": message} for line, code, message in batch.errors],
        "metadata": msgspec.json.encode(metadata).decode() if metadata else None,
        "run": text(metadata.get("batchframe_run")),
    }


def _start(since: Any) -> dt.datetime | None:
    """Return ``since`` as a datetime in UTC; None for no limit."""
    passed = since
    if isinstance(since, str):
        age = _AGE.fullmatch(since.strip())
        since = dt.timedelta(**{_UNITS[age[2]]: int(age[1])}) if age else _parsed(since.strip())
    try:
        if isinstance(since, dt.timedelta) and since >= dt.timedelta():
            return dt.datetime.now(dt.timezone.utc) - since
        if isinstance(since, dt.datetime):
            return since.replace(tzinfo=dt.timezone.utc) if since.tzinfo is None else since.astimezone(dt.timezone.utc)
    except OverflowError:
        return dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
    if isinstance(since, dt.date):
        return dt.datetime(since.year, since.month, since.day, tzinfo=dt.timezone.utc)
    if passed is None:
        return None
    msg = (
        "since must be a datetime, a date, a timedelta back from now, or a text such as '2026-11-01', "
        f"'2026-11-01T08:00Z', '8h' or '3d', got {passed!r}"
    )
    raise OptionError(msg)


def _parsed(text: str) -> Any:
    """Return the datetime or date that a text holds, or None."""
    with_seconds = re.sub(r"([T ]\d\d:\d\d)(?=Z|[+-]|$)", r"\1:00", text, flags=re.IGNORECASE)
    try:
        return moment(with_seconds) or dt.date.fromisoformat(text)
    except ValueError:
        return None


def _statuses(status: Any) -> frozenset[str]:
    """Return the requested statuses, none for all. Refuse an unknown status that is close to a known one."""
    listed = [status] if isinstance(status, str) else [] if status is None else status
    try:
        names = [name.strip().casefold() for name in listed]
    except (AttributeError, TypeError):
        msg = f"status must be a text, or a list of texts, such as 'completed', got {status!r}"
        raise OptionError(msg) from None
    if status is not None and not names:
        msg = "status is empty: pass at least one status, or leave it out for all"
        raise OptionError(msg)
    for name in names:
        near = suggestion(name, _STATUSES) if name not in _STATUSES else ""
        if near or not name:
            msg = f"unknown status {name!r}.{near} Known: {', '.join(_STATUSES)}"
            raise OptionError(msg)
    return frozenset(names)
