"""Fetches with mirrors that misbehave: an origin of the Hub, and servers of the same paths beside it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import xxhash

from fetcher.artifact import ORIGIN
from fetcher.errors import DigestMismatch
from fetcher.events import BytesReceived, Disputed, Event, MirrorAvoided, MirrorBanned, Mismatched, Retrying
from fetcher.testing.effects import (
    FlipBit,
    Gzip,
    IgnoreRange,
    LongBody,
    Redirect,
    Replace,
    ShortBody,
    Status,
    WrongBody,
    WrongContentRange,
    rate_limited,
)
from fetcher.testing.exchange import Request, Response
from fetcher.testing.faults import Effect, Fault
from fetcher.testing.interruptions import Finish, Reset, Stall, Trickle
from fetcher.testing.origin import Origin
from tests.engine.conftest import FILES, Fetcher, MiB, contents

TOTAL = sum(map(len, FILES.values()))
ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


class Site:
    """An origin with the artifact, and mirrors of it."""

    def __init__(self, origin: Origin, stack: ExitStack) -> None:
        self.origin = origin
        self._stack = stack
        self.commit = origin.add_repo("org/model", FILES).refs["main"]

    def mirror(self, *faults: Effect, path: str | None = None) -> Origin:
        """Start a mirror with these faults in every answer for `path`, by default for every file."""
        mirror = self._stack.enter_context(Origin())
        for name, content in FILES.items():
            mirror.add_file(f"/org/model/resolve/{self.commit}/{name}", content)
        for fault in faults:
            mirror.faults.add(Fault(fault, path=path))
        return mirror


def address(mirror: Origin) -> str:
    return f"{mirror.cdn_endpoint}/{{path}}"


@pytest.fixture
def site(origin: Origin) -> Iterator[Site]:
    with ExitStack() as stack:
        yield Site(origin, stack)


def of(kind: type[Event], fetch: Fetcher) -> list[Event]:
    return [event for event in fetch.events if isinstance(event, kind)]


def received(fetch: Fetcher, supplier: str) -> int:
    """The bytes that came from one supplier, by the events."""
    return sum(event.bytes for event in fetch.events if isinstance(event, BytesReceived) and event.supplier == supplier)


def asked_for_content(origin: Origin) -> list[str]:
    return [request.path for request in origin.requests if "/api/" not in request.path]


class TestMirror:
    async def test_all_bytes_come_from_a_mirror_and_the_origin_sends_only_the_listing(self, site: Site, fetch: Fetcher) -> None:
        mirror = site.mirror()
        artifact = await fetch(mirrors=(address(mirror),))
        assert contents(artifact.path) == FILES
        assert artifact.bytes_from == {address(mirror): TOTAL}
        assert asked_for_content(site.origin) == [], "empty files take no request"
        assert artifact.verified

    async def test_two_mirrors_share_the_ranges(self, site: Site, fetch: Fetcher) -> None:
        mirrors = [address(site.mirror()), address(site.mirror())]
        artifact = await fetch(mirrors=tuple(mirrors))
        assert contents(artifact.path) == FILES
        assert artifact.bytes_from.keys() == set(mirrors)

    async def test_no_credential_of_the_origin_reaches_a_mirror(
        self, site: Site, fetch: Fetcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        site.origin.add_repo("org/private", FILES, private=True, readers=["hf_secret"])
        mirror = site.mirror()
        for name, content in FILES.items():
            mirror.add_file(f"/org/private/resolve/{site.commit}/{name}", content)
        artifact = await fetch("hf://org/private", mirrors=(address(mirror),))
        assert artifact.bytes_from == {address(mirror): TOTAL}
        assert mirror.requests
        assert not any("hf_secret" in value for request in mirror.requests for value in request.headers.values())

    async def test_a_file_without_a_digest_comes_from_the_origin_alone(self, site: Site, fetch: Fetcher) -> None:
        mirror = site.mirror()
        mirror.add_file("/model.bin", b"x" * MiB)
        url = site.origin.add_file("/model.bin", b"x" * MiB)
        artifact = await fetch(url, mirrors=(address(mirror),))
        assert (artifact.bytes_from, mirror.requests) == ({ORIGIN: MiB}, ())

    async def test_a_pinned_file_of_the_web_comes_from_a_mirror(self, site: Site, fetch: Fetcher) -> None:
        mirror = site.mirror()
        mirror.add_file("/deep/model.bin", b"x" * MiB)
        url = site.origin.add_file("/deep/model.bin", b"x" * MiB)
        artifact = await fetch(f"{url}#sha256={hashlib.sha256(b'x' * MiB).hexdigest()}", mirrors=(address(mirror),))
        assert artifact.bytes_from == {address(mirror): MiB}

    async def test_an_address_with_a_query_is_never_shown_to_a_mirror(self, site: Site, fetch: Fetcher) -> None:
        mirror = site.mirror()
        url = site.origin.add_file("/model.bin", b"x" * MiB)
        pin = hashlib.sha256(b"x" * MiB).hexdigest()
        artifact = await fetch(f"{url}?ticket=s3cret#sha256={pin}", mirrors=(f"{mirror.cdn_endpoint}/?{{url}}",))
        assert (artifact.bytes_from, mirror.requests) == ({ORIGIN: MiB}, ())


REFUSALS = {
    "the file is not there": Status(404),
    "it fails": Status(500),
    "it asks to wait": Status(503, (("Retry-After", "30"),)),
    "it limits the rate": rate_limited(retry_after=30),
    "it wants a login": Status(401),
    "it sends the whole file": IgnoreRange(),
    "it sends another position": WrongContentRange(shift=1),
    "it tells another size": WrongContentRange(total=5),
    "it sends more than asked for": LongBody(10),
    "it sends less than it says": ShortBody(10),
    "it compresses": Gzip(),
    "it redirects to itself": Redirect("{target}"),
    "it resets the connection": Reset(),
    "it ends in the middle": Finish(after=1000),
    "it resets in the middle": Reset(after=100_000),
    "it never answers": Stall(),
    "it stops in the middle": Stall(after=100_000),
    "it sends a byte now and then": Trickle(after=1000, interval=0.1),
}


class TestFailures:
    """Whatever a mirror does, the range comes from the origin, no byte is wrong, and nothing is retried after a wait."""

    @pytest.mark.parametrize("fault", REFUSALS.values(), ids=REFUSALS.keys())
    async def test_the_origin_brings_what_a_mirror_does_not(self, site: Site, fetch: Fetcher, fault: Effect) -> None:
        mirror = site.mirror(fault)
        artifact = await fetch(mirrors=(address(mirror),), include=[TWO, "config.json"])
        assert contents(artifact.path) == {path: FILES[path] for path in (TWO, "config.json")}
        assert artifact.bytes_from[ORIGIN] >= len(FILES[TWO]), "what came from the mirror before it failed is not used"
        assert of(MirrorAvoided, fetch)
        assert not of(Retrying, fetch)
        assert not of(MirrorBanned, fetch)

    async def test_a_redirect_to_another_place_is_not_followed(self, site: Site, fetch: Fetcher) -> None:
        elsewhere = site.mirror()
        mirror = site.mirror(Redirect(f"{elsewhere.cdn_endpoint}{{target}}"))
        artifact = await fetch(mirrors=(address(mirror),))
        assert (artifact.bytes_from, elsewhere.requests) == ({ORIGIN: TOTAL}, ())
        (avoided, *_) = of(MirrorAvoided, fetch)
        assert isinstance(avoided, MirrorAvoided)
        assert "redirects to" in avoided.message

    async def test_a_mirror_that_is_gone_is_reported_once(self, site: Site, fetch: Fetcher) -> None:
        mirror = site.mirror()
        mirror.stop()
        artifact = await fetch(mirrors=(address(mirror),))
        assert contents(artifact.path) == FILES
        assert len(of(MirrorAvoided, fetch)) == 1

    async def test_another_mirror_brings_what_the_first_one_does_not(self, site: Site, fetch: Fetcher) -> None:
        broken, whole = site.mirror(Status(404)), site.mirror()
        artifact = await fetch(mirrors=(address(broken), address(whole)))
        assert artifact.bytes_from == {address(whole): TOTAL}

    async def test_a_complete_mirror_suffices_once_the_origin_has_listed_its_files(self, site: Site, fetch: Fetcher) -> None:
        site.origin.faults.add(Fault(Reset(), path="/resolve/"))
        mirror = site.mirror()
        artifact = await fetch(mirrors=(address(mirror),))
        assert artifact.bytes_from == {address(mirror): TOTAL}


class TestLies:
    """A wrong byte is found by the digest of its file, and who sent it by the bytes that the origin sends instead."""

    @pytest.mark.parametrize("lie", [FlipBit(17 * MiB), WrongBody(1), FlipBit(0)], ids=["one bit", "shifted", "first bit"])
    async def test_a_liar_is_banned_and_the_origin_brings_its_chunks(self, site: Site, fetch: Fetcher, lie: Effect) -> None:
        liar = site.mirror(lie, path=ONE)
        artifact = await fetch(mirrors=(address(liar),))
        assert contents(artifact.path) == FILES
        assert of(MirrorBanned, fetch) == [MirrorBanned(address(liar), ONE)]
        assert received(fetch, ORIGIN) <= TOTAL
        assert not of(Mismatched, fetch), "the origin is not suspected"

    async def test_a_liar_in_a_small_file_is_banned_too(self, site: Site, fetch: Fetcher) -> None:
        liar = site.mirror(Replace(b'{"architectures": {}}'), path="config.json")
        artifact = await fetch(mirrors=(address(liar),))
        assert contents(artifact.path) == FILES
        assert of(MirrorBanned, fetch) == [MirrorBanned(address(liar), "config.json")]

    async def test_an_honest_mirror_beside_a_liar_is_never_banned(self, site: Site, fetch: Fetcher) -> None:
        for _ in range(3):
            liar, honest = site.mirror(FlipBit(5)), site.mirror()
            artifact = await fetch(mirrors=(address(honest), address(liar)), cache_dir=fetch.cache_dir / str(_))
            assert contents(artifact.path) == FILES
            assert {event.mirror for event in fetch.events if isinstance(event, MirrorBanned)} <= {address(liar)}
            fetch.events.clear()

    async def test_an_honest_mirror_is_cleared_when_the_origin_itself_was_wrong(self, site: Site, fetch: Fetcher) -> None:
        """The first chunk comes from the mirror, then it is gone. The origin's later chunk is flipped the first time."""
        mirror = site.mirror(Status(404))
        mirror.faults.clear()
        mirror.faults.add(Fault(Status(404), path=TWO))
        site.origin.faults.add(Fault(FlipBit(7), path=TWO, times=1))
        artifact = await fetch(mirrors=(address(mirror),))
        assert contents(artifact.path) == FILES
        assert not of(MirrorBanned, fetch)

    async def test_a_file_that_is_wrong_at_the_origin_is_refused_and_no_mirror_is_banned(
        self, site: Site, fetch: Fetcher
    ) -> None:
        site.origin.faults.add(Fault(FlipBit(7), path=TWO))
        mirror = site.mirror(FlipBit(7), path=TWO)
        with pytest.raises(DigestMismatch):
            await fetch(mirrors=(address(mirror),))
        assert not of(MirrorBanned, fetch), "nobody knows which bytes are right"
        assert fetch.visible() == []


