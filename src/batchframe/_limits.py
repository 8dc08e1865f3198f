"""How large an input file may be, and how much may be in flight."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from batchframe._exceptions import OptionError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one account and model; what is None is the provider's.

    Parameters
    ----------
    max_requests
        Requests in one input file.
    max_bytes
        Bytes in one input file, its newlines included.
    max_enqueued_tokens
        Input tokens that may be in flight at once, or None where they are not known.
    max_in_flight
        Batches that may be in flight at once, or None for no limit of ours.

    Examples
    --------
    >>> bf.Limits(max_requests=1_000)
    Limits(max_requests=1000, max_bytes=None, max_enqueued_tokens=None, max_in_flight=None)
    """

    max_requests: int | None = None
    max_bytes: int | None = None
    max_enqueued_tokens: int | None = None
    max_in_flight: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                msg = f"{field.name} must be a whole number of at least 1, got {value!r}"
                raise OptionError(msg)

    def over(self, defaults: Limits) -> Limits:
        """Return these limits with what is None taken from ``defaults``."""
        given = {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}
        return replace(defaults, **given)
