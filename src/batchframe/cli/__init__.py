"""The command ``batchframe``: the package's calls from a shell. Needs the extra ``cli``."""

from __future__ import annotations

import sys

from batchframe._core.exceptions import MissingExtraError

__all__ = ["main"]


def main(args: list[str] | None = None) -> int:
    """Run the command and return its exit code.

    Parameters
    ----------
    args
        The arguments after ``batchframe``. None takes those of the process.
    """
    try:
        import click  # noqa: F401, PLC0415  (only with the extra)
    except ImportError as error:
        sys.stderr.write(f"error: {MissingExtraError.from_extra('the command batchframe', 'cli', error)}\n")
        return 1
    from batchframe.cli._commands import group  # noqa: PLC0415  (needs click)
    from batchframe.cli._guard import guarded  # noqa: PLC0415

    return guarded(group, args)