class TestResuming:
    async def test_chunks_of_a_liar_are_known_after_a_cancelled_fetch(self, site: Site, fetch: Fetcher) -> None:
        """The next fetch continues its chunks, and still knows whose they are."""
        liar = site.mirror(FlipBit(3), path=ONE)
        never_complete(liar)
        await cancelled_after(fetch, 16 * MiB, mirrors=(address(liar),), timeout_stall=60.0)
        liar.faults.clear()
        fetch.events.clear()
        artifact = await fetch(mirrors=(address(liar),))
        assert contents(artifact.path) == FILES
        assert of(MirrorBanned, fetch) == [MirrorBanned(address(liar), ONE)]
        assert received(fetch, ORIGIN) <= len(FILES[ONE]) + 3 * MiB

    async def test_chunks_of_an_earlier_release_are_suspected_and_nobody_is_banned_for_them(
        self, site: Site, fetch: Fetcher
    ) -> None:
        site.origin.faults.add(Fault(FlipBit(3), path=ONE))
        never_complete(site.origin)
        await cancelled_after(fetch, 16 * MiB, timeout_stall=60.0)
        site.origin.faults.clear()
        without_suppliers(fetch.cache_dir)
        fetch.events.clear()
        artifact = await fetch(mirrors=(address(site.mirror()),))
        assert contents(artifact.path) == FILES
        assert "" in [event.supplier for event in fetch.events if isinstance(event, Disputed)]
        assert not of(MirrorBanned, fetch)


