"""What is served of a fetch under way: the chunks that it had from the origin, while it has them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from fetcher.artifact import CHUNK_SIZE, ArtifactRef
from fetcher.cache.open_chunk import PIECE
from fetcher.serving import SharedSecret, Times
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.faults import Fault
from fetcher.testing.interruptions import Stall
from fetcher.testing.origin import Origin
from tests.lab.command import end, started_fetcher
from tests.lab.memory import most_resident
from tests.lab.waiting import wait_until
from tests.serving.conftest import Running, Start
from tests.serving.peer import Peer
from tests.serving.test_rights import SECRET

MiB = 1024 * 1024
URI = "hf://org/model"
KEY = ArtifactRef(URI).key
FIRST, SECOND = random_bytes("first", CHUNK_SIZE + 3 * MiB), random_bytes("second", 2 * MiB)
FILES = {"config.json": b"{}", "first.safetensors": FIRST, "second.safetensors": SECOND}
QUICK = Times(poll=60.0, tick=0.02)


class Fetch:
    """A fetch whose second file does not come before `origin` is repaired."""

    def __init__(self, origin: Origin, root: Path, stack: ExitStack) -> None:
        self.origin = origin
        self.root = root
        self._stack = stack
        self.listing = ""

    def begin(self, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start it, and wait until the first file is there."""
        before = self._journals()
        words = ("--timeout-stall", "1", "--max-concurrency", "2")
        process = started_fetcher(
            "fetch", URI, "--cache-dir", self.root, *words, env={"HF_ENDPOINT": self.origin.endpoint, **(env or {})}
        )
        self._stack.callback(end, process)
        verified = b'["verified","first.safetensors"]'
        wait_until(lambda: any(verified in path.read_bytes() for path in self._journals() - before), "the first file")
        return process

    def _journals(self) -> set[Path]:
        return set((self.root / ".fetcher" / "staging" / KEY).glob("journal.*"))

    @property
    def staged(self) -> Path:
        """The staged first file."""
        (path,) = (self.root / ".fetcher" / "staging" / KEY).glob("data.*/first.safetensors")
        return path


@pytest.fixture
def fetch(tmp_path: Path) -> Iterator[Fetch]:
    with Origin(lfs_threshold=MiB, tokens=["hf_reader"]) as origin, ExitStack() as stack:
        origin.add_repo("org/model", FILES)
        origin.faults.add(Fault(Stall(after=0), origin="cdn", path="second"))
        (tmp_path / "cache").mkdir()
        yield Fetch(origin, tmp_path / "cache", stack)


@pytest.fixture
def running(fetch: Fetch, start: Start) -> Running:
    return start(root=fetch.root, times=QUICK)


def told(peer: Peer, query: str = "") -> dict[str, object]:
    answer = peer.get(f"/v1/{KEY}/have{query}")
    assert answer.status == 200, answer
    found: dict[str, object] = json.loads(answer.body)
    return found


def address(document: dict[str, object], name: str = "first.safetensors") -> str:
    return f"/v1/{KEY}/{document['listing']}/{name}"


