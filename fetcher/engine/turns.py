"""Which connection writes next: one whose bytes are next in their file.

The thread that writes the next bytes of a file also hashes them, while they are in cache. Bytes that are written ahead must be
read back from the page cache, which costs more than to hash them. So they wait in the kernel, while others are next; TCP's flow
control makes their sender wait. On a link that is slower than the threads nobody waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fetcher.values import dataclass

LONGEST_WAIT = 2.0
"""Seconds, after which a connection is let go ahead: a server drops a client that takes nothing for long (nginx after 60 s)."""


@dataclass(frozen=True, slots=True)
class Waiter:
    """A connection that waits since a time in seconds. `is_next`: whether its bytes are next in their file."""

    turn: asyncio.Future[None]
    is_next: Callable[[], bool]
    since: float


class Turns:
    """At most `count` turns at a time. Everything here runs on one event loop."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: list[Waiter] = []

    async def take(self, is_next: Callable[[], bool]) -> None:
        """Wait for a turn. The caller gives it back."""
        loop = asyncio.get_running_loop()
        if self._free:
            self._free -= 1
            return
        waiter = Waiter(loop.create_future(), is_next, loop.time())
        self._waiting.append(waiter)
        try:
            await waiter.turn
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            else:
                self.give_back()
            raise

    def give_back(self) -> None:
        """End a turn. Somebody gets it once the caller had the opportunity to ask for another one: its bytes may be next."""
        asyncio.get_running_loop().call_soon(self._pass_on)

    def _pass_on(self) -> None:
        waiting = [each for each in self._waiting if not each.turn.cancelled()]
        if not waiting:
            self._free += 1
            return
        late = asyncio.get_running_loop().time() - LONGEST_WAIT
        chosen = next((each for each in waiting if each.since < late or each.is_next()), waiting[0])
        self._waiting.remove(chosen)
        chosen.turn.set_result(None)
