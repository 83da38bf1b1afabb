"""KServe's manager of local models at work: it looks, decides and writes, as long as it holds KServe's own Lease."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from cluster.client import Api, ApiError
from cluster.kserve.manager import plan
from cluster.kserve.observing import Observer
from cluster.kserve.writing import Writer

TICK = 60.0
"""Seconds between two looks when nothing changes."""
AGAIN = 10.0
"""Seconds until what was refused is tried again."""
SOONEST = 1.0
"""Seconds between two looks at least: agents report in bursts."""


class Manager:
    """One process. It observes from the start, and acts once `lead` is awaited. `namespace`: KServe's own.

    `on_note` gets a subject and what was done with it, `on_problem` a reason word and a sentence.
    """

    def __init__(
        self, api: Api, namespace: str, *, on_note: Callable[[str, str], None], on_problem: Callable[[str, str], None]
    ) -> None:
        self._on_problem = on_problem
        self._changed = asyncio.Event()
        self._observer = Observer(api, namespace, on_change=self._changed.set, on_problem=self._problem)
        self._writer = Writer(api, on_note=on_note, on_problem=self._problem)
        self._said = ""

    async def observe(self) -> None:
        """Watch the cluster until cancelled."""
        tasks = list(self._observer.runs())
        try:
            await asyncio.gather(*tasks)
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.wait(tasks)

    async def lead(self) -> None:
        """Decide and write until cancelled. Raises NotLeading if another process leads."""
        await self._observer.synced()
        while True:
            began = time.monotonic()
            self._changed.clear()
            problem = self._observer.problem
            if problem is None:
                await self._writer.write(plan(self._observer.world()))
            else:
                self._say("Waiting", problem)
            await self._pause(began, AGAIN if self._writer.refused else TICK)

    async def _pause(self, began: float, longest: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), longest)
        await asyncio.sleep(max(0.0, began + SOONEST - time.monotonic()))

    def _problem(self, error: ApiError) -> None:
        self._say(error.reason, str(error))

    def _say(self, reason: str, message: str) -> None:
        """Report a problem once, however often it comes in a row."""
        if message != self._said:
            self._on_problem(reason, message)
        self._said = message
