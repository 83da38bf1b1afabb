"""How many requests a fetch from the Hub takes, counted by the origin."""

from __future__ import annotations

from collections import Counter

from fetcher.testing.origin import Origin
from tests.engine.conftest import Fetcher, MiB, contents

MANY = {f"{number % 7}/{number}.json": b'{"number": %d}' % number for number in range(300)}


async def test_a_small_file_takes_one_request_and_the_listing_two(origin: Origin, fetch: Fetcher) -> None:
    origin.add_repo("org/model", MANY)
    artifact = await fetch()
    assert contents(artifact.path) == MANY
    assert Counter(request.method for request in origin.requests) == {"GET": len(MANY) + 2}


async def test_a_pinned_commit_is_not_resolved(origin: Origin, fetch: Fetcher) -> None:
    commit = origin.add_repo("org/model", MANY).refs["main"]
    await fetch(revision=commit)
    assert len(origin.requests) == len(MANY) + 1
    assert not [request.path for request in origin.requests if "/revision/" in request.path]


async def test_a_small_file_behind_a_redirect_takes_two_requests(origin: Origin, fetch: Fetcher) -> None:
    origin.add_repo("org/model", {f"{number}.bin": bytes([number]) * MiB for number in range(5)})
    await fetch()
    assert Counter((request.origin, request.method) for request in origin.requests) == {
        ("hub", "GET"): 2 + 5,
        ("cdn", "GET"): 5,
    }


async def test_the_first_range_of_a_large_file_resolves_its_address(origin: Origin, fetch: Fetcher) -> None:
    origin.add_repo("org/model", {"model.safetensors": bytes(70 * MiB)})
    await fetch()
    resolving = [request for request in origin.requests if "/resolve/" in request.path]
    assert [(request.origin, request.method) for request in resolving] == [("hub", "GET")]
    assert {request.method for request in origin.requests} == {"GET"}
