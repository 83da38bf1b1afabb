"""The API server is away for longer than a leader may lead without it: everything goes on, and is caught up with afterwards."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.cluster.agent.link import linked
from tests.cluster.controller.playing import Stage, stage
from tests.cluster.crash.lot import Lot, key_of, lot

_AWAY = float(os.environ.get("WEIGHTLIFT_AWAY_SECONDS", "0"))
"""Seconds, beside those in which the leader notices."""
_SOON = 60.0


@pytest.fixture
async def cluster() -> AsyncIterator[Stage]:
    async with stage() as made:
        yield made


async def until(what: str, goal: Callable[[], Awaitable[bool]], *, within: float) -> None:
    deadline = time.monotonic() + within
    while not await goal():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.1)


@pytest.mark.timeout(400 + _AWAY)
async def test_agents_live_on_and_all_is_caught_up_with_within_a_minute(cluster: Stage, tmp_path: Path) -> None:
    with linked(cluster.kubeconfig, tmp_path) as (link, kubeconfig), lot(cluster, tmp_path, kubeconfig=kubeconfig) as given:
        await given.begin()
        for victim in given.victims:
            given.start(victim)
        await given.declare("kept")
        await until("the first model is there", given.converged, within=120)
        processes = [each.agent.process for each in given.machines]

        link.cut()
        await given.declare("moving")
        await until("the leader ends, since it cannot know whether it leads", leader_has_ended(given), within=60)
        given.bury(given.controller)
        given.start(given.controller)  # as the kubelet does; it waits for the API server, and does not end again
        await asyncio.sleep(_AWAY)
        assert not any(each.is_dead for each in given.victims)
        for machine in given.machines:
            assert machine.visible(key_of("kept")) == given.versions[key_of("kept")][-1]
            assert machine.visible(key_of("moving")) is None

        link.mend()
        await until("all is caught up with", given.converged, within=_SOON)
        assert [each.agent.process for each in given.machines] == processes
        assert not any(each.is_dead for each in given.victims)


def leader_has_ended(given: Lot) -> Callable[[], Awaitable[bool]]:
    async def ended() -> bool:
        return given.controller.is_dead

    return ended
