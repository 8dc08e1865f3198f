"""A call becomes a run: its frame is rendered once, and its requests tell whether that run exists already."""

from __future__ import annotations

import datetime as dt
import filecmp
import hashlib
import os
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import msgspec
import polars as pl

from batchframe._api import options as _options
from batchframe._core.events import logger
from batchframe._core.exceptions import OptionError, RunMismatchError, RunNotFoundError, warn
from batchframe._endpoints.model_rules import refusals
from batchframe._providers.connect import connect, profile
from batchframe._providers.limits import Limits
from batchframe._providers.profiles import OPENAI, PROVIDERS, Provider, provider_named
from batchframe._requests.renderer import Renderer, compile_prompt
from batchframe._results.answer_format import Form
from batchframe._results.columns import check_clashes
from batchframe._runs.render import prepare
from batchframe._runs.reuse import Reuse, sources
from batchframe._runs.run import Run, differences
from batchframe._schemas.response_format import AnswerType  # noqa: TC001  (msgspec reads the annotation)
from batchframe._store.records import Identity, RunRecord
from batchframe._store.run_folder import RECORD, RunFolder, make_private

if TYPE_CHECKING:
    from batchframe._api.options import Options
    from batchframe._core.remote import Account
    from batchframe._runs.render import Prepared


def renderer(frame: pl.DataFrame | pl.LazyFrame, prompt: Any, options: Options) -> Renderer:
    """Return what renders a frame's requests, after checking that the call fits the frame; nothing is sent."""
    check_clashes(frame.collect_schema(), options.include, options.prefix, options.custom_id)
    provider = _profile(options)
    _warn_of_refusals(provider, options)
    limits = provider.limits_of(options.endpoint, options.limits)
    url = provider.endpoints.get(options.endpoint, options.endpoint)
    return compile_prompt(frame, prompt, options, provider.most_line_bytes(limits), url)


def begin(frame: pl.DataFrame | pl.LazyFrame, prompt: Any, options: Options) -> Run:
    """Render a frame, and return its run: a new one, or the one that its requests were sent with before.

    Raises
    ------
    RunMismatchError
        ``run_dir`` holds another run; says what differs.
    RunNotFoundError
        What ``reuse`` names is no run.
    """
    rendering = renderer(frame, prompt, options)
    provider = _profile(options)
    options = replace(options, completion_window=options.completion_window or provider.completion_windows[0])
    account = connect(options.client, options.provider).account
    named = None if options.run_dir is None else _local(options.run_dir)
    root = _absolute(os.environ.get("BATCHFRAME_HOME") or ".batchframe")
    reuse, lost = None, None
    try:
        reuse = _reuse(options, root, account)
    except RunNotFoundError as error:
        lost = error  # a run that is there needs its source no more: whether this one is shows below
    if named is None:
        _make_root(root)
    scratch = RunFolder.scratch(root if named is None else named.parent)
    try:
        limits = provider.limits_of(options.endpoint, options.limits)
        prepared = prepare(scratch, rendering, limits, options.pilot, dedupe=options.dedupe, reuse=reuse)
        identity = Identity(f"{prepared.digest:032x}", prepared.requests, options.endpoint, account, options.name)
        record = _record(identity, prepared, prompt, options, rendering)
        folder = RunFolder(named or root / record.run_id)
        view, news = None, ""
        if lost is not None and not folder.exists():
            raise lost
        if reuse is not None and not folder.exists():
            reuse.copy_into(scratch)
            news = reuse.told(prepared.requests)
        if folder.exists() or not folder.take(scratch, record):
            stored = folder.record()
            _check_same(folder, stored, record)
            view, record, news = _view(folder, stored, prepared), stored, ""
    finally:
        scratch.remove()
    return Run(folder, record, options, lambda: connect(options.client, options.provider), view=view, news=news)


def _reuse(options: Options, root: Path, account: Account) -> Reuse | None:
    if options.reuse is None:
        return None
    wanted = options.reuse if options.reuse == "all" else _absolute(options.reuse)
    return Reuse(sources(wanted, root, options.endpoint, account))


def open_folder(folder: RunFolder, client: Any) -> Run:
    """Return the run of a folder, with the options that ``run.json`` keeps."""
    record = folder.record()
    return _opened(folder, record, record.options, client)


def reopen(path: Path, view: str | None, options: dict[str, Any]) -> Run:
    """Return a run as another process, or a copy, has it: known by its folder, with the client of the environment.

    Parameters
    ----------
    path
        Its folder.
    view
        The name of the arrangement of its rows, where that is not the stored one.
    options
        Those of its call, as `saved_options` returns them.
    """
    folder = RunFolder(path)
    return _opened(folder, folder.record(), options, None, view=None if view is None else folder.view(view))


