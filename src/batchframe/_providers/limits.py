"""``Limits``: the size of input files and the amount in flight; Azure's quotas."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from batchframe._core.checks import is_count
from batchframe._core.exceptions import OptionError, suggestion

if TYPE_CHECKING:
    from collections.abc import Iterable

# Azure's limits of one input file: MicrosoftDocs/azure-ai-docs, articles/foundry/openai/includes/global-batch-limits.md
# (commits 12579eb and a2a860f), read 2026-11-28. Input files in the user's own Blob storage may have
# 1 GB; batchframe does not use it.
AZURE_MAX_REQUESTS, AZURE_MAX_BYTES = 100_000, 200_000_000

# The queue is full; the same file can be submitted later. The code is in both references. The sentence was seen for
# tokens, and for requests (community.openai.com/t/1002388), whose code is not known.
_QUEUE_FULL = re.compile(r"token_limit_exceeded|enqueued (token|request) limit reached", re.IGNORECASE)

# Enqueued tokens per deployment, by model and kind of subscription, for the two deployment types: the tables "Global
# batch" and "Data zone batch" of the same page, read 2026-11-28. Students have no quota today. A quota can be raised
# for a subscription, dynamic quota can exceed it, and since 7 May 2026 quotas of newer models count over all regions of
# a subscription (learn.microsoft.com, foundry-models/quotas-limits). So this is cited data, and never a default.
AZURE_SUBSCRIPTIONS = {
    "enterprise": "Enterprise agreement",
    "default": "Default",
    "credit_card": "Monthly credit card based subscriptions",
    "msdn": "MSDN subscriptions",
    "students": "Azure for Students, Free Trials",
}
_LARGE = (5_000_000_000, 200_000_000, 50_000_000, 90_000, None)
_SMALL = (15_000_000_000, 1_000_000_000, 50_000_000, 90_000, None)
_ZONE_LARGE = (500_000_000, 30_000_000, 30_000_000, 90_000, None)
_ZONE_SMALL = (1_500_000_000, 100_000_000, 50_000_000, 90_000, None)
AZURE_QUOTAS: dict[str, tuple[int | None, ...]] = {
    **dict.fromkeys(("gpt-5.1", "gpt-5", "gpt-4.1", "gpt-4o"), _LARGE),
    **dict.fromkeys(("gpt-4.1-mini", "gpt-4.1-nano", "gpt-4o-mini", "o3-mini", "o4-mini"), _SMALL),
    "gpt-4-turbo": (300_000_000, 80_000_000, 40_000_000, 90_000, None),
    "gpt-4": (150_000_000, 30_000_000, 5_000_000, 100_000, None),
}
AZURE_DATA_ZONE_QUOTAS: dict[str, tuple[int | None, ...]] = {
    **dict.fromkeys(("gpt-5.1", "gpt-5"), _LARGE),
    **dict.fromkeys(("gpt-4.1", "gpt-4o"), _ZONE_LARGE),
    **dict.fromkeys(("gpt-4.1-mini", "gpt-4o-mini", "o3-mini"), _ZONE_SMALL),
}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one account and model. None means the provider's limit.

    Parameters
    ----------
    max_requests
        Maximum number of requests in an input file.
    max_bytes
        Maximum size of an input file in bytes, newlines included.
    max_enqueued_tokens
        Maximum number of input tokens in flight, or None if it is not known.
    max_in_flight
        Maximum number of batches in flight, or None for no limit.

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
            if value is not None and not is_count(value):
                msg = f"{field.name} must be a whole number of at least 1, got {value!r}"
                raise OptionError(msg)

    def over(self, defaults: Limits) -> Limits:
        """Return these limits, with ``defaults`` in place of None."""
        limits = {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}
        return replace(defaults, **limits)

    @classmethod
    def azure(cls, model: str, subscription: str, *, data_zone: bool = False) -> Limits:
        """Return Azure's limits for a model and a kind of subscription.

        They come from Microsoft's tables of November 2026. The quota of enqueued tokens applies to one deployment. It
        may have been raised for your subscription; the quota page of the portal shows the actual one.

        Parameters
        ----------
        model
            The model behind the deployment, such as ``"gpt-4o"`` or ``"gpt-5.1"``; the error for an unknown one lists
            all.
        subscription
            ``"enterprise"`` (also MCA-E), ``"default"``, ``"credit_card"`` (paid monthly by card), ``"msdn"`` or
            ``"students"`` (also free trials). The titles of Microsoft's tables work too.
        data_zone
            Whether the deployment is of type Data Zone Batch, which has smaller quotas, instead of Global Batch.

        Returns
        -------
        Limits
            100,000 requests and 200 MB per input file, and the quota.

        Raises
        ------
        OptionError
            The model or subscription is not in the table, or the subscription has no quota for the model.

        Examples
        --------
        >>> bf.Limits.azure("gpt-4o", "default").max_enqueued_tokens
        200000000
        >>> bf.Limits.azure("gpt-4o", "default", data_zone=True).max_enqueued_tokens
        30000000
        """
        if data_zone not in (True, False):
            msg = f"data_zone must be True (Data Zone Batch) or False (Global Batch), got {data_zone!r}"
            raise OptionError(msg)
        table = AZURE_DATA_ZONE_QUOTAS if data_zone else AZURE_QUOTAS
        kind = "Data Zone" if data_zone else "Global"
        if model not in table:
            raise OptionError(_not_in_table_message(kind, "model", model, table))
        titles = {_plain(title): name for name, title in AZURE_SUBSCRIPTIONS.items()}
        names = titles | {_plain(name): name for name in AZURE_SUBSCRIPTIONS}
        name = names.get(_plain(subscription)) if isinstance(subscription, str) else None
        if name is None:
            raise OptionError(_not_in_table_message(kind, "subscription", subscription, AZURE_SUBSCRIPTIONS))
        quotas = dict(zip(AZURE_SUBSCRIPTIONS, table[model], strict=True))
        if quotas[name] is None:
            others = ", ".join(other for other, quota in quotas.items() if quota is not None)
            msg = (
                f"a subscription of the kind {AZURE_SUBSCRIPTIONS[name]!r} has no batch quota for {model} (N/A in "
                f"Microsoft's table); these have one: {others}"
            )
            raise OptionError(msg)
        return cls(max_requests=AZURE_MAX_REQUESTS, max_bytes=AZURE_MAX_BYTES, max_enqueued_tokens=quotas[name])


def is_queue_full(message: str) -> bool:
    """Whether a service's message says that its queue is full, which resolves by itself."""
    return _QUEUE_FULL.search(message) is not None


