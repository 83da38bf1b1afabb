"""Given NodeCaches, then which caller may have which artifact. The API server is a double."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from cluster.agent import rights
from cluster.agent.rights import AHEAD, DENIED, GRANTED, SILENCE, WAITING, Rights
from cluster.client import Api, Forbidden, Missing, Unavailable
from fetcher.serving import Caller, Verdict
from tests.lab.waiting import eventually

K1, K2 = "1" * 16, "2" * 16
OURS = {K1: "a" * 16, K2: "b" * 16}


class Server:
    """NodeCaches by name, each as marks by key."""

    def __init__(self, nodes: Mapping[str, Mapping[str, str]]) -> None:
        self.nodes = {name: dict(marks) for name, marks in nodes.items()}
        self.asked: list[str] = []
        self.answered: list[Mapping[str, str]] = []
        self.problem: Exception | None = None
        self.answers = asyncio.Event()
        self.answers.set()

    async def get(self, endpoint: Any, name: str, namespace: str = "", *, cached: bool = False) -> dict[str, Any]:
        assert cached
        self.asked.append(name)
        await self.answers.wait()
        if self.problem is not None:
            raise self.problem
        if name not in self.nodes:
            raise Missing(f"no {name}", code=404)
        self.answered.append(dict(self.nodes[name]))
        artifacts = {key: {"mark": mark} for key, mark in self.nodes[name].items()}
        return {"metadata": {"name": name}, "spec": {"pool": "p", "artifacts": artifacts}}


class Judge:
    """Rights as a server's thread asks for them, at the time `now`."""

    def __init__(self, server: Server, own: Mapping[str, str] = OURS) -> None:
        self.now = 0.0
        self._rights = Rights(cast(Api, server), asyncio.get_running_loop(), lambda: own, clock=lambda: self.now)

    async def __call__(self, *names: str, key: str = K1) -> Verdict:
        return await asyncio.to_thread(self._rights, Caller(names=names), key)

    def on(self, threads: ThreadPoolExecutor, *names: str) -> asyncio.Future[Verdict]:
        """The same on one of these threads."""
        return asyncio.get_running_loop().run_in_executor(threads, self._rights, Caller(names=names), K1)


async def test_a_node_may_have_what_both_shall_have_by_the_same_artifact() -> None:
    judge = Judge(Server({"n1": {K1: OURS[K1], K2: "c" * 16}}))
    assert await judge("n1") == "granted"
    assert await judge("n1", key=K2) == "denied"  # of another revision, model or pool
    assert await judge("n1", key="3" * 16) == "denied"


@pytest.mark.parametrize("names", [(), ("n1", "n2"), ("unknown",)])
async def test_who_is_no_node_of_ours_may_have_nothing(names: tuple[str, ...]) -> None:
    assert await Judge(Server({"n1": OURS, "n2": OURS}))(*names) == "denied"


async def test_what_this_node_shall_not_have_is_nobodys_and_nobody_is_asked() -> None:
    server = Server({"n1": OURS})
    assert await Judge(server, own={})("n1") == "denied"
    assert server.asked == []


async def test_a_token_gives_no_right() -> None:
    rights = Rights(cast(Api, Server({})), asyncio.get_running_loop(), lambda: OURS)
    assert await asyncio.to_thread(rights, Caller(token="token"), K1) == "denied"


async def test_a_right_is_remembered_for_a_while_and_is_then_over() -> None:
    server = Server({"n1": OURS})
    judge = Judge(server)
    assert await judge("n1") == "granted"
    server.nodes["n1"] = {}
    judge.now = GRANTED - 1
    assert await judge("n1") == "granted"
    judge.now = GRANTED + 1
    assert await judge("n1") == "denied"
    assert server.asked == ["n1", "n1"]


async def test_a_refusal_is_over_sooner() -> None:
    server = Server({"n1": {}})
    judge = Judge(server)
    assert [await judge("n1"), await judge("n1")] == ["denied", "denied"]
    assert server.asked == ["n1"]
    server.nodes["n1"] = dict(OURS)
    judge.now = DENIED + 1
    assert await judge("n1") == "granted"


async def test_a_caller_that_goes_on_asking_is_asked_about_beside() -> None:
    server = Server({"n1": OURS})
    judge = Judge(server)
    assert await judge("n1") == "granted"
    server.answers.clear()
    judge.now = AHEAD
    assert [await judge("n1") for _ in range(3)] == ["granted"] * 3  # nobody waits
    assert server.asked == ["n1", "n1"]
    server.nodes["n1"] = {}
    server.answers.set()
    await eventually(lambda: bool(server.answered) and server.answered[-1] == {}, "the answer")
    assert await judge("n1") == "denied"


