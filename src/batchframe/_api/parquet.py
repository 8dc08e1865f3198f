"""``run_parquet``: a run from a Parquet file to a Parquet file, in bounded memory.

The options in the signature are written by ``scripts/generate_signatures.py``.
"""

from __future__ import annotations

import os
import secrets
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from batchframe._api.checked_call import run_of
from batchframe._api.frames import to_polars
from batchframe._api.options import options_of, parse
from batchframe._api.progress import showing
from batchframe._core.exceptions import InputError, first_paragraph
from batchframe._store.filesystem import naming

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    import openai
    from typing_extensions import Unpack

    from batchframe._api.arguments import (
        Endpoint,
        EndpointParameters,
        Images,
        Include,
        Prompt,
        ResponseFormat,
    )
    from batchframe._providers.limits import Limits
    from batchframe._providers.profiles import Provider
    from batchframe._runs.run import Run


def run_parquet(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    prompt: Prompt,
    *,
    model: str,
    system: str | pl.Expr | None = None,
    images: Images | None = None,
    image_detail: Literal["low", "high", "auto", "original"] | None = None,
    endpoint: Endpoint | None = "/v1/chat/completions",
    response_format: ResponseFormat | None = None,
    custom_id: str | None = None,
    client: openai.OpenAI | None = None,
    provider: str | Provider | None = None,
    limits: Limits | None = None,
    max_attempts: int | None = 3,
    pilot: int | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    name: str | None = None,
    dedupe: bool | None = False,
    reuse: Run | str | os.PathLike[str] | None = None,
    on_null: Literal["skip", "render", "raise"] | None = "skip",
    include: Include | Collection[Include] | None = None,
    prefix: str | None = None,
    poll_seconds: float | None = None,
    settle_seconds: float | None = 60.0,
    timeout_seconds: float | None = None,
    progress: bool | None = None,
    cleanup: Literal["when_done", "never"] | None = "never",
    metadata: dict[str, str] | None = None,
    completion_window: str | None = None,
    expires_after: int | None = None,
    extra_body: dict[str, Any] | None = None,
    **parameters: Unpack[EndpointParameters],
) -> Run:
    """Run a prompt over every row of a Parquet file, wait, and write a Parquet file with the answers.

    Parameters
    ----------
    source
        The file to read.
    destination
        The file to write: all rows and columns of ``source`` in their order, and the added columns of `run`. It gets
        its name only once it is complete. An existing file is replaced.
    prompt, model, **parameters
        As for `run`, like all other options.

    Returns
    -------
    Run
        The finished run.

    Raises
    ------
    InputError
        ``source`` cannot be read, or ``destination`` cannot be written. Nothing was sent.
    TemplateError, OptionError, APICallError, RunError
        As for `run`.

    Notes
    -----
    Billed like `run`. Repeating the call rewrites the file from the finished run and costs nothing.

    Examples
    --------
    >>> pl.DataFrame({"text": ["Great sound.", "Broke after a week."]}).write_parquet("reviews.parquet")
    >>> run = bf.run_parquet("reviews.parquet", "out.parquet", "Classify as positive or negative: {text}",
    ...                      model="gpt-4o-mini", client=client, poll_seconds=0.1)
    >>> run.status().succeeded
    2
    >>> pl.read_parquet("out.parquet").select("text", "response")
    shape: (2, 2)
    ┌─────────────────────┬──────────┐
    │ text                ┆ response │
    │ ---                 ┆ ---      │
    │ str                 ┆ str      │
    ╞═════════════════════╪══════════╡
    │ Great sound.        ┆ positive │
    │ Broke after a week. ┆ negative │
    └─────────────────────┴──────────┘
    """
    parsed = parse(options_of(locals()))
    target = _checked_destination(Path(source), Path(destination))
    frame = scan(source)
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        temporary.touch()
    except OSError as error:
        msg = f"{os.fspath(target)!r} cannot be written: {error}"
        raise InputError(msg) from error
    try:
        run = run_of(to_polars(frame), prompt, parsed)
        with showing(run, progress=parsed.progress), closing(run):
            run.wait()
        with naming(target):
            run.sink(temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    run.warn_of_failures()
    return run


def read(source: str | os.PathLike[str]) -> pl.DataFrame:
    """Return the frame of a Parquet file, in memory; raise as `scan` does."""
    with _reading(source):
        return scan(source).collect()


def scan(source: str | os.PathLike[str]) -> pl.LazyFrame:
    """Return the lazy frame of a Parquet file.

    Raises
    ------
    InputError
        The file cannot be read, or has a column that Polars cannot hold.
    """
    _refuse_types(Path(source))
    with _reading(source):
        frame = pl.scan_parquet(Path(source), glob=False)
        frame.collect_schema()
    return frame


@contextmanager
def _reading(source: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        msg = f"{os.fspath(source)!r} cannot be read as Parquet: {first_paragraph(error)}"
        raise InputError(msg) from error


def _refuse_types(path: Path) -> None:
    import pyarrow as pa  # noqa: PLC0415  (takes a while to import)
    from pyarrow import parquet  # noqa: PLC0415

    from batchframe._api import arrow_types  # noqa: PLC0415

    try:
        stored = parquet.read_metadata(path).schema
        schema = stored.to_arrow_schema()
    except (OSError, pa.ArrowException):
        return  # Polars reports what is wrong with the file, or reads a file that pyarrow cannot
    # The Arrow schema shows the INTERVAL columns that DuckDB writes as bytes.
    leaves = (stored.column(index) for index in range(len(stored)))
    intervals = [leaf.path for leaf in leaves if leaf.converted_type == "INTERVAL"]
    arrow_types.refuse_stored_types(schema, os.fspath(path), intervals)


def _checked_destination(source: Path, destination: Path) -> Path:
    """Refuse a destination now that could not be written hours later."""
    if not destination.parent.is_dir():
        msg = f"the folder of the destination, {os.fspath(destination.parent)!r}, does not exist: create it first"
        raise InputError(msg)
    if destination.is_dir():
        msg = f"the destination {os.fspath(destination)!r} is a folder: pass the path of a file"
        raise InputError(msg)
    if destination.exists() and source.exists() and destination.samefile(source):
        msg = f"source and destination are the same file, {os.fspath(source)!r}: pass another destination"
        raise InputError(msg)
    return destination
