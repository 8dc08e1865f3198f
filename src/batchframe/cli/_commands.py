"""The commands: each parses its arguments and makes one call of the package."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import click
import msgspec
import polars as pl

import batchframe as bf
from batchframe._api import parquet
from batchframe._api.read_batch import OF_FILES
from batchframe._endpoints import parameter_checks
from batchframe._endpoints.registry import DEFAULT
from batchframe._results.extra_columns import EXTRA_COLUMNS
from batchframe.cli import _show
from batchframe.cli._guard import Detached, Exit, tell

# Copied from the emulator, whose extra may be missing.
SERVICES = [
    "groq", "dashscope", "siliconflow", "moonshot", "zhipu", "nebius", "doubleword", "parasail", "perplexity",
    "deepinfra", "novita",
]  # fmt: skip
_LIMITS = ("max_requests", "max_bytes", "max_in_flight", "max_enqueued_tokens")
_PROGRESS = click.option("--progress/--no-progress", default=None, help="Show progress.  [default: on terminals]")


@click.group(no_args_is_help=False)
@click.version_option(package_name="batchframe", message="%(prog)s %(version)s")
def group() -> None:
    """Run a prompt over every row of a Parquet file with the OpenAI Batch API.

    The service is set by the environment: OPENAI_API_KEY, and OPENAI_BASE_URL for a service other than OpenAI.

    Exit codes: 0 done; 1 the run cannot continue; 2 wrong arguments or key; 3 finished, but some rows did not
    succeed; 4 still running.
    """


def _prompt(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Return a prompt, read from the file if it is ``@file``, without the line end that editors append."""
    if value is None or not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).read_text(encoding="utf-8-sig").removesuffix("\n")
    except OSError as error:
        msg = f"{value[1:]!r} cannot be read: {error.strerror}"
        raise click.BadParameter(msg) from error
    except UnicodeDecodeError as error:
        msg = f"{value[1:]!r} is not UTF-8: {error}"
        raise click.BadParameter(msg) from error


def _response_format(context: click.Context, parameter: click.Parameter, value: str | None) -> Any:
    """Return a response format, parsed from JSON or from a file with JSON."""
    text = _prompt(context, parameter, value)
    if text is None:
        return None
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        msg = f"{text[:60]!r} is not JSON ({error}): pass a JSON schema, or @file"
        raise click.BadParameter(msg) from error


