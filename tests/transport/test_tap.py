"""Threads read bodies from the socket: without waiting, woken only for a worthwhile amount, leaving nothing behind."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from fetcher.errors import Unreachable
from fetcher.transport.client import Answer
from fetcher.transport.tap import LOW_WATER, SocketBody
from fetcher.transport.tls import TlsEventLoop
from tests.transport.peer import CONTENT, MiB, Run, Sender


@pytest.fixture(params=["plain, asyncio", "plain, ours", "TLS, ours"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    kind, _, loop = request.param.partition(", ")
    return Run(TlsEventLoop if loop == "ours" else asyncio.new_event_loop, tls=kind == "TLS", directory=tmp_path)


def tapped(answer: Answer, *, length: int = len(CONTENT)) -> SocketBody:
    body = answer.body(length=length, what="f")
    assert isinstance(body, SocketBody)
    assert body.direct is body
    return body


async def on_a_thread(body: SocketBody, *, buffer: int) -> bytes:
    """Read the whole body, each piece on another thread than the one that waited for it."""
    content, view = bytearray(), memoryview(bytearray(buffer))
    while await body.readable(buffer):
        content += view[: await asyncio.to_thread(body.read, view)]
    return bytes(content)


async def whole(sender: Sender) -> None:
    await sender.head()
    await sender.send(CONTENT)


@pytest.mark.parametrize("buffer", [1000, MiB, 8 * MiB])
def test_threads_read_every_byte_and_the_connection_is_reused(run: Run, buffer: int) -> None:
    async def work() -> None:
        async with run.peer(whole) as peer, peer.transport() as transport:
            for _ in range(4):
                answer = await transport.open(peer.url)
                assert await on_a_thread(tapped(answer), buffer=buffer) == CONTENT
                answer.close()
            assert len(peer.connections) == 1

    run(work)


def test_reading_does_not_wait(run: Run) -> None:
    async def reply(sender: Sender) -> None:
        await sender.head()
        await asyncio.sleep(20)

    async def work() -> None:
        async with run.peer(reply) as peer, peer.transport() as transport:
            answer = await transport.open(peer.url)
            body = tapped(answer)
            assert body.read(memoryview(bytearray(MiB))) == 0
            answer.close()

    run(work)


def test_many_small_pieces_wake_the_reader_once(run: Run) -> None:
    """A thread is not woken for the first small piece."""
    arrived = asyncio.Event()

    async def reply(sender: Sender) -> None:
        await sender.head(LOW_WATER)
        for start in range(0, LOW_WATER, 8192):
            await sender.send(CONTENT[start : start + 8192])
            await asyncio.sleep(0)
        arrived.set()

    async def work() -> None:
        async with run.peer(reply) as peer, peer.transport() as transport:
            answer = await transport.open(peer.url)
            body, view, reads = tapped(answer, length=LOW_WATER), memoryview(bytearray(LOW_WATER)), []
            while await body.readable(len(view)):
                reads.append(body.read(view))
            assert sum(reads) == LOW_WATER
            # One read for bytes that came with the head, one for the rest; more only if the rest took longer than LINGER.
            assert len(reads) <= 4
            answer.close()

    run(work)


def test_a_truncated_body_delivers_its_bytes_and_then_raises(run: Run) -> None:
    async def reply(sender: Sender) -> None:
        await sender.head()
        await sender.send(CONTENT[:MiB])
        sender.writer.close()

    async def work() -> None:
        async with run.peer(reply) as peer, peer.transport() as transport:
            answer = await transport.open(peer.url)
            body, content, view = tapped(answer), bytearray(), memoryview(bytearray(4 * MiB))
            with pytest.raises(Unreachable, match="the connection ended after 1,048,576 bytes of f"):  # noqa: PT012
                while await body.readable(len(view)):
                    content += view[: body.read(view)]
            assert content == CONTENT[:MiB]
            answer.close()

    run(work)


def test_a_whole_or_closed_body_leaves_no_descriptor_open(run: Run) -> None:
    async def work() -> None:
        async with run.peer(whole) as peer, peer.transport() as transport:
            counts = []
            for _ in range(3):
                for end in ("whole", "early"):
                    answer = await transport.open(peer.url)
                    body = tapped(answer)
                    if end == "whole":
                        await on_a_thread(body, buffer=MiB)
                    answer.close()
                    answer.close()
                await asyncio.sleep(0.05)
                counts.append(len(os.listdir("/proc/self/fd")))
            assert counts[1] == counts[2]

    run(work)


def test_the_socket_option_is_reset_before_the_connection_is_reused(run: Run) -> None:
    """A low-water mark left on the socket would delay the next answer's head."""

    async def work() -> None:
        async with run.peer(whole) as peer, peer.transport() as transport:
            answer = await transport.open(peer.url)
            body = tapped(answer)
            plug: socket.socket = body._transport.get_extra_info("socket")  # noqa: SLF001
            await on_a_thread(body, buffer=MiB)
            assert plug.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1
            answer.close()

    run(work)
