"""Of several processes one acts, whatever their clocks say and whenever they are stopped."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster.client import Api, Forbidden
from cluster.client.endpoints import CONFIG_MAPS, LEASES
from cluster.client.errors import ApiError, NotLeading
from cluster.client.leading import Leadership, Seen, Step, Timing, decide, observed, wait_of
from tests.cluster.client.conftest import QUICK
from tests.cluster.client.test_api import map_of
from tests.cluster.faults import Front, Refuse, Silent
from tests.lab.waiting import eventually

TIMING = Timing(duration=15, deadline=10.0, retry=0.01)
ME, ANOTHER = "me_1", "another_2"


@dataclass
class Clock:
    """A clock that goes only when it is told to."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def held(holder: str, since: float = 1000.0, duration: float = 15.0) -> Seen:
    return Seen(holder, duration, (holder, "t", 0), since)


@pytest.mark.parametrize(
    ("seen", "exists", "now", "step"),
    [
        pytest.param(None, False, 1000.0, "create", id="there never was one"),
        pytest.param(held(ME), True, 1000.0, "renew", id="ours"),
        pytest.param(held(ME), True, 9999.0, "renew", id="ours, though late: nobody has taken it"),
        pytest.param(held(ANOTHER), True, 1015.0, "wait", id="of another, and fresh"),
        pytest.param(held(ANOTHER), True, 1015.1, "take", id="of another, which has not renewed it"),
        pytest.param(held(ANOTHER, duration=60.0), True, 1059.0, "wait", id="of another, which asks for longer"),
        pytest.param(held(""), True, 1000.0, "take", id="given away"),
        pytest.param(held(ME), False, 1000.0, "create", id="ours, which somebody deleted"),
        pytest.param(held(ANOTHER), False, 1015.0, "wait", id="of another, which somebody deleted, and which may still lead"),
        pytest.param(held(ANOTHER), False, 1015.1, "create", id="of another, deleted, and not made again"),
        pytest.param(held(""), False, 1000.0, "create", id="given away and deleted"),
    ],
)
def test_what_a_candidate_does(seen: Seen | None, exists: bool, now: float, step: Step) -> None:
    assert decide(seen, ME, now, exists=exists) == step


@pytest.mark.parametrize(
    ("seen", "now", "wait"),
    [
        pytest.param(None, 1000.0, 2.0, id="the API server did not answer"),
        pytest.param(held(ANOTHER), 1000.0, 2.0, id="it may still be renewed for long"),
        pytest.param(held(ANOTHER), 1014.0, 1.05, id="it is over soon"),
        pytest.param(held(ANOTHER), 1016.0, 2.0, id="it was over, and could not be taken"),
        pytest.param(held(""), 1014.0, 2.0, id="it was given away, and could not be taken"),
    ],
)
def test_when_a_candidate_looks_again(seen: Seen | None, now: float, wait: float) -> None:
    assert wait_of(seen, now, retry=2.0) == pytest.approx(wait)


def lease(holder: str | None, renewed: str = "2026-01-01T00:00:00.000000Z", transitions: int = 0) -> dict[str, Any]:
    return {"spec": {"holderIdentity": holder, "renewTime": renewed, "leaseTransitions": transitions}}


@pytest.mark.parametrize(
    ("later", "since"),
    [
        pytest.param(lease("a"), 1000.0, id="unchanged"),
        pytest.param(lease("a", "2026-01-01T00:00:02.000000Z"), 1002.0, id="renewed"),
        pytest.param(lease("a", "1999-01-01T00:00:00.000000Z"), 1002.0, id="renewed by a clock that went back"),
        pytest.param(lease("b"), 1002.0, id="taken"),
        pytest.param(lease("a", transitions=2), 1002.0, id="taken away and back"),
        pytest.param({}, 1002.0, id="emptied"),
        pytest.param({"spec": None}, 1002.0, id="emptied in another way"),
    ],
)
def test_since_when_a_lease_is_as_it_is(later: dict[str, Any], since: float) -> None:
    assert observed(later, observed(lease("a"), None, 1000.0), 1002.0).since == since


