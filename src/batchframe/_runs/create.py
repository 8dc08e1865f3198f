"""Create the run of a call: render its frame once, and open the existing run with the same requests if there is one."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from batchframe._core.exceptions import OptionError, RunMismatchError, RunNotFoundError, warn
from batchframe._endpoints.model_rules import refusals
from batchframe._providers.profiles import OPENAI, Provider
from batchframe._requests.renderer import Renderer, compile_prompt
from batchframe._results.columns import check_clashes
from batchframe._runs.identity import check_same, new_record, shown_options
from batchframe._runs.render import prepare
from batchframe._runs.reuse import Reuse, sources
from batchframe._runs.run import Run
from batchframe._store.filesystem import make_private
from batchframe._store.records import Identity, RunRecord
from batchframe._store.run_folder import RunFolder

if TYPE_CHECKING:
    import polars as pl

    from batchframe._providers.service import Service
    from batchframe._requests.request_spec import RequestSpec
    from batchframe._runs.render import Prepared
    from batchframe._runs.run_settings import RunSettings
    from batchframe._store.block_folder import BlockFolder


def renderer(
    frame: pl.DataFrame | pl.LazyFrame, spec: RequestSpec, settings: RunSettings, provider: Provider
) -> Renderer:
    """Check a call against its frame and service, and return the renderer of its requests. Sends nothing."""
    check_clashes(frame.collect_schema(), settings.include, settings.prefix, spec.custom_id)
    _check_provider(provider, spec.endpoint, settings)
    _warn_of_refusals(provider, spec)
    limits = provider.limits_of(spec.endpoint, settings.limits)
    url = provider.endpoints.get(spec.endpoint, spec.endpoint)
    return compile_prompt(frame, spec, provider.most_line_bytes(limits), url)


def create(
    frame: pl.DataFrame | pl.LazyFrame,
    spec: RequestSpec,
    settings: RunSettings,
    service: Service,
    *,
    run_dir: str | os.PathLike[str] | None = None,
    name: str | None = None,
    dedupe: bool = False,
    reuse: Path | Literal["all"] | None = None,
) -> Run:
    """Render a frame, and return its run: a new one, or the existing one with the same requests.

    Parameters
    ----------
    frame, spec
        The rows, and the content of their requests.
    settings, service
        The settings of the run, and its service.
    run_dir
        The folder of the run; None for one in the root of runs.
    name
        Part of the run's identity.
    dedupe, reuse
        Whether equal requests are sent once, and which runs' answers rows may take.

    Raises
    ------
    RunMismatchError
        ``run_dir`` holds another run; the message says what differs.
    RunNotFoundError
        ``reuse`` names a folder without a run.
    """
    rendering, provider = renderer(frame, spec, settings, service.provider), service.provider
    settings = replace(settings, completion_window=settings.completion_window or provider.completion_windows[0])
    account = service.client.account
    named = None if run_dir is None else _local(run_dir)
    root = _absolute(os.environ.get("BATCHFRAME_HOME") or ".batchframe")
    offered, lost = None, None
    try:
        if reuse is not None:
            source = reuse if reuse == "all" else _absolute(reuse)
            offered = Reuse(sources(source, root, spec.endpoint, account))
    except RunNotFoundError as error:
        lost = error  # an existing run no longer needs its source, and whether this one exists is known below
    if named is None:
        _make_root(root)
    scratch = RunFolder.scratch(root if named is None else named.parent)
    try:
        limits = provider.limits_of(spec.endpoint, settings.limits)
        prepared = prepare(scratch, rendering, limits, settings.pilot, dedupe=dedupe, reuse=offered)
        identity = Identity(f"{prepared.digest:032x}", prepared.requests, spec.endpoint, account, name)
        shown = shown_options(spec, settings, rendering.url) | {
            "batch_endpoint": provider.batch_endpoints.get(spec.endpoint, rendering.url),
            "dedupe": dedupe,
            "reuse": None if reuse is None else os.fspath(reuse),
        }
        record = new_record(identity, prepared.blocks, shown)
        folder = RunFolder(named or root / record.run_id)
        view, news = None, ""
        if lost is not None and not folder.exists():
            raise lost
        if offered is not None and not folder.exists():
            offered.copy_into(scratch)
            news = offered.summary(prepared.requests)
        if folder.exists() or not folder.take(scratch, record):
            stored = folder.record()
            check_same(folder, stored, record)
            view, record, news = _view(folder, stored, prepared), stored, ""
    finally:
        scratch.remove()
    return Run(folder, record, settings, service, view=view, news=news)


def _check_provider(provider: Provider, endpoint: str, settings: RunSettings) -> None:
    """Refuse options that the service is known not to support."""
    if provider.served_endpoints and endpoint not in provider.served_endpoints:
        known = " or ".join(f'endpoint="{served}"' for served in provider.served_endpoints)
        msg = f"{provider.name} takes no batches for {endpoint}: pass {known}"
        raise OptionError(msg)
    if settings.completion_window not in {"", *provider.completion_windows}:
        known = ", ".join(provider.completion_windows)
        msg = f"completion_window {settings.completion_window!r} is not one of {provider.name}'s: {known}"
        raise OptionError(msg)
    if settings.expires_after is not None and provider.file_expiry_seconds is not None:
        _check_expiry(settings.expires_after, provider.name, provider.file_expiry_seconds)


def _warn_of_refusals(provider: Provider, spec: RequestSpec) -> None:
    """Warn once of what the model is known to refuse. Not for Azure, whose deployments may have any name."""
    reasons = list(refusals(spec.model, spec.endpoint, spec.body)) if provider.name == OPENAI.name else []
    if reasons:
        warn(
            f"the service will refuse every row, as far as is known of {spec.model}: {'; '.join(reasons)}. "
            "The requests are sent as they are"
        )


def _check_expiry(seconds: int, name: str, allowed: tuple[int, int] | tuple[()]) -> None:
    if not allowed:
        msg = f"expires_after is {seconds} seconds, and {name} takes none, since it decides itself: leave it out"
        raise OptionError(msg)
    if not allowed[0] <= seconds <= allowed[1]:
        msg = f"expires_after is {seconds} seconds, and {name} takes {allowed[0]} to {allowed[1]}"
        raise OptionError(msg)


def _local(run_dir: Any) -> Path:
    path = os.fspath(run_dir)
    if not isinstance(path, str) or "://" in path:
        msg = f"run_dir must be a folder of this machine in this version of batchframe, got {path!r}"
        raise OptionError(msg)
    folder = _absolute(path)
    content = RunFolder(folder).foreign_content_note()
    if content:
        msg = f"run_dir {path!r} is not a run: {content}. Name a new or empty folder"
        raise RunMismatchError(msg)
    return folder


def _make_root(root: Path) -> None:
    try:
        make_private(root)
    except OSError as error:
        msg = f"the folder for runs, {os.fspath(root)!r}, cannot be made: {error}. Set BATCHFRAME_HOME, or pass run_dir"
        raise OptionError(msg) from error


def _absolute(path: str | os.PathLike[str]) -> Path:
    """Return an absolute path: a lazy result may be read after the process changed its working folder."""
    return Path(path).expanduser().absolute()


def _view(folder: RunFolder, stored: RunRecord, prepared: Prepared) -> BlockFolder | None:
    """Return None if the run has these rows; otherwise store this arrangement of them beside it, and return its folder.

    The same requests in another order, or with other columns, are the same run. Answers are matched by request.
    """
    count = len(prepared.blocks)
    if stored.blocks == prepared.blocks and folder.has_rows_of(prepared.folder, count):
        return None
    view = folder.view(prepared.folder.digest_of_rows(count))
    with folder.assembling():  # another process may bring the same arrangement
        if view.read_note("view.json") is None:
            view.remove()
            view.take_rows(prepared.folder)
            view.write_note("view.json", prepared.blocks)
    return view
