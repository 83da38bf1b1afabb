"""All peers of a fetch: names are resolved again and again, and each peer that is there is asked for its map."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from fetcher.errors import FetchError
from fetcher.peers.addresses import Addresses, Name
from fetcher.peers.asking import ANSWER, Asking, Wanted
from fetcher.peers.membership import MOST, Membership, change
from fetcher.transport.client import HttpTransport

EVERY = 10.0
"""Seconds between two looks at a name. A node that joins is found by others after this and the 5 to 30 s that DNS takes."""
SOON = 1.0
"""Seconds between two looks while a name has no address: a Service has none before its first pod is ready."""
_RESOLVE = 10.0
"""Seconds for a look."""
_READ_BUFFER = 64 * 1024

Heard = Callable[[str, int], None]
Failed = Callable[[str, FetchError], None]


class Neighbours:
    """The peers at `given`, without this node, whose own base URL is `me`.

    `heard` and `failed` are those of `Asking`. Peers are asked directly, never through a proxy.
    """

    def __init__(
        self,
        given: Addresses,
        wanted: Wanted,
        *,
        me: str,
        secret: Path | None,
        heard: Heard,
        failed: Failed,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._given = given
        self._membership = Membership(given, me)
        direct = {name: value for name, value in environ.items() if not name.lower().endswith("_proxy")}
        self._transport = HttpTransport(connections=MOST, timeout_stall=ANSWER, read_buffer=_READ_BUFFER, environ=direct)
        self._asking = Asking(wanted, self._transport, secret=secret, heard=heard, failed=failed)
        self._asked: dict[str, asyncio.Task[NoReturn]] = {}

    @property
    def peers(self) -> frozenset[str]:
        """Who is asked now."""
        return frozenset(self._asked)

    async def run(self) -> None:
        """Ask until this is cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                self._change(group)
                for name in self._given.names:
                    group.create_task(self._watch(name, group))
        finally:
            await self._transport.aclose()

    def _change(self, group: asyncio.TaskGroup) -> None:
        joined, left = change(self._asked, self._membership.peers())
        for peer in left:
            self._asked.pop(peer).cancel()
        for peer in joined:
            self._asked[peer] = group.create_task(self._asking.follow(peer))

    async def _watch(self, name: Name, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            addresses = await resolved(name)
            self._membership.answered(name, addresses, loop.time())
            self._change(group)
            await asyncio.sleep(EVERY if addresses else SOON)


async def resolved(name: Name) -> list[str]:
    """Return the IP addresses of a name; none if they cannot be had now."""
    loop = asyncio.get_running_loop()
    with suppress(OSError, UnicodeError):
        async with asyncio.timeout(_RESOLVE):  # a TimeoutError is an OSError
            found = await loop.getaddrinfo(name.host, name.port, type=socket.SOCK_STREAM)
            return [str(address[0]) for _, _, _, _, address in found]
    return []