class TestWhileTheApiServerDoesNotAnswer:
    @pytest.mark.parametrize("hours", [0, 1, 24 * 29])
    async def test_who_had_a_right_keeps_it_and_loses_it_when_the_answer_comes(self, hours: float) -> None:
        server = Server({"n1": OURS})
        judge = Judge(server)
        assert await judge("n1") == "granted"
        server.problem = Unavailable("no answer")
        server.nodes["n1"] = {}
        judge.now = GRANTED + 1
        assert await judge("n1") == "granted"
        judge.now += SILENCE + 3600 * hours
        assert await judge("n1") == "granted"
        server.problem = None
        judge.now += SILENCE
        assert await judge("n1") == "denied"

    async def test_it_ends_also_where_another_caller_was_the_first_to_be_answered(self) -> None:
        server = Server({"n1": OURS, "n2": OURS})
        judge = Judge(server)
        assert [await judge("n1"), await judge("n2")] == ["granted", "granted"]
        server.problem = Unavailable("no answer")
        judge.now = GRANTED + 1
        assert [await judge("n1"), await judge("n2")] == ["granted", "granted"]
        server.problem = None
        server.nodes["n1"] = {}
        judge.now += SILENCE
        assert [await judge("n2"), await judge("n1")] == ["granted", "denied"]

    async def test_who_had_none_is_told_to_come_again(self) -> None:
        server = Server({"n1": {}, "n2": OURS})
        judge = Judge(server)
        assert await judge("n1") == "denied"
        server.problem = Unavailable("no answer")
        judge.now = DENIED
        assert [await judge("n1"), await judge("n2")] == ["unavailable", "unavailable"]
        server.problem = None
        judge.now += SILENCE
        assert [await judge("n1"), await judge("n2")] == ["denied", "granted"]

    async def test_it_is_not_asked_again_at_once(self) -> None:
        server = Server({"n1": OURS, "n2": OURS})
        judge = Judge(server)
        server.problem = Unavailable("no answer")
        assert [await judge("n1"), await judge("n2"), await judge("n1")] == ["unavailable"] * 3
        assert server.asked == ["n1"]

    async def test_a_silent_one_is_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rights, "TIMEOUT", 0.01)
        server = Server({"n1": OURS})
        judge = Judge(server)
        assert await judge("n1") == "granted"
        server.answers.clear()
        judge.now = GRANTED
        assert await judge("n1") == "granted"

    async def test_one_that_refuses_to_answer_is_no_reason_to_keep_a_right(self) -> None:
        server = Server({"n1": OURS})
        judge = Judge(server)
        assert await judge("n1") == "granted"
        server.problem = Forbidden("no", code=403)
        judge.now = GRANTED
        assert await judge("n1") == "unavailable"


class TestThreads:
    """Those of a server, of which each call blocks one while it waits."""

    async def test_of_many_only_some_wait_for_a_silent_api_server(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rights, "TIMEOUT", 3600.0)
        nodes = [f"n{number}" for number in range(2 * WAITING)]
        server = Server(dict.fromkeys(nodes, OURS))
        server.answers.clear()
        judge = Judge(server)
        with ThreadPoolExecutor(len(nodes)) as threads:
            calls = [judge.on(threads, node) for node in nodes]
            await eventually(lambda: sum(each.done() for each in calls) == WAITING, "half of them are told to come again")
            assert {each.result() for each in calls if each.done()} == {"unavailable"}
            server.answers.set()
            verdicts = await asyncio.gather(*calls)
        assert sorted(verdicts) == ["granted"] * WAITING + ["unavailable"] * WAITING

    async def test_whether_it_is_back_one_finds_out_and_nobody_waits_with_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rights, "TIMEOUT", 3600.0)
        nodes = [f"n{number}" for number in range(8)]
        server = Server(dict.fromkeys(nodes, OURS))
        judge = Judge(server)
        assert {await judge(node) for node in nodes} == {"granted"}
        server.problem = Unavailable("no answer")
        judge.now = GRANTED
        assert await judge("n0") == "granted"
        server.answers.clear()
        server.asked.clear()
        judge.now += SILENCE
        with ThreadPoolExecutor(len(nodes)) as threads:
            calls = [judge.on(threads, node) for node in nodes]
            await eventually(lambda: sum(each.done() for each in calls) == len(nodes) - 1, "all but one are served")
            assert len(server.asked) == 1
            server.answers.set()
            assert set(await asyncio.gather(*calls)) == {"granted"}


async def test_a_node_cache_that_cannot_be_read_gives_no_right() -> None:
    server = Server({"n1": {K1: 7}})  # type: ignore[dict-item]  # of a later version
    assert await Judge(server)("n1") == "denied"
