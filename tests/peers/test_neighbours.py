"""What is learnt from peers: from real servers, and from servers that lie."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme

from fetcher.artifact import CHUNK_SIZE
from fetcher.errors import BadResponse, ConfigurationError, FetchError, NotFound, Unauthorized, Unreachable
from fetcher.manifest import RELATIVE_PATH
from fetcher.peers import MOST, Addresses, Neighbours, PeerTls, Secret, Told, Wanted, addresses_of, asking, connected
from fetcher.peers import neighbours as module
from fetcher.planning.have import HaveMap, Mark, bitmap
from fetcher.planning.swarm import Swarm
from fetcher.serving import Server, Serving, SharedSecret
from tests.lab.waiting import eventually
from tests.serving.certificates import issued
from tests.serving.conftest import Cache, cache, fetched, with_a_credential  # noqa: F401 - fixtures
from tests.serving.test_rights import SECRET

KEY, LISTING = "0123456789abcdef", "ab" * 32
SIZES = {"a": 9 * CHUNK_SIZE + 1, "b": 7, "empty": 0}
MARK = Mark("f" * 16, 3)
MALFORMED = (
    "https://user:hunter2@10.0.0.7:99999",
    "https://10.0.0.7:0",
    "https://[:::::]:8650",
    "https://10.0.0.7:8650/path",
    "",
)


class Learnt:
    """What `Neighbours` reports."""

    def __init__(self) -> None:
        self.chunks: dict[str, int] = {}
        self.nodes: dict[str, str] = {}
        self.left: list[str] = []
        self.errors: list[FetchError] = []
        self.failures: dict[str, FetchError] = {}
        self.asked: list[frozenset[str]] = []
        self.neighbours: Neighbours | None = None
        self.answers = 0

    def heard(self, peer: str, chunks: int, node: str) -> None:
        self.answers += 1
        self.chunks[peer] = chunks
        self.nodes[peer] = node

    def gone(self, peer: str) -> None:
        self.left.append(peer)

    def failed(self, peer: str, error: FetchError) -> None:
        self.errors.append(error)
        self.failures[peer] = error
        if self.neighbours is not None:
            self.asked.append(self.neighbours.peers)


@asynccontextmanager
async def learning(
    given: Addresses,
    wanted: Wanted,
    *,
    secret: Path | None = None,
    environ: dict[str, str] | None = None,
    tls: PeerTls | None = None,
    told: Told | None = None,
) -> AsyncIterator[tuple[Learnt, Neighbours]]:
    """Ask the peers at `given` during the block."""
    learnt = Learnt()
    neighbours = Neighbours(
        given,
        wanted,
        connected(connections=MOST, stall=asking.ANSWER, environ=environ or {}, tls=tls),
        me="me",
        told=told,
        names={},
        secret=Secret(secret) if secret is not None else None,
        heard=learnt.heard,
        failed=learnt.failed,
        gone=learnt.gone,
    )
    learnt.neighbours = neighbours
    running = asyncio.create_task(neighbours.run())
    try:
        yield learnt, neighbours
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.wait([running])
    assert running.cancelled()


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers are asked again at once."""
    monkeypatch.setattr(asking, "every", lambda _: 0.01)
    monkeypatch.setattr(asking, "FIRST", 0.01)
    monkeypatch.setattr(module, "SOON", 0.01)
    monkeypatch.setattr(module, "EVERY", 0.01)