@dataclass
class Candidates:
    """Candidates for one Lease, each with a clock of its own."""

    api: Api
    namespace: str
    name: str
    problems: list[ApiError]

    def one(self, timing: Timing = TIMING) -> tuple[Leadership, Clock]:
        clock = Clock()
        made = Leadership(
            self.api,
            name=self.name,
            namespace=self.namespace,
            identity="test",
            timing=timing,
            clock=clock,
            on_problem=self.problems.append,
        )
        return made, clock

    async def holder(self) -> str:
        found = await self.api.get(LEASES, self.name, self.namespace)
        return str(found["spec"]["holderIdentity"])

    async def delete(self) -> None:
        found = await self.api.get(LEASES, self.name, self.namespace)
        await self.api.delete(LEASES, self.name, self.namespace, uid=found["metadata"]["uid"])

    async def change(self, **spec: Any) -> None:
        await self.api.merge(LEASES, self.name, self.namespace, {"spec": spec})


@pytest.fixture
def candidates(api: Api, namespace: str, unique: str) -> Candidates:
    return Candidates(api, namespace, unique, [])


async def looked(candidate: Leadership, front: Front, times: int = 3) -> None:
    """Let a candidate look some times, which it does until it leads."""
    task = asyncio.create_task(candidate.acquire())
    begun = front.count(path="/leases/")
    try:
        await eventually(lambda: task.done() or front.count(path="/leases/") > begun + times, "some looks")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class TestACandidate:
    async def test_leads_where_nobody_does(self, candidates: Candidates) -> None:
        first, _ = candidates.one()

        await first.acquire()

        assert await candidates.holder() == first.identity
        assert first.check() == 15.0

    async def test_alone_leads_of_many_that_begin_at_once(self, candidates: Candidates, front: Front) -> None:
        many = [candidates.one()[0] for _ in range(6)]

        await asyncio.gather(*(looked(each, front, 6) for each in many))

        assert [each.leads() for each in many].count(True) == 1

    async def test_looks_again_at_once_when_somebody_was_faster(self, candidates: Candidates, front: Front) -> None:
        front.fail(Refuse(409), method="POST", times=1)
        first, _ = candidates.one(Timing(duration=15, deadline=10.0, retry=1000))

        async with asyncio.timeout(60):
            await first.acquire()

        assert first.leads()

    async def test_waits_while_another_one_leads(self, candidates: Candidates, front: Front) -> None:
        first, _ = candidates.one()
        await first.acquire()
        second, clock = candidates.one()
        await looked(second, front)

        clock.now += 15.0
        await looked(second, front)

        assert not second.leads()
        with pytest.raises(NotLeading, match="is not the leader; nothing is written"):
            second.check()

    async def test_takes_over_when_it_saw_no_change_for_the_duration(self, candidates: Candidates, front: Front) -> None:
        first, _ = candidates.one()
        await first.acquire()
        second, clock = candidates.one()
        await looked(second, front)

        clock.now += 15.1
        await second.acquire()

        assert await candidates.holder() == second.identity

    async def test_begins_to_count_anew_with_each_renewal(self, candidates: Candidates, front: Front) -> None:
        first, _ = candidates.one()
        await first.acquire()
        second, clock = candidates.one()
        await looked(second, front)
        clock.now += 10
        await candidates.change(renewTime="2026-01-01T00:00:00.000000Z")
        await looked(second, front)

        clock.now += 10
        await looked(second, front)

        assert not second.leads()

    @pytest.mark.parametrize("year", [1999, 2099])
    async def test_trusts_its_own_clock_alone(self, candidates: Candidates, front: Front, year: int) -> None:
        first, _ = candidates.one()
        await first.acquire()
        await candidates.change(renewTime=f"{year}-01-01T00:00:00.000000Z")
        second, clock = candidates.one()

        await looked(second, front)
        assert not second.leads()
        clock.now += 15.1
        await second.acquire()

        assert second.leads()

    async def test_is_never_taken_for_another_of_its_name(self, candidates: Candidates, front: Front) -> None:
        """As a container that was started again in its pod: the former one may still be writing."""
        first, _ = candidates.one()
        await first.acquire()
        again, _ = candidates.one()

        await looked(again, front)

        assert not again.leads()

    async def test_waits_for_an_api_server_that_is_away(self, candidates: Candidates, front: Front) -> None:
        first, _ = candidates.one()
        with front.away():
            task = asyncio.create_task(first.acquire())
            await eventually(lambda: len(candidates.problems) > 2, "some looks")

        await task

        assert first.leads()

    async def test_says_why_it_cannot_lead(self, candidates: Candidates, front: Front) -> None:
        front.fail(Refuse(403, message="cannot get resource leases"), path="/leases/")
        first, _ = candidates.one()

        await looked(first, front)

        assert isinstance(candidates.problems[0], Forbidden)
        assert "cannot get resource leases" in str(candidates.problems[0])

    async def test_gives_up_a_look_in_time(self, candidates: Candidates, front: Front) -> None:
        front.fail(Silent(), path="/leases/")
        first, _ = candidates.one(Timing(duration=15, deadline=14.8, retry=0.01))

        await looked(first, front)

        assert "no answer in 0.2 s" in str(candidates.problems[0])


