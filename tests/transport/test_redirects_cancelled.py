"""A request that is cancelled while the body of a redirect is awaited."""

from __future__ import annotations

import asyncio
import gc

import pytest

from fetcher.transport.client import HttpTransport


async def test_its_connection_is_closed(recwarn: pytest.WarningsRecorder) -> None:
    sent, ended = asyncio.Event(), asyncio.Event()

    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Promise a body of ten bytes, and send one of them."""
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 10\r\n\r\n1")
        await writer.drain()
        sent.set()
        await reader.read()
        ended.set()
        writer.close()

    server = await asyncio.start_server(redirect, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    transport = HttpTransport(connections=1, timeout_stall=60.0, read_buffer=65536, environ={})
    asked = asyncio.create_task(transport.open(f"http://127.0.0.1:{port}/file"))
    await sent.wait()
    await asyncio.sleep(0.05)  # so that the head has come; the test holds without, and then shows less
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    del asked
    gc.collect()
    async with asyncio.timeout(20):
        await ended.wait()
    await transport.aclose()
    server.close()
    await server.wait_closed()
    assert [str(each.message) for each in recwarn] == []
