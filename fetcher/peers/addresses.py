"""Where peers are, as people write it. Pure.

::

    http://10.0.0.7:8650         one server, as `fetcher serve` prints it
    dns://cache.models:8650      every address of a name, such as a headless Service, over HTTP
    dns+https://cache.models:8650    the same over TLS: all certificates have that name
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address
from urllib.parse import urlsplit

from fetcher.errors import BadResponse, ConfigurationError
from fetcher.settings import peers_named
from fetcher.transport.urls import origin_of
from fetcher.values import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Name:
    """A name whose addresses are peers, each at `port`, by `scheme`."""

    scheme: str
    host: str
    port: int

    def peer(self, address: str) -> str | None:
        """Return the base URL of the peer at an IP address; None for one that no peer can have."""
        try:
            ip = ip_address(address.partition("%")[0])
        except ValueError:
            return None
        # A link-local address would lead to the metadata service of a cloud, whatever a name server says.
        if ip.is_link_local or ip.is_multicast or ip.is_unspecified:
            return None
        return f"{self.scheme}://[{ip}]:{self.port}" if ip.version == 6 else f"{self.scheme}://{ip}:{self.port}"


@dataclass(frozen=True, slots=True)
class Addresses:
    """`fixed`: base URLs of peers, always with a port. `names`: to be resolved."""

    fixed: tuple[str, ...] = ()
    names: tuple[Name, ...] = ()


def addresses_of(texts: Iterable[str]) -> Addresses:
    """Parse addresses of peers. Raises ConfigurationError."""
    fixed, names = [], []
    for each in texts:
        text = each.strip().rstrip("/")
        if (named := peers_named(text)) is not None:
            names.append(Name(*named))
        else:
            fixed.append(_server(text))
    return Addresses(tuple(dict.fromkeys(fixed)), tuple(dict.fromkeys(names)))


def _server(text: str) -> str:
    with suppress(ValueError, BadResponse):
        parts = urlsplit(text)
        if parts.scheme in ("http", "https") and not (parts.path or parts.query or parts.fragment or "@" in parts.netloc):
            return origin_of(text)
    # The text is not repeated: it may hold a password.
    raise ConfigurationError("an address of a peer is malformed; write http://10.0.0.7:8650 or dns://cache.models:8650")