def _opened(
    folder: RunFolder, record: RunRecord, options: dict[str, Any], client: Any, *, view: RunFolder | None = None
) -> Run:
    given = msgspec.structs.asdict(msgspec.convert(options, _SavedOptions))
    form = Form(record.identity.endpoint, given.pop("choices"), given.pop("dimensions"), given.pop("answer_type"))
    restored = _options.Options(
        **given
        | {
            "limits": Limits(
                max_in_flight=given.pop("max_in_flight"), max_enqueued_tokens=given.pop("max_enqueued_tokens")
            )
        },
        endpoint=record.identity.endpoint,
        name=record.identity.name,
        form=form,
    )
    name = record.identity.account.provider
    provider = provider_named(name) if name in PROVIDERS else Provider(name=name)
    return Run(folder, record, restored, lambda: connect(client, provider), view=view)


class _SavedOptions(msgspec.Struct):
    """The options that another process needs to go on with a run; ``run.json`` holds more, for people to read."""

    model: str
    include: tuple[str, ...] = ()
    prefix: str = ""
    custom_id: str | None = None
    metadata: dict[str, str] = {}
    completion_window: str = "24h"
    expires_after: int | None = None
    settle_seconds: float = 60.0
    poll_seconds: float | None = None
    max_in_flight: int | None = None
    max_enqueued_tokens: int | None = None
    max_attempts: int = 3
    pilot: int | None = None
    cleanup: Literal["when_done", "never"] = "never"
    answer_type: AnswerType | None = None
    choices: int = 1
    dimensions: int | None = None


def saved_options(options: Options) -> dict[str, Any]:
    """Return the options that another process needs, in built-in types."""
    saved = {name: getattr(options, name) for name in _SavedOptions.__struct_fields__ if hasattr(options, name)}
    saved |= {
        "answer_type": options.form.answer_type,
        "choices": options.form.choices,
        "dimensions": options.form.dimensions,
        "max_in_flight": options.limits.max_in_flight,
        "max_enqueued_tokens": options.limits.max_enqueued_tokens,
    }
    return cast("dict[str, Any]", msgspec.to_builtins(saved))


def _profile(options: Options) -> Provider:
    """Return the provider's profile, after checking the options against it."""
    provider = profile(options.provider, options.client)
    if provider.served_endpoints and options.endpoint not in provider.served_endpoints:
        known = " or ".join(f'endpoint="{endpoint}"' for endpoint in provider.served_endpoints)
        msg = f"{provider.name} takes no batches for {options.endpoint}: pass {known}"
        raise OptionError(msg)
    if options.completion_window not in {"", *provider.completion_windows}:
        known = ", ".join(provider.completion_windows)
        msg = f"completion_window {options.completion_window!r} is not one of {provider.name}'s: {known}"
        raise OptionError(msg)
    if options.expires_after is not None and provider.file_expiry_seconds is not None:
        _check_expiry(options.expires_after, provider.name, provider.file_expiry_seconds)
    return provider


