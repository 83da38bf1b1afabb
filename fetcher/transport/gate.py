"""Keeps requests within a reach: resolves hosts to the addresses that may be connected to, and to no others."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from fetcher.errors import SourceNotAllowed
from fetcher.reach import Reach
from fetcher.transport.http_library import aiohttp
from fetcher.transport.urls import origin_of


class Gate(aiohttp.abc.AbstractResolver):
    """A resolver for one transport. aiohttp connects to what it returns, so no other answer of the DNS can come between.

    aiohttp asks it for names only: `check` is for addresses that are written in a URL.
    """

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._named = set(reach.named)
        self._proxies: set[tuple[str, int]] = set()
        self._resolver: aiohttp.abc.AbstractResolver | None = None

    def begin(self, url: str) -> None:
        """Note that a request begins at `url`."""
        if self._reach.store:
            self._named.add(_place(url))

    def trust(self, proxy: str) -> None:
        """Let the proxy with this URL have any address: the administrator names it, and it decides where it connects to."""
        self._proxies.add(_place(proxy))

    def check(self, url: str) -> None:
        """Raise SourceNotAllowed if the host of `url` is an IP address that may not be connected to."""
        host, port = _place(url)
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return
        if not self._allows(host, port, host):
            raise _refusal(host, port, host)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[aiohttp.abc.ResolveResult]:
        """Return the addresses of `host` that may be connected to. Raises SourceNotAllowed if it has others only, OSError."""
        if self._resolver is None:
            self._resolver = aiohttp.DefaultResolver()
        found = await self._resolver.resolve(host, port, family)
        allowed = [each for each in found if self._allows(host, port, each["host"])]
        if found and not allowed:
            raise _refusal(host, port, found[0]["host"])
        return allowed

    async def close(self) -> None:
        if self._resolver is not None:
            await self._resolver.close()

    def _allows(self, host: str, port: int, address: str) -> bool:
        place = _plain(host), port
        return place in self._proxies or self._reach.allows(address, named=place in self._named)


def _place(url: str) -> tuple[str, int]:
    parts = urlsplit(origin_of(url))
    return _plain(parts.hostname or ""), parts.port or 0


def _plain(host: str) -> str:
    return host.lower().rstrip(".")


def _refusal(host: str, port: int, address: str) -> SourceNotAllowed:
    leads = "is" if host == address else f"leads to {address},"
    return SourceNotAllowed(
        f"{host}:{port} {leads} no public address; ask for this host to be added to the allowed sources. This machine and the "
        "metadata service of its cloud are never allowed"
    )