class TestWhatIsServed:
    def test_its_map_tells_the_chunks_that_are_here(self, fetch: Fetch, running: Running) -> None:
        fetch.begin()
        with running.peer() as peer:
            document = told(peer)
        assert document["complete"] is False
        assert document["files"] == {"config.json": "AQ==", "first.safetensors": "Aw==", "second.safetensors": "AA=="}

    def test_a_file_a_range_and_a_head_are_those_of_a_published_file(self, fetch: Fetch, running: Running) -> None:
        fetch.begin()
        with running.peer() as peer:
            there = address(told(peer))
            assert peer.get(there).body == FIRST
            across = peer.get(there, Range=f"bytes={CHUNK_SIZE - 7}-{CHUNK_SIZE + 8}")
            assert (across.status, across.body) == (206, FIRST[CHUNK_SIZE - 7 : CHUNK_SIZE + 9])
            assert across.fields["ETag"].startswith('"sha256:')
            assert peer.get(there, method="HEAD").fields["Content-Length"] == str(len(FIRST))

    def test_what_is_not_here_yet_and_another_listing_are_404(self, fetch: Fetch, running: Running) -> None:
        fetch.begin()
        with running.peer() as peer:
            document = told(peer)
            assert peer.get(address(document, "second.safetensors")).status == 404
            assert peer.get(address({"listing": "ab" * 32})).status == 404
            assert peer.get(f"/v1/{KEY}/have?listing={'ab' * 32}").status == 404

    def test_a_damaged_chunk_is_not_sent_and_others_are(self, fetch: Fetch, running: Running) -> None:
        fetch.begin()
        with running.peer() as peer:
            there = address(told(peer))
            descriptor = os.open(fetch.staged, os.O_WRONLY)
            os.pwrite(descriptor, bytes([FIRST[-1] ^ 1]), len(FIRST) - 1)
            os.close(descriptor)
            assert peer.get(there, Range=f"bytes={CHUNK_SIZE}-{CHUNK_SIZE}").status == 404
            assert peer.get(there, Range="bytes=0-99").body == FIRST[:100]
        with running.peer() as peer:
            # The head was sent when the damage was found: the connection ends without the rest.
            peer.send(f"GET {there} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            received = b"".join(iter(lambda: peer.read(MiB), b""))
        assert received.partition(b"\r\n\r\n")[2] == FIRST[:CHUNK_SIZE]

    def test_a_byte_that_changes_while_its_chunk_is_sent_is_not_sent(self, fetch: Fetch, running: Running) -> None:
        """The last piece of the chunk was right when the chunk was compared, and is another one when its turn comes."""
        fetch.begin()
        with running.peer(buffer=64 * 1024) as peer:
            peer.send(f"GET {address(told(peer))} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert peer.read(1) == b"H"
            descriptor = os.open(fetch.staged, os.O_WRONLY)
            os.pwrite(descriptor, bytes([FIRST[CHUNK_SIZE - 1] ^ 1]), CHUNK_SIZE - 1)
            os.close(descriptor)
            received = b"".join(iter(lambda: peer.read(MiB), b""))
        assert received.partition(b"\r\n\r\n")[2] == FIRST[: CHUNK_SIZE - PIECE]


class TestItsEnd:
    def test_a_killed_fetch_offers_nothing_and_its_successor_the_same(self, fetch: Fetch, running: Running) -> None:
        process = fetch.begin()
        with running.peer() as peer:
            document = told(peer)
            process.kill()
            process.wait()
            assert peer.get(address(document)).status == 404
            wait_until(lambda: peer.get(f"/v1/{KEY}/have").status == 404, "its map is gone")
            fetch.begin()
            assert peer.get(address(document)).body == FIRST

    def test_who_waits_is_told_that_a_fetch_was_killed(self, fetch: Fetch, running: Running) -> None:
        process = fetch.begin()
        with running.peer() as peer:
            peer.send(f"GET /v1/{KEY}/have?since={told(peer)['at']} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            wait_until(lambda: running.server.counts.polls == 1, "the peer waits")
            process.kill()
            assert peer.receive().status == 404

    def test_an_address_goes_on_working_when_the_fetch_publishes(self, fetch: Fetch, running: Running) -> None:
        process = fetch.begin()
        with running.peer() as peer:
            document = told(peer)
            fetch.origin.faults.clear()
            statuses = set()
            while process.poll() is None:
                statuses.add(peer.get(address(document), Range="bytes=0-99").status)
                statuses.add(peer.get(f"/v1/{KEY}/have").status)
            assert process.returncode == 0
            assert statuses == {206, 200}
            assert peer.get(address(document, "second.safetensors")).body == SECOND
            assert told(peer, f"?listing={document['listing']}")["complete"] is True

    def test_who_waits_is_told_of_the_next_chunks_and_that_all_are_published(self, fetch: Fetch, running: Running) -> None:
        process = fetch.begin()
        with running.peer() as peer:
            document = told(peer)
            fetch.origin.faults.clear()
            seen = []
            while not document["complete"]:
                document = told(peer, f"?since={document['at']}")
                seen.append(document.get("files"))
        assert seen[-1] is None
        assert all(files == {"second.safetensors": "AQ=="} for files in seen[:-1])
        assert process.wait(20) == 0

    def test_an_upload_of_several_chunks_outlives_the_publication(self, fetch: Fetch, running: Running) -> None:
        process = fetch.begin()
        with running.peer(buffer=MiB) as peer:
            peer.send(f"GET {address(told(peer))} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            wait_until(lambda: running.server.counts.uploads == 1, "the first chunk is being sent")
            fetch.origin.faults.clear()
            assert process.wait(20) == 0
            assert peer.receive().body == FIRST


class TestWhoMayHaveIt:
    def test_what_a_credential_was_used_for_is_for_who_has_a_right(self, fetch: Fetch, start: Start, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text(SECRET)
        fetch.begin(env={"HF_TOKEN": "hf_reader"})
        with start(root=fetch.root).peer() as peer:
            assert peer.get(f"/v1/{KEY}/have").status == 404
        with start(root=fetch.root, authorization=SharedSecret(tmp_path / "secret")).peer() as peer:
            assert peer.get(f"/v1/{KEY}/have").status == 401
            answer = peer.get(f"/v1/{KEY}/have", Authorization=f"Bearer {SECRET}")
            there = address(json.loads(answer.body))
            assert peer.get(there).status == 401
            assert peer.get(there, Authorization=f"Bearer {SECRET}").body == FIRST

    def test_it_stays_so_when_the_fetch_goes_on_without_the_credential(self, fetch: Fetch, running: Running) -> None:
        end(fetch.begin(env={"HF_TOKEN": "hf_reader"}))
        fetch.begin()
        with running.peer() as peer:
            assert peer.get(f"/v1/{KEY}/have").status == 404


def test_an_upload_of_a_fetch_under_way_takes_the_memory_of_a_piece(fetch: Fetch) -> None:
    """16 peers that read nothing further: each upload has a piece of a chunk in memory, none the chunk."""
    fetch.begin()
    with ExitStack() as stack:
        process = started_fetcher("serve", "--cache-dir", fetch.root, "--listen", "127.0.0.1:0")
        stack.callback(end, process)
        assert process.stdout is not None
        where = process.stdout.readline().strip()
        peers = [stack.enter_context(Peer(where, buffer=64 * 1024)) for _ in range(16)]
        there = address(told(peers[0]))
        before = most_resident(process)
        for peer in peers:
            peer.send(f"GET {there} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        for peer in peers:
            assert peer.read(13) == b"HTTP/1.1 200 "
        assert most_resident(process) - before < 16 * 2 * PIECE


def test_the_command_serves_what_another_process_fetches(fetch: Fetch) -> None:
    with ExitStack() as stack:
        process = started_fetcher("serve", "--cache-dir", fetch.root, "--listen", "127.0.0.1:0")
        stack.callback(end, process)
        assert process.stdout is not None
        where = process.stdout.readline().strip()
        fetch.begin()
        with Peer(where) as peer:
            assert peer.get(address(told(peer))).body == FIRST
