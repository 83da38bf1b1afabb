"""Receiving does not run too far ahead of hashing."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from fetcher.engine import handout, hashing, sizing
from fetcher.events import BytesReceived, ConnectionsActive, Event
from fetcher.integrity.frontier import Stretch, advance_together
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.origin import Origin
from tests.engine.conftest import Fetcher, contents

MiB = 1024 * 1024
CONTENT = random_bytes("long", 128 * MiB)


class Slow:
    """Hashes nothing while a connection is active, and records the bytes received by then."""

    def __init__(self, fetch: Fetcher) -> None:
        self._events = fetch.events
        self._idle = threading.Event()
        self._work = advance_together
        self.received_first = 0

    def listen(self, event: Event) -> None:
        self._events.append(event)
        if event == ConnectionsActive(0) and not self._idle.is_set():
            self.received_first = sum(each.bytes for each in self._events if isinstance(each, BytesReceived))
            if self.received_first > 32 * MiB:  # otherwise two connections ended a range at the same time
                self._idle.set()

    def advance_together(self, stretches: Sequence[Stretch], buffer: memoryview) -> None:
        assert self._idle.wait(60)
        self._work(stretches, buffer)


async def test_no_range_is_begun_while_enough_bytes_wait_to_be_hashed(
    origin: Origin, fetch: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(fetch)
    monkeypatch.setattr(handout, "AHEAD", 32 * MiB)
    monkeypatch.setattr(sizing, "in_line", lambda streams: False)
    monkeypatch.setattr(hashing, "advance_together", slow.advance_together)
    origin.add_repo("org/model", {"model.safetensors": CONTENT})
    artifact = await fetch(listen=slow.listen, max_concurrency=2)
    assert contents(artifact.path) == {"model.safetensors": CONTENT}
    assert slow.received_first < 128 * MiB
