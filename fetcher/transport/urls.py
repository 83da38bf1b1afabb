"""Web addresses as they go onto the wire: one spelling for each, so that comparing them is comparing text.

`normal` is the one place that decides the spelling. Signed addresses pass through it unchanged: it touches only characters that
RFC 3986 forbids, which no signature was made over.
"""

from __future__ import annotations

import base64
import re
from urllib.parse import SplitResult, quote, unquote, unquote_to_bytes, urljoin, urlsplit, urlunsplit

from fetcher.errors import BadResponse

_NO_ADDRESS = "the server redirects to something that is no web address"
_PORTS = {"http": 80, "https": 443}
_NOT_IN_A_PATH = re.compile(r"[^A-Za-z0-9._~!$&'()*+,;=:@/%-]+|%(?![0-9A-Fa-f]{2})")
_NOT_IN_A_QUERY = re.compile(r"[^A-Za-z0-9._~!$&'()*+,;=:@/?%-]+|%(?![0-9A-Fa-f]{2})")


def normal(url: str) -> str:
    """`url` with scheme and host in lower case, an IDN host in its ASCII form, and what no address may hold quoted.

    Userinfo and fragment are left out: neither is ever sent in an address. Raises ValueError for what is no web address.
    """
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname or parts.port == 0:
        raise ValueError("no web address")
    host = _ascii(parts.hostname)
    place = f"[{host}]" if ":" in host else host
    port = f":{parts.port}" if parts.port is not None else ""
    path, query = _NOT_IN_A_PATH.sub(_quoted, parts.path or "/"), _NOT_IN_A_QUERY.sub(_quoted, parts.query)
    return urlunsplit((parts.scheme, place + port, path, query, ""))


def origin_of(url: str) -> str:
    """`scheme://host:port`, the port always written. Raises BadResponse for what is no web address."""
    parts = urlsplit(_address(url))
    return f"{parts.scheme}://{parts.netloc if parts.port else f'{parts.netloc}:{_PORTS[parts.scheme]}'}"


def address_from(url: str, reference: str) -> str:
    """The address that `reference`, read in an answer from `url`, refers to, in its normal spelling.

    Raises BadResponse where it can't be read, and where it holds credentials: a server has none to give us.
    """
    try:
        target = urljoin(url, reference)
        with_credentials = "@" in urlsplit(target).netloc
    except ValueError:
        raise BadResponse(_NO_ADDRESS) from None
    if with_credentials:
        raise BadResponse(f"{host_of(url)} redirects to an address with credentials in it")
    return _address(target)


def host_of(url: str) -> str:
    """The host of `url`, and its port where one is written: fit for messages."""
    parts = urlsplit(url)
    try:
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        port = ""
    return f"{parts.hostname}{port}"


def basic(parts: SplitResult) -> str | None:
    """The value of `Authorization` for the userinfo of an address; None without one."""
    if parts.username is None:
        return None
    pair = unquote_to_bytes(parts.username) + b":" + unquote_to_bytes(parts.password or "")
    return "Basic " + base64.b64encode(pair).decode()


def same_path(one: str, other: str) -> bool:
    """Whether two paths are the same, however they are quoted."""
    return unquote(one) == unquote(other)


def _address(url: str) -> str:
    try:
        return normal(url)
    except ValueError:
        raise BadResponse(_NO_ADDRESS) from None


def _quoted(match: re.Match[str]) -> str:
    # Headers arrive as UTF-8 in which any other byte is a surrogate: that byte is what is quoted.
    return quote(match[0].encode("utf-8", "surrogateescape"), safe="")


def _ascii(host: str) -> str:
    """Raises ValueError for a name that has no ASCII form."""
    if host.isascii():
        return host.lower()
    import yarl  # its import takes longer than all the rest of a small command; an IDN host is rare

    found = yarl.URL.build(scheme="http", host=host).raw_host
    if not found or not found.isascii():
        raise ValueError("no host name")
    return found
