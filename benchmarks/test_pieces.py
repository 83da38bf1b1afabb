"""Benchmarks of single pieces: sink, lanes, frontier, planner, journal."""

from __future__ import annotations

import asyncio
import socket
import threading
import zlib
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvloop

from fetcher.artifact import CHUNK_SIZE, ByteRange, ChecksumAlgorithm, Digest, RemoteFile
from fetcher.engine.schedule import Schedule
from fetcher.integrity.crc import updated
from fetcher.integrity.frontier import Frontier, Stretch, advance_together, chunk_digest
from fetcher.integrity.lanes import advance, new_sha256
from fetcher.planning.ranges import missing_ranges
from fetcher.store.journal import Journal, JournalledChunk
from fetcher.transport.client import HttpTransport


def open_already(descriptor: int) -> AbstractContextManager[int]:
    return nullcontext(descriptor)


def test_planning_800_gb(benchmark: Any) -> None:
    size = 800 * 10**9
    ranges = benchmark(lambda: list(missing_ranges(size, held=())))
    assert sum(map(len, ranges)) == size


def test_scheduling_2000_files(benchmark: Any) -> None:
    def schedule() -> int:
        queue, finished = Schedule(), 0
        for number in range(2000):
            queue.add(f"file-{number}", [ByteRange(0, 1000)], size=1000)
        while assignment := queue.assign():
            queue.finish(assignment)
            finished += 1
        return finished

    assert benchmark(schedule) == 2000


def test_xxh3_of_a_chunk(benchmark: Any, tmp_path: Path) -> None:
    path = tmp_path / "chunk"
    path.write_bytes(b"\x5a" * CHUNK_SIZE)
    with path.open("rb") as stream:
        assert benchmark(chunk_digest, stream.fileno(), ByteRange(0, CHUNK_SIZE))


@pytest.mark.parametrize("algorithm", ["crc64nvme", "crc32c", "crc32"])
def test_a_crc_of_a_quarter_mebibyte_in_cache(benchmark: Any, algorithm: ChecksumAlgorithm) -> None:
    benchmark(updated, algorithm, 0, bytes(256 * 1024))


def test_crc32_of_zlib_of_a_quarter_mebibyte_in_cache(benchmark: Any) -> None:
    benchmark(zlib.crc32, bytes(256 * 1024))


def test_a_journal_record(benchmark: Any, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", mode=0o644, version="1")
    benchmark(journal.chunk, "model-00001-of-00004.safetensors", 7, JournalledChunk("0" * 32))
    journal.close()


@pytest.mark.parametrize("streams", [1, 4, 16])
def test_sha256_of_a_mebibyte_of_each_stream(benchmark: Any, streams: int) -> None:
    data = memoryview(bytes(1024 * 1024))
    pairs = [(new_sha256(streams=streams), data) for _ in range(streams)]
    benchmark(advance, pairs)


def test_a_frontier_that_follows_16_files(benchmark: Any, tmp_path: Path) -> None:
    buffer, paths = memoryview(bytearray(2 * 1024 * 1024)), [tmp_path / str(number) for number in range(16)]
    for path in paths:
        path.write_bytes(bytes(CHUNK_SIZE))
    digest = Digest("sha256", "0" * 64)

    def follow() -> int:
        with ExitStack() as stack:
            stretches = [
                Stretch(
                    path.name,
                    Frontier(RemoteFile(path.name, CHUNK_SIZE, (digest,)), streams=16),
                    partial(open_already, descriptor),
                    CHUNK_SIZE,
                )
                for path in paths
                for descriptor in [stack.enter_context(path.open("rb")).fileno()]
            ]
            while all(stretch.left for stretch in stretches):
                advance_together(stretches, buffer)
            return sum(stretch.frontier.position for stretch in stretches)

    assert benchmark(follow) == 16 * CHUNK_SIZE


def test_the_sink_receives_a_chunk(benchmark: Any) -> None:
    """The cost of a range without writing and hashing: over loopback from a thread, with TCP and both copies."""
    head = f"HTTP/1.1 206 Partial Content\r\nContent-Length: {CHUNK_SIZE}\r\n\r\n".encode()
    answer, server = head + bytes(CHUNK_SIZE), socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            while connection.recv(65536):
                connection.sendall(answer)

    serving = threading.Thread(target=serve)
    serving.start()
    buffer = memoryview(bytearray(4 * 1024 * 1024))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        transport = HttpTransport(connections=1, timeout_stall=10, read_buffer=64 * 1024)

        async def receive() -> int:
            async with transport.request(f"http://127.0.0.1:{server.getsockname()[1]}/") as response:
                body, seen = response.body(length=CHUNK_SIZE, what="chunk"), 0
                while count := await body.readinto(buffer):
                    seen += count
            return seen

        assert benchmark(lambda: runner.run(receive())) == CHUNK_SIZE
        runner.run(transport.aclose())
    serving.join()
    server.close()
