"""What a process must know before it begins: asked until the API server answers. A process that ended instead would be started
again after longer and longer pauses, so it would come back minutes after the API server."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from cluster.client.errors import ApiError, Unavailable
from cluster.client.watching import PACE, Pace, pause

T = TypeVar("T")


async def patiently(ask: Callable[[], Awaitable[T]], *, on_problem: Callable[[ApiError], None], pace: Pace = PACE) -> T:
    """Return what `ask` returns, once the API server answers. `on_problem` is told of each try that got no answer.

    Raises what `ask` raises but Unavailable.
    """
    wait = 0.0
    while True:
        try:
            return await ask()
        except Unavailable as error:
            on_problem(error)
            wait = pause(wait, error, lasted=0.0, pace=pace)
        await asyncio.sleep(wait * random.uniform(1.0, 1.5))  # noqa: S311 - not all processes of a cluster at once
