"""The named steps of work that changes something outside of the process.

A kill between any two of them leaves nothing wrong visible, and nothing that the next process does not find.
"""

from __future__ import annotations

from collections.abc import Callable

Step = Callable[[str], None]
"""Called after each step with the step's name; it can raise, and any thread can call it. Tests kill the process there."""


def no_step(_: str) -> None:
    """Ignore the steps."""
