"""What stands around the service: a server that answers the requests, a folder that outlives the process, its names.

No settings: none of it can be changed while the service runs, and what is here is never shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from batchframe.emulator._hosts import check_name

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

DEFAULT_CONCURRENCY = 16


class Backing(msgspec.Struct, kw_only=True, frozen=True):
    """How the service answers, where it keeps things, and what it may be called."""

    upstream: str | None = None
    """The base URL of the OpenAI-compatible server that answers each request; None: the emulator's own answers."""
    upstream_key: str | None = None
    """Its key. It is sent to the upstream and nowhere else."""
    concurrency: int = DEFAULT_CONCURRENCY
    """How many requests the upstream gets at a time, from all batches together."""
    state_dir: str | os.PathLike[str] | None = None
    """Where files, batches, results and the ledger are kept; None: a temporary folder."""
    allowed_hosts: Sequence[str] = ()
    """The names, besides those of this machine, under which the service may be called."""

    def __post_init__(self) -> None:
        """Refuse what could not work."""
        if self.upstream is not None and not self.upstream.startswith(("http://", "https://")):
            raise ValueError(f"upstream: expected a URL such as http://127.0.0.1:8000/v1, got {self.upstream!r}")
        if self.upstream is None and self.upstream_key is not None:
            raise ValueError("upstream_key needs upstream")
        if self.concurrency < 1:
            raise ValueError(f"concurrency: expected at least 1, got {self.concurrency}")
        if isinstance(self.allowed_hosts, str):
            raise ValueError(f"allowed_hosts: expected a list of names, got {self.allowed_hosts!r}")  # noqa: TRY004
        for name in self.allowed_hosts:
            check_name(name)

    def __repr__(self) -> str:
        return f"Backing(upstream={self.upstream!r}, state_dir={self.state_dir!r})"


def split(options: dict[str, Any]) -> tuple[Backing, dict[str, Any]]:
    """Take what belongs to the backing out of `options`; return it and the rest."""
    names = Backing.__struct_fields__
    chosen = {name: value for name, value in options.items() if name in names}
    return Backing(**chosen), {name: value for name, value in options.items() if name not in names}
