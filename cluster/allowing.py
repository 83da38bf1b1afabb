"""Whether a pool allows a source: by prefixes that end at a /, and by the host that an address names. Pure.

An address is compared as it would be sent, and one that could be read in two ways is refused. What a host's name resolves to,
and where a server redirects, is not known here: that `cluster.reaching` is about.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

from fetcher.artifact import redact
from fetcher.errors import SourceNotAllowed
from fetcher.reach import Address, embedded, is_local

_NEVER = ("file", "pvc")
PORTS = {"http": 80, "https": 443, "oci": 443}
"""The ports of the schemes whose prefixes name a host, where none is written."""
_LOCAL_NAMES = re.compile(r"(.*\.)?(localhost|localdomain)|metadata(\.google\.internal|\.goog)?")
"""Names that mean this machine, or the metadata service of a cloud, which a proxy would resolve for us."""


def refuse_source(
    uri: str, allowed: Iterable[str], *, owner: str = "the pool's allowedSources", allow_loopback: bool = False
) -> None:
    """Raise SourceNotAllowed unless `uri` is below one of the prefixes `allowed`, and its host is no local one.

    Hosts by private, link-local and loopback addresses need a prefix that names them; loopback and names of this machine need
    `allow_loopback` besides, which is for tests. `owner`: where the prefixes stand, for the message.
    """
    shown = redact(uri)
    scheme, _, rest = uri.partition("://")
    if scheme in _NEVER:
        raise SourceNotAllowed(
            f"{scheme}:// names what lies on a node or in the cluster, not a source; publish the model elsewhere"
        )
    place = _compared(uri)
    if place is None:
        raise SourceNotAllowed(f"{shown} can be read in more than one way; write it without .., //, \\, %2F and user names")
    prefixes = tuple(allowed)
    found = next((each for each in prefixes if place.startswith(_compared_prefix(each))), None)
    if found is None:
        listed = ", ".join(prefixes) or "nothing"
        raise SourceNotAllowed(f"{shown} is below none of {owner} ({listed}); ask for it to be added")
    if scheme in PORTS:
        _refuse_local(rest, shown, allow_loopback=allow_loopback)


def _compared(uri: str) -> str | None:
    """The address with a / at its end, as prefixes are compared with it; None if servers could read it in two ways."""
    scheme, separator, rest = uri.partition("://")
    host, slash, path = rest.partition("/")
    path = path.partition("?")[0].partition("#")[0]
    if not separator or not host or "\\" in unquote(rest) or not rest.isprintable() or (scheme in PORTS and "@" in host):
        return None
    segments = path.split("/") if slash else []
    if any(unquote(each) in (".", "..") or "/" in unquote(each) for each in segments) or "" in segments[:-1]:
        return None
    if scheme in PORTS:
        host = _host(scheme, host)
    last = segments[-1] if segments else host
    bare = last if scheme in ("http", "https", "s3", "gs", "az") else _without_revision(last)
    parts = [*([host] if segments else [bare]), *segments[:-1], *([bare] if segments else [])]
    return f"{scheme}://{'/'.join(parts)}".rstrip("/") + "/"


def _without_revision(segment: str) -> str:
    return re.split("[@:]", segment, maxsplit=1)[0]


def _compared_prefix(prefix: str) -> str:
    scheme, _, rest = prefix.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{_host(scheme, host)}{slash}{path}" if scheme in PORTS else prefix


def _host(scheme: str, host: str) -> str:
    lower = host.lower()
    return lower.removesuffix(f":{PORTS.get(scheme, '')}").rstrip(".")


def _refuse_local(rest: str, shown: str, *, allow_loopback: bool) -> None:
    """Raise SourceNotAllowed for a host of this machine, and for link-local addresses, where clouds keep their metadata."""
    try:
        host = (urlsplit(f"//{rest}").hostname or "").rstrip(".")
    except ValueError:
        raise SourceNotAllowed(f"{shown} has a malformed host; correct it") from None
    address = _literal(host)
    if address is None and not _LOCAL_NAMES.fullmatch(host):
        return
    loopback = address.is_loopback if address is not None else host == "localhost"
    if loopback and allow_loopback:
        return
    if address is None or is_local(address):
        raise SourceNotAllowed(f"{shown} names this machine or its cloud's metadata service; publish the model elsewhere")


def _literal(host: str) -> Address | None:
    """The IP address that `host` is, also in the forms that only resolvers read, such as 127.1 and 2130706433."""
    try:
        address: Address | None = ipaddress.ip_address(host)
    except ValueError:
        address = _loose(host)
    return embedded(address) if address is not None else None


def _loose(host: str) -> ipaddress.IPv4Address | None:
    """An IPv4 address of one to four numbers, each decimal, octal or hexadecimal, as inet_aton(3) reads them."""
    parts = host.split(".")
    if not 1 <= len(parts) <= 4 or not all(re.fullmatch(r"0[xX][0-9a-fA-F]{1,8}|[0-9]{1,11}", part) for part in parts):
        return None
    try:
        *first, last = (_number(part) for part in parts)
        return ipaddress.IPv4Address(last + sum(number << (24 - 8 * index) for index, number in enumerate(first)))
    except ValueError:
        return ipaddress.IPv4Address(0)  # refused as unspecified: it is made of numbers, and no address


def _number(text: str) -> int:
    if text[:2].lower() == "0x":
        return int(text, 16)
    return int(text, 8 if text.startswith("0") else 10)
