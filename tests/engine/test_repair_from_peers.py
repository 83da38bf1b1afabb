"""A repair asks peers for damaged chunks, as a fetch does. None of them is trusted, and the origin lists the files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fetcher.artifact import CHUNK_SIZE, ORIGIN
from fetcher.events import BytesReceived, MirrorBanned, PeersFound
from fetcher.serving import Server, Serving
from fetcher.testing.faults import Fault
from fetcher.testing.interruptions import Reset
from fetcher.testing.origin import Origin
from tests.engine.conftest import FILES, Fetcher, MiB, contents
from tests.engine.test_repair import OTHER, SHARD, Repairer, damage, weights_requested
from tests.lab.command import run_fetcher

BAD = CHUNK_SIZE + 5
"""A byte of the second chunk of a shard."""
Serve = Callable[[Path], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a server of a root. Returns its base URL."""
    with ExitStack() as stack:

        def serve(root: Path) -> str:
            server = Server(Serving(root=root), warn=lambda _: None)
            stack.callback(server.drain, 0.0)
            return server.where

        yield serve


@pytest.fixture
async def peer(origin: Origin, tmp_path: Path) -> Path:
    """The root of another node that has the model."""
    origin.add_repo("org/model", FILES)
    await Fetcher(tmp_path / "peer")()
    return tmp_path / "peer"


@pytest.fixture
async def model(fetch: Fetcher, peer: Path) -> Path:  # noqa: ARG001 - it has the model too, on its Hub
    """The directory of the model here."""
    return (await fetch()).path


@pytest.fixture
def repaired(fetch: Fetcher) -> Repairer:
    return Repairer(fetch.cache_dir)


def brought(repaired: Repairer) -> dict[str, int]:
    """The bytes of each supplier."""
    count: dict[str, int] = {}
    for event in repaired.events:
        if isinstance(event, BytesReceived):
            count[event.supplier] = count.get(event.supplier, 0) + event.bytes
    return count


def weights_of(root: Path, name: str = SHARD) -> Path:
    (path,) = (each for each in root.rglob(name) if ".fetcher" not in each.parts)
    return path


async def test_damaged_chunks_come_from_a_peer_and_the_origin_sends_none(
    origin: Origin, peer: Path, model: Path, repaired: Repairer, serve: Serve
) -> None:
    damage(model / SHARD, BAD)
    damage(model / OTHER, 0)
    origin.clear_requests()
    where = serve(peer)
    report = await repaired(mirrors=(where,))
    assert (report.ok, set(report.repaired)) == (True, {SHARD, OTHER})
    assert contents(model) == FILES
    assert brought(repaired) == {where: report.fetched}
    assert weights_requested(origin) == []


async def test_a_complete_peer_suffices_once_the_origin_has_listed_the_files(
    origin: Origin, peer: Path, model: Path, repaired: Repairer, serve: Serve
) -> None:
    (model / SHARD).unlink()
    origin.faults.add(Fault(Reset(), path="/resolve/"))
    assert (await repaired(mirrors=(serve(peer),))).ok
    assert contents(model) == FILES


async def test_a_peer_that_lies_cannot_repair_wrongly_and_is_banned(
    peer: Path, model: Path, repaired: Repairer, serve: Serve
) -> None:
    damage(model / SHARD, BAD)
    damage(weights_of(peer), BAD + 1)
    liar = serve(peer)
    report = await repaired(mirrors=(liar,))
    assert (report.ok, report.repaired) == (True, (SHARD,))
    assert contents(model) == FILES
    assert [event for event in repaired.events if isinstance(event, MirrorBanned)] == [MirrorBanned(liar, SHARD)]
    assert brought(repaired) == {liar: 4 * MiB + 7, ORIGIN: 4 * MiB + 7}, "the good chunk is not fetched again"


async def test_the_server_of_the_damaged_root_is_not_asked(peer: Path, model: Path, repaired: Repairer, serve: Serve) -> None:
    """Nodes list each other, themselves included; its own bytes are the damaged ones."""
    damage(model / SHARD, BAD)
    own, other = serve(repaired.root), serve(peer)
    report = await repaired(mirrors=(own, other))
    assert report.ok
    assert brought(repaired) == {other: report.fetched}
    assert [event for event in repaired.events if isinstance(event, PeersFound)] == [PeersFound(1, 1, passed_on=True)]


async def test_when_a_peer_has_the_same_damage_the_origin_brings_the_chunk(
    peer: Path, model: Path, repaired: Repairer, serve: Serve
) -> None:
    damage(model / SHARD, BAD)
    damage(weights_of(peer), BAD)
    assert (await repaired(mirrors=(serve(peer),))).ok
    assert contents(model) == FILES


async def test_without_a_peer_that_answers_the_origin_brings_all(model: Path, repaired: Repairer) -> None:
    damage(model / SHARD, BAD)
    report = await repaired(mirrors=("http://127.0.0.1:9",))
    assert report.ok
    assert brought(repaired) == {ORIGIN: 4 * MiB + 7}


async def test_the_command_takes_mirrors(origin: Origin, peer: Path, model: Path, repaired: Repairer, serve: Serve) -> None:
    damage(model / SHARD, BAD)
    origin.clear_requests()
    words = ("--cache-dir", repaired.root, "--repair", "--mirror", serve(peer))
    done = run_fetcher("verify", "hf://org/model", *words, env={"HF_ENDPOINT": origin.endpoint})
    assert done.returncode == 0, done.stderr
    assert f"{model}/{SHARD}: repaired" in done.stdout
    assert weights_requested(origin) == []
