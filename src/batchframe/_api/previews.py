"""Calls that send nothing: preview the requests of a run, and the schema of its result.

The options in the signatures are written by ``scripts/generate_signatures.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from batchframe._api.checked_call import renderer_of
from batchframe._api.frames import to_polars
from batchframe._api.options import options_of, parse
from batchframe._core.column_names import CUSTOM_ID, LINE
from batchframe._requests.dedupe import Repeats
from batchframe._requests.renderer import refuse_duplicates
from batchframe._results.columns import added_schema

if TYPE_CHECKING:
    import os
    from collections.abc import Collection

    import openai
    from typing_extensions import Unpack

    from batchframe._api.arguments import (
        ArrowStream,
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


def requests(
    frame: pl.DataFrame | pl.LazyFrame | ArrowStream,
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
) -> pl.DataFrame:
    r"""Return the exact request lines that a run would send. Sends nothing and needs no key.

    Parameters
    ----------
    frame, prompt, model, **parameters
        As for `run`, like all other options.

    Returns
    -------
    pl.DataFrame
        One row for each row of the frame: ``custom_id: String`` and ``request: String``, the JSON line without its
        newline. ``request`` is null if the row would not be sent, or if ``dedupe`` sends an earlier row in its place.
        ``reuse`` is not looked up, so rows that would reuse an answer have their lines too.

    Raises
    ------
    TemplateError, OptionError, InputError
        As for `run`.

    Examples
    --------
    >>> bf.requests(pl.DataFrame({"text": ["Hi", None]}), "{text}!", model="gpt-4o-mini", temperature=0)
    shape: (2, 2)
    ┌───────────┬─────────────────────────────────┐
    │ custom_id ┆ request                         │
    │ ---       ┆ ---                             │
    │ str       ┆ str                             │
    ╞═══════════╪═════════════════════════════════╡
    │ row-0     ┆ {"custom_id":"row-0","method":… │
    │ row-1     ┆ null                            │
    └───────────┴─────────────────────────────────┘
    """
    parsed = parse(options_of(locals()))
    renderer, repeats = renderer_of(to_polars(frame), prompt, parsed), Repeats()
    slices = []
    for rows in renderer.slices():
        is_own = repeats.requests(rows).is_null() if parsed.dedupe else pl.lit(value=True)
        slices.append(rows.select(CUSTOM_ID, pl.when(is_own).then(pl.col(LINE)).alias(LINE)))
    lines = pl.concat(slices)
    if renderer.custom_id is not None:
        refuse_duplicates(lines.lazy(), renderer.custom_id)
    return lines.select(pl.col(CUSTOM_ID).alias("custom_id"), pl.col(LINE).str.strip_suffix("\n").alias("request"))


def result_schema(
    frame: pl.DataFrame | pl.LazyFrame | ArrowStream,
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
) -> pl.Schema:
    """Return the schema of the frame that `run` would return. Sends nothing and needs no key.

    Parameters
    ----------
    frame, prompt, model, **parameters
        As for `run`, like all other options.

    Returns
    -------
    pl.Schema
        The columns of the frame, then the added columns.

    Raises
    ------
    TemplateError, OptionError, InputError
        As for `run`.

    Examples
    --------
    >>> schema = bf.result_schema(pl.DataFrame({"text": ["Hi"]}), "{text}", model="gpt-4o-mini")
    >>> schema.to_frame()
    shape: (0, 6)
    ┌──────┬───────────┬──────────┬───────────────┬───────────┬───────────┐
    │ text ┆ custom_id ┆ response ┆ finish_reason ┆ usage     ┆ error     │
    │ ---  ┆ ---       ┆ ---      ┆ ---           ┆ ---       ┆ ---       │
    │ str  ┆ str       ┆ str      ┆ str           ┆ struct[6] ┆ struct[2] │
    ╞══════╪═══════════╪══════════╪═══════════════╪═══════════╪═══════════╡
    └──────┴───────────┴──────────┴───────────────┴───────────┴───────────┘
    """
    parsed = parse(options_of(locals()))
    polars_frame = to_polars(frame)
    renderer_of(polars_frame, prompt, parsed)
    added = {parsed.prefix + name: dtype for name, dtype in added_schema(parsed.include, parsed.answer_format).items()}
    return pl.Schema(dict(polars_frame.collect_schema()) | added)
