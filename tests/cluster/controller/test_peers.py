"""Given a pool where peers are on, then what its nodes are told of each other, and who vouches for them."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import pytest

from cluster.certificates import AUTHORITY_DAYS, NODE_DAYS, Authority, is_of, new_authority, new_key, now
from cluster.client import Api, Conflict, Forbidden, Missing, Unavailable
from cluster.controller.actions import Make
from cluster.controller.issuing import CERTIFICATE, KEY, MADE, Issuer
from cluster.controller.patience import seconds_apart
from cluster.controller.planning import Plan
from cluster.controller.running import UNBOUND
from cluster.controller.world import Cache, Peering, World
from cluster.names import PEER_SECRET
from cluster.resources import NodeCacheSpec, Peers
from cluster.resources.pool import Peering as Mode
from tests.cluster.controller.building import cache, key_of, model, planned, pool, reporting, world

ON = pool(peers=Mode("On"), max_fetching=10)
K = key_of()
ADDRESSES = {f"n{number}": f"https://10.0.0.{number}:8650" for number in range(1, 10)}
KNOWN = Peering("authority", {node: f"certificate of {node}" for node in ADDRESSES})


def meeting(seen: Cache, node: str) -> Cache:
    return replace(seen, peer_address=ADDRESSES[node], peer_key="key")


def given(phases: Mapping[str, str], *, peering: Peering = KNOWN, pool: Any = ON, **more: Any) -> World:
    """Nodes that have certificates, and report these phases of one model."""
    caches = {node: meeting(reporting(phase), node) for node, phase in phases.items()}
    return world([model()], [pool], nodes=list(phases), caches=caches, peering=peering, **more)


def told(of: Plan) -> dict[str, set[str]]:
    """The nodes that each node is told of for the model."""
    names = {address: node for node, address in ADDRESSES.items()}
    return {
        node: {names[each] for each in spec.peers.addresses.get(K, ())} if spec.peers is not None else set()
        for node, spec in of.specs.items()
    }


def condition(of: Plan) -> tuple[str, str] | None:
    return next(((each.status, each.reason) for each in of.pools["p"].conditions if each.type == "Peers"), None)


class TestTold:
    def test_who_fetches_is_told_of_those_who_have_it_or_fetch_it_too_and_nobody_else_of_anybody(self) -> None:
        found = told(planned(given({"n1": "Ready", "n2": "Fetching", "n3": "Queued", "n4": "Warming"})))
        assert found == {"n1": set(), "n2": {"n1", "n3", "n4"}, "n3": {"n1", "n2", "n4"}, "n4": set()}

    def test_a_node_without_a_turn_is_told_of_nobody_and_nobody_of_it(self) -> None:
        few = replace(ON, spec=replace(ON.spec, max_fetching=1))
        found = told(planned(given({"n1": "Ready", "n2": "Queued", "n3": "Queued"}, pool=few)))
        assert sorted(map(len, found.values())) == [0, 0, 1]
        assert set().union(*found.values()) == {"n1"}

    def test_a_node_that_is_silent_is_told_to_nobody(self) -> None:
        assert told(planned(given({"n1": "Ready", "n2": "Fetching", "n3": "Ready"}, alive=["n2", "n3"])))["n2"] == {"n3"}

    def test_a_node_without_a_certificate_is_told_to_nobody(self) -> None:
        known = Peering("authority", dict.fromkeys(("n2", "n3"), "c"))
        assert told(planned(given({"n1": "Ready", "n2": "Fetching", "n3": "Ready"}, peering=known)))["n2"] == {"n3"}

    def test_a_copy_of_other_content_counts_as_none(self) -> None:
        there = given({"n1": "Ready", "n2": "Fetching"}, resolutions=None)
        other = replace(there.caches["n1"], observed={K: replace(there.caches["n1"].observed[K], content="other")})
        changed = replace(there, caches={**there.caches, "n1": other})
        assert told(planned(changed))["n1"] == {"n2"}  # it fetches

    def test_the_node_gets_its_certificate_and_who_vouches_for_it(self) -> None:
        plan = planned(given({"n1": "Ready"}))
        assert plan.specs["n1"].peers == Peers("authority", "certificate of n1")

    def test_with_peers_off_nobody_is_told_anything(self) -> None:
        plan = planned(given({"n1": "Ready", "n2": "Fetching"}, pool=pool()))
        assert {spec.peers for spec in plan.specs.values()} == {None}

    def test_while_nobody_can_vouch_what_nodes_have_stays(self) -> None:
        before = Peers("authority", "certificate", {K: ("https://10.0.0.9:8650",)})
        there = given({"n1": "Fetching"}, peering=Peering())
        kept = replace(there.caches["n1"], spec=replace(there.caches["n1"].spec, peers=before))
        assert planned(replace(there, caches={"n1": kept})).specs["n1"].peers == before


class TestWrites:
    BEFORE = NodeCacheSpec("p", status_interval=60, peers=Peers("a", "c", {"k1": ("x", "y"), "k2": ("x",)}))

    @pytest.mark.parametrize(
        ("now", "apart"),
        [
            pytest.param(Peers("a", "c", {"k1": ("x", "y")}), None, id="peers of a former fetch go with the next change"),
            pytest.param(Peers("a", "c"), None, id="also those of all fetches"),
            pytest.param(Peers("a", "c", {"k1": ("x",)}), 60.0, id="other peers of a fetch wait"),
            pytest.param(Peers("a", "c", {"k1": ("x", "y"), "k3": ("x",)}), 60.0, id="and so do those of a new one"),
            pytest.param(Peers("a", "d", {"k1": ("x", "y")}), 0.0, id="a certificate is written at once"),
            pytest.param(None, 0.0, id="and that peers are off"),
        ],
    )
    def test_how_long_a_change_of_peers_may_wait(self, now: Peers | None, apart: float | None) -> None:
        there = Cache("u", "1", True, self.BEFORE)
        assert seconds_apart(there, replace(self.BEFORE, peers=now)) == apart


class TestCondition:
    def test_says_how_many_nodes_have_a_certificate(self) -> None:
        assert condition(planned(given({"n1": "Ready", "n2": "Ready"}))) == ("True", "Certified")
        known = Peering("authority", {"n1": "c"})
        assert condition(planned(given({"n1": "Ready", "n2": "Ready"}, peering=known))) == ("False", "NotCertified")

    def test_says_why_there_is_none(self) -> None:
        assert condition(planned(given({"n1": "Ready"}, peering=Peering(problem=UNBOUND)))) == ("False", "UnboundAgents")

    def test_is_told_only_where_peers_are_on(self) -> None:
        assert condition(planned(given({"n1": "Ready"}, pool=pool()))) is None


class TestBytes:
    def test_a_model_says_whence_its_ready_copies_came(self) -> None:
        there = given({"n1": "Ready", "n2": "Ready", "n3": "Fetching"})
        came = {"n1": (100, 0), "n2": (7, 93)}
        caches = {
            node: replace(
                each,
                observed={K: replace(each.observed[K], from_origin=came[node][0], from_peers=came[node][1])}
                if node in came
                else each.observed,
            )
            for node, each in there.caches.items()
        }
        copies = planned(replace(there, caches=caches)).models["a", "m"].copies
        assert copies is not None
        assert (copies.ready, copies.bytes_from_origin, copies.bytes_from_peers) == (2, 107, 93)

    def test_where_no_node_tells_it_is_not_known(self) -> None:
        copies = planned(given({"n1": "Ready"})).models["a", "m"].copies
        assert copies is not None
        assert (copies.bytes_from_origin, copies.bytes_from_peers) == (None, None)


class TestAgents:
    def pod(self, wanted: Any) -> dict[str, Any]:
        made = [each for each in planned(world([], [wanted])).actions if isinstance(each, Make)]
        (found,) = (each.document for each in made if each.kind == "DaemonSet")
        spec: dict[str, Any] = found["spec"]["template"]["spec"]
        return spec

    def test_are_told_their_address_and_keep_their_key_in_memory(self) -> None:
        (container,), spec = self.pod(ON)["containers"], self.pod(ON)
        assert {"name": "peers", "containerPort": 8650} in container["ports"]
        assert {"name": "WEIGHTLIFT_PEER_ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}} in container["env"]
        assert spec["volumes"][1:] == [{"name": "keys", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]
        assert "hostNetwork" not in spec

    def test_have_neither_where_peers_are_off(self) -> None:
        spec = self.pod(pool())
        assert [each["name"] for each in spec["volumes"]] == ["root"]
        assert "peer" not in str(spec)


class Store:
    """The API server of one Secret: its data, and what it answers instead."""

    def __init__(self, data: Mapping[str, bytes] | None, **annotations: str) -> None:
        self.document: dict[str, Any] | None = None
        self.version = 1
        self.problem: Exception | None = None
        self.reads = 0
        if data is not None:
            self.document = {"data": {name: base64.b64encode(each).decode() for name, each in data.items()}}
            self.annotations = annotations

    async def get(self, endpoint: Any, name: str, namespace: str) -> dict[str, Any]:
        self.reads += 1
        if self.problem is not None:
            raise self.problem
        if self.document is None:
            raise Missing("no such Secret", code=404)
        assert (name, namespace) == (PEER_SECRET, "weightlift")
        metadata = {"uid": "u", "resourceVersion": str(self.version), "annotations": self.annotations}
        return {"metadata": metadata, **self.document}

    async def merge(self, endpoint: Any, name: str, namespace: str, patch: Mapping[str, Any]) -> None:
        assert self.document is not None
        if patch["metadata"]["resourceVersion"] != str(self.version):
            raise Conflict("it was changed", code=409)
        self.version += 1
        self.document, self.annotations = {"data": patch["data"]}, patch["metadata"]["annotations"]

    @property
    def authority(self) -> Authority:
        assert self.document is not None
        return Authority(*(base64.b64decode(self.document["data"][name]) for name in (CERTIFICATE, KEY)))


class Clock:
    """Monotonic time and the calendar."""

    def __init__(self) -> None:
        self.passed = 0.0
        self._began = now()

    def monotonic(self) -> float:
        return self.passed

    def calendar(self) -> Any:
        return self._began + timedelta(seconds=self.passed)

    def wait(self, *, days: float) -> None:
        self.passed += days * 86400


@pytest.fixture
def clock() -> Clock:
    return Clock()


def issuer(store: Store, clock: Clock, problems: list[Exception]) -> Issuer:
    return Issuer(
        cast(Api, store),
        "weightlift",
        "controller",
        PEER_SECRET,
        on_problem=problems.append,
        clock=clock.monotonic,
        calendar=clock.calendar,
    )


PUBLIC = new_key()[1]


def asking(*nodes: str, key: str = PUBLIC, **more: Any) -> World:
    caches = {node: replace(cache(), peer_address=ADDRESSES[node], peer_key=key) for node in nodes}
    return world([], [ON], nodes=list(nodes), caches=caches, **more)


class TestIssuing:
    async def test_an_empty_secret_gets_an_authority_which_the_next_controller_finds(self, clock: Clock) -> None:
        store = Store({})
        first = await issuer(store, clock, []).look(asking("n1"))
        assert first.authority == store.authority.pem
        assert store.annotations == {MADE: "made"}
        assert is_of(first.certificates["n1"], PUBLIC)
        again = await issuer(store, clock, []).look(asking("n1"))
        assert again.authority == first.authority

    async def test_a_certificate_that_the_node_has_stays(self, clock: Clock) -> None:
        store = Store({})
        known = await issuer(store, clock, []).look(asking("n1"))
        there = asking("n1")
        held = replace(
            there.caches["n1"], spec=replace(there.caches["n1"].spec, peers=Peers(known.authority, known.certificates["n1"]))
        )
        assert await issuer(store, clock, []).look(replace(there, caches={"n1": held})) == known

    async def test_it_is_issued_once_and_anew_for_another_key_or_when_it_ends(self, clock: Clock) -> None:
        found = issuer(Store({}), clock, [])
        first = (await found.look(asking("n1"))).certificates["n1"]
        clock.wait(days=NODE_DAYS * 0.6)
        assert (await found.look(asking("n1"))).certificates["n1"] == first
        other = new_key()[1]
        assert is_of((await found.look(asking("n1", key=other))).certificates["n1"], other)
        clock.wait(days=NODE_DAYS * 0.7)
        renewed = (await found.look(asking("n1", key=other))).certificates["n1"]
        assert renewed != first
        assert is_of(renewed, other)

    async def test_one_that_cert_manager_has_made_is_used_and_never_replaced(self, clock: Clock) -> None:
        certificate, key = new_authority(now())
        store = Store({CERTIFICATE: certificate, KEY: key})
        found = issuer(store, clock, [])
        assert (await found.look(asking("n1"))).authority == certificate.decode()
        clock.wait(days=AUTHORITY_DAYS * 0.9)
        assert (await found.look(asking("n1"))).authority == certificate.decode()

    async def test_our_own_is_replaced_before_it_ends(self, clock: Clock) -> None:
        found = issuer(Store({}), clock, [])
        before = await found.look(asking("n1"))
        clock.wait(days=AUTHORITY_DAYS * 0.7)
        after = await found.look(asking("n1"))
        assert after.authority != before.authority
        assert after.certificates["n1"] != before.certificates["n1"]

    @pytest.mark.parametrize(
        ("store", "problem", "reason"),
        [
            (Store(None), None, "SecretMissing"),
            (Store({}), Forbidden("no", code=403), "SecretForbidden"),
            (Store({}), Unavailable("no answer"), "Unavailable"),
            (Store({CERTIFICATE: b"nonsense", KEY: b"nonsense"}), None, "Configuration"),
        ],
    )
    async def test_without_an_authority_the_pool_says_why_and_it_is_asked_again_soon_and_not_at_once(
        self, clock: Clock, store: Store, problem: Exception | None, reason: str
    ) -> None:
        store.problem, store.reads = problem, 0
        problems = list[Exception]()
        found = issuer(store, clock, problems)
        *_, peering = [await found.look(asking("n1")) for _ in range(3)]
        assert (peering.authority, store.reads, len(problems)) == ("", 1, 1)
        assert peering.problem is not None
        assert peering.problem[0] == reason
        clock.passed += 16
        await found.look(asking("n1"))
        assert store.reads == 2

    async def test_who_vouched_goes_on_while_the_api_server_is_away(self, clock: Clock) -> None:
        store = Store({})
        found = issuer(store, clock, [])
        known = await found.look(asking("n1"))
        store.problem = Unavailable("no answer")
        clock.passed += 400
        assert await found.look(asking("n1")) == known

    @pytest.mark.parametrize("key", ["", "nonsense", "bm9uc2Vuc2U="])
    async def test_a_node_that_reports_no_key_gets_no_certificate_and_harms_no_other(self, clock: Clock, key: str) -> None:
        both = asking("n1", "n2")
        bad = replace(both, caches={**both.caches, "n1": replace(both.caches["n1"], peer_key=key)})
        assert set((await issuer(Store({}), clock, []).look(bad)).certificates) == {"n2"}

    async def test_a_node_cache_that_somebody_else_made_gets_none(self, clock: Clock) -> None:
        there = asking("n1")
        strange = replace(there, caches={"n1": replace(there.caches["n1"], ours=False)})
        assert (await issuer(Store({}), clock, []).look(strange)).certificates == {}
