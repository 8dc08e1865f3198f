"""How large an input file may be, and how much may be in flight."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from batchframe._core.exceptions import OptionError, suggestion

if TYPE_CHECKING:
    from collections.abc import Iterable

# Azure's limits of one input file: MicrosoftDocs/azure-ai-docs, articles/foundry/openai/includes/global-batch-limits.md
# (commits 12579eb and a2a860f), read 2026-11-28. Input in Blob storage of one's own may have 1 GB; it is not used here.
AZURE_MAX_REQUESTS, AZURE_MAX_BYTES = 100_000, 200_000_000

# The queue is full, and takes the same file later. The code is in both references; the sentence was seen of tokens, and
# of requests (community.openai.com/t/1002388), whose code is not known.
_NO_ROOM = re.compile(r"token_limit_exceeded|enqueued (token|request) limit reached", re.IGNORECASE)

# Enqueued tokens a deployment, by model and kind of subscription, for the two types of deployment: the tables "Global
# batch" and "Data zone batch" of the same page, read 2026-11-28. Students have none today. Quotas can be raised for a
# subscription, dynamic quota goes beyond them, and since 7 May 2026 those of newer models are counted over all regions
# of a subscription (learn.microsoft.com, foundry-models/quotas-limits): cited data, never assumed.
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

    @classmethod
    def azure(cls, model: str, subscription: str, *, data_zone: bool = False) -> Limits:
        """Return Azure's limits for a model and a kind of subscription.

        They are those of Microsoft's tables of November 2026. The quota of enqueued tokens holds for one deployment. It
        may have been raised for a subscription since, and the quota page of the portal shows the one that counts.

        Parameters
        ----------
        model
            The model behind the deployment, such as ``"gpt-4o"`` or ``"gpt-5.1"``; the error for another names all.
        subscription
            ``"enterprise"`` (also MCA-E), ``"default"``, ``"credit_card"`` (paid monthly by card), ``"msdn"`` or
            ``"students"`` (also free trials); the titles of Microsoft's tables are understood too.
        data_zone
            Whether the deployment is of type Data Zone Batch, whose quotas are smaller, and not Global Batch.

        Returns
        -------
        Limits
            100,000 requests and 200 MB an input file, and the quota.

        Raises
        ------
        OptionError
            The table has no such model or subscription, or the subscription has no quota for the model.

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
            raise OptionError(_not_in_table(kind, "model", model, table))
        titles = {_plain(title): name for name, title in AZURE_SUBSCRIPTIONS.items()}
        names = titles | {_plain(name): name for name in AZURE_SUBSCRIPTIONS}
        name = names.get(_plain(subscription)) if isinstance(subscription, str) else None
        if name is None:
            raise OptionError(_not_in_table(kind, "subscription", subscription, AZURE_SUBSCRIPTIONS))
        quotas = dict(zip(AZURE_SUBSCRIPTIONS, table[model], strict=True))
        if quotas[name] is None:
            others = ", ".join(other for other, quota in quotas.items() if quota is not None)
            msg = (
                f"a subscription of the kind {AZURE_SUBSCRIPTIONS[name]!r} has no batch quota for {model} (N/A in "
                f"Microsoft's table); these have one: {others}"
            )
            raise OptionError(msg)
        return cls(max_requests=AZURE_MAX_REQUESTS, max_bytes=AZURE_MAX_BYTES, max_enqueued_tokens=quotas[name])


def tells_of_no_room(words: str) -> bool:
    """Whether a service's words say that its queue is full, which passes by itself."""
    return _NO_ROOM.search(words) is not None


def azure_quota_note(model: str) -> str:
    """Return what Microsoft's tables say of a model, as a sentence; nothing where they do not have it."""
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


def _not_in_table(kind: str, what: str, got: object, known: Iterable[str]) -> str:
    near = suggestion(got, known) if isinstance(got, str) else ""
    return (
        f"Microsoft's table of {kind} Batch quotas has no {what} {got!r}.{near} It has: {', '.join(known)}. For "
        "another, read the quota page of the portal and pass bf.Limits(max_enqueued_tokens=…)"
    )


def file_limits(limits: Limits) -> tuple[int, int]:
    """Return how many requests and bytes an input file may have; a provider's limits hold both."""
    assert limits.max_requests is not None
    assert limits.max_bytes is not None
    return limits.max_requests, limits.max_bytes
