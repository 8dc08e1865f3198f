"""The identity of a run: its id, ``run.json``, and messages about what differs between two calls."""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from batchframe._core.events import logger
from batchframe._core.exceptions import RunMismatchError
from batchframe._store.records import Identity, RunRecord

if TYPE_CHECKING:
    from batchframe._core.remote import Account
    from batchframe._requests.request_spec import RequestSpec
    from batchframe._runs.run_settings import RunSettings
    from batchframe._store.run_folder import RunFolder


def new_record(identity: Identity, blocks: list[int], options: dict[str, Any]) -> RunRecord:
    """Return the content of ``run.json``; its options are for people, and for messages about what differs."""
    from importlib.metadata import version  # noqa: PLC0415 - takes a while to import

    return RunRecord(
        run_id=hashlib.blake2b(msgspec.json.encode(identity), digest_size=16).hexdigest(),
        identity=identity,
        rows=sum(blocks),
        blocks=blocks,
        options=msgspec.to_builtins(options),
        created_at=dt.datetime.now(dt.timezone.utc),
        batchframe_version=version("batchframe"),
    )


def shown_options(spec: RequestSpec, settings: RunSettings, url: str) -> dict[str, Any]:
    """Return the options that ``run.json`` stores, in built-in types."""
    return settings.saved() | {
        "custom_id": spec.custom_id,
        "url": url,
        "prompt": _description(spec.prompt),
        "system": _description(spec.system),
        "images": _description(spec.images) or None,
        "image_detail": spec.image_detail,
        "body": {name: _description(value) for name, value in spec.body.items()},
        "on_null": spec.on_null,
    }


def _description(value: Any) -> Any:
    """Return a prompt or parameter in built-in types; an expression as Polars prints it."""
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


def check_same(folder: RunFolder, stored: RunRecord, record: RunRecord) -> None:
    """Refuse a folder that holds another run, with a message about what differs."""
    one, other = stored.identity, record.identity
    if one == other:
        logger.info("going on with run %s of %s (%s)", stored.run_id, stored.created_at.date(), one.account.base_url)
        return
    differing = [account_differences(one.account, other.account)] if one.account != other.account else []
    differing += _changed(one, other, ("endpoint", "name"))
    differing += _option_differences(stored.options, record.options)
    if one.requests != other.requests:
        differing.append(f"it had {one.requests} requests, this call has {other.requests}")
    elif one.digest != other.digest and not differing:
        differing.append("the texts of some rows")
    msg = (
        f"{folder.path} holds another run, of {stored.created_at:%Y-%m-%d %H:%M} UTC. What differs: "
        f"{'; '.join(differing)}. Name another run_dir, or leave it out: each run then has its own folder"
    )
    raise RunMismatchError(msg)


def _option_differences(stored: dict[str, Any], given: dict[str, Any]) -> list[str]:
    """Return a phrase for each option of the requests that differs."""
    texts = [
        f"{name} was {_short(stored.get(name))}, is {_short(given.get(name))}"
        for name in ("model", "prompt", "system", "images", "image_detail", "on_null")
        if stored.get(name) != given.get(name)
    ]
    if bool(stored.get("dedupe")) != bool(given.get("dedupe")):
        texts.append(f"dedupe was {bool(stored.get('dedupe'))}, is {bool(given.get('dedupe'))}")
    was, now = stored.get("body") or {}, given.get("body") or {}
    return texts + [
        f"{name} was {_shown(was, name)}, is {_shown(now, name)}"
        for name in sorted({*was, *now})
        if was.get(name) != now.get(name)
    ]


def _shown(body: dict[str, Any], name: str) -> str:
    return _short(body[name]) if name in body else "not set"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"  # noqa: PLR2004


def account_differences(one: Account, other: Account) -> str:
    """Return a phrase for what differs between two accounts."""
    return "; ".join(_changed(one, other, ("provider", "base_url", "organization", "project")))


def _changed(one: object, other: object, names: tuple[str, ...]) -> list[str]:
    """Return a phrase for each of these members that differs."""
    return [
        f"{name} was {getattr(one, name)!r}, is {getattr(other, name)!r}"
        for name in names
        if getattr(one, name) != getattr(other, name)
    ]
