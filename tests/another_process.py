"""A run as another process has it: opened anew, perhaps with other options."""

from __future__ import annotations

import dataclasses

from batchframe._runs.run import Run


def reopened(begun: Run, **options) -> Run:
    """Return another handle of a run, with the same client."""
    settings = dataclasses.replace(begun._settings, **options)
    return Run(begun._folder, begun._record, settings, begun._service)
