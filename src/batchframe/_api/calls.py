"""``run``, ``submit`` and ``open_run``.

The options in the signatures and docstrings are written by ``scripts/generate_signatures.py``.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import polars as pl

from batchframe._api.checked_call import run_of
from batchframe._api.frames import to_polars
from batchframe._api.options import options_of, parse
from batchframe._api.progress import showing
from batchframe._runs.run import open_folder
from batchframe._store.run_folder import RunFolder

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


@overload
def run(
    frame: pl.LazyFrame,
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
) -> pl.LazyFrame: ...
@overload
def run(
    frame: pl.DataFrame | ArrowStream,
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
) -> pl.DataFrame: ...
def run(
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
) -> pl.DataFrame | pl.LazyFrame:
    """Run a prompt over every row with the Batch API, wait, and return the frame with the answers.

    Repeating the call resumes an interrupted run, or returns a finished one without a call to the service. A run is
    identified by its requests, endpoint and account, and its state is on disk. Ctrl-C only stops the waiting: submitted
    batches continue, and the same call collects them.

    Parameters
    ----------
    frame
        A Polars DataFrame or LazyFrame, or an object with the Arrow C stream (pyarrow, pandas, DuckDB). The result is
        then a Polars DataFrame. The index of a pandas frame is dropped. A LazyFrame is evaluated once, by this call.
        ``frame.batch.run`` is the same call as a method.
    prompt
        A template, ``"… {column} … {struct.field} … {{literal}}"``; an expression; a list of messages
        ``[{"role": …, "content": template or expression}, …]``, whose content may also be a list of the endpoint's
        content parts; or an expression of dtype ``List(Struct{role, content})``, a conversation. Embeddings,
        completions and moderations take one text per row: a template or an expression.
    model
        The model id, such as ``gpt-4o-mini``, or the Azure deployment name.
    system
        Template or expression of a system message, which comes first.
    images
        Columns or expressions with images, one or a list: String (URLs) or Binary (bytes). See Notes.
    image_detail
        How closely the model looks at the images. None uses the service's default.
    endpoint
        One of ``/v1/chat/completions``, ``/v1/responses``, ``/v1/embeddings``, ``/v1/completions``,
        ``/v1/moderations``.
    response_format
        A pydantic model, a JSON schema or a ``pl.Struct``: ``response`` becomes a Struct of that shape. See Notes.
        The service's own format is sent unchanged, and ``response`` stays text.
    custom_id
        Column with unique ids for the requests. None numbers the rows: ``row-<index>``.
    client
        An ``openai.OpenAI`` or ``openai.AzureOpenAI``. None makes one from the environment variables.
    provider
        The service: a name, such as ``"openai"`` or ``"azure"``, or a `Provider`. None derives it from the client.
    limits
        How large input files may be, and how much may be in flight. None uses the provider's limits.
    max_attempts
        How often a row may be submitted in total, if it was not executed or got no usable answer.
    pilot
        Submit this many rows first, alone. If none of them succeeds, the run stops.
    run_dir
        The folder of the run. None makes one in ``$BATCHFRAME_HOME`` or in ``.batchframe``.
    name
        Part of the run's id. Pass another name to get fresh answers.
    dedupe
        Whether to send equal requests once. Each of their rows gets the answer.
    reuse
        A run, its folder, or ``"all"``. Rows whose request succeeded there take that answer and are not sent.
    on_null
        What to do with a row that has a null in the prompt: do not send it, render the null as empty text, or
        raise.
    include
        One or more extra columns: ``model``, ``request_id``, ``batch_id``, ``logprobs``, ``tool_calls``,
        ``content_filter``, ``reused``, ``raw``. See Notes. Repeating the call with other columns sends nothing.
    prefix
        Prefix for the names of the added columns.
    poll_seconds
        Seconds between two polls. None is adaptive: 1 second at first, then 5 growing to 60, with up to 20 %
        jitter.
    settle_seconds
        How long to wait for a batch to appear if its create call got no reply.
    timeout_seconds
        Stop waiting after this many seconds, and raise `RunPendingError`; the batches continue. None waits until
        the run is finished.
    progress
        Whether to show progress on stderr. None shows it in terminals and notebooks.
    cleanup
        Whether to delete the run's files at the service once the run is finished.
    metadata
        Your own metadata for the batches.
    completion_window
        The completion window of the batches. None is the service's default, nearly everywhere ``"24h"``.
    expires_after
        Seconds until the service deletes the input and output files.
    extra_body
        Request parameters that batchframe does not know, or whose names are options here. Sent unchecked.
    **parameters
        Request parameters of the endpoint, each a value or a per-row expression. A null leaves the parameter out for
        that row.

    Returns
    -------
    pl.DataFrame or pl.LazyFrame
        All rows in their order, with the added columns ``custom_id: String``, ``response: String`` (with
        ``response_format``: a Struct), ``finish_reason: String``, ``usage: Struct{input_tokens, output_tokens,
        total_tokens, cached_tokens, cache_write_tokens, reasoning_tokens: Int64}`` and ``error: Struct{code, message:
        String}``, which is null if and only if the row succeeded. Lazy if ``frame`` is lazy. With ``n`` above 1,
        ``response`` and ``finish_reason`` are Lists. For ``/v1/embeddings``, ``response`` is ``Array(Float32, d)``,
        where d comes from ``dimensions`` or the model, or ``List(Float32)`` if d is unknown. For ``/v1/moderations``,
        it is ``Struct{flagged: Boolean, categories: Struct, category_scores: Struct}``.

    Raises
    ------
    TemplateError, OptionError, InputError
        The call does not fit the frame. Nothing was sent.
    APICallError, RunError
        The run cannot continue. Repeat the call to resume it.

    Notes
    -----
    Each row that is sent is billed once, at the service's batch rate. Not billed: rows that are not sent (codes
    ``null_input``, ``invalid_input``, ``request_too_large``) and input files that the service refused. With
    ``dedupe=True`` equal requests are billed once. Rows that reuse an answer of another run are not billed again.

    ``images`` takes columns or expressions: String (URLs), Binary (sent as data URLs; the type comes from the first
    bytes) or Lists of these. Images follow the text of the prompt. In a list of messages they follow the text of the
    last user message; in a conversation, that of the last message, which must be the user's. In a content part,
    ``text`` is a template and any other value may be an expression; a Binary value is an image, or a PDF if it is
    ``file_data``. ``on_null`` also applies to a null in a part; ``"render"`` leaves out the part or image. A run
    keeps the input columns, so a GB of images takes about 3 GB on disk.

    ``include="tool_calls"`` adds ``List(Struct{id, name, arguments: String})``: an empty list for an answer without
    tool calls, null for a row without an answer. A row whose answer only calls tools has succeeded, with a null
    response. ``include="logprobs"`` adds ``List(Struct{token: String, logprob: Float64, bytes: List(UInt8),
    top_logprobs: List(Struct{token: String, logprob: Float64})})``, null if the service sent none. With ``n`` above 1
    both columns hold one such list for each choice.

    ``response_format`` is a pydantic model, a JSON schema or a ``pl.Struct``. It is sent as a strict-mode schema: every
    object is closed and every property required; properties that a JSON schema does not require become nullable.
    Constraints that strict mode does not accept go into the description for the model if batchframe can check them
    (``minLength``, ``maxLength``, a pattern with a lookaround). Others are refused by name (``dict[str, X]``, ``Any``,
    tuples, ``allOf``, …). Integers become Int64, numbers Float64, text literals and enums Enum, arrays List, objects
    Struct, ``date`` Date, ``date-time`` Datetime in UTC (an absent offset means UTC), ``time`` Time (as written,
    without its offset), ``duration`` Duration, and pydantic's Decimal with digits and places Decimal. A ``pl.Struct``
    gives exactly its dtypes, without nulls. Values without a single dtype are Strings with their JSON: unions such as
    ``int | str``, and a model nested in itself. An answer of another type gets the code ``invalid_response``; the
    message says where and why, and ``include=["raw"]`` shows the answer. The service's own format, ``{"type":
    "json_schema" or "json_object" or "text", …}``, is sent unchanged, and the response stays text.

    Examples
    --------
    >>> reviews = pl.DataFrame({"text": ["Great sound.", "Broke after a week."]})
    >>> question = "Classify as positive or negative: {text}"
    >>> out = bf.run(reviews, question, model="gpt-4o-mini", client=client, poll_seconds=0.1)
    >>> out.select("text", "response", "finish_reason")
    shape: (2, 3)
    ┌─────────────────────┬──────────┬───────────────┐
    │ text                ┆ response ┆ finish_reason │
    │ ---                 ┆ ---      ┆ ---           │
    │ str                 ┆ str      ┆ str           │
    ╞═════════════════════╪══════════╪═══════════════╡
    │ Great sound.        ┆ positive ┆ stop          │
    │ Broke after a week. ┆ negative ┆ stop          │
    └─────────────────────┴──────────┴───────────────┘

    With a response format, the response is a struct:

    >>> review = pl.Struct({"sentiment": pl.Enum(["positive", "negative"]), "recommends": pl.Boolean})
    >>> out = bf.run(reviews, "Judge: {text}", response_format=review, model="gpt-4o-mini", client=client,
    ...              poll_seconds=0.1)
    >>> out.select("text", pl.col("response").struct.unnest())
    shape: (2, 3)
    ┌─────────────────────┬───────────┬────────────┐
    │ text                ┆ sentiment ┆ recommends │
    │ ---                 ┆ ---       ┆ ---        │
    │ str                 ┆ enum      ┆ bool       │
    ╞═════════════════════╪═══════════╪════════════╡
    │ Great sound.        ┆ positive  ┆ true       │
    │ Broke after a week. ┆ negative  ┆ false      │
    └─────────────────────┴───────────┴────────────┘
    """
    parsed = parse(options_of(locals()))
    polars_frame = to_polars(frame)
    started = run_of(polars_frame, prompt, parsed)
    with showing(started, progress=parsed.progress), closing(started):
        started.wait()
    started.warn_of_failures()
    return started.scan() if isinstance(polars_frame, pl.LazyFrame) else started.added_to(polars_frame)


def submit(
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
) -> Run:
    """Start a run, and return once its first batches are created.

    Parameters
    ----------
    frame, prompt, model, **parameters
        As for `run`, like all other options.

    Returns
    -------
    Run
        The run. Call ``run.wait()`` and ``run.result()``, or ``bf.open_run(run.path)`` in another process.

    Raises
    ------
    TemplateError, OptionError, InputError, APICallError, RunError
        As for `run`.

    Notes
    -----
    Billed like `run`: submitted requests are executed whether or not you wait for them.

    Examples
    --------
    >>> reviews = pl.DataFrame({"text": ["Great sound.", "Broke after a week."]})
    >>> question = "Classify as negative or positive: {text}"
    >>> run = bf.submit(reviews, question, model="gpt-4o-mini", client=client, poll_seconds=0.1)
    >>> run.wait().done
    True
    >>> run.result().select("text", "response")
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
    started = run_of(to_polars(frame), prompt, parsed)
    with showing(started, progress=parsed.progress):
        started.start()
    return started


