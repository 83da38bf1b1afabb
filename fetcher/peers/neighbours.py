"""All peers of a fetch: names are resolved again and again, and each peer that is there is asked for its map."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NoReturn

from fetcher.errors import ConfigurationError, FetchError
from fetcher.peers.addresses import Addresses, Name, addresses_of
from fetcher.peers.asking import Asking, Wanted
from fetcher.peers.membership import Membership, change
from fetcher.peers.secret import Secret
from fetcher.transport.client import HttpTransport

EVERY = 10.0
"""Seconds between two looks at a name. A node that joins is found by others after this and the 5 to 30 s that DNS takes."""
SOON = 1.0
"""Seconds between two looks while a name has no address: a Service has none before its first pod is ready."""
TOLD_EVERY = 2.0
"""Seconds between two looks at who is told to be a peer."""
_RESOLVE = 10.0
"""Seconds for a look."""

Heard = Callable[[str, int, str], None]
Failed = Callable[[str, FetchError], None]
Gone = Callable[[str], None]
Told = Callable[[], Iterable[str]]


class Neighbours:
    """The peers at `given`, and those that `told` returns now and then. `me`: any text that other nodes do not have.

    `names` is told under which name each of them was found. `heard` and `failed` are those of `Asking`. `failed` is also called
    at each look at an address that is told and is none; `gone` with a peer that is none any more. `transport` is closed at the
    end.
    """

    def __init__(
        self,
        given: Addresses,
        wanted: Wanted,
        transport: HttpTransport,
        *,
        me: str,
        told: Told | None = None,
        secret: Secret | None,
        names: dict[str, str],
        heard: Heard,
        failed: Failed,
        gone: Gone,
    ) -> None:
        self._given = given
        self._told = told
        self._membership = Membership(given, me)
        self._transport = transport
        self._asking = Asking(wanted, transport, secret=secret, heard=heard, failed=failed)
        self._names = names
        self._failed = failed
        self._gone = gone
        self._asked: dict[str, asyncio.Task[NoReturn]] = {}
        self._looked: set[Name] = set()

    @property
    def complete(self) -> bool:
        """Whether every name was looked up: `peers` are all that there are now."""
        return len(self._looked) == len(self._given.names)

    @property
    def peers(self) -> frozenset[str]:
        """Who is asked now."""
        return frozenset(self._asked)

    async def run(self) -> None:
        """Ask until this is cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                self._listen(group)
                for name in self._given.names:
                    group.create_task(self._watch(name, group))
                if self._told is not None:
                    group.create_task(self._hear(group))
        finally:
            await self._transport.aclose()

    def _change(self, group: asyncio.TaskGroup) -> None:
        joined, left = change(self._asked, self._membership.peers())
        for peer in left:
            self._asked.pop(peer).cancel()
            self._gone(peer)
        for peer in joined:
            self._asked[peer] = group.create_task(self._asking.follow(peer))

    async def _watch(self, name: Name, group: asyncio.TaskGroup) -> NoReturn:
        loop = asyncio.get_running_loop()
        while True:
            addresses = await resolved(name)
            self._membership.answered(name, addresses, loop.time())
            self._names |= dict.fromkeys(filter(None, map(name.peer, addresses)), name.host)
            self._looked.add(name)
            self._change(group)
            await asyncio.sleep(EVERY if addresses else SOON)

    async def _hear(self, group: asyncio.TaskGroup) -> NoReturn:
        while True:
            await asyncio.sleep(TOLD_EVERY)
            self._listen(group)

    def _listen(self, group: asyncio.TaskGroup) -> None:
        """Take who is told. One address that is malformed keeps nobody from the others, who are known before it is said."""
        told, malformed = set[str](), dict[str, ConfigurationError]()
        for each in self._told() if self._told is not None else ():
            try:
                told.update(addresses_of([each]).fixed)
            except ConfigurationError as error:
                malformed[each.rpartition("@")[2]] = error
        self._membership.told = frozenset(told)
        self._change(group)
        for each, problem in malformed.items():
            self._failed(each, problem)


async def resolved(name: Name) -> list[str]:
    """Return the IP addresses of a name; none if they cannot be had now."""
    loop = asyncio.get_running_loop()
    with suppress(OSError, UnicodeError):
        async with asyncio.timeout(_RESOLVE):  # a TimeoutError is an OSError
            found = await loop.getaddrinfo(name.host, name.port, type=socket.SOCK_STREAM)
            return [str(address[0]) for _, _, _, _, address in found]
    return []
