"""Which addresses the requests for somebody else's source may be connected to. Pure.

Whoever may name a source could name, or redirect to, a host that leads to a service of the cluster, or to the metadata service
of its cloud. So an address is judged when it is about to be connected to, at every hop, and not by the name that led there.
"""

from __future__ import annotations

import ipaddress

from fetcher.values import dataclass

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""Addresses that a gateway translates to the IPv4 address in their last 32 bits, RFC 6052."""


@dataclass(frozen=True, slots=True)
class Reach:
    """Public addresses, and for some hosts private ones.

    `named`: host and port of what the administrator named, which may be private. `store`: requests begin at addresses that no
    tenant and no server wrote, such as those of S3: they may be private too. `loopback`: this machine, which is for tests.
    """

    named: frozenset[tuple[str, int]] = frozenset()
    store: bool = False
    loopback: bool = False

    def allows(self, address: str, *, named: bool) -> bool:
        """Whether a host with this IP address may be connected to. `named`: it is one of those that may be private."""
        try:
            found = embedded(ipaddress.ip_address(address))
        except ValueError:
            return False
        if found.is_loopback and self.loopback:
            return True
        return not is_local(found) and (named or found.is_global)


def is_local(address: Address) -> bool:
    """Whether the address means this machine, this link, where clouds have their metadata service, or a group."""
    return address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified


def embedded(address: Address) -> Address:
    """The IPv4 address to which an IPv6 address of a translation or a tunnel leads; other addresses as they are."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
