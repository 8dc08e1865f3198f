"""From what a command does to an exit code and one line: errors, warnings, signals."""

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
    CANNOT_GO_ON = 1
    USER_MISTAKE = 2
    FAILED_ROWS = 3
    STILL_RUNNING = 4


class Detached(Exception):  # noqa: N818  (it is no error)
    """The user stopped waiting, and the run goes on."""


_USER_MISTAKES = (
    bf.AuthenticationError,
    bf.InputError,
    bf.OptionError,
    bf.RunMismatchError,
    bf.RunNotFoundError,
    bf.TemplateError,
)


def guarded(group: click.Group, args: list[str] | None) -> int:
    """Run a command so that whatever can be foreseen ends as one line on standard error, and return the exit code."""
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
    """Say something on standard error."""
    click.echo(message, err=True)


def _outcome(error: Exception) -> tuple[Exit, str]:
    """Return the exit code and the message of an error."""
    if isinstance(error, (Detached, bf.RunPendingError)):
        return Exit.STILL_RUNNING, str(error)
    if isinstance(error, click.Abort):
        return Exit.CANNOT_GO_ON, "error: interrupted"
    if isinstance(error, click.UsageError):
        hint = f" (see {error.ctx.command_path} --help)" if error.ctx is not None else ""
        return Exit.USER_MISTAKE, f"error: {error.format_message()}{hint}"
    if isinstance(error, _USER_MISTAKES):
        return Exit.USER_MISTAKE, f"error: {error}"
    if isinstance(error, (bf.BatchframeError, click.ClickException, ImportError, OSError)):
        return Exit.CANNOT_GO_ON, f"error: {error}"
    said = " ".join(str(error).split())
    return Exit.CANNOT_GO_ON, f"error: {type(error).__name__}: {said} (BATCHFRAME_DEBUG=1 shows where it comes from)"


@contextmanager
def _own_warnings() -> Iterator[None]:
    """Show our warnings as one line each, without the source line they come from."""
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
    """Let SIGTERM do what Ctrl-C does; the command does this, the library never."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _never_fail_to_encode() -> None:
    """Replace what the terminal's encoding does not have, rather than fail at the end of a run."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
