"""The standard output of the commands."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click
import polars as pl

if TYPE_CHECKING:
    from batchframe import Run, RunStatus


def show_status(run: Run, status: RunStatus) -> None:
    """Print the status of a run."""
    counts = ", ".join(
        f"{count:,} {name}"
        for name, count in (
            ("succeeded", status.succeeded),
            ("failed", status.failed),
            ("not sent", status.not_sent),
            ("pending", status.pending),
        )
        if count or name == "succeeded"
    )
    lines = {
        "state": status.state,
        "rows": f"{status.rows:,}: {counts}",
        "batches": ", ".join(f"{count:,} {name}" for name, count in status.batches.items()) or "none",
        "usage": ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in status.usage.items()),
        "waits for": status.waiting_for,
        "trouble": status.trouble,
        "run": os.fspath(run.path),
    }
    for name, text in lines.items():
        if text:
            click.echo(f"{name:<10} {text}")


def show_frame(frame: pl.DataFrame, *, whole: bool = False) -> None:
    """Print a frame in the terminal's encoding; with ``whole``, every row, column and character."""
    is_unicode = (getattr(sys.stdout, "encoding", None) or "").lower().startswith("utf")
    with pl.Config(tbl_width_chars=-1, fmt_str_lengths=24) as config:
        config.set_tbl_formatting("UTF8_FULL_CONDENSED" if is_unicode else "ASCII_FULL_CONDENSED")
        if whole:
            config.set_tbl_rows(-1).set_tbl_cols(-1).set_fmt_str_lengths(1_000)
        click.echo(str(frame))
