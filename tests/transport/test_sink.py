"""Bodies that bypass aiohttp's parser: correct bytes, the connection kept or dropped, and nothing written after the end."""

from __future__ import annotations

import asyncio
import random
import socket

import pytest

from fetcher.errors import BadResponse, Stalled, Unreachable
from fetcher.transport.body import OrdinaryBody
from fetcher.transport.client import Answer
from fetcher.transport.sink import LoopBody
from fetcher.transport.tap import LINGER, SocketBody
from tests.lab.proxy import running_proxy
from tests.transport.peer import CONTENT, MiB, Run, Sender, collected


async def whole(sender: Sender) -> None:
    await sender.head()
    await sender.send(CONTENT)


class TestBytes:
    def test_successive_requests_use_one_connection(self, run: Run) -> None:
        async def work() -> None:
            async with run.peer(whole) as peer, peer.transport() as transport:
                for _ in range(6):
                    answer = await transport.open(peer.url)
                    assert await collected(answer) == CONTENT
                assert len(peer.connections) == 1

        run(work)

    def test_a_body_of_announced_length_bypasses_the_parser(self, run: Run) -> None:
        async def work() -> None:
            async with run.peer(whole) as peer, peer.transport() as transport:
                answer = await transport.open(peer.url)
                assert isinstance(
                    answer.body(length=len(CONTENT), what="f"), SocketBody if not run.tls or run.ours else LoopBody
                )
                answer.close()

        run(work)

    @pytest.mark.parametrize("buffer", [1, 4096, 65_537, 8 * MiB])
    def test_buffers_of_any_size_are_filled(self, run: Run, buffer: int) -> None:
        length = len(CONTENT) if buffer > 1 else 1000

        async def reply(sender: Sender) -> None:
            await sender.head(length)
            await sender.send(CONTENT[:length])

        async def work() -> None:
            async with run.peer(reply) as peer, peer.transport() as transport:
                for _ in range(2):
                    answer = await transport.open(peer.url)
                    assert await collected(answer, length=length, buffer=buffer) == CONTENT[:length]
                assert len(peer.connections) == 1

        run(work)

    def test_a_small_body_that_arrives_with_its_head_is_complete(self, run: Run) -> None:
        async def reply(sender: Sender) -> None:
            await sender.send(b"HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\n\r\nhello")

        async def work() -> None:
            async with run.peer(reply) as peer, peer.transport() as transport:
                for _ in range(3):
                    assert await collected(await transport.open(peer.url), length=5) == b"hello"
                assert len(peer.connections) == 1

        run(work)

    def test_a_large_body_that_arrives_with_its_head_is_complete(self, run: Run) -> None:
        async def reply(sender: Sender) -> None:
            head = f"HTTP/1.1 206 Partial Content\r\nContent-Length: {len(CONTENT)}\r\n\r\n".encode()
            await sender.send(head + CONTENT)

        async def work() -> None:
            async with run.peer(reply) as peer, peer.transport() as transport:
                for pause in (0.0, 0.05):
                    answer = await transport.open(peer.url)
                    await asyncio.sleep(pause)  # meanwhile aiohttp's parser reads until its buffer is full
                    assert await collected(answer) == CONTENT

        run(work)

    def test_pieces_of_any_length_are_joined(self, run: Run) -> None:
        chance = random.Random(7)

        async def reply(sender: Sender) -> None:
            await sender.head(200_000)
            position = 0
            while position < 200_000:
                piece = CONTENT[position : min(position + chance.choice([1, 100, 16_384, 50_000]), 200_000)]
                await sender.send(piece)
                await asyncio.sleep(0)
                position += len(piece)

        async def work() -> None:
            async with run.peer(reply) as peer, peer.transport() as transport:
                for _ in range(3):
                    answer = await transport.open(peer.url)
                    assert await collected(answer, length=200_000, buffer=60_000) == CONTENT[:200_000]
                assert len(peer.connections) == 1

        run(work)


class TestOrdinaryPath:
    @pytest.mark.parametrize(
        "framing",
        ["Transfer-Encoding: chunked", "Connection: close"],
        ids=["chunked", "until the end of the connection"],
    )
    def test_a_body_without_an_announced_length_uses_the_parser(self, run: Run, framing: str) -> None:
        async def reply(sender: Sender) -> None:
            await sender.send(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode())
            chunked = framing.endswith("chunked")
            await sender.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(CONTENT), CONTENT) if chunked else CONTENT)
            if not chunked:
                sender.writer.close()

        async def work() -> None:
            async with run.peer(reply) as peer, peer.transport() as transport:
                answer = await transport.open(peer.url)
                assert isinstance(answer.body(length=len(CONTENT), what="f"), OrdinaryBody)
                assert await collected(answer) == CONTENT

        run(work)


