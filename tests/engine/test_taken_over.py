"""An owner reports that its lease was taken over, although it first notices missing files."""

from __future__ import annotations

import pytest

from fetcher.errors import LeaseLost
from fetcher.events import BytesReceived, Event
from fetcher.testing.origin import Origin
from tests.engine.conftest import Fetcher, MiB


async def test_files_lost_with_the_lease_are_reported_as_a_lost_lease(origin: Origin, fetch: Fetcher) -> None:
    origin.add_repo("org/model", {f"{number}.bin": b"%d" % number * 1000 for number in range(300)})

    def listen(event: Event) -> None:
        if isinstance(event, BytesReceived) and not any(isinstance(each, BytesReceived) for each in fetch.events):
            (data,) = fetch.cache_dir.glob(".fetcher/staging/*/data.*")
            data.rename(data.with_name("data.another"))
        fetch.events.append(event)

    with pytest.raises(LeaseLost, match="took over"):
        await fetch(listen=listen, limit_rate=8 * MiB)
    assert fetch.visible() == []
