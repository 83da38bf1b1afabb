"""Chooses the proxy of a request from the variables that clusters set. Pure.

`http_proxy`, `https_proxy` and `all_proxy` name proxies; `no_proxy` names hosts that are reached directly. Each name may be in
upper case; if both are set, lower case wins, as in curl. An empty variable counts as unset.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import field
from urllib.parse import SplitResult, urlsplit

from fetcher.errors import ConfigurationError
from fetcher.transport.urls import basic_authorization
from fetcher.values import dataclass

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy. `url` contains no credentials. `authorization` is the value of `Proxy-Authorization`, and is never shown."""

    url: str
    authorization: str | None = field(default=None, repr=False)


def proxy_for(url: str, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy for `url`, an address in normal spelling; None for a direct connection.

    Raises ConfigurationError for a malformed or unsupported proxy. It names the variable and does not show its value.
    """
    parts = urlsplit(url)
    for name in (f"{parts.scheme}_proxy", "all_proxy"):
        variable, text = _variable(name, environ)
        if text:
            if _direct(parts.hostname or "", parts.port or _PORTS[parts.scheme], _variable("no_proxy", environ)[1]):
                return None
            return _read(variable, text)
    return None


def _variable(name: str, environ: Mapping[str, str]) -> tuple[str, str]:
    variable = name if name in environ else name.upper()
    return variable, environ.get(variable, "").strip()


def _read(variable: str, text: str) -> Proxy:
    parts = _parts(text if "://" in text else f"http://{text}")
    if parts is None:
        raise ConfigurationError(f"{variable} is not a proxy address; write it as http://host:port")
    if parts.scheme != "http":
        raise ConfigurationError(
            f"{variable} names a proxy that speaks {parts.scheme}://, which is not supported; name one that speaks http://, "
            "or add the host to NO_PROXY"
        )
    return Proxy(f"http://{parts.netloc.rpartition('@')[2]}", basic_authorization(parts))


def _parts(address: str) -> SplitResult | None:
    try:
        parts = urlsplit(address)
        return parts if parts.hostname and parts.port != 0 else None
    except ValueError:
        return None


def _direct(host: str, port: int, exceptions: str) -> bool:
    return any(_covers(entry, host.rstrip("."), port) for entry in _entries(exceptions))


def _entries(text: str) -> Iterable[str]:
    return (entry for entry in re.split(r"[\s,]+", text.lower()) if entry)


def _covers(entry: str, host: str, port: int) -> bool:
    """Whether an entry of `no_proxy` covers the host. It is `*`, a network, an address, or a name that includes its subdomains.

    An address or a name may have a port. A malformed entry covers nothing, as in curl.
    """
    if entry == "*":
        return True
    address = _ip(host)
    if "/" in entry:
        return address is not None and _in_network(address, entry)
    name, its_port = _split(entry)
    if its_port is not None and its_port != str(port):
        return False
    if address is not None:
        return address == _ip(name)
    name = name.removeprefix("*").strip(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _split(entry: str) -> tuple[str, str | None]:
    """The host of an entry, without brackets, and its port. An IPv6 address without brackets has no port."""
    match = re.fullmatch(r"\[([^\]]*)\](?::(\d+))?", entry) or re.fullmatch(r"([^:]*):(\d+)", entry)
    return (match[1], match[2]) if match else (entry, None)


def _in_network(address: _Address, entry: str) -> bool:
    try:
        network = ipaddress.ip_network(entry.replace("[", "").replace("]", ""), strict=False)
    except ValueError:
        return False
    return address in network


def _ip(host: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
