"""Turn errors, warnings and signals of a command into an exit code and one line."""

from __future__ import annotations

import io
import os
import signal
import sys
import warnings
from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import click

import batchframe as bf

if TYPE_CHECKING:
    from collections.abc import Iterator


class Exit(IntEnum):
    """The exit codes."""

    DONE = 0
    CANNOT_CONTINUE = 1
    USER_MISTAKE = 2
    FAILED_ROWS = 3
    STILL_RUNNING = 4


class Detached(Exception):  # noqa: N818  (not an error)
    """The user stopped waiting; the run continues."""


_USER_MISTAKES = (
    bf.AuthenticationError,
    bf.InputError,
    bf.OptionError,
    bf.RunMismatchError,
    bf.RunNotFoundError,
    bf.TemplateError,
)


def guarded(group: click.Group, args: list[str] | None) -> int:
    """Run a command, print any error as one line on standard error, and return the exit code."""
    try:
        with _own_warnings(), _sigterm_as_interrupt():
            _never_fail_to_encode()
            code: Any = group.main(args, prog_name="batchframe", standalone_mode=False)
            return int(code or Exit.DONE)
    except Exception as error:
        if os.environ.get("BATCHFRAME_DEBUG"):
            raise
        code, message = _outcome(error)
        tell(message)
        return int(code)


def tell(message: str) -> None:
    """Print a message on standard error."""
    click.echo(message, err=True)


def _outcome(error: Exception) -> tuple[Exit, str]:
    """Return the exit code and the message of an error."""
    if isinstance(error, (Detached, bf.RunPendingError)):
        return Exit.STILL_RUNNING, str(error)
    if isinstance(error, click.Abort):
        return Exit.CANNOT_CONTINUE, "error: interrupted"
    if isinstance(error, click.UsageError):
        hint = f" (see {error.ctx.command_path} --help)" if error.ctx is not None else ""
        return Exit.USER_MISTAKE, f"error: {error.format_message()}{hint}"
    if isinstance(error, _USER_MISTAKES):
        return Exit.USER_MISTAKE, f"error: {error}"
    if isinstance(error, (bf.BatchframeError, click.ClickException, ImportError, OSError)):
        return Exit.CANNOT_CONTINUE, f"error: {error}"
    text = " ".join(str(error).split())
    return Exit.CANNOT_CONTINUE, f"error: {type(error).__name__}: {text} (set BATCHFRAME_DEBUG=1 for a traceback)"


@contextmanager
def _own_warnings() -> Iterator[None]:
    """Show batchframe's warnings as one line each, without a source line."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", bf.BatchframeWarning)
        before = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, bf.BatchframeWarning):
                tell(f"warning: {message}")
            else:
                before(message, category, *where, **more)

        warnings.showwarning = show
        yield


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C. Only the command does this, never the library."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _never_fail_to_encode() -> None:
    """Replace characters that the terminal's encoding lacks: the end of a run must not fail on them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
