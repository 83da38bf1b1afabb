"""The proxy in front of the API server does what the tests of agent and controller rely on."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.client import of_kubeconfig
from tests.cluster.faults import Drop, Front, Refuse, faulty_api
from tests.lab.waiting import wait_until

DEFAULT = "/api/v1/namespaces/default"


@pytest.fixture(scope="module")
def shared() -> Iterator[Front]:
    with faulty_api() as front:
        yield front


@pytest.fixture
def front(shared: Front) -> Iterator[Front]:
    shared.asked.clear()
    yield shared
    shared.heal()


def ask(front: Front, path: str, *, method: str = "GET", body: bytes | None = None, token: str | None = None) -> Any:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(front.url + path, data=body, method=method, headers=headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def status(front: Front, path: str, **how: Any) -> int:
    try:
        ask(front, path, **how)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    return 200


def test_what_is_not_failed_is_passed_on(front: Front) -> None:
    assert ask(front, DEFAULT)["metadata"]["name"] == "default"
    assert status(front, "/api/v1/namespaces/there-is-none") == 404


def test_requests_and_bytes_are_counted_in_both_directions(front: Front) -> None:
    body = json.dumps({"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "spec": {}}).encode()

    status(front, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", method="POST", body=body)
    ask(front, DEFAULT)

    assert (front.count(), front.count(method="POST"), front.count(path="/default")) == (2, 1, 1)
    assert front.received == len(body)
    assert front.sent > 100


def test_a_rule_fails_what_it_is_for_as_often_as_it_says(front: Front) -> None:
    front.fail(Refuse(503), path="/namespaces/default", times=2)

    assert [status(front, DEFAULT) for _ in range(3)] == [503, 503, 200]
    assert status(front, "/api/v1/namespaces/kube-system") == 200


def test_a_demanded_token_is_the_only_one(front: Front) -> None:
    front.demand_token("new")

    assert [status(front, DEFAULT, token=token) for token in (None, "old", "new")] == [401, 401, 200]


def test_a_token_of_the_cluster_has_the_rights_of_its_owner_alone(front: Front) -> None:
    assert status(front, DEFAULT, token="of-nobody") == 401


def test_what_is_dropped_ends_without_an_answer(front: Front) -> None:
    front.fail(Drop(), times=1)

    with pytest.raises(OSError, match=r"reset|closed"):
        ask(front, DEFAULT)


def test_who_is_away_comes_back_at_the_same_address(front: Front) -> None:
    with front.away(), pytest.raises(urllib.error.URLError, match="refused"):
        ask(front, DEFAULT)

    assert status(front, DEFAULT) == 200


def test_a_muted_watch_stays_open_and_silent(front: Front) -> None:
    version = ask(front, "/api/v1/namespaces")["metadata"]["resourceVersion"]
    path = f"/api/v1/namespaces?watch=true&timeoutSeconds=1&resourceVersion={version}"
    with urllib.request.urlopen(front.url + path, timeout=3) as watch:
        wait_until(lambda: any(each.open for each in front.asked), "the watch is open")
        front.mute_watches()

        with pytest.raises(TimeoutError):  # the real server ended it after a second
            watch.read()


def test_its_kubeconfig_is_one(front: Front, tmp_path: Path) -> None:
    access = of_kubeconfig(front.kubeconfig(tmp_path / "config", token="t"))

    assert (access.server, access.token) == (front.url, "t")
