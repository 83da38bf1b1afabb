"""The API server, asked from tests that do not await: a request takes some milliseconds, where a kubectl takes a second."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from cluster.client import Api, of_kubeconfig

T = TypeVar("T")


def asked(kubeconfig: str, question: Callable[[Api], Awaitable[T]]) -> T:
    """Return what `question` returns, given the API server."""

    async def ask() -> T:
        async with Api(of_kubeconfig(Path(kubeconfig)), manager="weightlift-test") as api:
            return await question(api)

    return asyncio.run(ask())