def _params(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Return the texts of request parameters by name."""
    params: dict[str, str] = {}
    for param in values:
        name, equals, text = param.partition("=")
        if not name or not equals:
            msg = f"expected name=value, such as temperature=0, got {param!r}"
            raise click.BadParameter(msg)
        if name in params:
            msg = f"{name!r} is passed twice: pass it once"
            raise click.BadParameter(msg)
        params[name] = text
    return params


@group.command()
@click.argument("src")
@click.argument("dst")
@click.option(
    "--prompt", required=True, callback=_prompt, help='Template with {column} fields; "@file" reads it from a file.'
)
@click.option("--model", required=True, help="Model id.")
@click.option("--system", callback=_prompt, help='Template of the system message; "@file" reads it from a file.')
@click.option("--images", multiple=True, metavar="COLUMN", help="Column with image URLs or bytes. May be repeated.")
@click.option("--image-detail", metavar="[low|high|auto|original]", help="How closely the model looks at images.")
@click.option("--endpoint", help="Endpoint of the requests.  [default: /v1/chat/completions]")
@click.option(
    "--response-format",
    callback=_response_format,
    help='JSON schema of the answers, which become structs; "@file" reads it from a file.',
)
@click.option("--param", "params", multiple=True, callback=_params, metavar="NAME=VALUE",
              help="Request parameter, as JSON or text, such as temperature=0. May be repeated.")  # fmt: skip
@click.option("--custom-id", help="Column with unique ids for the requests.")
@click.option("--prefix", help="Prefix for the names of the added columns.")
@click.option("--include", multiple=True, help=f"Extra column: {', '.join(EXTRA_COLUMNS)}. May be repeated.")
@click.option("--on-null", metavar="[skip|render|raise]", help="What to do with a row that has a null in the prompt.")
@click.option("--dedupe", is_flag=True, default=None, help="Send equal requests once.")
@click.option("--reuse", metavar="RUN_DIR|all", help="Reuse the answers of this run, or of all runs of the account.")
@click.option("--name", help="Part of the run's id. Pass another name to get fresh answers.")
@click.option("--pilot", type=int, help="Submit this many rows first, alone; stop if none of them succeeds.")
@click.option("--run-dir", help="Folder of the run.  [default: a folder in $BATCHFRAME_HOME or .batchframe]")
@click.option("--max-attempts", type=int, help="How often a row may be submitted in total.  [default: 3]")
@click.option("--max-requests", type=int, help="Maximum number of requests in an input file.")
@click.option("--max-bytes", type=int, help="Maximum size of an input file in bytes.")
@click.option("--max-in-flight", type=int, help="Maximum number of batches in flight.")
@click.option("--max-enqueued-tokens", type=int, help="Maximum number of input tokens in flight.")
@click.option("--poll-seconds", type=float, help="Seconds between two polls.  [default: adaptive, 1 to 60]")
@click.option("--timeout-seconds", type=float, help="Stop waiting after this time; the batches continue.")
@click.option("--allow-failed", is_flag=True, help="Exit with 0 even if rows did not succeed.")
@_PROGRESS
def run(
    src: str,
    dst: str,
    params: dict[str, str],
    *,
    allow_failed: bool,
    **options: Any,
) -> Exit:
    """Run a prompt over every row of the Parquet file SRC, wait, and write the Parquet file DST.

    Repeat the command to resume an interrupted run. Repeating it for a finished run costs nothing.
    """
    passed = {name: value for name, value in options.items() if value not in (None, ())}
    clashing = sorted(options.keys() & params.keys())
    if clashing:
        msg = f"{clashing[0]!r} is an option of the command: pass --{clashing[0].replace('_', '-')}"
        raise click.BadParameter(msg, param_hint="--param")
    endpoint = passed.get("endpoint", DEFAULT.path)
    body = {name: parameter_checks.from_text(endpoint, name, text) for name, text in params.items()}
    limits = bf.Limits(**{name: passed.pop(name) for name in _LIMITS if name in passed})
    try:
        finished = bf.run_parquet(src, dst, limits=limits, **passed, **body)
    except KeyboardInterrupt:
        msg = (
            "detached: nothing was cancelled, and submitted batches continue. Repeat the same command to resume the run"
        )
        raise Detached(msg) from None
    status = finished.status(refresh=False)
    _show.show_status(finished, status)
    click.echo(f"{'result':<10} {dst}")
    return Exit.DONE if allow_failed or status.succeeded == status.rows else Exit.FAILED_ROWS


@group.command()
@click.argument("run_dir")
@click.option("--refresh", is_flag=True, help="Poll the service first. Nothing is submitted.")
def status(run_dir: str, *, refresh: bool) -> Exit:
    """Show the status of the run in the folder RUN_DIR, according to the disk.

    Exits with 1 if the run never had a batch at the service, or if no batch is running and waiting does not resolve the
    last error.
    """
    opened = bf.open_run(run_dir)
    current = opened.status(refresh=refresh)
    _show.show_status(opened, current)
    return Exit.CANNOT_CONTINUE if current.state in {"not_submitted", "blocked"} else Exit.DONE


@group.command()
@click.argument("run_dir")
@click.option("--timeout-seconds", type=float, help="Stop waiting after this time; the batches continue.")
@click.option("--allow-failed", is_flag=True, help="Exit with 0 even if rows did not succeed.")
def resume(run_dir: str, timeout_seconds: float | None, *, allow_failed: bool) -> Exit:
    """Resume the run in the folder RUN_DIR, and wait until it is finished.

    To write its Parquet file as well, repeat the command that started the run.
    """
    opened = bf.open_run(run_dir)
    status = opened.wait(timeout_seconds)
    _show.show_status(opened, status)
    return Exit.DONE if allow_failed or status.succeeded == status.rows else Exit.FAILED_ROWS


@group.command()
@click.argument("run_dir")
def cancel(run_dir: str) -> Exit:
    """Cancel the run in the folder RUN_DIR: submit no more, and keep the answers so far.

    The service takes up to ten minutes to end a batch. Answered rows are billed.
    """
    opened = bf.open_run(run_dir)
    status = opened.cancel()
    _show.show_status(opened, status)
    return Exit.DONE if status.done else Exit.STILL_RUNNING


@group.command()
@click.argument("run_dir")
def cleanup(run_dir: str) -> None:
    """Delete the files of the run in the folder RUN_DIR at the service, and no others."""
    click.echo(f"{bf.open_run(run_dir).cleanup()} files deleted at the service")


@group.command()
@click.argument("run_dir")
def delete(run_dir: str) -> None:
    """Delete the run in the folder RUN_DIR from this machine. Refused while its batches may be running."""
    bf.open_run(run_dir).delete()
    click.echo(f"{run_dir} deleted")


@group.command()
@click.option("--root", help="Folder that holds the runs.  [default: $BATCHFRAME_HOME or .batchframe]")
def runs(root: str | None) -> None:
    """Show the runs on this machine, the newest first, and the last error of each."""
    listed = bf.list_runs(root)
    when = pl.col("created_at").dt.strftime("%Y-%m-%d %H:%M")
    _show.show_frame(listed.select("path", when, "state", "rows", "pending", "model", "name"), whole=True)
    for path, trouble in listed.select("path", "trouble").drop_nulls().iter_rows():
        click.echo(f"{path}: {trouble}")


@group.command()
@click.option(
    "--since", help='Only batches created at this time or later: "2026-11-01", "2026-11-01T08:00Z", "8h", "3d".'
)
@click.option("--status", multiple=True, help="Only batches with this status. May be repeated.")
@click.option("--limit", type=click.IntRange(min=1), help="Only this many, the newest.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line, with every column.")
def batches(since: str | None, status: tuple[str, ...], limit: int | None, *, as_json: bool) -> None:
    """Show all batches of the account, the newest first."""
    listed = bf.batches(since=since, status=status or None, limit=limit)
    if as_json:
        click.echo(listed.write_ndjson(), nl=False)
        return
    times = pl.col("created_at", "ended_at").dt.strftime("%Y-%m-%d %H:%M:%S")
    counts = ("requests", "completed", "failed")
    _show.show_frame(listed.select("batch_id", "status", "model", times, *counts, "run"), whole=True)


@group.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE... [DST.parquet]")
@click.option("--frame", "frame_path", metavar="FILE.parquet", help="Parquet file with the rows of the requests.")
@click.option(
    "--custom-id", help="Its column with the ids of the requests.  [default: custom_id, else row-0, row-1, …]"
)
@click.option("--include", multiple=True, help=f"Extra column: {', '.join(OF_FILES)}. May be repeated.")
@click.option("--allow-failed", is_flag=True, help="Exit with 0 even if rows did not succeed.")
def read(
    sources: tuple[str, ...],
    frame_path: str | None,
    custom_id: str | None,
    include: tuple[str, ...],
    *,
    allow_failed: bool,
) -> Exit:
    """Read existing answers: of a batch by its id, or from output and error files (JSONL) of any origin.

    The answers are printed, or written to DST.parquet. With --frame they are joined to its rows.
    """
    destination = Path(sources[-1]) if len(sources) > 1 and sources[-1].lower().endswith(".parquet") else None
    answers = list(sources if destination is None else sources[:-1])
    if destination is not None and not destination.absolute().parent.is_dir():
        msg = f"the folder of {sources[-1]!r} does not exist: create it first"
        raise click.BadParameter(msg)
    frame = None if frame_path is None else _frame(frame_path)
    out = bf.read_batch(answers, frame, custom_id=custom_id, include=include)
    if destination is None:
        _show.show_frame(out)
    else:
        temporary = destination.with_name(f".{destination.name}.{os.getpid()}.tmp")
        try:
            out.write_parquet(temporary)
            temporary.replace(destination)
        finally:
            temporary.unlink(missing_ok=True)
    codes = out["error"].struct.field("code")
    counts = {"succeeded": codes.null_count()} | dict(codes.drop_nulls().value_counts(sort=True, name="rows").rows())
    click.echo(f"{'rows':<10} {out.height:,}: {', '.join(f'{count:,} {code}' for code, count in counts.items())}")
    if destination is not None:
        click.echo(f"{'result':<10} {destination}")
    if "pending" in counts:
        return Exit.STILL_RUNNING
    return Exit.DONE if allow_failed or counts["succeeded"] == out.height else Exit.FAILED_ROWS


def _frame(path: str) -> pl.DataFrame:
    try:
        return parquet.read(path)
    except bf.InputError as error:
        raise click.BadParameter(str(error), param_hint="--frame") from error


@group.command()
@click.option("--rows", type=click.IntRange(min=1), help="Number of texts.  [default: all]")
@click.option("--base-url", help="Run against another service, with the key of OPENAI_API_KEY.", hidden=True)
@click.option("--progress/--no-progress", default=True, help="Show progress.")
def demo(rows: int | None, base_url: str | None, *, progress: bool) -> None:
    """Run a prompt over a few hundred real texts on a batch service in this process: no key, no network, no cost."""
    from batchframe.cli import _demo  # noqa: PLC0415  (its imports are only needed here)

    tell(f"prompt: {_demo.PROMPT}")
    with _demo.service(base_url) as client:
        out, finished = _demo.demo(rows, client, progress=progress)
        status = finished.status(refresh=False)
    tokens = [pl.col("usage").struct.field(name) for name in ("input_tokens", "output_tokens")]
    _show.show_frame(out.select("term", "definition", "response", *tokens))
    _show.show_frame(out.group_by("response").len("terms").sort("terms", "response", descending=[True, False]))
    _show.show_status(finished, status)
    if base_url is None:
        tell("The service was an emulator in this process that answers by simple rules: nothing left this machine.")


@group.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 for a free port.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option(
    "--dialect",
    type=click.Choice(["openai", "azure", "azure-v1"]),
    default="openai",
    show_default=True,
    help="The service to imitate.",
)
@click.option("--service", type=click.Choice(SERVICES), help="Another service with OpenAI's batch API to imitate.")
@click.option("--upstream", metavar="URL", help="Forward each request to this OpenAI-compatible server.")
@click.option(
    "--upstream-key", envvar="BATCHFRAME_UPSTREAM_KEY", help="Key of the upstream; better set BATCHFRAME_UPSTREAM_KEY."
)
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="Concurrent requests to the upstream.",
)
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False),
    help="Keep files, batches and results here, and continue with them at the next start.",
)
@click.option(
    "--allowed-host",
    "allowed_hosts",
    multiple=True,
    metavar="NAME",
    help="Host name that requests may use besides localhost and --host. May be repeated.",
)
def emulator(
    port: int, host: str, dialect: Literal["openai", "azure", "azure-v1"], service: Any, **backing: Any
) -> None:
    """Serve a local batch service in OpenAI's or Azure's dialect until interrupted.

    Use it with OPENAI_BASE_URL=http://127.0.0.1:8080/v1 (printed at the start) and any OPENAI_API_KEY.
    """
    from batchframe.emulator import Settings, serve  # noqa: PLC0415  (needs the extra emulator)

    try:
        serve(host, port, Settings(dialect=dialect, service=service), **backing)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    except RuntimeError as error:
        raise click.ClickException(str(error)) from error