class TestEnds:
    def test_surplus_bytes_are_an_error_and_never_the_next_answer(self, run: Run) -> None:
        async def reply(sender: Sender) -> None:
            await sender.head(1 * MiB)
            await sender.send(CONTENT[:MiB] + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")

        async def work() -> None:
            async with run.peer(reply) as peer, peer.transport() as transport:
                for expected in (1, 2):
                    with pytest.raises(BadResponse, match=r"sends more than the 1,048,576 bytes"):
                        await collected(await transport.open(peer.url), length=MiB)
                    assert len(peer.connections) == expected

        run(work)

    @pytest.mark.parametrize("how", ["FIN", "reset"])
    def test_bytes_before_the_connections_end_are_delivered(self, run: Run, how: str) -> None:
        async def reply(sender: Sender) -> None:
            await sender.head()
            await sender.send(CONTENT[:MiB])
            await asyncio.sleep(0.1)  # else the reset would overtake the data
            if how == "reset":
                linger = b"\1\0\0\0\0\0\0\0"
                sender.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                sender.writer.transport.abort()
            else:
                sender.writer.close()

        async def work() -> None:
            async with run.peer(reply) as peer, peer.transport() as transport:
                answer = await transport.open(peer.url)
                body, view, count = answer.body(length=len(CONTENT), what="f"), memoryview(bytearray(2 * MiB)), 0
                while count < MiB:
                    count += await body.readinto(view[count:])
                assert view[:count] == CONTENT[:MiB]
                with pytest.raises(Unreachable, match=r"the connection (ended|broke) after 1,048,576 bytes of f"):
                    await body.readinto(view)
                answer.close()

        run(work)

    def test_a_connection_may_end_right_after_the_last_byte(self, run: Run) -> None:
        async def reply(sender: Sender) -> None:
            await sender.head(more="Connection: close\r\n")
            await sender.send(CONTENT)
            sender.writer.close()

        async def work() -> None:
            async with run.peer(reply) as peer, peer.transport() as transport:
                for expected in (1, 2):
                    assert await collected(await transport.open(peer.url)) == CONTENT
                    assert len(peer.connections) == expected

        run(work)

    def test_silence_in_the_middle_is_a_stall(self, run: Run) -> None:
        async def reply(sender: Sender) -> None:
            await sender.head()
            await sender.send(CONTENT[:1000])
            await asyncio.sleep(20)

        async def work() -> None:
            async with run.peer(reply) as peer, peer.transport(stall=0.3) as transport:
                with pytest.raises(Stalled, match="in the middle of f"):
                    await collected(await transport.open(peer.url))

        run(work)

    def test_a_slow_body_that_keeps_coming_is_not_a_stall(self, run: Run) -> None:
        async def reply(sender: Sender) -> None:
            await sender.head(12)
            for index in range(12):
                await sender.send(CONTENT[index : index + 1])
                await asyncio.sleep(LINGER / 4)

        async def work() -> None:
            async with run.peer(reply) as peer, peer.transport(stall=2 * LINGER) as transport:
                assert await collected(await transport.open(peer.url), length=12) == CONTENT[:12]

        run(work)

    def test_bytes_are_delivered_before_the_buffer_is_full(self, run: Run) -> None:
        async def reply(sender: Sender) -> None:
            await sender.head()
            await sender.send(CONTENT[:1000])
            await asyncio.sleep(20)

        async def work() -> None:
            async with run.peer(reply) as peer, peer.transport(stall=25) as transport:
                answer = await transport.open(peer.url)
                assert await answer.body(length=len(CONTENT), what="f").readinto(memoryview(bytearray(MiB))) == 1000
                answer.close()

        run(work)


class TestProxy:
    def test_tls_works_through_a_proxys_tunnel(self, run: Run) -> None:
        if not run.tls:
            pytest.skip("plain HTTP needs no tunnel")

        async def work() -> None:
            with running_proxy() as proxy:
                async with run.peer(whole) as peer, peer.transport(https_proxy=proxy.url) as transport:
                    for _ in range(3):
                        assert await collected(await transport.open(peer.url)) == CONTENT
                    assert proxy.tunnels == [peer.url.split("/")[2]]

        run(work)


class TestFlow:
    def test_a_reader_that_does_not_read_stops_the_sender(self, run: Run) -> None:
        sent = 0

        async def reply(sender: Sender) -> None:
            nonlocal sent
            await sender.head(256 * MiB)
            for _ in range(256):
                await sender.send(CONTENT[:MiB])
                sent += 1

        async def work() -> None:
            async with run.peer(reply) as peer, peer.transport() as transport:
                answer = await transport.open(peer.url)
                body = answer.body(length=256 * MiB, what="f")
                await body.readinto(memoryview(bytearray(MiB)))
                before = -1
                while before != sent:
                    before = sent
                    await asyncio.sleep(0.2)
                assert sent < 64  # the socket buffers of both ends
                answer.close()

        run(work)

    def test_closing_an_unfinished_body_drops_the_connection(self, run: Run) -> None:
        gone = asyncio.Event()

        async def reply(sender: Sender) -> None:
            await sender.head(256 * MiB)
            try:
                while True:
                    await sender.send(CONTENT)
            except OSError:
                gone.set()
                raise

        async def work() -> None:
            async with run.peer(reply) as peer, peer.transport() as transport:
                answer = await transport.open(peer.url)
                await answer.body(length=256 * MiB, what="f").readinto(memoryview(bytearray(MiB)))
                answer.close()
                answer.close()
                await gone.wait()

        run(work)

    def test_a_cancelled_read_writes_no_more_and_the_next_request_works(self, run: Run) -> None:
        """The read is cancelled at each await in turn."""

        async def work() -> None:
            async with run.peer(whole) as peer, peer.transport() as transport:
                for turns in range(40):
                    answer = await transport.open(peer.url)
                    buffer = bytearray(2 * len(CONTENT))
                    await cancelled_after(turns, answer, buffer)
                    after_cancel = bytes(buffer)
                    await asyncio.sleep(0.005)
                    assert buffer == after_cancel
                assert await collected(await transport.open(peer.url)) == CONTENT

        run(work)


async def cancelled_after(turns: int, answer: Answer, buffer: bytearray) -> None:
    """Read the body in small steps, and cancel after this number of turns of the event loop."""

    async def read() -> None:
        body, view = answer.body(length=len(CONTENT), what="f"), memoryview(buffer)
        while count := await body.readinto(view[:300_000]):
            view = view[count:]

    reading = asyncio.ensure_future(read())
    for _ in range(turns):
        await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait([reading])
    answer.close()
