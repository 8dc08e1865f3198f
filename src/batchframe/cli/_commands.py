"""The commands: each turns words into one call of the package."""

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

# The emulator's; its extra may be missing.
SERVICES = [
    "groq", "dashscope", "siliconflow", "moonshot", "zhipu", "nebius", "doubleword", "parasail", "perplexity",
    "deepinfra", "novita",
]  # fmt: skip
_LIMITS = ("max_requests", "max_bytes", "max_in_flight", "max_enqueued_tokens")
_PROGRESS = click.option("--progress/--no-progress", default=None, help="Show progress; by default on terminals.")


@click.group(no_args_is_help=False)
@click.version_option(package_name="batchframe", message="%(prog)s %(version)s")
def group() -> None:
    """Run a prompt over every row of a Parquet file with the OpenAI Batch API.

    The service comes from the environment: OPENAI_API_KEY, and OPENAI_BASE_URL for another service than OpenAI's.

    Exit codes: 0 done; 1 the run could not go on; 2 a mistake in the call; 3 finished, and some rows did not succeed;
    4 still running.
    """


def _prompt(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Read a prompt from the file that ``@file`` names; one last line end is the editor's and not the prompt's."""
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


def _form(context: click.Context, parameter: click.Parameter, value: str | None) -> Any:
    """Read a response format: JSON, or the file with it."""
    text = _prompt(context, parameter, value)
    if text is None:
        return None
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        msg = f"{text[:60]!r} is not JSON ({error}): pass a JSON schema, or @file with one"
        raise click.BadParameter(msg) from error


def _params(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Return request parameters by name, as they are given."""
    params: dict[str, str] = {}
    for given in values:
        name, equals, text = given.partition("=")
        if not name or not equals:
            msg = f"{given!r} is not of the form name=value, such as temperature=0"
            raise click.BadParameter(msg)
        if name in params:
            msg = f"{name!r} is given twice"
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
@click.option("--images", multiple=True, metavar="COLUMN", help="Column with URLs or bytes of images. May be repeated.")
@click.option("--image-detail", metavar="[low|high|auto]", help="How closely images are looked at.")
@click.option("--endpoint", help="Endpoint of the requests.  [default: /v1/chat/completions]")
@click.option(
    "--response-format", callback=_form, help='JSON schema of the answers, which become structs; "@file" reads it.'
)
@click.option("--param", "params", multiple=True, callback=_params, metavar="NAME=VALUE",
              help="Request parameter, as JSON or text: temperature=0. May be repeated.")  # fmt: skip
@click.option("--custom-id", help="Column with the ids of the requests.")
@click.option("--prefix", help="Put before the name of every added column.")
@click.option("--include", multiple=True, help=f"Extra column: {', '.join(EXTRA_COLUMNS)}. May be repeated.")
@click.option("--on-null", metavar="[skip|render|raise]", help="What to do with rows that have a null in the prompt.")
@click.option("--dedupe", is_flag=True, default=None, help="Send equal requests once, for all rows that ask the same.")
@click.option("--reuse", metavar="RUN_DIR|all", help="Take the answers that this run, or any of the account, has.")
@click.option("--name", help="Part of the run's id: another name asks for fresh answers.")
@click.option("--pilot", type=int, help="Submit the first so many rows alone; stop when all of them fail.")
@click.option("--run-dir", help="Folder of the run.  [default: a folder in $BATCHFRAME_HOME or .batchframe]")
@click.option("--max-attempts", type=int, help="How often a row is asked that came to nothing.  [default: 3]")
@click.option("--max-requests", type=int, help="Most requests of one input file.")
@click.option("--max-bytes", type=int, help="Most bytes of one input file.")
@click.option("--max-in-flight", type=int, help="Most batches in flight at once.")
@click.option("--max-enqueued-tokens", type=int, help="Most input tokens in flight at once.")
@click.option("--poll-seconds", type=float, help="Seconds between two looks at the service.  [default: adaptive]")
@click.option("--timeout-seconds", type=float, help="Wait no longer than this; the batches go on.")
@click.option("--allow-failed", is_flag=True, help="Exit with 0 though rows did not succeed.")
@_PROGRESS
def run(
    src: str,
    dst: str,
    params: dict[str, str],
    *,
    allow_failed: bool,
    **options: Any,
) -> Exit:
    """Ask a model about every row of the Parquet file SRC, wait, and write the Parquet file DST.

    The same command goes on with a run that was interrupted, and pays nothing for one that is finished.
    """
    given = {name: value for name, value in options.items() if value not in (None, ())}
    twice = sorted(options.keys() & params.keys())
    if twice:
        msg = f"{twice[0]!r} is an option of its own: --{twice[0].replace('_', '-')}"
        raise click.BadParameter(msg, param_hint="--param")
    endpoint = given.get("endpoint", DEFAULT.path)
    body = {name: parameter_checks.from_text(endpoint, name, text) for name, text in params.items()}
    limits = bf.Limits(**{name: given.pop(name) for name in _LIMITS if name in given})
    try:
        finished = bf.run_parquet(src, dst, limits=limits, **given, **body)
    except KeyboardInterrupt:
        msg = "detached: nothing was cancelled, submitted batches go on. The same command goes on with the run"
        raise Detached(msg) from None
    status = finished.status(refresh=False)
    _show.show_status(finished, status)
    click.echo(f"{'result':<10} {dst}")
    return Exit.DONE if allow_failed or status.succeeded == status.rows else Exit.FAILED_ROWS


@group.command()
@click.argument("run_dir")
@click.option("--refresh", is_flag=True, help="Ask the service first; nothing is submitted.")
def status(run_dir: str, *, refresh: bool) -> Exit:
    """Show where the run in the folder RUN_DIR stands, from what is on disk.

    Exits with 1 where nothing of it is at the service, or no batch is running and waiting does not mend the last error.
    """
    opened = bf.open_run(run_dir)
    found = opened.status(refresh=refresh)
    _show.show_status(opened, found)
    return Exit.CANNOT_GO_ON if found.state in {"not_submitted", "blocked"} else Exit.DONE


@group.command()
@click.argument("run_dir")
@click.option("--timeout-seconds", type=float, help="Wait no longer than this; the batches go on.")
@click.option("--allow-failed", is_flag=True, help="Exit with 0 though rows did not succeed.")
def resume(run_dir: str, timeout_seconds: float | None, *, allow_failed: bool) -> Exit:
    """Go on with the run in the folder RUN_DIR until it is finished.

    The command that began it does that too, and writes its Parquet file.
    """
    opened = bf.open_run(run_dir)
    status = opened.wait(timeout_seconds)
    _show.show_status(opened, status)
    return Exit.DONE if allow_failed or status.succeeded == status.rows else Exit.FAILED_ROWS


@group.command()
@click.argument("run_dir")
def cancel(run_dir: str) -> Exit:
    """Cancel the run in the folder RUN_DIR: submit no more, and keep what was answered by then.

    The service takes up to ten minutes to end a batch. What was answered is charged.
    """
    opened = bf.open_run(run_dir)
    status = opened.cancel()
    _show.show_status(opened, status)
    return Exit.DONE if status.done else Exit.STILL_RUNNING


@group.command()
@click.argument("run_dir")
def cleanup(run_dir: str) -> None:
    """Delete the files that the run in the folder RUN_DIR has at the service, and no others."""
    click.echo(f"{bf.open_run(run_dir).cleanup()} files deleted at the service")


@group.command()
@click.argument("run_dir")
def delete(run_dir: str) -> None:
    """Delete the folder RUN_DIR of a run on this machine; refused while its batches may be running."""
    bf.open_run(run_dir).delete()
    click.echo(f"{run_dir} deleted")


@group.command()
@click.option("--root", help="Folder of runs.  [default: $BATCHFRAME_HOME or .batchframe]")
def runs(root: str | None) -> None:
    """Show the runs on this machine, the newest first, and the last error of each that has one."""
    found = bf.list_runs(root)
    when = pl.col("created_at").dt.strftime("%Y-%m-%d %H:%M")
    _show.show_frame(found.select("path", when, "state", "rows", "pending", "model", "name"), whole=True)
    for path, trouble in found.select("path", "trouble").drop_nulls().iter_rows():
        click.echo(f"{path}: {trouble}")


@group.command()
@click.option("--since", help='Created then or later: "2026-11-01", "2026-11-01T08:00Z", "8h", "3d".')
@click.option("--status", multiple=True, help="With this status. May be repeated.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many, the newest.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line, with every column.")
def batches(since: str | None, status: tuple[str, ...], limit: int | None, *, as_json: bool) -> None:
    """Show the account's batches, the newest first, whoever made them."""
    found = bf.batches(since=since, status=status or None, limit=limit)
    if as_json:
        click.echo(found.write_ndjson(), nl=False)
        return
    times = pl.col("created_at", "ended_at").dt.strftime("%Y-%m-%d %H:%M:%S")
    counts = ("requests", "completed", "failed")
    _show.show_frame(found.select("batch_id", "status", "model", times, *counts, "run"), whole=True)


@group.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE... [DST.parquet]")
@click.option("--frame", "frame_path", metavar="FILE.parquet", help="Parquet file with the rows that were asked about.")
@click.option(
    "--custom-id", help="Its column with the ids of the requests.  [default: custom_id, else row-0, row-1, …]"
)
@click.option("--include", multiple=True, help=f"Extra column: {', '.join(OF_FILES)}. May be repeated.")
@click.option("--allow-failed", is_flag=True, help="Exit with 0 though rows did not succeed.")
def read(
    sources: tuple[str, ...],
    frame_path: str | None,
    custom_id: str | None,
    include: tuple[str, ...],
    *,
    allow_failed: bool,
) -> Exit:
    """Read answers that exist already: of a batch by its id, or from output and error files (JSONL) made anywhere.

    The answers are printed, or written to DST.parquet; with --frame they are joined to its rows.
    """
    destination = Path(sources[-1]) if len(sources) > 1 and sources[-1].lower().endswith(".parquet") else None
    given = list(sources if destination is None else sources[:-1])
    if destination is not None and not destination.absolute().parent.is_dir():
        msg = f"the folder of {sources[-1]!r} is not there: make it first"
        raise click.BadParameter(msg)
    frame = None if frame_path is None else _frame(frame_path)
    out = bf.read_batch(given, frame, custom_id=custom_id, include=include)
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
@click.option("--rows", type=click.IntRange(min=1), help="How many of the texts.  [default: all]")
@click.option("--base-url", help="Run against another service, with the key of OPENAI_API_KEY.", hidden=True)
@click.option("--progress/--no-progress", default=True, help="Show progress.")
def demo(rows: int | None, base_url: str | None, *, progress: bool) -> None:
    """Run a prompt over some hundred real texts on a batch service in this process: no key, no network, no cost."""
    from batchframe.cli import _demo  # noqa: PLC0415  (imports what only it needs)

    tell(f"prompt: {_demo.PROMPT}")
    with _demo.service(base_url) as client:
        out, finished = _demo.demo(rows, client, progress=progress)
        status = finished.status(refresh=False)
    tokens = [pl.col("usage").struct.field(name) for name in ("input_tokens", "output_tokens")]
    _show.show_frame(out.select("term", "definition", "response", *tokens))
    _show.show_frame(out.group_by("response").len("terms").sort("terms", "response", descending=[True, False]))
    _show.show_status(finished, status)
    if base_url is None:
        tell("The service was an emulator in this process, which answers by simple rules: nothing left this machine.")


@group.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes a free one.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option(
    "--dialect",
    type=click.Choice(["openai", "azure", "azure-v1"]),
    default="openai",
    show_default=True,
    help="The service to speak like.",
)
@click.option("--service", type=click.Choice(SERVICES), help="Another service that has OpenAI's batch API.")
@click.option("--upstream", metavar="URL", help="Have each request answered by this OpenAI-compatible server.")
@click.option("--upstream-key", envvar="BATCHFRAME_UPSTREAM_KEY", help="Its key; better in BATCHFRAME_UPSTREAM_KEY.")
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="Requests the upstream gets at a time.",
)
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False),
    help="Keep files, batches and results here, and go on with them at the next start.",
)
@click.option(
    "--allowed-host",
    "allowed_hosts",
    multiple=True,
    metavar="NAME",
    help="A name, besides localhost and --host, under which it may be called. May be repeated.",
)
def emulator(
    port: int, host: str, dialect: Literal["openai", "azure", "azure-v1"], service: Any, **backing: Any
) -> None:
    """Serve a local batch service that speaks OpenAI's or Azure's dialect, until interrupted.

    Use it with OPENAI_BASE_URL=http://127.0.0.1:8080/v1 (as it says when it starts) and any OPENAI_API_KEY.
    """
    from batchframe.emulator import Settings, serve  # noqa: PLC0415  (needs the extra emulator)

    try:
        serve(host, port, Settings(dialect=dialect, service=service), **backing)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    except RuntimeError as error:
        raise click.ClickException(str(error)) from error
