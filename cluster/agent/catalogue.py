"""What the entries of a NodeCache are: the CacheArtifacts that they name, each read once, since they never change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from cluster.agent.states import Wanted
from cluster.client import Api, ApiError, endpoint_of
from cluster.resources import CACHE_ARTIFACT, CacheArtifactSpec, Entry, NodeCacheSpec
from cluster.resources.artifact import mark_of, name_of
from fetcher.errors import ConfigurationError, FetchError

ARTIFACTS = endpoint_of(CACHE_ARTIFACT)
_AGAIN = 10.0
"""Seconds until what could not be read is asked for again."""


class Catalogue:
    """The CacheArtifacts of one node. `on_known` is called when there are more, `on_problem` gets what went wrong with one."""

    def __init__(self, api: Api, *, on_known: Callable[[], None], on_problem: Callable[[str, FetchError], None]) -> None:
        self._api = api
        self._on_known = on_known
        self._on_problem = on_problem
        self._known: dict[str, CacheArtifactSpec] = {}
        self._spec = NodeCacheSpec("")
        self._more = asyncio.Event()
        self.is_read = False
        """Whether all that is named was asked for once: before that, a status would lack what an earlier process reported."""

    def look(self, spec: NodeCacheSpec) -> None:
        """Take the entries of the NodeCache, and forget what it does not name any more."""
        self._spec = spec
        names = {name_of(key, entry.mark) for key, entry in spec.artifacts.items()}
        self._known = {name: each for name, each in self._known.items() if name in names}
        if names - self._known.keys():
            self._more.set()
        else:
            self.is_read = True

    def wanted(self) -> tuple[Wanted, ...]:
        """Return the entries of which it is known what they are."""
        return tuple(
            wanted_of(found, entry)
            for key, entry in self._spec.artifacts.items()
            if (found := self._known.get(name_of(key, entry.mark))) is not None
        )

    async def run(self) -> None:
        """Read what is named, until cancelled."""
        while True:
            await self._more.wait()
            self._more.clear()
            if not await self._read():
                await asyncio.sleep(_AGAIN)
                self._more.set()

    async def _read(self) -> bool:
        """Read what is not known. Return whether nothing is left to read."""
        complete, pool, entries = True, self._spec.pool, dict(self._spec.artifacts)
        for key, entry in entries.items():
            if (name := name_of(key, entry.mark)) in self._known:
                continue
            try:
                self._known[name] = read(await self._api.get(ARTIFACTS, name), pool, key, entry.mark)
            except FetchError as error:
                self._on_problem(key, error)
                complete = False
                if isinstance(error, ApiError) and error.retryable:  # it does not answer at all
                    break
        self.is_read = True
        self._on_known()
        return complete


def read(document: Mapping[str, object], pool: str, key: str, mark: str) -> CacheArtifactSpec:
    """Return a CacheArtifact that is what the entry names. Pure. Raises ConfigurationError for any other."""
    try:
        spec = CACHE_ARTIFACT.read(document).spec
    except ValueError as error:
        raise ConfigurationError(f"CacheArtifact {name_of(key, mark)} cannot be read: {error}; upgrade the agent") from None
    if (spec.pool, spec.key, mark_of(spec)) != (pool, key, mark):
        raise ConfigurationError(
            f"CacheArtifact {name_of(key, mark)} is not what its name says; delete it, and the controller makes it anew"
        )
    return spec


def wanted_of(artifact: CacheArtifactSpec, entry: Entry) -> Wanted:
    """Return what an entry and its CacheArtifact say together. Pure."""
    return Wanted(
        artifact.key,
        artifact.namespace,
        artifact.model,
        artifact.bytes,
        artifact.revision,
        artifact.listing_digest,
        entry.retain or "WhenPossible",
        held=bool(entry.held),
        turn=bool(entry.turn),
        warm=entry.warm,
    )
