"""A controller and two agents are killed at every named step and at random: no wrong byte, no work twice, nothing left."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.cluster.controller.playing import POOLS, Stage, stage
from tests.cluster.crash.lot import CLAIMED, POOLED, Lot, key_of, lot
from tests.cluster.crash.victims import Victim, kind_of
from tests.lab.chaos import Chaos

MiB = 1024 * 1024
_ROUNDS = os.environ.get("WEIGHTLIFT_CHAOS_ROUNDS")
_PATIENCE = 120.0
"""Seconds for what takes ten at most: a loaded machine is slower, and nothing here depends on speed."""


@pytest.fixture
async def cluster() -> AsyncIterator[Stage]:
    async with stage() as made:
        yield made


class Crawl:
    """Kills each role once at each kind of step, as soon as it comes to it, and starts it again."""

    def __init__(self, of: Lot) -> None:
        self._lot = of
        self.killed: dict[str, set[str]] = {"agent": set(), "controller": set()}

    async def until(self, what: str, goal: Callable[[], Awaitable[bool]]) -> None:
        """Go on until `goal` is reached, with some progress all the while."""
        deadline = time.monotonic() + _PATIENCE
        while not await goal():
            assert time.monotonic() < deadline, (what, self.killed)
            for victim in self._lot.victims:
                if victim.is_dead:
                    await self._restart(victim)
                    deadline = time.monotonic() + _PATIENCE
            await self._lot.assert_right()
            await asyncio.sleep(0.05)
        for victim in self._lot.victims:
            if victim.is_dead:  # what it did last was the goal
                await self._restart(victim)

    async def _restart(self, victim: Victim) -> None:
        self._lot.bury(victim)
        self.killed[victim.role] |= set(map(kind_of, victim.deaths))
        await self._lot.assert_right()
        self._lot.start(victim, spared=frozenset(self.killed[victim.role]))


@pytest.mark.timeout(900)
async def test_a_kill_after_every_named_step(cluster: Stage, tmp_path: Path) -> None:
    """Models appear, one moves, and one is damaged."""
    with lot(cluster, tmp_path, "--scrub-interval", "1s") as given:
        await given.begin()
        crawl = Crawl(given)
        for name in (*POOLED, CLAIMED):
            await given.declare(name)
        await crawl.until("all models are there", given.converged)
        given.move()
        await crawl.until("the next version is there", given.converged)
        await damaged(given, "kept", crawl)
        await assert_one_of_each(given, crawl.until)
        assert crawl.killed["agent"] >= {"limits written", "sealing", "sealed", "renamed", "exchanged", "patch nodecaches"}
        assert crawl.killed["agent"] >= {"staged kept.safetensors", "replaced kept.safetensors"}
        assert crawl.killed["controller"] >= {
            *("create cacheartifacts", "create nodecaches", "create persistentvolumes", "create persistentvolumeclaims"),
            *("create jobs", "apply daemonsets", "patch nodecaches", "apply modelcaches", "apply cachepools"),
        }


@pytest.mark.timeout(900)
async def test_a_kill_after_every_named_step_of_what_goes(cluster: Stage, tmp_path: Path) -> None:
    with lot(cluster, tmp_path) as given:
        await given.begin()
        crawl = Crawl(given)
        for victim in given.victims:
            given.start(victim)
        for name in ("kept", CLAIMED):
            await given.declare(name)
        await crawl.until("both models are there", given.converged)
        given.bury(given.controller)
        await assert_all_goes(given, crawl.until)
        assert "delete nodecaches" in crawl.killed["controller"]


async def damaged(given: Lot, name: str, crawl: Crawl) -> None:
    """Damage a model on one node until it is repaired."""
    machine = given.machines[0]
    given.damaged = machine, key_of(name)
    with (machine.root / key_of(name) / f"{name}.safetensors").open("r+b") as stream:
        stream.write(b"\xff" * 8)
    machine.done.clear()  # a chunk is fetched again now, and rightly
    await crawl.until("the damage is repaired", given.converged)
    assert given.admitted
    given.damaged = None


Until = Callable[[str, Callable[[], Awaitable[bool]]], Awaitable[None]]


async def assert_one_of_each(given: Lot, until: Until) -> None:
    """Everything is there, once."""

    async def collected() -> bool:
        return not any(machine.leftovers for machine in given.machines)

    await until("no bytes are left of what was begun or replaced", collected)
    for machine in given.machines:
        assert {path.name for path in machine.root.iterdir() if not path.name.startswith(".")} == {
            key_of(name) for name in POOLED
        }
    assert len(await given.jobs()) == 1


async def assert_all_goes(given: Lot, until: Until) -> None:
    """Nothing remains but the copies, which whoever needs room may evict."""
    for name in sorted(given.declared):
        await given.withdraw(name)
    pool = await given.stage.api.get(POOLS, given.stage.name)
    await given.stage.api.delete(POOLS, given.stage.name, uid=pool["metadata"]["uid"])

    async def gone() -> bool:
        return not [each for each in await given.left() if not each.startswith("Lease ")]

    await until("all objects are gone", gone)
    await given.assert_right()


@pytest.mark.timeout(0 if _ROUNDS else 600)
async def test_kills_at_random(cluster: Stage, chaos: Chaos, tmp_path: Path) -> None:
    with lot(cluster, tmp_path) as given:
        await given.begin()
        for name in (*POOLED, CLAIMED):
            await given.declare(name)
        for machine in given.machines:
            machine.origin.throttle(total=60 * MiB)
        for victim in given.victims:
            given.start(victim)
        for _ in chaos.rounds(ordinarily=40):
            await _change(given, chaos)
            victim = chaos.random.choice(given.victims)
            given.bury(victim)
            at = chaos.random.randrange(12) if chaos.random.random() < 0.5 else None
            given.start(victim, at=at)
            deadline = time.monotonic() + chaos.random.uniform(0.3, 2.0)
            while time.monotonic() < deadline and not victim.is_dead:
                await given.assert_right()
                await asyncio.sleep(0.05)
            given.bury(victim)
            await given.assert_right()
            given.start(victim)
        for name in (POOLED.keys() | {CLAIMED}) - given.declared:
            await given.declare(name)

        async def until(what: str, goal: Callable[[], Awaitable[bool]]) -> None:
            deadline = time.monotonic() + _PATIENCE
            while not await goal():
                assert time.monotonic() < deadline, what
                assert not any(each.is_dead for each in given.victims)
                await asyncio.sleep(0.1)

        await until("everything is there", given.converged)
        await assert_one_of_each(given, until)
        await assert_all_goes(given, until)


async def _change(given: Lot, chaos: Chaos) -> None:
    """Now and then a model comes or goes, or moves."""
    if chaos.random.random() < 0.5:
        name = chaos.random.choice([*POOLED, CLAIMED])
        await (given.withdraw(name) if name in given.declared else given.declare(name))
    if chaos.random.random() < 0.3:
        given.move()