class TestARealServer:
    @pytest.fixture
    def start(self, cache: Cache) -> Iterator[Callable[..., str]]:  # noqa: F811
        with ExitStack() as stack:

            def started(**fields: Any) -> str:
                server = Server(Serving(root=cache.root, **fields), warn=lambda _: None)
                stack.callback(server.drain, 0.0)
                return server.where

            yield started

    @staticmethod
    def wanted(cache: Cache) -> Wanted:  # noqa: F811
        return Wanted(cache.key, cache.offer.listing, {path: file.size for path, file in cache.offer.files.items()})

    async def test_a_complete_peer_has_every_chunk(self, cache: Cache, start: Callable[..., str]) -> None:  # noqa: F811
        where, wanted = start(), self.wanted(cache)
        async with learning(addresses_of([where]), wanted) as (learnt, _):
            await eventually(lambda: where in learnt.chunks, "its map")
        assert learnt.chunks[where] == (1 << wanted.layout.chunks) - 1 > 0

    async def test_the_swarm_asks_it_for_a_chunk(self, cache: Cache, start: Callable[..., str]) -> None:  # noqa: F811
        where, wanted = start(), self.wanted(cache)
        swarm = Swarm("http://me", wanted.layout, 1, Random(0), began=0.0)
        async with learning(addresses_of([where]), wanted) as (learnt, _):
            await eventually(lambda: where in learnt.chunks, "its map")
        swarm.heard(where, learnt.chunks[where], now=0.0)
        ask = swarm.next(0.1)
        assert ask is not None
        assert ask.supplier == where

    async def test_an_artifact_that_goes_and_comes_is_told_of(self, cache: Cache, start: Callable[..., str]) -> None:  # noqa: F811
        where, wanted = start(), self.wanted(cache)
        record = cache.directory / RELATIVE_PATH
        async with learning(addresses_of([where]), wanted) as (learnt, _):
            await eventually(lambda: where in learnt.chunks, "its map")
            shutil.move(record, record.with_name("aside"))
            await eventually(lambda: bool(learnt.errors), "that it is gone")
            learnt.chunks.clear()
            shutil.move(record.with_name("aside"), record)
            await eventually(lambda: where in learnt.chunks, "its map again")
        assert all(isinstance(error, NotFound) for error in learnt.errors)

    async def test_a_secret_is_shown_over_tls_and_read_again_when_it_changes(
        self,
        cache: Cache,  # noqa: F811
        start: Callable[..., str],
        authority: trustme.CA,
        authority_file: Path,
        tmp_path: Path,
    ) -> None:
        theirs, ours = tmp_path / "theirs", tmp_path / "ours"
        theirs.write_text(SECRET)
        ours.write_text("x" * 20)
        where = start(certificates=issued(authority, tmp_path), authorization=SharedSecret(theirs))
        environ = {"SSL_CERT_FILE": str(authority_file), "HTTPS_PROXY": "http://127.0.0.1:9"}
        given, wanted = addresses_of([where]), self.wanted(cache)
        with_a_credential(cache.directory)
        async with learning(given, wanted, secret=ours, environ=environ) as (learnt, _):
            await eventually(lambda: bool(learnt.errors), "a refusal")
            ours.write_text(f"{SECRET}\nlater\n")
            await eventually(lambda: where in learnt.chunks, "its map")
        assert all(isinstance(error, Unauthorized) for error in learnt.errors)
        assert SECRET not in "".join(map(str, learnt.errors))

    async def test_a_peer_that_is_gone_is_asked_again_until_it_is_back(self, cache: Cache, start: Callable[..., str]) -> None:  # noqa: F811
        where, wanted = start(), self.wanted(cache)
        port = urlsplit(where).port
        async with learning(addresses_of([f"http://127.0.0.2:{port}"]), wanted) as (learnt, _):
            await eventually(lambda: len(learnt.errors) >= 2, "it is asked twice")
            start(address="127.0.0.2", port=port)
            await eventually(lambda: bool(learnt.chunks), "its map")
        assert all(isinstance(error, Unreachable) for error in learnt.errors)

    async def test_the_addresses_of_a_name_are_peers(self, cache: Cache, start: Callable[..., str]) -> None:  # noqa: F811
        where, wanted = start(), self.wanted(cache)
        given = addresses_of([f"dns://localhost:{urlsplit(where).port}"])
        async with learning(given, wanted) as (learnt, neighbours):
            await eventually(lambda: where in learnt.chunks, "its map")
            assert where in neighbours.peers

    async def test_who_joins_is_asked_and_who_leaves_no_longer(
        self,
        cache: Cache,  # noqa: F811
        start: Callable[..., str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        named = ["127.0.0.1"]

        async def resolved(_: object) -> list[str]:
            return named

        monkeypatch.setattr(module, "resolved", resolved)
        monkeypatch.setattr("fetcher.peers.membership.ABSENT", 0.0)
        first = start()
        port = urlsplit(first).port
        second = start(address="127.0.0.2", port=port)
        async with learning(addresses_of([f"dns://cache:{port}"]), self.wanted(cache)) as (learnt, neighbours):
            await eventually(lambda: first in learnt.chunks, "the first one's map")
            named[:] = ["127.0.0.2"]
            await eventually(lambda: second in learnt.chunks, "the second one's map")
            await eventually(lambda: neighbours.peers == {second}, "the first one leaves")

    async def test_an_address_that_is_none_keeps_nobody_from_those_that_are_told_beside_it(
        self,
        cache: Cache,  # noqa: F811
        start: Callable[..., str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(module, "TOLD_EVERY", 0.01)
        first, told = start(), list(MALFORMED)
        async with learning(Addresses(), self.wanted(cache), told=lambda: told) as (learnt, neighbours):
            await eventually(lambda: learnt.failures.keys() >= {"10.0.0.7:99999"}, "what is wrong is said")
            told.append(first)
            await eventually(lambda: first in learnt.chunks, "the map of one who is told later")
            assert neighbours.peers == {first}
        assert learnt.failures.keys() == {each.removeprefix("https://user:hunter2@") for each in MALFORMED}
        assert all(isinstance(error, ConfigurationError) for error in learnt.errors)

    async def test_what_is_wrong_is_said_once_it_is_known_who_is_asked(
        self,
        cache: Cache,  # noqa: F811
        start: Callable[..., str],
    ) -> None:
        """Else a fetch would take it that there is nobody to wait for."""
        first = start()
        async with learning(Addresses(), self.wanted(cache), told=lambda: [*MALFORMED, first]) as (learnt, _):
            await eventually(lambda: bool(learnt.asked), "what is wrong is said")
        assert set(learnt.asked) == {frozenset({first})}


class Liar:
    """A server that answers each request with the next of `answers`, the last of them for ever."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.requests: list[str] = []
        self.sent = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.requests.append(head.decode().split(" ")[1])
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if answer == ENDLESS:
                    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                    while True:
                        writer.write(b"10000\r\n%s\r\n" % (b" " * 0x10000))
                        self.sent += 0x10000
                        await writer.drain()
                writer.write(answer)
                await writer.drain()
                if answer == HEAD_ONLY:
                    await reader.read()
        except (OSError, EOFError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


ENDLESS, HEAD_ONLY = b"endless", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"


def http(body: bytes, status: str = "200 OK", *fields: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields, "", ""]
    return "\r\n".join(lines).encode() + body


def have(**changed: Any) -> bytes:
    document = {"format": 1, "listing": LISTING, "at": str(MARK), "chunk_size": CHUNK_SIZE, "complete": True, **changed}
    return http(json.dumps(document).encode())


@asynccontextmanager
async def lied_to(liar: Liar) -> AsyncIterator[Learnt]:
    server = await asyncio.start_server(liar.answer, "127.0.0.1", 0)
    where = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        async with learning(addresses_of([where]), Wanted(KEY, LISTING, SIZES)) as (learnt, _):
            yield learnt
    finally:
        server.close()
        await server.wait_closed()


LIES = {
    "the map of another listing": have(listing="cd" * 32),
    "another size of chunks": have(chunk_size=1),
    "a file that is not listed": have(complete=False, files={"c": "AQ=="}),
    "a bitmap that is too long": have(complete=False, files={"b": "AQEB"}),
    "a chunk beyond the file": have(complete=False, files={"b": "Ag=="}),
    "no map": http(b"[]"),
    "deep nonsense": http(b"[" * 500),
    "too much": http(b" " * 5000),
    "no end": ENDLESS,
    "a redirect": http(b"", "302 Found", "Location: http://127.0.0.1:9/"),
    "a compressed bomb": http(b"\x1f\x8b", "200 OK", "Content-Encoding: gzip"),
    "an error": http(b"", "500 Oops"),
    "no HTTP": b"SSH-2.0-x\r\n",
}


class TestALiar:
    @pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
    async def test_what_is_no_map_is_a_failure_and_an_honest_answer_counts_again(self, lie: bytes) -> None:
        liar = Liar(lie, have())
        async with lied_to(liar) as learnt:
            await eventually(lambda: bool(learnt.chunks), "the honest answer")
        assert isinstance(learnt.errors[0], BadResponse | Unreachable)
        assert "&since=" not in liar.requests[1]
        assert liar.sent < 32 * 1024 * 1024

    async def test_an_answer_that_never_ends_costs_seconds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(asking, "ANSWER", 0.05)
        async with lied_to(Liar(HEAD_ONLY, have())) as learnt:
            await eventually(lambda: bool(learnt.chunks), "the honest answer")
        assert isinstance(learnt.errors[0], BadResponse)

    async def test_a_peer_that_always_has_news_is_asked_no_more_often_than_another(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(asking, "every", lambda _: 3600.0)
        liar = Liar(have())
        async with lied_to(liar) as learnt:
            await eventually(lambda: learnt.answers == 1, "an answer")
            for _ in range(20):
                await asyncio.sleep(0)
        assert len(liar.requests) == 1

    async def test_changes_are_put_on_what_was_told_before(self) -> None:
        first = HaveMap(LISTING, MARK, CHUNK_SIZE, complete=False, files={"a": bitmap({0, 9}, 10), "b": bitmap({0}, 1)})
        later = HaveMap(LISTING, Mark(MARK.epoch, 4), CHUNK_SIZE, complete=False, files={"b": bitmap((), 1)})
        liar = Liar(http(first.to_bytes()), http(later.to_bytes()))
        async with lied_to(liar) as learnt:
            await eventually(lambda: learnt.answers >= 2, "both answers")
        assert set(learnt.chunks.values()) == {1 | 1 << 9}
        assert liar.requests[0] == f"/v1/{KEY}/have?listing={LISTING}"
        assert liar.requests[1] == f"/v1/{KEY}/have?listing={LISTING}&since={MARK}&wait=5"


@pytest.mark.parametrize(
    ("error", "failures", "pause"),
    [
        (Unreachable("x"), 1, 1.0),
        (Unreachable("x"), 4, 8.0),
        (Unreachable("x"), 100, 60.0),
        (NotFound("x"), 1, 0.5),
        (NotFound("x"), 100, 2.0),
        (Unreachable("x", retry_after=30.0), 1, 30.0),
        (Unreachable("x", retry_after=1e9), 1, 60.0),
    ],
)
def test_a_peer_that_fails_is_left_alone_for_longer_each_time(
    error: FetchError, failures: int, pause: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "FIRST", 1.0)
    assert vars(asking)["_pause"](error, failures) == pause


async def test_a_name_without_an_address_has_no_peers() -> None:
    assert await module.resolved(addresses_of(["dns://nowhere.invalid:1"]).names[0]) == []
