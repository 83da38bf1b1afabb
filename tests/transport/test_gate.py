"""Requests within a reach: each address is judged when it is about to be connected to, at every hop."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack

import pytest

from fetcher.errors import SourceNotAllowed, Unreachable
from fetcher.reach import Reach
from fetcher.testing.effects import Redirect
from fetcher.testing.faults import Fault
from fetcher.testing.origin import Origin
from fetcher.transport import gate
from fetcher.transport.client import HttpTransport
from fetcher.transport.http_library import aiohttp

PUBLIC, PRIVATE = "93.184.215.14", "10.255.255.1"
Make = Callable[..., HttpTransport]
ASKED = [
    ("a public host", [PUBLIC], Reach(), [PUBLIC]),
    ("a host of both kinds", [PRIVATE, PUBLIC], Reach(), [PUBLIC]),
    ("a private host", [PRIVATE], Reach(), None),
    ("a named private host", [PRIVATE], Reach(frozenset({("models.corp", 443)})), [PRIVATE]),
    ("a host that is named with another port", [PRIVATE], Reach(frozenset({("models.corp", 80)})), None),
    ("a named host at the metadata service", ["169.254.169.254"], Reach(frozenset({("models.corp", 443)})), None),
]


class Names:
    """A resolver with these names."""

    def __init__(self, names: Mapping[str, list[str]]) -> None:
        self._names = names

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list[dict[str, object]]:
        return [
            {"hostname": host, "host": address, "port": port, "family": family, "proto": 0, "flags": 0}
            for address in self._names[host]
        ]

    async def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    async with AsyncExitStack() as stack:

        def made(reach: Reach | None, environ: Mapping[str, str] | None = None) -> HttpTransport:
            transport = HttpTransport(
                connections=2, timeout_stall=5.0, read_buffer=65536, environ=environ if environ is not None else {}, reach=reach
            )
            stack.push_async_callback(transport.aclose)
            return transport

        yield made


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        yield origin


async def received(transport: HttpTransport, url: str) -> bytes:
    async with transport.request(url) as answer:
        assert answer.status == 200
        return await answer.read(1000, what="a file")


class TestNames:
    @pytest.mark.parametrize(("_name", "found", "reach", "wanted"), ASKED, ids=[each[0] for each in ASKED])
    async def test_a_name_is_resolved_to_what_may_be_connected_to(
        self, monkeypatch: pytest.MonkeyPatch, _name: str, found: list[str], reach: Reach, wanted: list[str] | None
    ) -> None:
        monkeypatch.setattr(aiohttp, "DefaultResolver", lambda: Names({"Models.corp.": found}))
        resolving = gate.Gate(reach).resolve("Models.corp.", 443)
        if wanted is not None:
            assert [each["host"] for each in await resolving] == wanted
            return
        with pytest.raises(SourceNotAllowed, match=f"leads to {found[0]}, no public address"):
            await resolving

    async def test_where_requests_for_a_store_begin_may_be_private_and_where_they_are_sent_may_not(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(aiohttp, "DefaultResolver", lambda: Names({"hub.corp": [PRIVATE], "cdn.corp": [PRIVATE]}))
        of_a_store = gate.Gate(Reach(store=True))
        of_a_store.begin("https://hub.corp/org/model")
        assert [each["host"] for each in await of_a_store.resolve("hub.corp", 443)] == [PRIVATE]
        with pytest.raises(SourceNotAllowed, match=r"cdn\.corp"):
            await of_a_store.resolve("cdn.corp", 443)
        of_a_host = gate.Gate(Reach())
        of_a_host.begin("https://hub.corp/org/model")
        with pytest.raises(SourceNotAllowed, match=r"hub\.corp"):
            await of_a_host.resolve("hub.corp", 443)


class TestRequests:
    async def test_a_name_of_this_machine_is_not_connected_to(self, origin: Origin, make: Make) -> None:
        url = origin.add_file("/a.bin", b"abc").replace("127.0.0.1", "localhost")
        assert await received(make(None), url) == b"abc"
        for reach in (Reach(), Reach(store=True)):
            with pytest.raises(SourceNotAllowed, match="localhost"):
                await received(make(reach), url)
        assert len(origin.requests) == 1
        assert await received(make(Reach(loopback=True)), url) == b"abc"

    @pytest.mark.parametrize("place", ["10.255.255.1", "169.254.169.254", "[::ffff:10.255.255.1]", "[fd00:ec2::254]"])
    async def test_a_redirect_to_a_private_address_is_not_followed(self, origin: Origin, make: Make, place: str) -> None:
        url = origin.add_file("/a.bin", b"abc")
        origin.faults.add(Fault(Redirect(f"http://{place}/b.bin")))
        with pytest.raises(SourceNotAllowed, match="no public address"):
            await received(make(Reach(loopback=True)), url)

    async def test_a_redirect_to_a_name_of_a_private_address_is_not_followed(
        self, origin: Origin, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(aiohttp, "DefaultResolver", lambda: Names({"inside.example": [PRIVATE]}))
        url = origin.add_file("/a.bin", b"abc")
        origin.faults.add(Fault(Redirect("http://inside.example/b.bin")))
        with pytest.raises(SourceNotAllowed, match=r"inside\.example:80 leads to 10\.255\.255\.1"):
            await received(make(Reach(loopback=True)), url)

    async def test_a_proxy_may_have_any_address_and_what_is_written_is_judged_before_it(
        self, origin: Origin, make: Make
    ) -> None:
        proxy = origin.endpoint.replace("127.0.0.1", "localhost")
        transport = make(Reach(), {"http_proxy": proxy})
        with pytest.raises(SourceNotAllowed):
            await received(transport, "http://10.255.255.1/a.bin")
        assert not origin.requests
        with pytest.raises(Unreachable):
            await received(make(Reach(), {"http_proxy": "http://localhost:9"}), "http://models.example/a.bin")
