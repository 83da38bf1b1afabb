"""KServe's manager of local models at work: it looks, decides and writes, as long as it holds KServe's own Lease."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial

from cluster.client import Api, ApiError, Endpoint, Gone
from cluster.client.patience import patiently
from cluster.kserve.manager import plan
from cluster.kserve.observing import Observer, language_services
from cluster.kserve.world import Importing, World
from cluster.kserve.writing import Writer
from cluster.together import first_of, is_set_within

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
        self,
        api: Api,
        namespace: str,
        importing: Importing | None = None,
        *,
        on_note: Callable[[str, str], None],
        on_problem: Callable[[str, str], None],
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._importing = importing
        self._on_problem = on_problem
        self._changed = asyncio.Event()
        self._begun = asyncio.Event()
        self._observer: Observer | None = None
        self._language: Endpoint | None = None
        self._looked_at = 0.0
        self._writer = Writer(api, on_note=on_note, on_problem=self._problem)
        self._said = ""

    async def observe(self) -> None:
        """Watch the cluster until cancelled. Raises ApiError if it cannot be known which services there are."""
        self._language = await patiently(partial(language_services, self._api), on_problem=self._problem)
        self._looked_at = time.monotonic()
        self._observer = Observer(
            self._api, self._namespace, self._language, self._importing, on_change=self._changed.set, on_problem=self._problem
        )
        self._begun.set()
        await first_of(*self._observer.watches.runs())

    def world(self) -> World | None:
        """Return everything as it is, None while it is not known."""
        observer = self._observer
        if observer is None or not observer.watches.is_synced or observer.problem is not None:
            return None
        return observer.world()

    async def lead(self) -> None:
        """Decide and write until cancelled. Raises NotLeading if another process leads, Gone if KServe was installed anew."""
        await self._begun.wait()
        observer = self._observer
        if observer is None:
            return
        await observer.watches.synced()
        while True:
            began = time.monotonic()
            self._changed.clear()
            problem = observer.problem
            if problem is not None:
                self._say("Waiting", problem)
            elif await self._services_are_known(began):
                await self._writer.write(plan(observer.world()))
            await self._pause(began, AGAIN if self._writer.refused else TICK)

    async def _services_are_known(self, now: float) -> bool:
        """Whether every kind of service is watched: what an unknown one uses would be removed. Raises Gone to begin anew."""
        if now - self._looked_at < TICK:
            return True
        try:
            language = await language_services(self._api)
        except ApiError as error:
            self._problem(error)
            return False
        self._looked_at = now
        if language != self._language:
            raise Gone("KServe's services for language models came or went; start again")
        return True

    async def _pause(self, began: float, longest: float) -> None:
        await is_set_within(self._changed, longest)
        await asyncio.sleep(max(0.0, began + SOONEST - time.monotonic()))

    def _problem(self, error: ApiError) -> None:
        self._say(error.reason, str(error))

    def _say(self, reason: str, message: str) -> None:
        """Report a problem once, however often it comes in a row."""
        if message != self._said:
            self._on_problem(reason, message)
        self._said = message
