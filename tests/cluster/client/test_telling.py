"""Events on objects of a real API server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cluster.client import Api, Forbidden, Unavailable, tell
from cluster.client.endpoints import CONFIG_MAPS, EVENTS, NAMESPACES
from cluster.client.errors import NotLeading
from cluster.client.telling import event_of
from cluster.resources.kinds import GROUP
from tests.cluster.api import Cluster
from tests.cluster.client.test_api import MODELS, map_of, model_of
from tests.cluster.faults import Drop, Front, Refuse


@pytest.fixture
async def regarding(api: Api, namespace: str, unique: str) -> dict[str, Any]:
    """An object."""
    return await api.create(CONFIG_MAPS, map_of(unique, namespace))


async def events(api: Api, regarding: dict[str, Any], namespace: str) -> list[tuple[str, str, str, int]]:
    """Type, reason, message and count of each event of an object."""
    page = await api.list(EVENTS, namespace, fields=f"involvedObject.uid={regarding['metadata']['uid']}")
    return sorted((each["type"], each["reason"], each["message"], each["count"]) for each in page.items)


class TestAnEvent:
    async def test_is_seen_by_who_describes_the_object(self, api: Api, plane: Cluster, namespace: str, unique: str) -> None:
        model = await api.create(MODELS, model_of(unique, namespace))

        assert await tell(api, model, "Warning", "Unauthorized", "the Hub wants a token") is None

        shown = plane.run("describe", f"{MODELS.plural}.{GROUP}", unique, "-n", namespace).stdout.splitlines()[-1].split()
        assert shown[:2] + shown[3:] == ["Warning", "Unauthorized", "weightlift-test", *["the", "Hub", "wants", "a", "token"]]

    async def test_that_comes_again_counts_up(self, api: Api, regarding: dict[str, Any], namespace: str) -> None:
        for _ in range(3):
            await tell(api, regarding, "Normal", "Fetching", "3 files")

        assert await events(api, regarding, namespace) == [("Normal", "Fetching", "3 files", 3)]

    async def test_that_says_something_else_is_another_one(self, api: Api, regarding: dict[str, Any], namespace: str) -> None:
        await tell(api, regarding, "Normal", "Fetching", "3 files")
        await tell(api, regarding, "Normal", "Fetching", "4 files")
        await tell(api, regarding, "Warning", "Fetching", "4 files")

        assert [each[3] for each in await events(api, regarding, namespace)] == [1, 1, 1]

    async def test_of_an_object_of_the_whole_cluster_is_in_default(self, api: Api, namespace: str) -> None:
        regarding = await api.get(NAMESPACES, namespace)

        assert await tell(api, regarding, "Normal", "Ready", "it is") is None

        assert await events(api, regarding, "default") == [("Normal", "Ready", "it is", 1)]

    async def test_is_one_short_line(self, api: Api, regarding: dict[str, Any], namespace: str) -> None:
        assert await tell(api, regarding, "Warning", "Failed", "one\ntwo\x1b[2J" + "ä" * 2000) is None

        [(_, _, message, _)] = await events(api, regarding, namespace)
        assert message.startswith("one two [2Jää")
        assert message.endswith("ä...")
        assert len(message.encode()) <= 1024

    async def test_that_two_tell_at_once_is_told(
        self, api: Api, front: Front, regarding: dict[str, Any], namespace: str
    ) -> None:
        results = await asyncio.gather(*(tell(api, regarding, "Normal", "Ready", "it is") for _ in range(5)))

        assert results == [None] * 5
        assert len(await events(api, regarding, namespace)) == 1

    @pytest.mark.parametrize(("fault", "error"), [(Refuse(403), Forbidden), (Drop(), Unavailable)])
    async def test_that_cannot_be_told_fails_nobody(
        self, api: Api, front: Front, regarding: dict[str, Any], fault: Any, error: type[Exception]
    ) -> None:
        front.fail(fault, path="/events")

        assert isinstance(await tell(api, regarding, "Normal", "Ready", "it is"), error)

    async def test_is_a_write_as_others_are(self, api: Api, regarding: dict[str, Any]) -> None:
        def guard() -> float:
            raise NotLeading("not now")

        api.guard = guard

        assert isinstance(await tell(api, regarding, "Normal", "Ready", "it is"), NotLeading)


@pytest.mark.parametrize("name", ["a", "a" * 253, "a" * 229 + ".b" * 12])
async def test_the_name_of_an_event_is_one_however_long_its_object_s_is(api: Api, namespace: str, name: str) -> None:
    regarding = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace, "uid": "u"}}
    event = event_of(regarding, "Normal", "Ready", "it is", component="test", moment="2026-01-01T00:00:00Z")

    made = await api.create(EVENTS, event)

    assert made["involvedObject"]["name"] == name
    await api.delete(EVENTS, made["metadata"]["name"], namespace, uid=made["metadata"]["uid"])