def _warn_of_refusals(provider: Provider, options: Options) -> None:
    """Warn, once a call, of what the model is known to refuse; a deployment of Azure's may have any name."""
    told = list(refusals(options.model, options.endpoint, options.body)) if provider.name == OPENAI.name else []
    if told:
        warn(
            f"the service will refuse every row, as far as is known of {options.model}: {'; '.join(told)}. "
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
    others = sorted((found.name for found in folder.iterdir()), key=_is_hidden) if folder.is_dir() else []
    if folder.exists() and (not folder.is_dir() or (others and RECORD not in others)):
        found = f"it holds {others[0]!r}" if others else "it is a file"
        msg = f"run_dir {path!r} is not a run: {found}. Name a new or empty folder"
        raise RunMismatchError(msg)
    return folder


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _make_root(root: Path) -> None:
    try:
        make_private(root)
    except OSError as error:
        msg = f"the folder for runs, {os.fspath(root)!r}, cannot be made: {error}. Set BATCHFRAME_HOME, or pass run_dir"
        raise OptionError(msg) from error


def _absolute(path: str | os.PathLike[str]) -> Path:
    """Return a path that holds when the process changes its folder: a lazy result is read later."""
    return Path(path).expanduser().absolute()


def _record(identity: Identity, prepared: Prepared, prompt: Any, options: Options, rendering: Renderer) -> RunRecord:
    """Return what ``run.json`` will hold; the options are there for people, and to say what differs."""
    shown = saved_options(options) | {
        "url": rendering.url,
        "batch_endpoint": _profile(options).batch_endpoints.get(options.endpoint, rendering.url),
        "prompt": _description(prompt),
        "system": _description(options.system),
        "images": _description(options.images) or None,
        "image_detail": options.image_detail,
        "body": {name: _description(value) for name, value in options.body.items()},
        "on_null": options.on_null,
        "dedupe": options.dedupe,
        "reuse": None if options.reuse is None else os.fspath(options.reuse),
    }
    return RunRecord(
        run_id=hashlib.blake2b(msgspec.json.encode(identity), digest_size=16).hexdigest(),
        identity=identity,
        rows=prepared.rows,
        blocks=prepared.blocks,
        options=msgspec.to_builtins(shown),
        created_at=dt.datetime.now(dt.timezone.utc),
        batchframe_version=version("batchframe"),
    )


def _description(value: Any) -> Any:
    """Return a prompt or parameter as it can be kept: expressions in Polars' own words."""
    if isinstance(value, pl.Expr):
        return (
            f"expression: {value.meta.tree_format(return_as_string=True)}"
            if not value.meta.has_multiple_outputs()
            else "expression"
        )
    if isinstance(value, dict):
        return {str(key): _description(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_description(inner) for inner in value]
    return value


def _check_same(folder: RunFolder, stored: RunRecord, record: RunRecord) -> None:
    """Refuse a folder that holds another run, saying what differs."""
    one, other = stored.identity, record.identity
    if one == other:
        logger.info("going on with run %s of %s (%s)", stored.run_id, stored.created_at.date(), one.account.base_url)
        return
    said = [differences(one.account, other.account)] if one.account != other.account else []
    said += [f"{name} was {getattr(one, name)!r}, is {getattr(other, name)!r}" for name in ("endpoint", "name")
             if getattr(one, name) != getattr(other, name)]  # fmt: skip
    said += _option_differences(stored.options, record.options)
    if one.requests != other.requests:
        said.append(f"it had {one.requests} requests, this call has {other.requests}")
    elif one.digest != other.digest and not said:
        said.append("the texts of some rows")
    msg = (
        f"{folder.path} holds another run, of {stored.created_at:%Y-%m-%d %H:%M} UTC. What differs: {'; '.join(said)}. "
        "Name another run_dir, or leave it out: each run then has its own folder"
    )
    raise RunMismatchError(msg)


def _option_differences(stored: dict[str, Any], given: dict[str, Any]) -> list[str]:
    """Return in words which of the options that make the requests differ."""
    said = [
        f"{name} was {_short(stored.get(name))}, is {_short(given.get(name))}"
        for name in ("model", "prompt", "system", "images", "image_detail", "on_null")
        if stored.get(name) != given.get(name)
    ]
    if bool(stored.get("dedupe")) != bool(given.get("dedupe")):
        said.append(f"dedupe was {bool(stored.get('dedupe'))}, is {bool(given.get('dedupe'))}")
    was, now = stored.get("body") or {}, given.get("body") or {}
    return said + [
        f"{name} was {_shown(was, name)}, is {_shown(now, name)}"
        for name in sorted({*was, *now})
        if was.get(name) != now.get(name)
    ]


def _shown(body: dict[str, Any], name: str) -> str:
    return _short(body[name]) if name in body else "not set"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"  # noqa: PLR2004


def _view(folder: RunFolder, stored: RunRecord, prepared: Prepared) -> RunFolder | None:
    """Return None where the rows are those of the run as it is stored; else keep this arrangement of them beside it.

    The same requests in another order, or beside other columns, are the same run; its answers are matched by request.
    """
    fresh = [prepared.folder.rows_path(number) for number in range(len(prepared.blocks))]
    with folder.reading(folder.path / "rows"):
        is_same = stored.blocks == prepared.blocks and all(
            filecmp.cmp(path, folder.rows_path(number), shallow=False) for number, path in enumerate(fresh)
        )
    if is_same:
        return None
    hashed = hashlib.blake2b(digest_size=16)
    for path in fresh:
        hashed.update(path.read_bytes())
    view = folder.view(hashed.hexdigest())
    with folder.assembling():  # another process may bring the same arrangement
        if view.read_note("view.json") is None:
            view.remove()
            folder.make_parent(view.path / "rows")
            (prepared.folder.path / "rows").rename(view.path / "rows")
            view.write_note("view.json", prepared.blocks)
    return view
