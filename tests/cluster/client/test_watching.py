"""What a program knows of its cluster, whatever happens to the connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cluster.client import Api, ApiAccess, ApiError, Forbidden, Gone, Unavailable, Watched
from cluster.client.bounds import Bounds
from cluster.client.endpoints import CONFIG_MAPS
from cluster.client.watching import Pace, pause
from tests.cluster.client.conftest import QUICK
from tests.cluster.client.test_api import map_of
from tests.cluster.faults import EXPIRED, Drop, Front, Refuse, Send, told
from tests.lab.waiting import eventually

PACE = Pace(watch=(2, 2), short=0.2, longest_wait=0.2)


def read(item: Mapping[str, Any]) -> str:
    """The value `a` of a ConfigMap. One without it cannot be read."""
    return str(item["data"]["a"])


@dataclass
class Look:
    """A part of the cluster that is kept up to date, and a second way to the same server, without faults."""

    watched: Watched[str]
    beside: Api
    namespace: str
    label: str
    problems: list[ApiError]
    history: list[dict[str, str]] = field(default_factory=list)

    @property
    def known(self) -> dict[str, str]:
        return {name.removeprefix(f"{self.label}-"): value for (_, name), value in self.watched.objects.items()}

    def key(self, name: str) -> tuple[str, str]:
        """The namespace and the whole name, which no other test has."""
        return self.namespace, f"{self.label}-{name}"

    async def add(self, name: str, **data: str) -> dict[str, Any]:
        document = map_of(self.key(name)[1], self.namespace, **data)
        document["metadata"]["labels"] = {"test": self.label}
        return await self.beside.create(CONFIG_MAPS, document)

    async def change(self, name: str, **data: str | None) -> None:
        await self.beside.merge(CONFIG_MAPS, self.key(name)[1], self.namespace, {"data": data})

    async def remove(self, name: str) -> None:
        found = await self.beside.get(CONFIG_MAPS, self.key(name)[1], self.namespace)
        await self.beside.delete(CONFIG_MAPS, self.key(name)[1], self.namespace, uid=found["metadata"]["uid"])

    async def until(self, **known: str) -> None:
        await eventually(lambda: self.known == known, f"{known}, not {self.known}")


@pytest.fixture
async def start(front: Front, namespace: str, unique: str) -> AsyncIterator[Callable[[], Awaitable[Look]]]:
    """Begin to look, and end with the test."""
    tasks: list[asyncio.Task[None]] = []
    async with Api(front.behind, manager="another") as beside, Api(front.access(), manager="test", bounds=QUICK) as api:

        async def started() -> Look:
            problems: list[ApiError] = []
            history: list[dict[str, str]] = []
            watched = Watched(
                api,
                CONFIG_MAPS,
                read,
                on_change=lambda: history.append(look.known),
                on_problem=problems.append,
                namespace=namespace,
                labels=f"test={unique}",
                pace=PACE,
            )
            look = Look(watched, beside, namespace, unique, problems, history)
            tasks.append(asyncio.create_task(watched.run()))
            return look

        yield started
        for each in tasks:
            each.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(result, asyncio.CancelledError)


Start = Callable[[], Awaitable[Look]]


class TestObjects:
    async def test_are_unknown_before_the_first_list(self, front: Front, start: Start) -> None:
        front.fail(Refuse(503))
        look = await start()

        await eventually(lambda: len(look.problems) > 1, "tries that failed")

        assert not look.watched.synced.is_set()

    async def test_are_told_of_once_there_are_none(self, start: Start) -> None:
        look = await start()

        await look.watched.synced.wait()

        assert look.history == [{}]

    async def test_come_change_and_go(self, start: Start) -> None:
        look = await start()
        await look.watched.synced.wait()

        await look.add("a", a="1")
        await look.until(a="1")
        await look.change("a", a="2")
        await look.until(a="2")
        await look.remove("a")
        await look.until()

    async def test_of_many_pages_are_all_there(self, start: Start) -> None:
        look = await start()
        await look.watched.synced.wait()
        names = [f"n{number}" for number in range(7)]
        for name in names:
            await look.add(name, a=name)

        again = await start()

        await again.until(**{name: name for name in names})
        assert len(again.history) == 1

    async def test_that_were_deleted_while_nobody_watched_are_gone(self, front: Front, start: Start) -> None:
        look = await start()
        await look.add("b", a="1")
        await look.add("c", a="1")
        await look.until(b="1", c="1")

        front.fail(Refuse(410), watch=True, times=1)
        with front.away():
            await look.remove("b")
            await look.change("c", a="2")

        await look.until(c="2")

    async def test_that_cannot_be_read_keep_their_last_readable_form(self, start: Start) -> None:
        look = await start()
        await look.add("d", a="1")
        await look.until(d="1")

        await look.change("d", a=None, b="1")
        await eventually(lambda: look.watched.unreadable != {}, "the object is named")

        assert look.known == {"d": "1"}
        assert look.watched.unreadable == {look.key("d"): "KeyError: 'a'"}
        await look.change("d", a="2")
        await look.until(d="2")
        assert look.watched.unreadable == {}

    async def test_that_cannot_be_read_keep_it_over_a_new_list(self, front: Front, start: Start) -> None:
        look = await start()
        await look.add("e", a="1")
        await look.until(e="1")
        front.fail(EXPIRED, watch=True, times=1)
        with front.away():
            await look.change("e", a=None, b="1")

        await eventually(lambda: look.watched.unreadable != {}, "the object is named")

        assert look.known == {"e": "1"}
        await look.remove("e")
        await look.until()
        assert look.watched.unreadable == {}

    async def test_that_never_could_be_read_are_named(self, start: Start) -> None:
        look = await start()
        await look.add("f", b="1")

        await eventually(lambda: look.key("f") in look.watched.unreadable, "the object is named")

        assert look.known == {}


class TestAConnection:
    @pytest.mark.parametrize("expired", [Refuse(410), EXPIRED], ids=["as a status", "as an event"])
    async def test_that_continues_too_late_lists_anew(self, front: Front, start: Start, expired: Any) -> None:
        look = await start()
        await look.watched.synced.wait()
        front.fail(expired, watch=True, times=1)
        front.cut()

        await look.add("g", a="1")
        await look.until(g="1")
        await eventually(lambda: front.count(watch=False) == 2, "a second list")

        assert not [each for each in look.problems if isinstance(each, Gone)]

    async def test_that_died_silently_is_noticed(self, front: Front, start: Start) -> None:
        look = await start()
        await eventually(lambda: any(each.open for each in front.asked), "a watch")
        front.mute_watches()

        await look.add("h", a="1")

        await look.until(h="1")
        assert front.count(watch=False) == 1, "it went on where it was, without a list"

    async def test_that_is_refused_for_a_while_is_caught_up(self, front: Front, start: Start) -> None:
        look = await start()
        await look.add("i", a="1")
        await look.until(i="1")
        with front.away():
            await eventually(lambda: len(look.problems) > 2, "several tries")
            await look.change("i", a="2")

        await look.until(i="2")
        assert all(isinstance(each, Unavailable) for each in look.problems)

    async def test_whose_token_ended_goes_on_with_the_new_one(
        self, front: Front, namespace: str, unique: str, tmp_path: Path
    ) -> None:
        (tmp_path / "token").write_text("old")
        front.demand_token("old")
        problems: list[ApiError] = []
        async with rotating(front.access(token_file=tmp_path / "token"), namespace, unique, problems) as watched:
            await watched.synced.wait()
            front.demand_token("new")
            front.cut()
            await eventually(lambda: any(isinstance(each, Forbidden) for each in problems), "a refusal")
            (tmp_path / "token").write_text("new")
            seen = len(front.which(watch=True))
            await eventually(lambda: any(each.open for each in front.which(watch=True)[seen:]), "a watch with the new token")

    @pytest.mark.parametrize(
        "fault",
        [
            Drop(),
            Refuse(500),
            Refuse(503, retry_after=0),
            Send([b'{"type": "ADDED", "object": {"metad'], then="reset"),
            Send([b'{"type": "ADDED", "object": {"metad']),
            Send([b"garbage\n"]),
            Send([b"x" * 1024 * 1024] * 100),
            Send([told("DELETED", {"metadata": []})]),
            Send([]),
        ],
        ids=["a reset", "500", "503", "half a line", "half a line and an end", "garbage", "100 MiB", "no object", "nothing"],
    )
    async def test_that_brings_nonsense_changes_nothing(self, front: Front, start: Start, fault: Any) -> None:
        look = await start()
        await look.add("j", a="1")
        await look.until(j="1")
        front.fail(fault, watch=True, times=2)
        front.cut()
        await look.change("j", a="2")

        await look.until(j="2")

        assert front.count(watch=False) == 1, "nothing was lost, so nothing was listed anew"

    async def test_that_breaks_after_some_changes_brings_none_of_them_twice(self, front: Front, start: Start) -> None:
        """Else a change that was seen long ago would count as the latest for a moment."""
        look = await start()
        await look.watched.synced.wait()
        await look.add("k", a="1")
        await look.change("k", a="2")
        await look.until(k="2")
        before = front.count(watch=True)

        front.cut()
        await eventually(lambda: any(each.open for each in front.which(watch=True)[before:]), "the next watch")
        await look.change("k", a="3")
        await look.until(k="3")

        assert look.history == [{}, {"k": "1"}, {"k": "2"}, {"k": "3"}]

    async def test_that_ends_at_once_each_time_is_not_begun_all_the_time(self, front: Front, start: Start) -> None:
        front.fail(Send([]), watch=True)

        look = await start()
        await eventually(lambda: front.count(watch=True) >= 3, "several watches")
        began = asyncio.get_running_loop().time()
        before = front.count(watch=True)
        await eventually(lambda: front.count(watch=True) >= before + 4, "more watches")

        # Each one waits PACE.longest_wait, 0.2 s.
        assert asyncio.get_running_loop().time() - began > 0.5
        assert look.problems == []

    async def test_to_an_expired_list_is_told_of(self, front: Front, start: Start) -> None:
        front.fail(Refuse(410), watch=False, times=2)

        look = await start()
        await look.watched.synced.wait()

        assert [type(each) for each in look.problems] == [Gone, Gone]


@asynccontextmanager
async def rotating(access: ApiAccess, namespace: str, label: str, problems: list[ApiError]) -> AsyncIterator[Watched[str]]:
    async with Api(access, manager="test", bounds=Bounds(answer=2, silence=0.3)) as api:
        watched = Watched(
            api,
            CONFIG_MAPS,
            read,
            on_change=lambda: None,
            on_problem=problems.append,
            namespace=namespace,
            labels=f"test={label}",
            pace=PACE,
        )
        task = asyncio.create_task(watched.run())
        try:
            yield watched
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


DOWN = Unavailable("down")


@pytest.mark.parametrize(
    ("before", "error", "lasted", "wait"),
    [
        pytest.param(0.0, None, 40.0, 0.0, id="a watch that ended in time goes on at once"),
        pytest.param(0.0, DOWN, 0.1, 0.5, id="a first failure waits half a second"),
        pytest.param(0.5, DOWN, 0.1, 1.5, id="a second one longer"),
        pytest.param(15.0, DOWN, 0.1, 20.0, id="but never longer than the bound"),
        pytest.param(15.0, DOWN, 40.0, 0.5, id="after a watch that lasted it is a first one again"),
        pytest.param(0.5, None, 0.1, 1.5, id="a watch that ends at once counts as a failure"),
        pytest.param(0.0, Unavailable("busy", retry_after=7), 0.1, 7.0, id="the server's wish is respected"),
        pytest.param(0.0, Unavailable("busy", retry_after=7000), 0.1, 20.0, id="within the bound"),
        pytest.param(0.0, Forbidden("no"), 0.1, 0.5, id="what is forbidden may be allowed later"),
    ],
)
def test_how_long_a_try_is_waited_for(before: float, error: ApiError | None, lasted: float, wait: float) -> None:
    assert pause(before, error, lasted=lasted, pace=Pace()) == wait
