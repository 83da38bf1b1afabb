"""The schedule of a fetch with peers. What peers have is told here; the guide and its swarm are the real ones."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from pathlib import Path

import pytest

from fetcher.artifact import CHUNK_SIZE, ArtifactRef, ByteRange, Digest, RemoteFile, listing_digest
from fetcher.engine.guided import GuidedSchedule
from fetcher.engine.schedule import Assignment, Progress
from fetcher.events import silent
from fetcher.peers import Addresses, connected
from fetcher.quantities import ceil_div
from fetcher.settings import Settings
from fetcher.sources import open_source
from fetcher.sources.mirrors.fetch import Fetch, Peers
from fetcher.sources.mirrors.guiding import Guiding
from fetcher.transport.client import HttpTransport

PEER = "http://10.0.0.7:8650"
DIGEST = (Digest("sha256", "0" * 64),)
LARGE, SMALL = 4 * CHUNK_SIZE, 1000
WHOLE = 1 << 40
"""Bytes of a range, more than any file has."""


ORIGIN = open_source(ArtifactRef("https://models.invalid/model"), Settings(cache_dir=Path("/nowhere")))
"""Nothing is opened here."""


def files(sizes: dict[str, int]) -> list[RemoteFile]:
    """Listed files. Those in capitals have no digest."""
    return [RemoteFile(path, size, () if path.isupper() else DIGEST) for path, size in sizes.items()]


class Scene:
    """A guide of files of these sizes, and the schedule that follows it. All files are missing unless they are `here`."""

    def __init__(self, transport: HttpTransport, sizes: dict[str, int], here: Iterable[str] = ()) -> None:
        listed = files(sizes)
        fetch = Fetch("0" * 16, listed, listing_digest(listed), None, passed_on=False)
        peers = Peers(Addresses(), None, None, lambda: transport, transport)
        self.guide = Guiding(fetch, peers, ORIGIN, silent)
        self.guide.swarm.settle = 0.0
        self.schedule = GuidedSchedule(self.guide)
        self.schedule.look([], connections=16)
        for path, size in sizes.items():
            if path not in here:
                self.schedule.add(path, [ByteRange(0, size)], size=size)

    def heard(self) -> None:
        """A peer that has everything answers."""
        swarm = self.guide.swarm
        swarm.heard(PEER, (1 << swarm.layout.chunks) - 1, asyncio.get_running_loop().time())

    def next(self) -> Assignment:
        (assigned,) = filter(None, [self.schedule.assign(longest=WHOLE)])
        return assigned

    def all(self, *, among: Collection[str] | None = None) -> list[Assignment]:
        """Everything that can be asked for now."""
        assigned = iter(lambda: self.schedule.assign(longest=WHOLE, among=among), None)
        return [each for each in assigned if each is not None]


@pytest.fixture
async def scene() -> AsyncIterator[Callable[..., Scene]]:
    transport = connected(connections=1, stall=1.0, environ=os.environ, tls=None)
    yield lambda sizes, **options: Scene(transport, sizes, **options)
    await transport.aclose()


MakeScene = Callable[..., Scene]


def shown(assignments: Iterable[Assignment]) -> list[tuple[str, int, int | None, str]]:
    """Path, chunks from and to, and who is asked: the engine's own order asks the source."""
    return [
        (
            each.path,
            each.start // CHUNK_SIZE,
            None if each.stop is None else ceil_div(each.stop, CHUNK_SIZE),
            each.turn.supplier if each.turn is not None else "the source",
        )
        for each in assignments
    ]


def chunks(*assignments: Assignment) -> list[int]:
    return [chunk for _, first, stop, _ in shown(assignments) for chunk in range(first, stop or first)]


class TestWithoutPeers:
    async def test_files_come_in_the_order_of_the_engine(self, scene: MakeScene) -> None:
        assert shown(scene({"a": SMALL, "b": LARGE}).all()) == [("b", 0, 4, "the source"), ("a", 0, 1, "the source")]

    async def test_idle_connections_steal(self, scene: MakeScene) -> None:
        slow = (given := scene({"a": LARGE})).next()
        stolen = given.schedule.steal([Progress(slow, 0, 1.0)])
        assert stolen is not None
        assert shown([slow, stolen]) == [("a", 0, 2, "the source"), ("a", 2, 4, "the source")]


