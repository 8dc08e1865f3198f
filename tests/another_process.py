"""A run as another process has it: opened anew, perhaps with other options."""

from __future__ import annotations

from batchframe._run import Run


def reopened(begun: Run, **options) -> Run:
    """Return another handle of a run, with the same client."""
    options = begun._options.__class__(**vars(begun._options) | options)
    return Run(begun._folder, begun._record, options, begun._connect)
