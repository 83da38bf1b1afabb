"""Wait for a condition instead of a fixed time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress


def wait_until(condition: Callable[[], bool], what: str, *, timeout: float = 20.0) -> None:
    """Return as soon as `condition` is true. Raises AssertionError with `what` after `timeout` seconds.

    FileNotFoundError counts as false: a condition can read directories that are being renamed.
    """
    deadline = time.monotonic() + timeout
    while True:
        with suppress(FileNotFoundError):
            if condition():
                return
        if time.monotonic() > deadline:
            raise AssertionError(f"timed out after {timeout:g} s; expected: {what}")
        time.sleep(0.01)


async def eventually(condition: Callable[[], bool], what: str, *, timeout: float = 20.0) -> None:  # noqa: ASYNC109 - as above
    """Return as soon as `condition` is true, while the event loop goes on. Raises AssertionError as `wait_until`."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"timed out after {timeout:g} s; expected: {what}")
        await asyncio.sleep(0.01)