class TestALeader:
    async def test_stops_when_it_could_not_renew(self, candidates: Candidates, front: Front) -> None:
        first, clock = candidates.one(Timing(duration=15, deadline=14.8, retry=0.01))
        await first.acquire()
        front.fail(Silent(), path="/leases/")
        task = asyncio.create_task(first.keep())
        await eventually(lambda: len(candidates.problems) > 0, "a look that failed")
        assert first.leads()

        clock.now += 14.9

        with pytest.raises(NotLeading):
            await task

    async def test_goes_on_over_some_renewals_that_fail(self, candidates: Candidates, front: Front) -> None:
        first, _ = candidates.one()
        await first.acquire()
        task = asyncio.create_task(first.keep())
        front.fail(Refuse(500), path="/leases/")
        await eventually(lambda: len(candidates.problems) > 2, "some looks that failed")
        front.heal()
        begun = front.count(method="PUT", path="/leases/")
        await eventually(lambda: front.count(method="PUT", path="/leases/") > begun + 1, "renewals")

        assert first.leads()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def test_stops_at_once_when_another_one_has_the_lease(self, candidates: Candidates, front: Front) -> None:
        first, _ = candidates.one()
        await first.acquire()

        await candidates.change(holderIdentity="a person with kubectl")

        with pytest.raises(NotLeading):
            async with asyncio.timeout(20):
                await first.keep()

    async def test_renews_over_changes_of_others(self, candidates: Candidates, front: Front) -> None:
        first, _ = candidates.one()
        await first.acquire()
        front.fail(Refuse(409), method="PUT", path="/leases/", times=1)
        task = asyncio.create_task(first.keep())

        await eventually(lambda: front.count(method="PUT", path="/leases/") > 3, "renewals")

        assert first.leads()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def test_makes_a_lease_again_that_somebody_deleted_and_leads_alone(
        self, candidates: Candidates, front: Front
    ) -> None:
        first, _ = candidates.one()
        await first.acquire()
        second, _ = candidates.one()
        await looked(second, front)

        await candidates.delete()
        await looked(second, front)
        assert not second.leads()
        task = asyncio.create_task(first.keep())
        await eventually(lambda: front.count(method="POST", path="/leases") > 1, "a new lease")
        await looked(second, front)

        assert (first.leads(), second.leads()) == (True, False)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def test_that_died_is_followed_also_if_its_lease_was_deleted(self, candidates: Candidates, front: Front) -> None:
        first, _ = candidates.one()
        await first.acquire()
        second, clock = candidates.one()
        await looked(second, front)
        await candidates.delete()

        clock.now += 15.1
        await second.acquire()

        assert second.leads()

    async def test_that_releases_is_followed_at_once(self, candidates: Candidates, front: Front) -> None:
        first, _ = candidates.one()
        await first.acquire()
        second, _ = candidates.one()
        await looked(second, front)

        await first.release()
        assert not first.leads()
        await second.acquire()

        assert await candidates.holder() == second.identity

    async def test_that_was_followed_releases_nothing(self, candidates: Candidates, front: Front) -> None:
        first, _ = candidates.one()
        await first.acquire()
        second, clock = candidates.one()
        await looked(second, front)
        clock.now += 15.1
        await second.acquire()

        await first.release()

        assert await candidates.holder() == second.identity

    async def test_that_cannot_release_ends_all_the_same(self, candidates: Candidates, front: Front) -> None:
        first, _ = candidates.one(Timing(duration=15, deadline=14.8, retry=0.01))
        await first.acquire()
        front.fail(Silent(), path="/leases/")

        await first.release()

        assert not first.leads()

    async def test_guards_the_writes_of_the_same_api_but_not_its_own(self, front: Front, namespace: str, unique: str) -> None:
        async with Api(front.access(), manager="test", bounds=QUICK) as api:
            clock = Clock()
            leadership = Leadership(api, name=unique, namespace=namespace, identity="t", timing=TIMING, clock=clock)
            api.guard = leadership.check
            with pytest.raises(NotLeading):
                await api.create(CONFIG_MAPS, map_of(unique, namespace))

            await leadership.acquire()
            await api.create(CONFIG_MAPS, map_of(unique, namespace))
            clock.now += 10.1

            with pytest.raises(NotLeading):
                await api.merge(CONFIG_MAPS, unique, namespace, {"data": {"a": "1"}})

    async def test_has_for_a_write_what_is_left_until_others_may_lead(self, candidates: Candidates) -> None:
        first, clock = candidates.one()
        await first.acquire()

        clock.now += 9

        assert first.check() == 6.0


