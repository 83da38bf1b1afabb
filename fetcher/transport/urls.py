"""Web addresses in the spelling that is sent: one for each, so that they can be compared as text.

Only `normal` decides the spelling. It leaves signed addresses unchanged: it changes only characters that RFC 3986 forbids, and
no signature covers those.
"""

from __future__ import annotations

import base64
import re
from functools import lru_cache
from urllib.parse import SplitResult, quote, unquote, unquote_to_bytes, urljoin, urlsplit, urlunsplit

from fetcher.errors import BadResponse

_NO_ADDRESS = "the server redirects to something that is not a web address"
_PORTS = {"http": 80, "https": 443}
_NORMAL = re.compile(
    r"https?://[a-z0-9.-]+(?::(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}))?"
    r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*(?:\?(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})+)?"
)
"""Addresses that are their own normal spelling, nearly all. Taking one apart and together again takes twenty times as long."""
_NOT_IN_A_PATH = re.compile(r"[^A-Za-z0-9._~!$&'()*+,;=:@/%-]+|%(?![0-9A-Fa-f]{2})")
_NOT_IN_A_QUERY = re.compile(r"[^A-Za-z0-9._~!$&'()*+,;=:@/?%-]+|%(?![0-9A-Fa-f]{2})")

_RECENT = 256
"""Addresses remembered: a request needs the spelling of its address three times, with thousands of small files a tenth of the
event loop's time."""


@lru_cache(_RECENT)
def normal(url: str) -> str:
    """`url` with scheme and host in lower case, an IDN host in ASCII, and forbidden characters quoted.

    Userinfo and fragment are removed: neither is sent. Raises ValueError if `url` is not a web address.
    """
    if _NORMAL.fullmatch(url):
        return url
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname or parts.port == 0:
        raise ValueError("not a web address")
    host = _ascii(parts.hostname)
    place = f"[{host}]" if ":" in host else host
    port = f":{parts.port}" if parts.port is not None else ""
    path, query = _NOT_IN_A_PATH.sub(_quoted, parts.path or "/"), _NOT_IN_A_QUERY.sub(_quoted, parts.query)
    return urlunsplit((parts.scheme, place + port, path, query, ""))


@lru_cache(_RECENT)
def origin_of(url: str) -> str:
    """The origin `scheme://host:port` of `url`, always with a port. Raises BadResponse if `url` is not a web address."""
    if _NORMAL.fullmatch(url):
        scheme, _, place = url.split("/", 3)[:3]
        return f"{scheme}//{place}" if ":" in place else f"{scheme}//{place}:{_PORTS[scheme[:-1]]}"
    parts = urlsplit(_address(url))
    return f"{parts.scheme}://{parts.netloc if parts.port else f'{parts.netloc}:{_PORTS[parts.scheme]}'}"


def address_from(url: str, reference: str) -> str:
    """The address that `reference` in an answer from `url` refers to, in normal spelling.

    Raises BadResponse if it is malformed or contains credentials: a server has none to give us.
    """
    if _NORMAL.fullmatch(reference):
        return reference
    try:
        target = urljoin(url, reference)
        with_credentials = "@" in urlsplit(target).netloc
    except ValueError:
        raise BadResponse(_NO_ADDRESS) from None
    if with_credentials:
        raise BadResponse(f"{host_of(url)} redirects to an address with credentials in it")
    return _address(target)


def host_of(url: str) -> str:
    """The host of `url`, with its port if there is one: safe to show in messages."""
    parts = urlsplit(url)
    try:
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        port = ""
    return f"{parts.hostname}{port}"


def basic_authorization(parts: SplitResult) -> str | None:
    """The Authorization header for the userinfo of an address; None without userinfo."""
    if parts.username is None:
        return None
    pair = unquote_to_bytes(parts.username) + b":" + unquote_to_bytes(parts.password or "")
    return "Basic " + base64.b64encode(pair).decode()


def same_path(one: str, other: str) -> bool:
    """Whether two paths are equal after unquoting."""
    return unquote(one) == unquote(other)


def _address(url: str) -> str:
    try:
        return normal(url)
    except ValueError:
        raise BadResponse(_NO_ADDRESS) from None


def _quoted(match: re.Match[str]) -> str:
    # aiohttp decodes headers as UTF-8, with a surrogate for any other byte: quote that byte.
    return quote(match[0].encode("utf-8", "surrogateescape"), safe="")


def _ascii(host: str) -> str:
    """The ASCII form of `host`. Raises ValueError if it has none."""
    if host.isascii():
        return host.lower()
    import yarl  # importing it takes longer than the rest of a small command, and IDN hosts are rare

    encoded = yarl.URL.build(scheme="http", host=host).raw_host
    if not encoded or not encoded.isascii():
        raise ValueError("not a host name")
    return encoded
