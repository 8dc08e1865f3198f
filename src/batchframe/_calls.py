"""The typed calls behind ``frame.batch``."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from batchframe import _options
from batchframe._begin import begin, open_folder, renderer
from batchframe._columns import added_schema
from batchframe._dedupe import Repeats
from batchframe._frames import to_polars
from batchframe._progress import showing
from batchframe._requests import CUSTOM_ID, LINE, refuse_duplicates
from batchframe._store import RunFolder

if TYPE_CHECKING:
    import os

    from batchframe._run import Run


def run(frame: Any, prompt: Any, **options: Any) -> pl.DataFrame | pl.LazyFrame:
    """Ask a model about every row through the Batch API, wait, and return the frame with the answers.

    The same call resumes a run that was interrupted, or returns the finished one without a call to the service: a run
    is known by its requests, endpoint and account, and its state is on disk. Ctrl-C detaches: batches go on, and the
    same call collects them.

    Parameters
    ----------
    frame
        A Polars DataFrame or LazyFrame, or anything with the Arrow C stream (pyarrow, pandas, DuckDB), which gives a
        Polars DataFrame; of pandas the index is left out. A LazyFrame is evaluated here, once.
    prompt
        A template, ``"… {column} … {struct.field} … {{literal}}"``; an expression; a list of messages
        ``[{"role": …, "content": template or expression}, …]``, where a content may also be a list of the endpoint's
        parts; or an expression of dtype ``List(Struct{role, content})``, a conversation. Embeddings, completions
        and moderations take one text a row: a template or an expression.
    **options
        ``model`` is required. See the table of options in the README. Every other name is a request parameter of the
        endpoint, a value or a per-row expression; a null leaves the parameter out for that row.

    Returns
    -------
    pl.DataFrame or pl.LazyFrame
        All rows in their order, with the added columns ``custom_id: String``, ``response: String`` (with
        ``response_format``: a Struct), ``finish_reason: String``, ``usage: Struct{input_tokens, output_tokens,
        total_tokens, cached_tokens, reasoning_tokens: Int64}`` and ``error: Struct{code, message: String}``, which is
        null exactly where the row succeeded. Lazy when ``frame`` is. With ``n`` above 1, ``response`` and
        ``finish_reason`` are Lists. Of ``/v1/embeddings`` the response is ``Array(Float32, d)``, with d of
        ``dimensions`` or of the model, or ``List(Float32)`` where neither tells it; of ``/v1/moderations``
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
    frame = to_polars(frame)
    parsed = _options.parse(options)
    begun = begin(frame, prompt, parsed)
    with showing(begun, progress=parsed.progress), closing(begun):
        begun.wait()
    begun.warn_of_failures()
    return begun.scan() if isinstance(frame, pl.LazyFrame) else begun.added_to(frame)


def submit(frame: Any, prompt: Any, **options: Any) -> Run:
    """Begin a run, and return once its first batches are created.

    Parameters
    ----------
    frame, prompt, **options
        As for `run`.

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
    parsed = _options.parse(options)
    begun = begin(to_polars(frame), prompt, parsed)
    with showing(begun, progress=parsed.progress):
        begun.start()
    return begun


def requests(frame: Any, prompt: Any, **options: Any) -> pl.DataFrame:
    r"""Return the exact request lines that a run would send; nothing is sent, and no key is needed.

    Parameters
    ----------
    frame, prompt, **options
        As for `run`.

    Returns
    -------
    pl.DataFrame
        A row a row of the frame: ``custom_id: String`` and ``request: String``, the JSON line without its newline,
        null where the row would not be sent, or where ``dedupe`` has an earlier row ask for it. What ``reuse`` would
        find is not looked up: those lines are here too.

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
    parsed = _options.parse(options)
    rendering, repeats = renderer(to_polars(frame), prompt, parsed), Repeats()
    slices = []
    for rows in rendering.slices():
        is_own = repeats.requests(rows).is_null() if parsed.dedupe else pl.lit(value=True)
        slices.append(rows.select(CUSTOM_ID, pl.when(is_own).then(pl.col(LINE)).alias(LINE)))
    shown = pl.concat(slices)
    if rendering.custom_id is not None:
        refuse_duplicates(shown.lazy(), rendering.custom_id)
    return shown.select(pl.col(CUSTOM_ID).alias("custom_id"), pl.col(LINE).str.strip_suffix("\n").alias("request"))


def result_schema(frame: Any, prompt: Any, **options: Any) -> pl.Schema:
    """Return the schema of the frame that `run` would return; nothing is sent, and no key is needed.

    Parameters
    ----------
    frame, prompt, **options
        As for `run`.

    Returns
    -------
    pl.Schema
        The frame's columns, then the added ones.

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
    │ str  ┆ str       ┆ str      ┆ str           ┆ struct[5] ┆ struct[2] │
    ╞══════╪═══════════╪══════════╪═══════════════╪═══════════╪═══════════╡
    └──────┴───────────┴──────────┴───────────────┴───────────┴───────────┘
    """
    frame, parsed = to_polars(frame), _options.parse(options)
    renderer(frame, prompt, parsed)
    added = {parsed.prefix + name: dtype for name, dtype in added_schema(parsed.include, parsed.form).items()}
    return pl.Schema(dict(frame.collect_schema()) | added)


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
