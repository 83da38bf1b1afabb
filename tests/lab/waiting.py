"""Waiting for a condition instead of sleeping for luck."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress


def wait_until(condition: Callable[[], bool], what: str, *, timeout: float = 20.0) -> None:
    """Return as soon as `condition` holds. Raises AssertionError, after `timeout` seconds, saying that it is not.

    A condition may look into directories that are renamed under its eyes: what is gone does not hold yet.
    """
    deadline = time.monotonic() + timeout
    while True:
        with suppress(FileNotFoundError):
            if condition():
                return
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s in vain until {what}")
        time.sleep(0.01)
