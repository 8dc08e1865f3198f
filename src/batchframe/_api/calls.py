"""The typed calls behind ``frame.batch``.

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
    """Ask a model about every row through the Batch API, wait, and return the frame with the answers.

    The same call resumes a run that was interrupted, or returns the finished one without a call to the service: a run
    is known by its requests, endpoint and account, and its state is on disk. Ctrl-C detaches: batches go on, and the
    same call collects them.

    Parameters
    ----------
    frame
        A Polars DataFrame or LazyFrame, or anything with the Arrow C stream (pyarrow, pandas, DuckDB), which gives a
        Polars DataFrame; of pandas the index is left out. A LazyFrame is evaluated here, once. ``frame.batch`` has
        this call as a method.
    prompt
        A template, ``"… {column} … {struct.field} … {{literal}}"``; an expression; a list of messages
        ``[{"role": …, "content": template or expression}, …]``, where a content may also be a list of the endpoint's
        parts; or an expression of dtype ``List(Struct{role, content})``, a conversation. Embeddings, completions
        and moderations take one text a row: a template or an expression.
    model
        The model id, such as ``gpt-4o-mini``, or the Azure deployment name.
    system
        Template or expression of a system message, which is put first.
    images
        Column, expression, or a list of these: URLs (String) or bytes (Binary) of images; see Notes.
    image_detail
        How closely the model looks at the images; None for the service's own default.
    endpoint
        Or ``/v1/responses``, ``/v1/embeddings``, ``/v1/completions`` or ``/v1/moderations``.
    response_format
        A pydantic model, a JSON schema or a ``pl.Struct``: ``response`` becomes a Struct of that shape; see Notes.
        The service's own form is sent as it is, and ``response`` stays text.
    custom_id
        Column with unique ids of the requests; None for ``row-<index>``.
    client
        An ``openai.OpenAI`` or ``openai.AzureOpenAI``; None makes one from the environment.
    provider
        The service: a name, such as ``"openai"`` or ``"azure"``, or a `Provider`. None recognises it by the client.
    limits
        How large input files may be and how much may be in flight; None is the provider's.
    max_attempts
        How often a row may be submitted that was not executed or came to nothing.
    pilot
        So many rows are submitted first, alone; when all of them fail, the run stops.
    run_dir
        The folder of the run; None for one in ``$BATCHFRAME_HOME``, or in ``.batchframe``.
    name
        Part of the run's id: another name asks for fresh answers.
    dedupe
        Whether equal requests are sent once, and each of their rows gets the answer.
    reuse
        A run, its folder, or ``"all"``: rows whose request succeeded there take that answer, and are not sent.
    on_null
        What becomes of a row with a null in the prompt: it is not sent, the null is rendered as empty text, or the
        call raises.
    include
        One or more extra columns: ``model``, ``request_id``, ``batch_id``, ``logprobs``, ``tool_calls``,
        ``content_filter``, ``reused``, ``raw``; see Notes. The same call with other ones sends nothing.
    prefix
        Put before the name of every added column.
    poll_seconds
        Seconds between two looks at the service; None is adaptive, 5 to 60.
    settle_seconds
        Seconds that a batch has to appear whose creation got no answer.
    timeout_seconds
        Stop waiting after so many seconds with `RunPendingError`; the batches go on. None waits to the end.
    progress
        Whether to show progress on stderr; None shows it in terminals and notebooks.
    cleanup
        Whether the run's files at the service are deleted once it is finished.
    metadata
        Metadata of yours, put on the batches.
    completion_window
        The window of the batches; None is the service's, nearly everywhere ``"24h"``.
    expires_after
        Seconds after which the service deletes input and output files.
    extra_body
        Request parameters that batchframe does not know, or whose names are options here; sent unchecked.
    **parameters
        Every other name is a request parameter of the endpoint, a value or a per-row expression; a null leaves the
        parameter out for that row.

    Returns
    -------
    pl.DataFrame or pl.LazyFrame
        All rows in their order, with the added columns ``custom_id: String``, ``response: String`` (with
        ``response_format``: a Struct), ``finish_reason: String``, ``usage: Struct{input_tokens, output_tokens,
        total_tokens, cached_tokens, cache_write_tokens, reasoning_tokens: Int64}`` and ``error: Struct{code, message:
        String}``, which is null exactly where the row succeeded. Lazy when ``frame`` is. With ``n`` above 1,
        ``response`` and ``finish_reason`` are Lists. Of ``/v1/embeddings`` the response is ``Array(Float32, d)``, with
        d of ``dimensions`` or of the model, or ``List(Float32)`` where neither tells it; of ``/v1/moderations``
        ``Struct{flagged: Boolean, categories: Struct, category_scores: Struct}``.

    Raises
    ------
    TemplateError, OptionError, InputError
        The call does not fit the frame; nothing was sent.
    APICallError, RunError
        The run could not go on. It stays resumable by the same call.

    Notes
    -----
    Each row that is sent is charged once, at the batch rate of the service. Not charged: rows that are not sent (codes
    ``null_input``, ``invalid_input``, ``request_too_large``), and input files that the service refused. With
    ``dedupe=True`` equal requests are charged once; rows that take an answer of another run, with ``reuse``, are not
    charged again.

    ``images`` are columns or expressions: String (URLs), Binary (sent as data URLs, told by their first bytes) or
    Lists of these. They are put behind the text of the prompt; of the last user message, in a list of messages; of the
    last message, which must be the user's, in a conversation. In parts, ``text`` is a template, any other value may be
    an expression, and one of bytes is an image, or a PDF as ``file_data``. A null in a part is as ``on_null`` says;
    rendered, it leaves out the part or image. A run keeps the input columns: images of a GB take some 3 GB there.

    ``include="tool_calls"`` adds ``List(Struct{id, name, arguments: String})``: an empty list where a row was answered
    without a call, null where it was not answered. A row that only calls tools has succeeded with a null response.
    ``include="logprobs"`` adds ``List(Struct{token: String, logprob: Float64, bytes: List(UInt8), top_logprobs:
    List(Struct{token: String, logprob: Float64})})``, null where the service sent none. With ``n`` above 1 both are
    Lists of these, one for each choice.

    ``response_format`` is a pydantic model, a JSON schema or a ``pl.Struct``. It is sent as a schema of strict mode:
    every object closed, all properties required, those that a JSON schema does not require nullable. What strict mode
    does not take is told to the model in the description where it can be checked here (``minLength``, ``maxLength``, a
    pattern with a lookaround), and refused by name where it cannot (``dict[str, X]``, ``Any``, tuples, ``allOf``, …).
    Integers become Int64, numbers Float64, literals and enums of text Enum, arrays List, objects Struct, ``date`` Date,
    ``date-time`` Datetime in UTC (without an offset: taken as UTC), ``time`` Time (as written, without its offset),
    ``duration`` Duration, pydantic's Decimal with digits and places Decimal; a ``pl.Struct`` gives exactly its dtypes,
    none of them null. What has no one dtype is a String with its JSON: unions such as ``int | str``, and a model within
    itself. An answer that is not of that type is ``invalid_response``; the message says where and why, and
    ``include=["raw"]`` shows it. The service's own form, ``{"type": "json_schema" or "json_object" or "text", …}``, is
    sent as it is, and the response stays text.

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

    With a type, the response is a struct:

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
    begun = run_of(polars_frame, prompt, parsed)
    with showing(begun, progress=parsed.progress), closing(begun):
        begun.wait()
    begun.warn_of_failures()
    return begun.scan() if isinstance(polars_frame, pl.LazyFrame) else begun.added_to(polars_frame)


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
    """Begin a run, and return once its first batches are created.

    Parameters
    ----------
    frame, prompt, model, **parameters
        As for `run`, and so are all other options.

    Returns
    -------
    Run
        The handle: ``run.wait()``, ``run.result()``, or ``bf.open_run(run.path)`` in another process.

    Raises
    ------
    TemplateError, OptionError, InputError, APICallError, RunError
        As for `run`.

    Notes
    -----
    Charged like `run`: what was submitted is executed whether or not anyone waits for it.

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
    begun = run_of(to_polars(frame), prompt, parsed)
    with showing(begun, progress=parsed.progress):
        begun.start()
    return begun


def open_run(run_dir: str | os.PathLike[str], *, client: Any = None) -> Run:
    """Open a run that was begun earlier, here or in another process.

    Parameters
    ----------
    run_dir
        Its folder (``run.path``).
    client
        The service, where more than reading is wanted; None for the one of the environment.

    Returns
    -------
    Run
        The handle. Reading what was downloaded needs no key and no service.

    Raises
    ------
    RunNotFoundError
        There is no run in that folder.
    StoreVersionError
        A newer batchframe wrote it.

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
