"""Show the progress of a run in terminals and notebooks."""

from __future__ import annotations

import importlib
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchframe._core.events import Event
    from batchframe._runs.run import Run


@contextmanager
def showing(run: Run, *, progress: bool | None) -> Iterator[None]:
    """Show the progress of a run on standard error, inside a ``with`` block.

    Parameters
    ----------
    run
        The run.
    progress
        Whether to show it. None shows it in terminals and notebooks.
    """
    if not (_is_watched() if progress is None else progress):
        yield
        return
    display = _Display()
    before, run.listen = run.listen, display
    try:
        yield
    finally:
        run.listen = before
        display.close()


def _is_watched() -> bool:
    return sys.stderr.isatty() or "ipykernel" in sys.modules


class _Display:
    """Show events as a bar if tqdm is installed (the extra ``cli``), otherwise as a line for each change."""

    def __init__(self) -> None:
        try:
            self._tqdm: Any = importlib.import_module("tqdm.auto").tqdm
        except ImportError:
            self._tqdm = None
        self._bar: Any = None
        self._last = ""

    def __call__(self, event: Event) -> None:
        if event.kind == "notice":
            self._write(event.message)
        elif self._tqdm is None:
            line = f"{event.done} of {event.total} requests done; {event.message}"
            if line != self._last:
                self._write(line)
            self._last = line
        else:
            if self._bar is None:
                self._bar = self._tqdm(total=event.total, unit=" requests", dynamic_ncols=True)
            self._bar.set_postfix_str(event.message, refresh=False)
            self._bar.update(event.done - self._bar.n)
            self._bar.refresh()

    def _write(self, line: str) -> None:
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)  # noqa: T201  (printing is its purpose)

    def close(self) -> None:
        """Close the bar, and leave its last state on the screen."""
        if self._bar is not None:
            self._bar.close()
