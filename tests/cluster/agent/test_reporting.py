"""Which changes of a status are worth a write."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from cluster.agent.reporting import NODES, Reporter, differs, status_of
from cluster.agent.states import Problem, Survey
from cluster.client import Api, Conflict, Endpoint
from cluster.resources import NODE_CACHE, NodeCacheStatus, Observed, patched
from cluster.resources.conditions import status_of as condition

KEY = "0123456789abcdef"
SURVEY = Survey(used=1000, capacity=100_000)
READY = status_of({KEY: Observed("Ready", content="c")}, SURVEY, 1)


CASES = [
    pytest.param(None, READY, True, True, id="the first status"),
    pytest.param(READY, READY, False, False, id="nothing changed"),
    pytest.param(READY, status_of({KEY: Observed("Damaged")}, SURVEY, 1), True, True, id="another phase"),
    pytest.param(READY, status_of({}, SURVEY, 1), True, True, id="an artifact less"),
    pytest.param(READY, status_of(READY.artifacts, SURVEY, 2), False, False, id="only the generation"),
    pytest.param(READY, status_of(READY.artifacts, Survey(problem=Problem("IOError", "x")), 1), True, True, id="a condition"),
    pytest.param(READY, replace(READY, used=50_000), True, False, id="bytes while a fetch runs"),
    pytest.param(READY, replace(READY, used=50_000), False, True, id="bytes while none runs"),
    pytest.param(READY, replace(READY, used=1001), False, False, id="a few bytes"),
]


@pytest.mark.parametrize(("before", "now", "busy", "written"), CASES)
def test_given_two_statuses(before: NodeCacheStatus | None, now: NodeCacheStatus, busy: bool, written: bool) -> None:
    assert differs(before, now, busy=busy) == written


def test_a_root_above_its_capacity_says_so() -> None:
    assert condition(status_of({}, Survey(used=2, capacity=1), 1).conditions, "OverLimit") == "True"
    assert condition(status_of({}, Survey(used=1, capacity=1), 1).conditions, "OverLimit") == "Unknown"


class Keeps:
    """An API server with one NodeCache, which the controller can change between two requests."""

    def __init__(self) -> None:
        self.version, self.status, self.patches = 1, dict[str, Any](), list[dict[str, Any]]()

    def document(self) -> dict[str, Any]:
        metadata = {"name": "n", "uid": "u", "resourceVersion": str(self.version)}
        return {"metadata": metadata, "spec": {"pool": "p"}, "status": self.status}

    async def get(self, endpoint: Endpoint, name: str, namespace: str = "") -> dict[str, Any]:
        return self.document()

    async def merge(self, endpoint: Endpoint, name: str, namespace: str, patch: Any, *, subresource: str) -> dict[str, Any]:
        if patch["metadata"] != {"resourceVersion": str(self.version), "uid": "u"}:
            raise Conflict("changed", code=409)
        self.version, self.status = self.version + 1, patched(self.status, patch["status"])
        self.patches.append(patch["status"])
        return self.document()


def reporter(server: Keeps) -> Reporter:
    made = Reporter(cast(Api, server), interval=0.0, on_problem=lambda error: pytest.fail(str(error)))
    made.see(NODE_CACHE.read(server.document()))
    return made


@pytest.mark.parametrize(
    ("asked", "busy", "seconds"),
    [
        pytest.param(None, True, 10, id="a small cluster"),
        pytest.param(100, False, 100, id="a large cluster"),
        pytest.param(100, True, 300, id="a node of a large cluster that has more to tell soon"),
    ],
)
def test_seconds_between_two_statuses(asked: int | None, busy: bool, seconds: float) -> None:
    document = Keeps().document()
    made = Reporter(cast(Api, Keeps()), interval=10.0, on_problem=lambda error: pytest.fail(str(error)))
    made.see(NODE_CACHE.read({**document, "spec": {**document["spec"], **({"statusInterval": asked} if asked else {})}}))
    made.offer(READY, busy=busy)
    assert made.pause == seconds


def phases(server: Keeps) -> dict[str, str]:
    return {key: each["phase"] for key, each in server.status["artifacts"].items()}


async def until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110 - what it waits for is no event of ours
        await asyncio.sleep(0.01)


class TestWriting:
    OTHER = "f" * 16

    async def test_only_what_changed_is_written(self) -> None:
        server = Keeps()
        made = reporter(server)
        both = {KEY: Observed("Ready", content="c"), self.OTHER: Observed("Queued")}
        made.offer(status_of(both, SURVEY, 1), busy=False)
        assert await made.flush()
        made.offer(status_of({**both, self.OTHER: Observed("Fetching")}, SURVEY, 1), busy=True)
        assert await made.flush()
        assert server.patches[-1] == {"artifacts": {self.OTHER: {"phase": "Fetching"}}}
        assert phases(server) == {KEY: "Ready", self.OTHER: "Fetching"}

    async def test_what_is_offered_after_a_status_waits_and_the_last_word_is_written(self) -> None:
        server = Keeps()
        made = Reporter(cast(Api, server), interval=0.2, on_problem=lambda error: pytest.fail(str(error)))
        made.see(NODE_CACHE.read(server.document()))
        running = asyncio.ensure_future(made.run())
        made.offer(status_of({KEY: Observed("Queued")}, SURVEY, 1), busy=True)
        await until(lambda: len(server.patches) == 1)
        began = time.monotonic()
        made.offer(status_of({KEY: Observed("Fetching")}, SURVEY, 1), busy=True)
        made.offer(READY, busy=False)
        await until(lambda: len(server.patches) == 2)
        running.cancel()
        assert time.monotonic() - began >= 0.1
        assert phases(server) == {KEY: "Ready"}

    async def test_what_an_earlier_process_wrote_last_is_put_right_also_if_the_watch_was_behind(self) -> None:
        server = Keeps()
        made = reporter(server)
        late = {"artifacts": {KEY: {"phase": "Ready", "content": "old"}}}  # of a process that was killed after it sent this
        await server.merge(
            NODES, "n", "", {"metadata": {"resourceVersion": "1", "uid": "u"}, "status": late}, subresource="status"
        )
        made.offer(status_of({self.OTHER: Observed("Queued")}, SURVEY, 1), busy=False)
        assert await made.flush()
        assert phases(server) == {self.OTHER: "Queued"}

    async def test_a_watch_that_is_behind_our_own_write_changes_nothing(self) -> None:
        server = Keeps()
        made = reporter(server)
        before = NODE_CACHE.read(server.document())
        made.offer(READY, busy=False)
        assert await made.flush()
        made.see(before)
        made.offer(READY, busy=False)
        assert await made.flush()
        assert len(server.patches) == 1
