"""The path that bytes take, for every source and every kind of answer.

tap         a thread reads from the kernel (`Body.direct`)
sink        another event loop's TLS decrypts into the reader's buffer
ordinary    aiohttp's parser collects the bytes
local       a file on this machine is read
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from fetcher.artifact import ByteRange
from fetcher.sources.base import Body, Source
from fetcher.sources.local import LocalBody
from fetcher.sources.web import Beginning
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.effects import Chunked, IgnoreRange
from fetcher.testing.faults import Fault
from fetcher.testing.origin import Origin
from fetcher.transport.body import OrdinaryBody
from fetcher.transport.sink import LoopBody
from fetcher.transport.tap import SocketBody
from fetcher.transport.tls import TlsEventLoop
from tests.sources.test_conformance import source_of

CONTENT = random_bytes("paths", 3_000_000)
SIZE = len(CONTENT)
KINDS: Mapping[type, str] = {SocketBody: "tap", LoopBody: "sink", OrdinaryBody: "ordinary", LocalBody: "local"}
OURS, ANOTHER = TlsEventLoop, asyncio.new_event_loop
LOOPS = {"our loop": OURS, "another loop": ANOTHER}


def kind_of(body: Body) -> str:
    return KINDS[type(body.body if isinstance(body, Beginning) else body)]


async def received(body: Body) -> bytes:
    """Read the whole body by the path that it declares."""
    content, view = bytearray(), memoryview(bytearray(100_000))
    if (direct := body.direct) is None:
        while count := await body.readinto(view):
            content += view[:count]
        return bytes(content)
    while await direct.readable(len(view)):
        content += view[: await asyncio.to_thread(direct.read, view)]
    return bytes(content)


def opened(source: Source, part: ByteRange | None, *, loop: Callable[[], asyncio.AbstractEventLoop]) -> tuple[str, bool]:
    """Read a body and check its bytes. Returns its path, and whether it supports direct reading."""

    async def main() -> tuple[str, bool]:
        try:
            (file,) = (await source.list(await source.resolve())).files
            async with source.open(file, part) as body:
                path = kind_of(body), body.direct is not None
                expected = part or ByteRange(0, SIZE)
                assert await received(body) == CONTENT[expected.start : expected.stop]
            return path
        finally:
            await source.aclose()

    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(main())


PARTS = {"the whole": None, "the beginning": ByteRange(0, 1_500_000), "a later part": ByteRange(1_000_000, 2_500_000)}


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("kind", ["hub", "web"])
@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_a_body_of_announced_length_bypasses_the_parser(
    monkeypatch: pytest.MonkeyPatch, kind: str, scheme: str, part: ByteRange | None, loop: type[asyncio.AbstractEventLoop]
) -> None:
    with Origin(tls=("hub", "cdn") if scheme == "https" else (), lfs_threshold=1000) as origin:
        if scheme == "https":
            monkeypatch.setenv("SSL_CERT_FILE", str(origin.ca_file))
        source = _source(origin, kind)

        path = opened(source, part, loop=loop)

    assert path == (("sink", False) if scheme == "https" and loop is ANOTHER else ("tap", True))


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("kind", ["hub", "web"])
def test_a_chunked_body_takes_the_ordinary_path(kind: str, part: ByteRange | None) -> None:
    with Origin(lfs_threshold=1000) as origin:
        source = _source(origin, kind)
        origin.faults.add(Fault(Chunked(), origin="cdn"))
        assert opened(source, part, loop=OURS) == ("ordinary", False)


def test_a_whole_file_from_a_server_without_ranges_bypasses_the_parser_too() -> None:
    with Origin() as origin:
        source = _source(origin, "web")
        origin.faults.add(Fault(IgnoreRange(), origin="cdn"))
        assert opened(source, None, loop=OURS) == ("tap", True)


@pytest.mark.parametrize("uri", ["{0}", "file://{0}", "pvc://claim/model"])
@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_a_local_file_is_read_from_disk(tmp_path: Path, uri: str, part: ByteRange | None) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.bin").write_bytes(CONTENT)
    source = source_of(uri.format(tmp_path / "model"), claims={"claim": tmp_path})
    assert opened(source, part, loop=OURS) == ("local", False)


def _source(origin: Origin, kind: str) -> Source:
    if kind == "web":
        return source_of(origin.add_file("/model.bin", CONTENT))
    origin.add_repo("org/model", {"model.bin": CONTENT})
    return source_of("hf://org/model", endpoint=origin.endpoint)
