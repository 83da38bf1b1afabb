"""The error of a failed request names the cause: the server, the network, or this process itself."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from fetcher.errors import Stalled, TooManyOpenFiles
from fetcher.transport.client import Credentials, HttpTransport
from tests.lab.waiting import eventually
from tests.transport.peer import Run, Sender

ESTABLISHED = b"\x01"
"""The state of a connection that neither side has ended, in Linux's `tcp_info`."""


def state(plug: socket.socket) -> bytes:
    """The state of a connection: the first byte of its `tcp_info`."""
    return plug.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)


@pytest.fixture
async def transport() -> AsyncIterator[HttpTransport]:
    made = HttpTransport(connections=2, timeout_stall=0.5, read_buffer=65536, environ={})
    yield made
    await made.aclose()


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Prevent this process from opening any file or socket."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("host", ["127.0.0.1:9", "nowhere.invalid"], ids=["an address", "a name"])
async def test_a_request_without_a_free_descriptor_fails_with_too_many_open_files(transport: HttpTransport, host: str) -> None:
    await asyncio.to_thread(lambda: None)  # starts the thread that resolves names
    with no_descriptor_left(), pytest.raises(TooManyOpenFiles, match=f"too many open files: cannot connect to {host}"):
        await transport.open(f"http://{host}/model.bin")


async def test_a_server_that_never_answers_is_a_stall(transport: HttpTransport) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        with pytest.raises(Stalled, match="--timeout-stall"):
            await transport.open(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")


def test_a_request_that_is_given_up_ends_its_connection_though_the_server_says_no_farewell(run: Run) -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def silent(sender: Sender) -> None:
        connection: Any = sender.writer.transport
        # It reads no more, so it never answers the end of TLS either. Only its socket tells that the client is gone.
        connection.pause_reading()
        asked.set()
        await gone.wait()
        connection.abort()

    async def work() -> None:
        async with run.peer(silent) as peer, peer.transport() as transport:
            request = asyncio.create_task(transport.open(peer.url))
            await asked.wait()
            request.cancel()
            await asyncio.wait([request])
            plug = peer.connections[0].get_extra_info("socket")
            await eventually(lambda: state(plug) != ESTABLISHED, "the connection ends")
            gone.set()

    run(work)


def test_credentials_list_every_secret_and_do_not_show_it() -> None:
    secrets = Credentials("http://h:80", {"Authorization": "Basic dXNlcjpwdw==", "X-Key": "k"}).secrets
    assert {"dXNlcjpwdw==", "user:pw", "pw", "k"} <= set(secrets)
    assert "pw" not in repr(Credentials("http://h:80", {"Authorization": "Basic dXNlcjpwdw=="}))
