"""What surrounds the service: the upstream that answers requests, the state folder, the allowed host names.

Unlike settings, none of it can change while the service runs, and none of it is shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from batchframe.emulator._config.host_names import check_name

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

DEFAULT_CONCURRENCY = 16


class Backing(msgspec.Struct, kw_only=True, frozen=True):
    """The surroundings of one service."""

    upstream: str | None = None
    """The base URL of an OpenAI-compatible server that answers the requests; None: the emulator answers them."""
    upstream_key: str | None = None
    """The key of the upstream; it is sent there and nowhere else."""
    concurrency: int = DEFAULT_CONCURRENCY
    """The most requests the upstream gets at a time, over all batches."""
    state_dir: str | os.PathLike[str] | None = None
    """The folder for files, batches, results and the ledger; None: a temporary one."""
    allowed_hosts: Sequence[str] = ()
    """The host names, besides those of this machine, under which the service may be called."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
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
    """Split `options` into the backing and the rest."""
    names = Backing.__struct_fields__
    backing = {name: value for name, value in options.items() if name in names}
    return Backing(**backing), {name: value for name, value in options.items() if name not in names}