@contextmanager
def process(front: Front, namespace: str, name: str, seconds: int) -> Iterator[subprocess.Popen[str]]:
    """A candidate as a process of its own, which leads."""
    words = [sys.executable, "-m", "tests.cluster.client.leader", front.url, namespace, name, str(seconds)]
    root = Path(__file__).parents[3]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root) as started:
        try:
            assert started.stdout is not None
            assert started.stdout.readline() == "leads\n"
            yield started
        finally:
            started.kill()


def told(process: subprocess.Popen[str], line: str = "") -> str:
    """Return the next line of a process, after it got one."""
    assert process.stdin is not None
    assert process.stdout is not None
    if line:
        process.stdin.write(f"{line}\n")
        process.stdin.flush()
    return process.stdout.readline().strip()


class TestAProcess:
    async def test_that_was_stopped_for_long_writes_nothing_afterwards(
        self, front: Front, api: Api, namespace: str, unique: str
    ) -> None:
        with process(front, namespace, unique, seconds=5) as stopped:
            assert await asyncio.to_thread(told, stopped, "write") == "wrote"
            stopped.send_signal(signal.SIGSTOP)
            writes = front.count(path="/configmaps/")
            second = Leadership(api, name=unique, namespace=namespace, identity="second", timing=Timing(5, 3.0, 0.1))
            async with asyncio.timeout(30):
                await second.acquire()
            assert stopped.stdin is not None
            stopped.stdin.write("write\n")
            stopped.stdin.flush()

            stopped.send_signal(signal.SIGCONT)
            assert await asyncio.to_thread(told, stopped) == "refused"
            stopped.stdin.close()
            assert await asyncio.to_thread(told, stopped) == "lost"

            assert front.count(path="/configmaps/") == writes
            found = await api.get(LEASES, unique, namespace)
            assert found["spec"]["holderIdentity"] == second.identity

    async def test_that_was_killed_is_followed(self, front: Front, api: Api, namespace: str, unique: str) -> None:
        second = Leadership(api, name=unique, namespace=namespace, identity="second", timing=Timing(5, 3.0, 0.1))
        with process(front, namespace, unique, seconds=5) as first:
            waiting = asyncio.create_task(second.acquire())
            await eventually(lambda: front.count(path="/leases/") > 5, "both look")
            assert not waiting.done()

            first.kill()

            async with asyncio.timeout(60):
                await waiting

        assert second.leads()
