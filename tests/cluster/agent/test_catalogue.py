"""What an entry means is read once, and believed only if it is what the entry names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from cluster.agent.catalogue import Catalogue, read, wanted_of
from cluster.agent.states import Wanted
from cluster.client import Api, Endpoint, Missing
from cluster.resources import CACHE_ARTIFACT, CacheArtifactSpec, Entry, NodeCacheSpec, encoded
from cluster.resources.artifact import mark_of, name_of
from fetcher.errors import ConfigurationError, FetchError

KEY = "0123456789abcdef"
SPEC = CacheArtifactSpec("p", KEY, "team", "m", 7, "rev", "listing")
MARK = mark_of(SPEC)


def document(spec: CacheArtifactSpec = SPEC) -> dict[str, Any]:
    return {"metadata": {"name": name_of(KEY, MARK)}, "apiVersion": CACHE_ARTIFACT.api_version, "spec": encoded(spec)}


def test_an_entry_and_its_artifact_say_together_what_is_wanted() -> None:
    entry = Entry(MARK, "Always", held=True)
    assert wanted_of(SPEC, entry) == Wanted(KEY, "team", "m", 7, "rev", "listing", "Always", held=True, turn=False)
    assert wanted_of(SPEC, Entry(MARK, turn=True)) == Wanted(KEY, "team", "m", 7, "rev", "listing")


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(replace(SPEC, revision="other"), id="another revision"),
        pytest.param(replace(SPEC, listing_digest="other"), id="another listing"),
        pytest.param(replace(SPEC, namespace="evil"), id="another tenant"),
        pytest.param(replace(SPEC, key="f" * 16), id="another key"),
        pytest.param(replace(SPEC, pool="other"), id="another pool"),
    ],
)
def test_an_artifact_that_is_not_what_its_name_says_is_not_believed(spec: CacheArtifactSpec) -> None:
    with pytest.raises(ConfigurationError, match="is not what its name says"):
        read(document(spec), "p", KEY, MARK)


class Reads:
    """An API server with one CacheArtifact, once it is there."""

    def __init__(self) -> None:
        self.there = False
        self.count = 0

    async def get(self, endpoint: Endpoint, name: str, namespace: str = "") -> dict[str, Any]:
        self.count += 1
        if not self.there:
            raise Missing(f"get {name}", code=404)
        return document()


async def until(true: Callable[[], bool], told: asyncio.Event) -> None:
    async with asyncio.timeout(20):
        while not true():
            await told.wait()
            told.clear()


async def test_an_artifact_is_read_once_and_what_is_missing_is_unknown_and_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cluster.agent.catalogue._AGAIN", 0.0)
    reads, problems, told = Reads(), list[FetchError](), asyncio.Event()
    catalogue = Catalogue(cast(Api, reads), on_known=told.set, on_problem=lambda _, error: problems.append(error))
    spec = NodeCacheSpec("p", artifacts={KEY: Entry(MARK)})
    running = asyncio.ensure_future(catalogue.run())
    try:
        catalogue.look(spec)
        assert not catalogue.is_read
        await until(lambda: reads.count >= 2, told)
        assert (catalogue.wanted(), catalogue.is_read) == ((), True)
        assert [type(each) for each in problems[:1]] == [Missing]

        reads.there = True
        await until(lambda: [each.key for each in catalogue.wanted()] == [KEY], told)
        count = reads.count
        catalogue.look(replace(spec, artifacts={KEY: Entry(MARK, turn=True)}))
        for _ in range(5):
            await asyncio.sleep(0)
        assert (reads.count, [each.turn for each in catalogue.wanted()]) == (count, [True])
    finally:
        running.cancel()
        await asyncio.wait([running])
