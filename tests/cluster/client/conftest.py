"""A namespace of the throw-away cluster, and its API server behind the proxy that fails on demand."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from cluster.client import Api
from cluster.client.bounds import Bounds
from tests.cluster.api import Cluster, cluster
from tests.cluster.faults import Front, faulty_api

QUICK = Bounds(connect=10, answer=20, silence=2, page=3)
"""A watch that is silent is noticed soon, and a machine that is very busy still answers in time."""


@pytest.fixture(scope="session")
def plane() -> Cluster:
    return cluster()


@pytest.fixture(scope="session")
def shared_front() -> Iterator[Front]:
    with faulty_api() as front:
        yield front


@pytest.fixture
def front(shared_front: Front) -> Iterator[Front]:
    """The proxy, without faults and without requests."""
    shared_front.asked.clear()
    yield shared_front
    shared_front.heal()
    shared_front.cut()


@pytest.fixture(scope="session")
def namespace(plane: Cluster) -> Iterator[str]:
    name = f"client-{uuid.uuid4().hex[:8]}"
    assert plane.run("create", "namespace", name).returncode == 0
    yield name
    plane.run("delete", "namespace", name, "--wait=false")


@pytest.fixture
async def api(front: Front) -> AsyncIterator[Api]:
    """The API server as our programs reach it."""
    async with Api(front.access(), manager="weightlift-test", bounds=QUICK) as made:
        yield made


@pytest.fixture
def unique() -> str:
    """A name that no other test uses."""
    return f"test-{uuid.uuid4().hex[:8]}"
