"""The host names under which the service may be called."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# A name or an address (IPv6 in brackets), and an optional port.
_HEADER = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(:\d*)?")
_NAME = re.compile(r"[\w-]+(\.[\w-]+)*\.?")


class HostNames:
    """The names of this machine, and those that are `allowed` besides.

    A web page can make a name of its own resolve to this machine, and then read the service's replies as if they came
    from the page's own server (DNS rebinding). Its ``Host`` header, which holds that name, gives the call away.
    """

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self._allowed = {"localhost", *map(_canonical, allowed)}

    def include(self, header: str, local_address: str | None) -> bool:
        """Say whether a ``Host`` header names the service, which was reached at `local_address`."""
        match = _HEADER.fullmatch(header)
        if match is None:
            return False
        name = _canonical(match[1])
        # No page can make an address resolve elsewhere, so the address that was reached is safe.
        is_reached = local_address is not None and name == _canonical(local_address)
        return is_reached or name in self._allowed or _is_loopback(name)


def check_name(name: str) -> None:
    """Refuse a value that cannot be the name in a ``Host`` header."""
    if not (_NAME.fullmatch(name) or _address(_canonical(name))):
        raise ValueError(f"allowed_hosts: expected a name or address without scheme and port, got {name!r}")


def without_port(header: str) -> str:
    """Return the name in a ``Host`` header."""
    match = _HEADER.fullmatch(header)
    return header if match is None else match[1]


def _canonical(name: str) -> str:
    name = name.removeprefix("[").removesuffix("]").removesuffix(".").lower()
    address = _address(name)
    if address is None:
        return name
    return str(getattr(address, "ipv4_mapped", None) or address)


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _is_loopback(name: str) -> bool:
    address = _address(name)
    return address is not None and address.is_loopback
