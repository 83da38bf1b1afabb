"""A few threads write each byte to the file once, up to the end of the assignment."""

from __future__ import annotations

import asyncio
import os
import threading
from dataclasses import dataclass, field
from typing import cast

import pytest

from fetcher.engine.buffers import BufferPool
from fetcher.engine.incoming import Cursor, Incoming
from fetcher.engine.pace import RateLimit
from fetcher.engine.pull import Pull
from fetcher.engine.receiving import NICENESS, TURN, Receiver
from fetcher.engine.schedule import Assignment
from fetcher.errors import Stalled
from fetcher.integrity.digests import new_chunk_hasher
from fetcher.store.lease import Lease
from fetcher.testing.checkpoint import random_bytes

CONTENT = random_bytes("receiving", 3 * TURN)


class Held:
    """A lease that is never lost."""

    def check(self) -> None:
        pass


@dataclass
class Target:
    """An `Incoming` in memory."""

    content: bytearray = field(default_factory=lambda: bytearray(len(CONTENT)))
    path: str = "f"

    def write(self, cursor: Cursor, data: memoryview) -> int:
        self.content[cursor.position : cursor.position + len(data)] = data
        cursor.position += len(data)
        return 0

    def is_next(self, cursor: Cursor) -> bool:
        return False

    def claim(self, cursor: Cursor) -> None:
        pass

    def release(self, cursor: Cursor) -> int:
        return 0


@dataclass
class Kernel:
    """A body in the kernel. `comes` are the numbers of bytes that arrive before each read."""

    comes: list[int]
    position: int = 0
    available: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    ended: bool = False
    """Whether it was read once more after its last byte."""

    @property
    def direct(self) -> Kernel:
        return self

    async def readinto(self, buffer: memoryview) -> int:
        raise AssertionError("it is taken, not handed over")

    async def readable(self, room: int) -> bool:
        self.asked.set()
        await asyncio.sleep(0.01)
        if self.position == len(CONTENT):
            self.ended = True
            return False
        if not self.comes:
            raise Stalled("nothing more")
        self.available += self.comes.pop(0)
        return True

    def read(self, buffer: memoryview) -> int:
        count = min(len(buffer), self.available)
        buffer[:count] = CONTENT[self.position : self.position + count]
        self.position += count
        self.available -= count
        return count


@dataclass
class Bench:
    receiver: Receiver
    written: list[int]


def made(*, yielding: bool) -> Bench:
    written: list[int] = []
    receiver = Receiver(
        pool=BufferPool(2, 1024),
        threads=2,
        buffer=1024 * 1024,
        rate=RateLimit(None),
        lease=cast(Lease, Held()),
        yielding=yielding,
        received=lambda _: None,
        written=lambda _, what: written.append(what.count),
        hashed=lambda _, count: None,
    )
    return Bench(receiver, written)


@pytest.fixture
def bench() -> Bench:
    return made(yielding=True)


async def received(bench: Bench, body: Kernel, pull: Pull) -> Target:
    target = Target()
    cursor = Cursor(pull.assignment.start, new_chunk_hasher())
    await bench.receiver.receive(body, cast(Incoming, target), cursor, pull)
    return target


def pull_of(stop: int) -> Pull:
    return Pull(Assignment("f", 0, stop), asyncio.timeout(None))


async def test_received_bytes_are_written_and_counted_once(bench: Bench) -> None:
    body = Kernel([1, 100_000, 2 * TURN, 0, len(CONTENT) - 2 * TURN - 100_001, 0, 0, 0])
    pull = pull_of(len(CONTENT))
    target = await received(bench, body, pull)
    assert target.content == CONTENT
    assert body.ended
    assert pull.received == sum(bench.written) == len(CONTENT)


async def test_an_assignment_cut_short_during_a_wait_is_respected(bench: Bench) -> None:
    pull, body = pull_of(len(CONTENT)), Kernel([5000, 5000])
    working = asyncio.ensure_future(received(bench, body, pull))
    await body.asked.wait()
    pull.assignment.stop = 3000
    target = await working
    assert pull.received == 3000
    assert not body.ended
    assert target.content[:3000] == CONTENT[:3000]
    assert not any(target.content[3000:])


async def test_bytes_promised_to_a_writing_thread_are_known(bench: Bench) -> None:
    """So that no connection steals bytes that are being written."""
    pull, promised = pull_of(len(CONTENT)), []

    class Watching(Kernel):
        def read(self, buffer: memoryview) -> int:
            promised.append(pull.promised)
            return super().read(buffer)

    await received(bench, Watching([len(CONTENT)] + 5 * [0]), pull)
    assert promised[0] == TURN
    assert pull.promised == 0


async def test_writing_threads_have_a_lower_priority_than_hashing_threads(bench: Bench) -> None:
    niceness = {}

    class Watching(Kernel):
        def read(self, buffer: memoryview) -> int:
            thread = threading.get_native_id()
            niceness[thread] = os.getpriority(os.PRIO_PROCESS, thread)
            return super().read(buffer)

    ours = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    await received(bench, Watching([1000, 0]), pull_of(1000))
    assert set(niceness.values()) == {max(ours, NICENESS)}


async def test_bytes_received_before_an_error_are_kept(bench: Bench) -> None:
    pull = pull_of(len(CONTENT))
    with pytest.raises(Stalled):
        await received(bench, Kernel([4000]), pull)
    assert pull.received == sum(bench.written) == 4000


async def test_a_cancelled_receiver_waits_for_its_thread(bench: Bench) -> None:
    """The descriptor is closed afterwards, and its number can be reused."""
    loop, reading, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    class Slow(Kernel):
        def read(self, buffer: memoryview) -> int:
            loop.call_soon_threadsafe(reading.set)
            go_on.wait()
            return super().read(buffer)

    working = asyncio.ensure_future(received(bench, Slow([4000]), pull_of(len(CONTENT))))
    await reading.wait()
    working.cancel()
    assert not (await asyncio.wait([working], timeout=0.05))[0]
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert bench.written == [4000]


async def test_writing_threads_keep_their_priority_if_nobody_hashes_behind_them() -> None:
    def own() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before = own()
    with made(yielding=False).receiver.threads as threads:
        assert await asyncio.get_running_loop().run_in_executor(threads, own) == before