def open_run(run_dir: str | os.PathLike[str], *, client: Any = None) -> Run:
    """Open a run that was started earlier, here or in another process.

    Parameters
    ----------
    run_dir
        The folder of the run (``run.path``).
    client
        The client for calls to the service. None makes one from the environment variables when it is needed.

    Returns
    -------
    Run
        The run. Reading downloaded answers needs neither a key nor the service.

    Raises
    ------
    RunNotFoundError
        The folder holds no run.
    StoreVersionError
        The run was written by a newer batchframe.

    Examples
    --------
    >>> frame = pl.DataFrame({"text": ["Great sound."]})
    >>> question = "Classify as positive or negative: {text}"
    >>> path = bf.submit(frame, question, model="gpt-4o-mini", client=client, poll_seconds=0.1).path
    >>> run = bf.open_run(path, client=client)
    >>> run.wait().succeeded
    1
    >>> run.result().select("text", "response")
    shape: (1, 2)
    ┌──────────────┬──────────┐
    │ text         ┆ response │
    │ ---          ┆ ---      │
    │ str          ┆ str      │
    ╞══════════════╪══════════╡
    │ Great sound. ┆ positive │
    └──────────────┴──────────┘
    """
    return open_folder(RunFolder(Path(run_dir).expanduser().absolute()), client)