class StallBehindTheFirstByte(Stall):
    """A stall of ranges that do not begin with the file."""

    def applies(self, request: Request, response: Response) -> bool:
        return request.byte_range is not None and request.byte_range.start > 0


def never_complete(server: Origin) -> None:
    """Let one chunk come, and no whole file: a digest would be judged before a fetch is cancelled."""
    server.faults.add(Fault(StallBehindTheFirstByte(after=0), path=ONE))
    server.faults.add(Fault(Stall(after=17 * MiB), path=ONE))
    server.faults.add(Fault(Stall(after=0), path=TWO))


async def cancelled_after(fetch: Fetcher, count: int, **options: Any) -> None:
    """Fetch, and cancel once `count` bytes have come."""
    enough = asyncio.Event()

    def listen(event: Event) -> None:
        fetch.events.append(event)
        if sum(each.bytes for each in fetch.events if isinstance(each, BytesReceived)) >= count:
            enough.set()

    running = asyncio.create_task(fetch(listen=listen, **options))
    await enough.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


def without_suppliers(cache_dir: Path) -> None:
    """Write the journals again as an earlier release would have."""
    for path in cache_dir.rglob("journal.*"):
        lines = []
        for line in path.read_bytes().splitlines():
            record = json.loads(line.partition(b" ")[2])
            if record[0] == "chunk":
                record[3].pop("supplier", None)
            text = json.dumps(record, separators=(",", ":")).encode()
            lines.append(b"%s %s\n" % (xxhash.xxh3_64_hexdigest(text).encode(), text))
        path.write_bytes(b"".join(lines))
