"""Objects of a real API server, through a proxy that fails on demand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest

from cluster.client import Api, ApiError, Conflict, Forbidden, Gone, Invalid, Missing, Unavailable, endpoint_of
from cluster.client.bounds import Bounds
from cluster.client.endpoints import CONFIG_MAPS, NAMESPACES, PODS, SECRETS, Endpoint
from cluster.client.errors import NotLeading, TooLarge
from cluster.resources import MODEL_CACHE
from fetcher.version import VERSION
from tests.cluster.api import Cluster
from tests.cluster.client.conftest import QUICK
from tests.cluster.faults import EXPIRED, Drop, Endless, Front, Redirect, Refuse, Send, Silent, Slow
from tests.lab.waiting import eventually

MODELS = endpoint_of(MODEL_CACHE)
UNKNOWN = Endpoint("weightlift.dev/v1alpha1", "Nothing", "nothings", namespaced=True)


def map_of(name: str, namespace: str, **data: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "labels": {"test": name}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def model_of(name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    spec = {"source": {"uri": "hf://org/m"}, "placement": {"pools": [{"name": "p"}]}, **spec}
    return {"apiVersion": "weightlift.dev/v1alpha1", "kind": "ModelCache", "metadata": metadata, "spec": spec}


class TestAnObject:
    async def test_is_created_read_and_deleted(self, api: Api, namespace: str, unique: str) -> None:
        made = await api.create(CONFIG_MAPS, map_of(unique, namespace, a="1"))

        assert (await api.get(CONFIG_MAPS, unique, namespace))["data"] == {"a": "1"}

        await api.delete(CONFIG_MAPS, unique, namespace, uid=made["metadata"]["uid"])
        with pytest.raises(Missing, match=f"get configmaps {namespace}/{unique}: .*not found"):
            await api.get(CONFIG_MAPS, unique, namespace)

    async def test_is_created_once(self, api: Api, namespace: str, unique: str) -> None:
        await api.create(CONFIG_MAPS, map_of(unique, namespace))

        with pytest.raises(Conflict):
            await api.create(CONFIG_MAPS, map_of(unique, namespace))

    async def test_is_replaced_only_by_who_has_its_latest_state(self, api: Api, namespace: str, unique: str) -> None:
        made = await api.create(CONFIG_MAPS, map_of(unique, namespace, a="1"))
        await api.replace(CONFIG_MAPS, {**made, "data": {"a": "2"}})

        with pytest.raises(Conflict):
            await api.replace(CONFIG_MAPS, {**made, "data": {"a": "3"}})

        assert (await api.get(CONFIG_MAPS, unique, namespace))["data"] == {"a": "2"}

    async def test_is_not_deleted_in_place_of_another_one(self, api: Api, namespace: str, unique: str) -> None:
        await api.create(CONFIG_MAPS, map_of(unique, namespace))

        with pytest.raises(Conflict):
            await api.delete(CONFIG_MAPS, unique, namespace, uid="b5f1a9c6-0000-0000-0000-000000000000")

        await api.get(CONFIG_MAPS, unique, namespace)

    async def test_is_not_deleted_in_a_later_state(self, api: Api, namespace: str, unique: str) -> None:
        made = (await api.create(CONFIG_MAPS, map_of(unique, namespace)))["metadata"]
        await api.merge(CONFIG_MAPS, unique, namespace, {"data": {"a": "1"}})

        version = made["resourceVersion"]
        with pytest.raises(Conflict):
            await api.delete(CONFIG_MAPS, unique, namespace, uid=made["uid"], resource_version=version)

    async def test_is_changed_in_the_fields_of_a_patch_alone(self, api: Api, namespace: str, unique: str) -> None:
        await api.create(CONFIG_MAPS, map_of(unique, namespace, a="1", b="2"))

        await api.merge(CONFIG_MAPS, unique, namespace, {"data": {"a": None, "c": "3"}})

        assert (await api.get(CONFIG_MAPS, unique, namespace))["data"] == {"b": "2", "c": "3"}

    async def test_that_breaks_its_schema_is_invalid(self, api: Api, plane: Cluster, namespace: str, unique: str) -> None:
        with pytest.raises(Invalid, match="retain"):
            await api.create(MODELS, model_of(unique, namespace, retain="Sometimes"))

    @pytest.mark.parametrize("name", [".", ".."])
    async def test_has_no_name_that_leads_elsewhere(self, api: Api, namespace: str, name: str) -> None:
        with pytest.raises(ValueError, match="no name"):
            await api.get(SECRETS, name, namespace)

    async def test_of_a_namespace_needs_one(self, api: Api) -> None:
        with pytest.raises(ValueError, match="is in a namespace"):
            await api.get(SECRETS, "hub")


class TestApplying:
    async def test_creates_and_changes_what_is_ours(self, api: Api, namespace: str, unique: str) -> None:
        await api.apply(CONFIG_MAPS, map_of(unique, namespace, a="1", b="2"))
        await api.apply(CONFIG_MAPS, map_of(unique, namespace, a="3"))

        assert (await api.get(CONFIG_MAPS, unique, namespace))["data"] == {"a": "3"}

    async def test_keeps_what_others_wrote(self, api: Api, front: Front, namespace: str, unique: str) -> None:
        await api.apply(CONFIG_MAPS, map_of(unique, namespace, a="1"))
        async with Api(front.access(), manager="another", bounds=QUICK) as another:
            await another.apply(CONFIG_MAPS, map_of(unique, namespace, b="2"))

        assert (await api.get(CONFIG_MAPS, unique, namespace))["data"] == {"a": "1", "b": "2"}

    async def test_takes_the_field_of_another_only_by_force(self, api: Api, front: Front, namespace: str, unique: str) -> None:
        await api.apply(CONFIG_MAPS, map_of(unique, namespace, a="1"))

        async with Api(front.access(), manager="another", bounds=QUICK) as another:
            with pytest.raises(Conflict, match="weightlift-test"):
                await another.apply(CONFIG_MAPS, map_of(unique, namespace, a="2"), force=False)
            await another.apply(CONFIG_MAPS, map_of(unique, namespace, a="3"))

        assert (await api.get(CONFIG_MAPS, unique, namespace))["data"] == {"a": "3"}

    async def test_to_the_status_leaves_the_specification_alone(
        self, api: Api, plane: Cluster, namespace: str, unique: str
    ) -> None:
        made = await api.create(MODELS, model_of(unique, namespace))
        status = {**model_of(unique, namespace, retain="Always"), "status": {"claimName": unique}}
        await api.apply(MODELS, status, subresource="status")

        found = await api.get(MODELS, unique, namespace)
        assert (found["spec"]["retain"], found["status"]) == ("WhenPossible", {"claimName": unique})
        assert found["metadata"]["generation"] == made["metadata"]["generation"]

    async def test_names_its_manager_in_every_way_of_writing(self, api: Api, namespace: str, unique: str) -> None:
        made = await api.create(CONFIG_MAPS, map_of(unique, namespace, a="1"))
        made = await api.replace(CONFIG_MAPS, {**made, "data": {"a": "2"}})
        await api.merge(CONFIG_MAPS, unique, namespace, {"data": {"b": "1"}})

        found = await api.get(CONFIG_MAPS, unique, namespace)

        assert {each["manager"] for each in found["metadata"]["managedFields"]} == {"weightlift-test"}


class TestAList:
    @pytest.fixture
    async def seven(self, api: Api, namespace: str, unique: str) -> set[str]:
        names = {f"{unique}-{number}" for number in range(7)}
        for name in names:
            document = map_of(name, namespace, a="x" * 1000)
            document["metadata"]["labels"] = {"test": unique}
            await api.create(CONFIG_MAPS, document)
        return names

    async def test_is_read_in_pages(self, api: Api, front: Front, namespace: str, unique: str, seven: set[str]) -> None:
        front.asked.clear()

        page = await api.list(CONFIG_MAPS, namespace, labels=f"test={unique}")

        assert {each["metadata"]["name"] for each in page.items} == seven
        assert page.resource_version.isdigit()
        assert front.count(method="GET") == 3

    async def test_names_the_kind_of_each_object(self, api: Api, namespace: str, unique: str, seven: set[str]) -> None:
        page = await api.list(CONFIG_MAPS, namespace, labels=f"test={unique}")

        assert {(each["apiVersion"], each["kind"]) for each in page.items} == {("v1", "ConfigMap")}

    async def test_is_limited_to_one_object_by_its_name(self, api: Api, namespace: str, seven: set[str]) -> None:
        page = await api.list(CONFIG_MAPS, namespace, fields=f"metadata.name={min(seven)}")

        assert [each["metadata"]["name"] for each in page.items] == [min(seven)]

    async def test_is_asked_for_in_smaller_pages_if_one_is_too_large(
        self, front: Front, namespace: str, unique: str, seven: set[str]
    ) -> None:
        # An object of 1,000 bytes of data has 1.5 to 2 kB.
        async with Api(front.access(), manager="test", bounds=Bounds(page=8, largest=5000)) as api:
            page = await api.list(CONFIG_MAPS, namespace, labels=f"test={unique}")

        assert {each["metadata"]["name"] for each in page.items} == seven
        assert {each.query["limit"] for each in front.which(method="GET")} == {"8", "4", "2"}

    async def test_of_which_one_object_is_too_large_fails(
        self, front: Front, namespace: str, unique: str, seven: set[str]
    ) -> None:
        async with Api(front.access(), manager="test", bounds=Bounds(page=8, largest=500)) as api:
            with pytest.raises(TooLarge, match="larger than 500 bytes"):
                await api.list(CONFIG_MAPS, namespace, labels=f"test={unique}")

    async def test_without_an_end_is_given_up(self, front: Front, namespace: str) -> None:
        front.fail(Endless(), method="GET")

        async with Api(front.access(), manager="test", bounds=Bounds(pages=5)) as api:
            with pytest.raises(Unavailable, match="does not end after 5 pages"):
                await api.list(CONFIG_MAPS, namespace)

        assert front.count() == 5

    async def test_that_changed_too_much_meanwhile_is_gone(self, api: Api, front: Front, namespace: str) -> None:
        front.fail(Refuse(410))

        with pytest.raises(Gone):
            await api.list(CONFIG_MAPS, namespace)

    @pytest.mark.parametrize(
        "body", [b'{"items": 1, "metadata": {}}', b'{"items": [1], "metadata": {}}', b'{"items": [{}]}', b"{}"]
    )
    async def test_that_is_none_is_refused(self, api: Api, front: Front, body: bytes) -> None:
        front.fail(Send([body]))

        with pytest.raises(Unavailable, match="is no"):
            await api.list(PODS)


class TestAWatch:
    async def test_tells_each_change_after_a_list(self, api: Api, namespace: str, unique: str) -> None:
        page = await api.list(CONFIG_MAPS, namespace, labels=f"test={unique}")
        made = await api.create(CONFIG_MAPS, map_of(unique, namespace))
        await api.merge(CONFIG_MAPS, unique, namespace, {"data": {"a": "1"}})
        await api.delete(CONFIG_MAPS, unique, namespace, uid=made["metadata"]["uid"])

        seen = []
        changes = api.watch(CONFIG_MAPS, namespace, since=page.resource_version, seconds=20, labels=f"test={unique}")
        async with aclosing(changes):
            async for kind, found in changes:
                seen.append((kind, found["metadata"]["name"]))
                if kind == "DELETED":
                    break

        assert seen == [("ADDED", unique), ("MODIFIED", unique), ("DELETED", unique)]

    async def test_ends_when_it_was_asked_to(self, api: Api, namespace: str, unique: str) -> None:
        page = await api.list(CONFIG_MAPS, namespace, labels=f"test={unique}")

        changes = api.watch(CONFIG_MAPS, namespace, since=page.resource_version, seconds=1, labels=f"test={unique}")

        assert [kind async for kind, _ in changes if kind != "BOOKMARK"] == []

    async def test_ends_with_whoever_reads_it(self, api: Api, front: Front, namespace: str, unique: str) -> None:
        page = await api.list(CONFIG_MAPS, namespace, labels=f"test={unique}")
        await api.create(CONFIG_MAPS, map_of(unique, namespace))

        changes = api.watch(CONFIG_MAPS, namespace, since=page.resource_version, seconds=600, labels=f"test={unique}")
        async with aclosing(changes):
            await anext(changes)

        await eventually(lambda: not any(each.open for each in front.asked), "the request ended")

    async def test_from_long_ago_is_gone(self, api: Api, front: Front) -> None:
        front.fail(EXPIRED)

        with pytest.raises(Gone, match="too old resource version"):
            async for _ in api.watch(NAMESPACES, since="1", seconds=2):
                pass

    @pytest.mark.parametrize(
        "line",
        [
            b"what?\n",
            b"[]\n",
            b'{"type": 1, "object": {}}\n',
            b'{"type": "ADDED"}\n',
            b'{"type": "ADDED", "object": {"metadata": []}}\n',
            b'{"type": "ERROR", "object": {"code": "x", "message": ["y"]}}\n',
            b"\xff\xfe\n",
            b"[" * 100_000 + b"\n",
        ],
    )
    async def test_that_sends_something_else_is_unavailable(self, api: Api, front: Front, line: bytes) -> None:
        front.fail(Send([line]))

        with pytest.raises(Unavailable):
            async for _ in api.watch(NAMESPACES, since="1", seconds=2):
                pass

    async def test_is_not_read_into_memory_without_an_end(self, front: Front) -> None:
        front.fail(Send([b"x" * 1024 * 1024] * 100))

        async with Api(front.access(), manager="test") as api:
            with pytest.raises(TooLarge, match="a change is larger than"):
                async for _ in api.watch(NAMESPACES, since="1", seconds=20):
                    pass


ANSWERS = [
    pytest.param(400, ApiError, id="a request that is wrong"),
    pytest.param(401, Forbidden, id="a token that is not accepted"),
    pytest.param(403, Forbidden, id="what RBAC does not allow"),
    pytest.param(404, Missing, id="nothing there"),
    pytest.param(409, Conflict, id="somebody was faster"),
    pytest.param(410, Gone, id="a version that is too old"),
    pytest.param(422, Invalid, id="a rule that is broken"),
    pytest.param(429, Unavailable, id="too many requests"),
    pytest.param(500, Unavailable, id="a server that fails"),
    pytest.param(503, Unavailable, id="a server that starts"),
]


def ways(namespace: str) -> dict[str, Callable[[Api], Awaitable[Any]]]:
    """Every method of an Api."""

    async def watch(api: Api) -> None:
        async for _ in api.watch(CONFIG_MAPS, namespace, since="1", seconds=1):
            pass

    return {
        "get": lambda api: api.get(CONFIG_MAPS, "x", namespace),
        "list": lambda api: api.list(CONFIG_MAPS, namespace),
        "watch": watch,
        "create": lambda api: api.create(CONFIG_MAPS, map_of("x", namespace)),
        "replace": lambda api: api.replace(CONFIG_MAPS, map_of("x", namespace)),
        "apply": lambda api: api.apply(CONFIG_MAPS, map_of("x", namespace)),
        "merge": lambda api: api.merge(CONFIG_MAPS, "x", namespace, {"data": {}}),
        "delete": lambda api: api.delete(CONFIG_MAPS, "x", namespace, uid="u"),
    }


WAYS = sorted(ways(""))
WRITES = sorted({*WAYS} - {"get", "list", "watch"})


class TestEveryMethod:
    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize(("status", "error"), ANSWERS)
    async def test_tells_what_the_server_refuses(
        self, api: Api, front: Front, way: str, status: int, error: type[ApiError]
    ) -> None:
        front.fail(Refuse(status, message="it is so"))

        with pytest.raises(ApiError, match=r"configmaps default.*: it is so") as caught:
            await ways("default")[way](api)

        assert (type(caught.value), caught.value.code) == (error, status)

    @pytest.mark.parametrize("way", WAYS)
    async def test_gives_up_a_server_that_is_silent(self, front: Front, way: str) -> None:
        front.fail(Silent())

        async with Api(front.access(), manager="test", bounds=Bounds(answer=0.3, silence=-0.7)) as api:
            with pytest.raises(Unavailable, match="does not answer"):
                await ways("default")[way](api)

    @pytest.mark.parametrize("way", WAYS)
    async def test_is_unavailable_without_a_server(self, api: Api, front: Front, way: str) -> None:
        with front.away(), pytest.raises(Unavailable, match="does not answer"):
            await ways("default")[way](api)

    @pytest.mark.parametrize("way", WAYS)
    async def test_is_unavailable_when_the_connection_is_reset(self, api: Api, front: Front, way: str) -> None:
        front.fail(Drop())

        with pytest.raises(Unavailable, match="does not answer"):
            await ways("default")[way](api)

    @pytest.mark.parametrize("way", WAYS)
    async def test_is_unavailable_when_the_answer_is_cut_off(self, api: Api, front: Front, way: str) -> None:
        front.fail(Send([b'{"type": "ADDED", "obj'], then="reset"))

        with pytest.raises(Unavailable):
            await ways("default")[way](api)

    @pytest.mark.parametrize("way", sorted({*WAYS} - {"watch"}))
    async def test_is_unavailable_where_something_else_answers(self, api: Api, front: Front, way: str) -> None:
        front.fail(Send([b"<html>Welcome to nginx!</html>"]))

        with pytest.raises(Unavailable, match="no JSON object"):
            await ways("default")[way](api)

    @pytest.mark.parametrize("way", WRITES)
    async def test_writes_nothing_against_its_guard(self, front: Front, way: str) -> None:
        def guard() -> float:
            raise NotLeading("not now")

        async with Api(front.access(), manager="test", guard=guard) as api:
            with pytest.raises(NotLeading):
                await ways("default")[way](api)

        assert front.count() == 0

    @pytest.mark.parametrize("way", WRITES)
    async def test_ends_a_write_when_its_guard_wants_it_over(self, front: Front, way: str) -> None:
        front.fail(Silent())

        async with Api(front.access(), manager="test", guard=lambda: 0.2, bounds=Bounds(answer=60)) as api:
            began = time.monotonic()
            with pytest.raises(Unavailable):
                await ways("default")[way](api)

        assert time.monotonic() - began < 30

    @pytest.mark.parametrize("way", WAYS)
    async def test_says_who_asks(self, front: Front, way: str) -> None:
        front.fail(Refuse(503))

        async with Api(front.access(), manager="weightlift-agent") as api:
            with pytest.raises(Unavailable):
                await ways("default")[way](api)

        assert front.asked[0].agent == f"weightlift-agent/{VERSION}"


class TestRefusals:
    async def test_carry_the_seconds_that_the_server_asks_for(self, api: Api, front: Front) -> None:
        front.fail(Refuse(429, retry_after=7))

        with pytest.raises(Unavailable) as caught:
            await api.get(CONFIG_MAPS, "x", "default")

        assert caught.value.retry_after == 7

    async def test_are_one_short_line_whatever_the_server_says(self, api: Api, front: Front) -> None:
        front.fail(Refuse(500, message="a\nb\x1b[31m" + "c" * 10_000))

        with pytest.raises(Unavailable) as caught:
            await api.get(CONFIG_MAPS, "x", "default")

        assert str(caught.value).startswith("get configmaps default/x: a b [31mccc")
        assert len(str(caught.value)) < 600

    async def test_follow_no_redirect_with_the_token(self, front: Front) -> None:
        front.fail(Redirect("/elsewhere"), path="/configmaps")

        async with Api(front.access(token="t"), manager="test") as api:
            with pytest.raises(ApiError, match="elsewhere"):
                await api.get(CONFIG_MAPS, "x", "default")

        assert [each.path for each in front.asked] == ["/api/v1/namespaces/default/configmaps/x"]

    async def test_of_a_kind_that_is_not_installed_are_missing(self, api: Api) -> None:
        with pytest.raises(Missing):
            await api.list(UNKNOWN)

    async def test_come_from_rbac(self, front: Front, plane: Cluster, namespace: str, unique: str) -> None:
        assert plane.run("create", "serviceaccount", unique, "-n", namespace).returncode == 0
        token = plane.run("create", "token", unique, "-n", namespace).stdout.strip()

        async with Api(front.access(token=token), manager="test") as api:
            with pytest.raises(Forbidden, match="cannot list resource") as caught:
                await api.list(SECRETS, namespace)

        assert token not in str(caught.value)


class TestConnections:
    async def test_are_used_again(self, api: Api, front: Front) -> None:
        for _ in range(5):
            await api.list(NAMESPACES)

        assert len({each.peer for each in front.asked}) == 1

    async def test_of_many_requests_at_once_are_few(self, api: Api, front: Front) -> None:
        front.fail(Slow(0.05))

        await asyncio.gather(*(api.get(NAMESPACES, "default") for _ in range(100)))

        assert len({each.peer for each in front.asked}) <= 32

    async def test_do_not_pass_a_proxy_of_the_environment(
        self, api: Api, front: Front, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")

        await api.get(NAMESPACES, "default")

    async def test_are_closed_with_their_block(self, front: Front) -> None:
        async with Api(front.access(), manager="test") as api:
            await api.get(NAMESPACES, "default")

        with pytest.raises(RuntimeError, match="outside of its block"):
            await api.get(NAMESPACES, "default")


async def test_what_the_server_did_before_the_connection_broke_is_done(
    api: Api, front: Front, namespace: str, unique: str
) -> None:
    front.fail(Drop(after=True), method="POST", times=1)

    with pytest.raises(Unavailable):
        await api.create(CONFIG_MAPS, map_of(unique, namespace))

    with pytest.raises(Conflict):
        await api.create(CONFIG_MAPS, map_of(unique, namespace))
