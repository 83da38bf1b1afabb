"""Given NodeCaches, then which caller may have which artifact. The API server is a double."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import pytest

from cluster.agent.rights import DENIED, GRANTED, Rights
from cluster.client import Api, Missing, Unavailable
from fetcher.serving import Caller, Verdict

K1, K2 = "1" * 16, "2" * 16
OURS = {K1: "a" * 16, K2: "b" * 16}


class Server:
    """NodeCaches by name, each as marks by key."""

    def __init__(self, nodes: Mapping[str, Mapping[str, str]]) -> None:
        self.nodes = {name: dict(marks) for name, marks in nodes.items()}
        self.asked: list[str] = []
        self.problem: Exception | None = None

    async def get(self, endpoint: Any, name: str, namespace: str = "", *, cached: bool = False) -> dict[str, Any]:
        assert cached
        self.asked.append(name)
        if self.problem is not None:
            raise self.problem
        if name not in self.nodes:
            raise Missing(f"no {name}", code=404)
        artifacts = {key: {"mark": mark} for key, mark in self.nodes[name].items()}
        return {"metadata": {"name": name}, "spec": {"pool": "p", "artifacts": artifacts}}


class Judge:
    """Rights as a server's thread asks for them, at the time `now`."""

    def __init__(self, server: Server, own: Mapping[str, str] = OURS) -> None:
        self.now = 0.0
        self._rights = Rights(cast(Api, server), asyncio.get_running_loop(), lambda: own, clock=lambda: self.now)

    async def __call__(self, *names: str, key: str = K1) -> Verdict:
        return await asyncio.to_thread(self._rights, Caller(names=names), key)


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


async def test_while_the_api_server_does_not_answer_nobody_is_judged() -> None:
    server = Server({"n1": OURS})
    judge = Judge(server)
    server.problem = Unavailable("no answer")
    assert await judge("n1") == "unavailable"
    server.problem = None
    assert await judge("n1") == "granted"


async def test_a_node_cache_that_cannot_be_read_gives_no_right() -> None:
    server = Server({"n1": {K1: 7}})  # type: ignore[dict-item]  # of a later version
    assert await Judge(server)("n1") == "denied"