def azure_quota_note(model: str) -> str:
    """Return the quotas of a model in Microsoft's tables, as a sentence; empty for an unknown model."""
    kinds = []
    for kind, table in (("Global Batch", AZURE_QUOTAS), ("Data Zone Batch", AZURE_DATA_ZONE_QUOTAS)):
        if model in table:
            quotas = [
                f"{title} {quota:,}" if quota is not None else f"{title} none"
                for title, quota in zip(AZURE_SUBSCRIPTIONS.values(), table[model], strict=True)
            ]
            kinds.append(f"{kind}: {'; '.join(quotas)}.")
    return f"Enqueued tokens for {model} in Microsoft's tables of November 2026. {' '.join(kinds)}" if kinds else ""


def _plain(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())


def _not_in_table_message(kind: str, key: str, value: object, known: Iterable[str]) -> str:
    near = suggestion(value, known) if isinstance(value, str) else ""
    return (
        f"Microsoft's table of {kind} Batch quotas has no {key} {value!r}.{near} It has: {', '.join(known)}. For "
        "another, see the quota page of the portal and pass bf.Limits(max_enqueued_tokens=…)"
    )


def file_limits(limits: Limits) -> tuple[int, int]:
    """Return the maximum number of requests and bytes of an input file. A provider's limits have both."""
    assert limits.max_requests is not None
    assert limits.max_bytes is not None
    return limits.max_requests, limits.max_bytes
