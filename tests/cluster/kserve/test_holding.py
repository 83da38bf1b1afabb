"""Which models of a node make room: what is known of their users, and what then is held and whose caches are asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest

from cluster.client import Api, ApiError, Endpoint, Forbidden, Missing, Unavailable
from cluster.kserve.agent import Artifact, artifacts
from cluster.kserve.holding import FRESH, Answer, Standing, asked, standing
from cluster.kserve.kinds import LOCAL_MODEL_NODE
from cluster.kserve.names import key_of
from cluster.kserve.node_users import Users
from cluster.resources import Observed
from fetcher.errors import FetchError
from tests.cluster.kserve.worlds import entry
from tests.k8s.manifests.rendering import K8S, named, render
from tests.lab.waiting import eventually

READY, EVICTED, TURN = Observed("Ready"), Observed("Evicted", "Capacity"), Observed("Queued")
NO_ROOM, TOO_LARGE = Observed("Queued", "Capacity"), Observed("Failed", "CapacityExceeded")
A, B, NEW = (key_of(f"hf://org/{name}") for name in ("a", "b", "new"))
NOW, RECHECK = 1000.0, 60.0


def wanted(*names: str) -> tuple[Artifact, ...]:
    models = [entry(name, uri=f"hf://org/{name}") for name in names or ("a", "b", "new")]
    return artifacts(LOCAL_MODEL_NODE.read({"metadata": {"name": "n"}, "spec": {"localModels": models}}).spec)


def answer(used: bool, age: float = 0.0) -> Answer:
    return Answer(used, NOW - age)


@pytest.mark.parametrize(
    ("observed", "lying", "answers", "used", "unknown"),
    [
        pytest.param({}, {A, B}, {}, set(), {A, B}, id="nobody knows, as after a restart: what lies there stays"),
        pytest.param({A: READY}, {A}, {A: answer(True)}, {A}, set(), id="a service uses it: it stays"),
        pytest.param({NEW: NO_ROOM}, {A, B}, {A: answer(False)}, set(), {B}, id="no service uses it: it makes room"),
        pytest.param({A: READY}, {A}, {A: answer(False, FRESH)}, set(), {A}, id="the answer is old: it stays"),
        pytest.param({A: EVICTED}, set(), {A: answer(False)}, set(), set(), id="it made room: it does not come back"),
        pytest.param({A: EVICTED}, {A}, {}, set(), set(), id="it made room just now, after the last look: the same"),
        pytest.param({A: EVICTED}, set(), {A: answer(True)}, {A}, set(), id="it made room, a service wants it: it comes back"),
        pytest.param({NEW: NO_ROOM}, set(), {}, set(), set(), id="it is not there: there is nothing to keep"),
    ],
)
def test_what_stays(
    observed: Mapping[str, Observed], lying: set[str], answers: Mapping[str, Answer], used: set[str], unknown: set[str]
) -> None:
    assert standing(wanted(), observed, lying, answers, now=NOW) == Standing(frozenset(used), frozenset(unknown))


@pytest.mark.parametrize(
    ("observed", "answers", "questions"),
    [
        pytest.param({A: READY, B: READY, NEW: READY}, {}, set(), id="all is there: nobody is asked"),
        pytest.param({A: READY, B: READY, NEW: TURN}, {}, set(), id="a model is being fetched into free room: nobody"),
        pytest.param({A: READY, B: READY, NEW: TOO_LARGE}, {}, set(), id="a model can never fit: nobody"),
        pytest.param({A: READY, B: READY, NEW: NO_ROOM}, {}, {A, B, NEW}, id="a model waits for room: everybody"),
        pytest.param({A: READY, B: EVICTED, NEW: READY}, {}, {B}, id="one made room: whether a service wants it back"),
        pytest.param(
            {A: READY, B: READY, NEW: NO_ROOM}, {A: answer(True), NEW: answer(True)}, {B}, id="who answered is not asked"
        ),
        pytest.param({A: READY, B: EVICTED}, {B: answer(False, RECHECK)}, {B}, id="until it is time again"),
    ],
)
def test_whose_caches_are_asked(observed: Mapping[str, Observed], answers: Mapping[str, Answer], questions: set[str]) -> None:
    found = asked(wanted(), observed, {A, B}, answers, now=NOW, recheck=RECHECK)

    assert {each.key for each in found} == questions


class Caches:
    """An API server with the statuses of caches, by namespace and name, that counts what it is asked."""

    def __init__(self, statuses: Mapping[tuple[str, str], Any]) -> None:
        self.statuses = statuses
        self.gets: list[tuple[str, str, str]] = []

    async def get(self, endpoint: Endpoint, name: str, namespace: str = "", *, cached: bool = False) -> dict[str, Any]:
        assert cached  # the server's database has nothing to do with it
        self.gets.append((endpoint.plural, namespace, name))
        found = self.statuses.get((namespace, name), Missing("there is none", code=404))
        if isinstance(found, ApiError):
            raise found
        spec = {"sourceModelUri": "hf://org/a", "nodeGroups": ["gpu"]}
        return {"metadata": {"name": name, "namespace": namespace}, "spec": spec, "status": found}


USER = [{"namespace": "team", "name": "s"}]


async def _asked(
    statuses: Mapping[tuple[str, str], Any], *, of: tuple[Artifact, ...] = wanted("a", "new"), answers: int = 1
) -> tuple[Standing, list[FetchError], Caches]:
    """What stays, what went wrong, and what was asked, with A there and another model that waits for room."""
    caches, problems, count = Caches(statuses), list[FetchError](), list[None]()
    users = Users(cast(Api, caches), recheck=RECHECK, on_answer=lambda: count.append(None), on_problem=problems.append)
    observed = {A: READY, NEW: NO_ROOM}
    users.ask(of, observed, {A})
    await eventually(lambda: len(count) + len(problems) >= answers, "all have answered or failed")
    await users.aclose()
    return users.standing(of, observed, {A}), problems, caches


_USED, _UNKNOWN, _UNUSED = Standing(frozenset({A})), Standing(unknown=frozenset({A})), Standing()


@pytest.mark.parametrize(
    ("status", "stays"),
    [
        pytest.param({"inferenceServices": USER}, _USED, id="InferenceServices"),
        pytest.param({"llmInferenceServices": USER}, _USED, id="LLMInferenceServices"),
        pytest.param({"inferenceServices": [], "copies": {"available": 1}}, _UNUSED, id="an empty list"),
        pytest.param({}, _UNUSED, id="a cache without a status"),
        pytest.param(Missing("there is none", code=404), _UNUSED, id="a cache that is gone has no users"),
        pytest.param(Forbidden("no", code=403), _UNKNOWN, id="a cache that may not be read: it stays"),
        pytest.param(Unavailable("no answer"), _UNKNOWN, id="no answer: it stays"),
        pytest.param({"inferenceServices": "x"}, _UNKNOWN, id="a status that cannot be read: it stays"),
    ],
)
async def test_a_cache_lists_its_services(status: Any, stays: Standing) -> None:
    found, _, _ = await _asked({("", "a"): status, ("", "new"): {}})

    assert found == stays


async def test_a_model_of_several_caches_is_used_if_one_of_them_lists_a_service() -> None:
    models = [entry("a", uri="hf://org/a"), entry("mine", namespace="team", uri="hf://org/a"), entry("new", uri="hf://org/new")]
    of = artifacts(LOCAL_MODEL_NODE.read({"metadata": {"name": "n"}, "spec": {"localModels": models}}).spec)

    found, _, caches = await _asked({("", "a"): {}, ("team", "mine"): {"inferenceServices": USER}}, of=of, answers=2)

    assert found == _USED
    assert caches.gets[:2] == [("localmodelcaches", "", "a"), ("localmodelnamespacecaches", "team", "mine")]


async def test_of_a_server_that_does_not_answer_nothing_more_is_asked() -> None:
    _, problems, caches = await _asked({("", "a"): Unavailable("no answer")})

    assert [each.reason for each in problems] == ["Unavailable"]
    assert len(caches.gets) == 1


async def test_caches_that_have_answered_are_not_asked_again_soon() -> None:
    caches = Caches({("", "a"): {}, ("", "new"): {}})
    users = Users(cast(Api, caches), recheck=RECHECK, on_answer=lambda: None, on_problem=lambda error: None)
    for _ in range(5):
        users.ask(wanted("a", "new"), {A: READY, NEW: NO_ROOM}, {A})
        await eventually(lambda: len(caches.gets) == 2, "both were asked")
    await users.aclose()

    assert len(caches.gets) == 2


def test_the_agent_may_get_caches_by_their_names_and_no_more() -> None:
    rules = named(render(K8S / "integrations" / "kserve" / "agent"), "ClusterRole", "weightlift-kserve-agent")["rules"]

    for resource in ("localmodelcaches", "localmodelnamespacecaches"):
        assert [rule["verbs"] for rule in rules if resource in rule["resources"]] == [["get"]]
        assert not any(f"{resource}/status" in rule["resources"] for rule in rules)
