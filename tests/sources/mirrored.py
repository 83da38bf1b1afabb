"""The conformance suite with mirrors in front of each source: a peer that has the artifact, and a cache of its addresses.

::

    class TestHub(SourceConformance): ...
    class TestHubWithPeer(WithPeer, TestHub): ...
    class TestHubWithCache(WithCache, TestHub): ...
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal
from urllib.parse import unquote, urlsplit

import pytest

from fetcher.artifact import ORIGIN, ArtifactRef, ByteRange, Listing, RemoteFile, known_listing
from fetcher.engine import fetch
from fetcher.events import Event, PeersFound
from fetcher.serving import Server, Serving, SharedSecret
from fetcher.settings import Settings
from fetcher.sources.base import Asking, Derived, Source, once, supplier_of
from fetcher.sources.mirrors import mirrored
from fetcher.testing.conformance import MakeSource, SourceConformance, listing_of
from fetcher.testing.faults import Faults
from fetcher.testing.origin import Origin

Kind = Literal["a peer", "a cache"]
REF = ArtifactRef("hf://conformance/model")
"""The name by which peers keep any of the artifacts: they are asked for it and its listing."""


def kind_of(mirror: str) -> Kind:
    return "a cache" if "{path}" in mirror else "a peer"


class Begun(Derived):
    """A source with mirrors that begins to fetch what it has listed, as the engine does. `published` is told what that is."""

    def __init__(self, source: Source, published: Callable[[Sequence[RemoteFile]], None]) -> None:
        super().__init__(source)
        self._published = published

    async def list(self, revision: str | None, ask: Asking = once) -> Listing:
        """Return the listing with all digests, once the peer that has it was found."""
        listing = await super().list(revision, ask)
        files = tuple(await self.describe(listing.files, ask))
        self._published(files)
        found = asyncio.Event()

        def listen(event: Event) -> None:
            if isinstance(event, PeersFound) and event.peers:
                found.set()

        if self.begin(files, listing=known_listing(files), node=None, on_event=listen) is not None:
            await found.wait()
        return replace(listing, files=files)


@dataclass
class Nearer:
    """A cache, and a peer for each artifact that is published. Peers have a root below `place` each, and the same `secret`:
    what was fetched with a credential is for nobody else."""

    cache: Origin
    place: Path
    secret: Path
    stack: ExitStack

    def in_front_of(self, source: Source, files: Mapping[str, bytes], *, cache: bool, peer: str | None) -> Source:
        """`source` with the cache in front, which has `files` once they are listed, and the peer at a base URL."""

        def published(listed: Sequence[RemoteFile]) -> None:
            for file in listed:
                if (address := source.address(file)) is not None:
                    self.cache.add_file(unquote(urlsplit(address).path), files[file.path])

        settings = Settings(
            cache_dir=Path("/nowhere"),
            timeout_stall=2.0,
            mirrors=(*([f"{self.cache.cdn_endpoint}/{{path}}"] if cache else []), *([peer] if peer is not None else [])),
            mirror_secret_file=self.secret,
        )
        return Begun(mirrored(source, REF, settings, {}), published)

    def peer_of(self, source: Source) -> str:
        """Start a server of a root that has fetched all of `source`. Returns its base URL."""
        root = self.place / f"{len(list(self.place.iterdir()))}"
        root.mkdir(parents=True)
        with ThreadPoolExecutor(1) as thread:  # an event loop runs here
            thread.submit(lambda: asyncio.run(fetch(REF, Settings(cache_dir=root), source=source))).result()
        server = Server(Serving(root=root, authorization=SharedSecret(self.secret)), warn=lambda _: None)
        self.stack.callback(server.drain, 0.0)
        return server.where


class Mirrored(SourceConformance):
    """The suite for a source with mirrors of the kinds `fronts`. `brings`: which of them has its files; the origin if none."""

    fronts: ClassVar[Collection[Kind]] = ("a peer", "a cache")
    brings: ClassVar[str] = ORIGIN

    @pytest.fixture
    def mirrors(self, faults: Faults | None, tmp_path: Path) -> Iterator[Nearer]:
        """Whatever the source's server does wrong, the cache does too."""
        cache = Origin()
        cache.faults = faults or cache.faults
        (place := tmp_path / "peers").mkdir()
        (secret := tmp_path / "secret").write_text("a-secret-of-the-peers")
        with cache, ExitStack() as stack:
            yield Nearer(cache, place, secret, stack)

    @pytest.fixture
    def make(self, make_source: MakeSource, mirrors: Nearer) -> MakeSource:
        def make(files: Mapping[str, bytes]) -> Source:
            peer = mirrors.peer_of(make_source(files)) if "a peer" in self.fronts else None
            return mirrors.in_front_of(make_source(files), files, cache="a cache" in self.fronts, peer=peer)

        return make

    @pytest.fixture
    def missing(self, missing_source: Source, mirrors: Nearer) -> Source:
        return mirrors.in_front_of(missing_source, {}, cache=True, peer=None)

    async def test_bytes_come_from_whoever_is_nearer(self, make: MakeSource) -> None:
        """The rest of a chunk that the origin has begun is the origin's too."""
        async with aclosing(make(self.files)) as source:
            file = self.file_in(await listing_of(source))
            suppliers = []
            for part in (ByteRange(0, 1000), ByteRange(1000, 2000)):
                async with source.open(file, part) as body:
                    suppliers.append(supplier_of(body))
        assert [each if each == ORIGIN else kind_of(each) for each in suppliers] == [self.brings, ORIGIN]


class WithPeer(Mirrored):
    fronts: ClassVar[Collection[Kind]] = ["a peer"]
    brings = "a peer"


class WithCache(Mirrored):
    fronts: ClassVar[Collection[Kind]] = ["a cache"]
    brings = "a cache"
