"""Two controllers as processes: one leads, and what happens when it dies or is stopped for long."""

from __future__ import annotations

import signal
from pathlib import Path

from cluster.client.endpoints import LEASES
from cluster.client.leading import TIMING
from fetcher.testing.origin import Origin
from tests.cluster.controller.playing import CACHES, Stage, controller


async def leads(cluster: Stage, name: str) -> bool:
    lease = await cluster.find(LEASES, "weightlift-controller", cluster.name)
    return lease is not None and lease["spec"]["holderIdentity"].partition("_")[0] == name


async def has_entries(cluster: Stage, count: int) -> bool:
    """Whether the nodes shall have so many artifacts together."""
    return sum([len(await cluster.wanted(node)) for node in cluster.nodes]) == count


async def all_nodes(cluster: Stage) -> bool:
    return all([await cluster.find(CACHES, node) is not None for node in cluster.nodes])


async def test_the_second_controller_acts_after_the_first_was_killed(cluster: Stage, origin: Origin, tmp_path: Path) -> None:
    await cluster.pool()
    hub = ("--hub-endpoint", origin.endpoint)
    with controller(cluster, tmp_path / "one", "--identity", "one", *hub) as first:
        await cluster.until("one leads", lambda: leads(cluster, "one"), within=60)
        with controller(cluster, tmp_path / "two", "--identity", "two", *hub):
            await cluster.until("all nodes have a NodeCache", lambda: all_nodes(cluster))
            first.kill()
            await cluster.model("m", "hf://org/model")
            await cluster.until("two acts", lambda: has_entries(cluster, 3), within=90)
            assert await leads(cluster, "two")


def test_another_controller_leads_within_20_seconds_of_a_death() -> None:
    """The last renewal may have come just before it, and the look of another one just before the lease ends."""
    assert TIMING.duration + TIMING.retry < 20


async def test_a_controller_that_ends_in_order_gives_the_lease_away_at_once(cluster: Stage, tmp_path: Path) -> None:
    with controller(cluster, tmp_path / "one", "--identity", "one") as first:
        await cluster.until("one leads", lambda: leads(cluster, "one"), within=60)
        first.send_signal(signal.SIGTERM)
        assert first.wait(timeout=20) == 0
        assert await leads(cluster, "")


async def test_another_one_acts_for_a_leader_that_falls_silent_and_that_writes_nothing_when_it_goes_on(
    cluster: Stage, origin: Origin, tmp_path: Path
) -> None:
    """To the other one it is as if it were dead. When it goes on, it has work to do and nobody else does it: a NodeCache is
    missing, which a leader would write."""
    await cluster.pool()
    await cluster.model("m", "hf://org/model")
    hub = ("--hub-endpoint", origin.endpoint)
    log, node = tmp_path / "one", cluster.nodes[0]
    with controller(cluster, log, "--identity", "one", *hub) as first:
        await cluster.until("one leads", lambda: leads(cluster, "one"), within=60)
        await cluster.until("one acts", lambda: has_entries(cluster, 3))
        first.send_signal(signal.SIGSTOP)
        try:
            with controller(cluster, tmp_path / "two", "--identity", "two", *hub):
                await cluster.model("n", "hf://org/model", source={"uri": "hf://org/model", "revision": "main"})
                await cluster.until("two acts", lambda: has_entries(cluster, 6), within=90)
                assert await leads(cluster, "two")
            found = await cluster.api.get(CACHES, node)
            await cluster.api.delete(CACHES, node, uid=found["metadata"]["uid"])
        finally:
            first.send_signal(signal.SIGCONT)
        assert first.wait(timeout=30) == 75
        assert await cluster.find(CACHES, node) is None
        assert await leads(cluster, "")  # two gave it back
    assert "NotLeading" in log.read_text()
