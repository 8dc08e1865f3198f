"""``frame.batch``: the calls of this package as methods of Polars frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from batchframe import _calls

if TYPE_CHECKING:
    from batchframe._run import Run


# Polars caches the namespace on the frame, which makes a reference cycle: so it holds the frame and nothing else.
class BatchNamespace:
    """``frame.batch``: run a prompt over the rows of this frame.

    Parameters
    ----------
    frame
        The frame.
    """

    def __init__(self, frame: pl.DataFrame | pl.LazyFrame) -> None:
        self._frame = frame

    def run(self, prompt: Any, **options: Any) -> pl.DataFrame | pl.LazyFrame:
        """Ask a model about every row, wait, and return the frame with the answers: `batchframe.run`."""
        return _calls.run(self._frame, prompt, **options)

    def submit(self, prompt: Any, **options: Any) -> Run:
        """Begin a run and return its handle: `batchframe.submit`."""
        return _calls.submit(self._frame, prompt, **options)

    def requests(self, prompt: Any, **options: Any) -> pl.DataFrame:
        """Return the exact request lines, and send nothing: `batchframe.requests`."""
        return _calls.requests(self._frame, prompt, **options)


def register() -> None:
    """Register the namespace on DataFrame and LazyFrame; once, since Polars warns at the second time."""
    pl.api.register_dataframe_namespace("batch")(BatchNamespace)
    pl.api.register_lazyframe_namespace("batch")(BatchNamespace)