class TestWithPeers:
    async def test_each_chunk_is_asked_for_once_and_of_who_has_it(self, scene: MakeScene) -> None:
        (given := scene({"a": SMALL, "b": LARGE})).heard()
        assert sorted(shown(given.all())) == [("a", 0, 1, PEER), *(("b", each, each + 1, PEER) for each in range(4))]

    async def test_turns_are_not_stolen(self, scene: MakeScene) -> None:
        (given := scene({"a": LARGE})).heard()
        assert given.schedule.steal([Progress(each, each.start, 1.0) for each in given.all()]) is None

    async def test_a_file_without_a_digest_comes_in_the_order_of_the_engine(self, scene: MakeScene) -> None:
        (given := scene({"A": LARGE, "b": SMALL})).heard()
        assert shown(given.all()) == [("A", 0, 4, "the source"), ("b", 0, 1, PEER)]

    async def test_a_file_that_the_origin_sends_in_one_piece_only_is_its_own_from_then_on(self, scene: MakeScene) -> None:
        given = scene({"a": LARGE})
        given.schedule.clear("a")
        given.schedule.add("a", [None], size=LARGE)
        given.heard()
        assert shown(given.all()) == [("a", 0, None, "the source")]

    async def test_without_room_for_more_files_only_begun_ones_go_on(self, scene: MakeScene) -> None:
        (given := scene({"a": LARGE, "b": LARGE})).heard()
        first = given.next()
        assert {each.path for each in given.all(among=[first.path])} == {first.path}

    async def test_what_is_missing_of_a_turn_is_asked_for_again(self, scene: MakeScene) -> None:
        (given := scene({"a": SMALL})).heard()
        (turn,) = given.all()
        given.schedule.finish(turn)
        assert given.all() == []
        given.schedule.add("a", [ByteRange(500, SMALL)], size=SMALL)
        (again,) = given.all()
        assert (again.start, again.stop) == (500, SMALL)

    async def test_files_that_are_here_already_delay_nothing(self, scene: MakeScene) -> None:
        """The guide learns of them when it wants them: the same call goes on to the next."""
        here = {f"here-{number}": SMALL for number in range(50)}
        (given := scene({**here, "missing": SMALL}, here=here)).heard()
        assert shown([given.next()]) == [("missing", 0, 1, PEER)]


class TestWhenAPeerIsFound:
    async def test_what_is_under_way_ends_with_its_chunk_and_others_bring_the_rest(self, scene: MakeScene) -> None:
        given = scene({"a": LARGE, "A": LARGE})
        whole, other = sorted(given.all(), key=lambda each: each.path, reverse=True)
        given.heard()
        given.schedule.look([Progress(whole, CHUNK_SIZE + 5, 1.0), Progress(other, 5, 1.0)], connections=16)
        assert shown([whole, other]) == [("a", 0, 2, "the source"), ("A", 0, 4, "the source")]
        assert sorted(shown(given.all())) == [("a", 2, 3, PEER), ("a", 3, 4, PEER)]

    async def test_turns_of_peers_go_on(self, scene: MakeScene) -> None:
        (given := scene({"a": LARGE})).heard()
        turns = given.all()
        given.schedule.look([Progress(each, each.start, 1.0) for each in turns], connections=16)
        assert sorted(chunks(*turns)) == [0, 1, 2, 3]
        assert given.all() == []

    async def test_when_the_peer_is_gone_the_rest_comes_in_the_order_of_the_engine(self, scene: MakeScene) -> None:
        (given := scene({"a": LARGE})).heard()
        turn = given.next()
        given.guide.swarm.gone(PEER)
        rest = given.all()
        assert {each.turn for each in rest} == {None}
        assert sorted(chunks(turn, *rest)) == [0, 1, 2, 3]
