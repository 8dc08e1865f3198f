"""``list_runs``: the runs on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import polars as pl

from batchframe._core.exceptions import DamagedRunError, RunNotFoundError, StoreVersionError, warn
from batchframe._runs.run import open_folder
from batchframe._store.run_folder import RunFolder

_SCHEMA = {
    "run_id": pl.String(),
    "path": pl.String(),
    "created_at": pl.Datetime("us", "UTC"),
    "state": pl.String(),
    "rows": pl.Int64(),
    "succeeded": pl.Int64(),
    "failed": pl.Int64(),
    "not_sent": pl.Int64(),
    "pending": pl.Int64(),
    "trouble": pl.String(),
    "model": pl.String(),
    "endpoint": pl.String(),
    "name": pl.String(),
    "provider": pl.String(),
    "base_url": pl.String(),
}


def list_runs(root: str | os.PathLike[str] | None = None) -> pl.DataFrame:
    """Return the runs in a folder, the newest first. Needs no service.

    Parameters
    ----------
    root
        The folder that holds the runs. None for ``$BATCHFRAME_HOME``, or ``.batchframe``.

    Returns
    -------
    pl.DataFrame
        One row per run: ``run_id, path: String``, ``created_at: Datetime`` (UTC), ``state: String`` and the counts of
        `RunStatus` (``rows, succeeded, failed, not_sent, pending: Int64``), ``trouble: String``, the last error or the
        reason why the run was stopped, or null, and ``model, endpoint, name, provider, base_url: String``. Empty if the
        folder does not exist.

    Examples
    --------
    >>> out = bf.run(pl.DataFrame({"n": [1, 2]}), "Repeat {n}", model="gpt-4o-mini", client=client, poll_seconds=0.1)
    >>> bf.list_runs().select("state", "rows", "succeeded", "model")
    shape: (1, 4)
    ┌──────────┬──────┬───────────┬─────────────┐
    │ state    ┆ rows ┆ succeeded ┆ model       │
    │ ---      ┆ ---  ┆ ---       ┆ ---         │
    │ str      ┆ i64  ┆ i64       ┆ str         │
    ╞══════════╪══════╪═══════════╪═════════════╡
    │ finished ┆ 2    ┆ 2         ┆ gpt-4o-mini │
    └──────────┴──────┴───────────┴─────────────┘
    """
    root_path = Path(root or os.environ.get("BATCHFRAME_HOME") or ".batchframe").expanduser()
    rows = [row for folder in RunFolder.all_in(root_path) if folder.exists() for row in _rows(folder)]
    return pl.DataFrame(rows, schema=_SCHEMA, orient="row").sort("created_at", "run_id", descending=[True, False])


def _rows(folder: RunFolder) -> list[dict[str, Any]]:
    """Return the row of a run, in a list; an empty list if the run was just deleted, or cannot be read."""
    try:
        return [_row(folder)]
    except RunNotFoundError:
        return []
    except (DamagedRunError, StoreVersionError) as error:
        warn(f"{os.fspath(folder.path)} is left out: {error}")
        return []


def _row(folder: RunFolder) -> dict[str, Any]:
    record = folder.record()
    status = open_folder(folder, None).status(refresh=False)
    identity = record.identity
    return {
        "run_id": record.run_id,
        "path": os.fspath(folder.path),
        "created_at": record.created_at,
        **{name: getattr(status, name) for name in ("state", "rows", "succeeded", "failed", "not_sent", "pending")},
        "trouble": status.trouble or None,
        "model": record.options.get("model"),
        "endpoint": identity.endpoint,
        "name": identity.name,
        "provider": identity.account.provider,
        "base_url": identity.account.base_url,
    }
