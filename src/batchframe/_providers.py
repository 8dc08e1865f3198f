"""What one batch service allows and how it spells things; sources are cited beside each number."""

from __future__ import annotations

from dataclasses import dataclass, field

from batchframe._exceptions import OptionError, suggestion
from batchframe._limits import Limits


@dataclass(frozen=True, kw_only=True)
class Provider:
    """A batch service: its name, limits and completion windows.

    Parameters
    ----------
    name
        The name, as in ``provider="openai"``.
    limits
        What one input file may hold.
    completion_windows
        The windows it accepts, the default first.

    Examples
    --------
    >>> bf.Provider(name="ours", limits=bf.Limits(max_requests=1_000, max_bytes=10_000_000)).name
    'ours'
    """

    name: str
    limits: Limits = field(default_factory=Limits)
    completion_windows: tuple[str, ...] = ("24h",)

    def __post_init__(self) -> None:
        if self.limits.max_requests is None or self.limits.max_bytes is None:
            object.__setattr__(self, "limits", self.limits.over(_SAFE_LIMITS))


# 50,000 requests and 200 MB: OpenAI's API specification and SDK docstrings. The specification does not say whether
# its MB is 10^6 or 2^20 bytes, so the smaller reading is used.
_SAFE_LIMITS = Limits(max_requests=50_000, max_bytes=200_000_000)

OPENAI = Provider(name="openai", limits=_SAFE_LIMITS)

_PROVIDERS = {OPENAI.name: OPENAI}


def provider_named(name: str) -> Provider:
    """Return the profile of a service by its name.

    Raises
    ------
    OptionError
        No profile has that name.
    """
    if name not in _PROVIDERS:
        msg = f"there is no provider {name!r}.{suggestion(name, _PROVIDERS)} Known: {', '.join(sorted(_PROVIDERS))}"
        raise OptionError(f"{msg}; for another service pass a bf.Provider(...)")
    return _PROVIDERS[name]
