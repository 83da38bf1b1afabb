"""Every fault of an origin ends in the right bytes, or in the right error with nothing published."""

from __future__ import annotations

import asyncio

import pytest

from fetcher.artifact import CHUNK_SIZE
from fetcher.errors import (
    BadResponse,
    DigestMismatch,
    FetchError,
    GatedRepo,
    HostilePath,
    NotFound,
    RateLimited,
    Stalled,
    Unauthorized,
    Unreachable,
    Untrusted,
)
from fetcher.events import BytesHashed, BytesReceived, Mismatched, Retrying
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.effects import (
    Body,
    Chunked,
    ExtraBytes,
    FlipBit,
    Gzip,
    HugeHeader,
    IgnoreRange,
    Redirect,
    Replace,
    ShortBody,
    Status,
    WrongBody,
    WrongContentRange,
    rate_limited,
)
from fetcher.testing.faults import Effect, Fault
from fetcher.testing.interruptions import Finish, Reset, Stall, Trickle
from fetcher.testing.listings import EndlessPages, NextLink, extra_files
from fetcher.testing.origin import Origin
from tests.engine.conftest import FILES, Fetcher, MiB, contents
from tests.lab.waiting import wait_until

CURED: dict[str, Fault] = {
    "a reset before the head": Fault(Reset(), origin="cdn", times=3),
    "a reset inside the body": Fault(Reset(after=5 * MiB), origin="cdn", times=2),
    "an end before the end": Fault(Finish(after=1 * MiB), origin="cdn", times=2),
    "a stall before the head": Fault(Stall(), origin="cdn", times=1),
    "a stall inside the body": Fault(Stall(after=1 * MiB), origin="cdn", times=1),
    "a trickle": Fault(Trickle(after=1 * MiB, size=10, interval=0.2), origin="cdn", times=1),
    "429 with Retry-After": Fault(rate_limited(retry_after=1), origin="cdn", times=2),
    "429 with RateLimit": Fault(rate_limited(reset=0), origin="hub", times=1),
    "429 with neither": Fault(rate_limited(), origin="hub", times=2),
    "a burst of 500": Fault(Status(500), origin="cdn", times=4),
    "a burst of 503 at the Hub": Fault(Status(503), origin="hub", times=3),
    "a signed address that is refused": Fault(Status(403), origin="cdn", times=1),
    "Range ignored once": Fault(IgnoreRange(), origin="cdn", ranged=True, times=1),
    "Range ignored always": Fault(IgnoreRange(), origin="cdn", ranged=True),
    "a shifted Content-Range": Fault(WrongContentRange(shift=1), origin="cdn", times=1),
    "the bytes of another range": Fault(WrongBody(shift=3), origin="cdn", ranged=True, times=1),
    "a short body": Fault(ShortBody(missing=100), origin="cdn", times=1),
    "extra bytes": Fault(ExtraBytes(b"HTTP/1.1 200 OK\r\n\r\n"), origin="cdn", times=2),
    "gzip despite identity": Fault(Gzip(), origin="cdn", times=1),
    "gzip that is not announced": Fault(Gzip(announced=False), origin="cdn", times=1),
    "one flipped bit": Fault(FlipBit(1000), origin="cdn", times=1),
    "a chunked body": Fault(Chunked(), origin="cdn"),
    "a huge header": Fault(HugeHeader(100_000), origin="cdn", times=1),
}


@pytest.mark.parametrize("fault", CURED.values(), ids=CURED)
async def test_a_fetch_survives_temporary_faults(origin: Origin, fetch: Fetcher, fault: Fault) -> None:
    origin.add_repo("org/model", FILES)
    origin.faults.add(fault)

    artifact = await fetch()

    assert origin.faults.fired(fault) > 0
    assert contents(artifact.path) == FILES
    assert artifact.verified


LASTING: dict[str, tuple[Fault, type[FetchError], int]] = {
    "a bit that is always flipped": (Fault(FlipBit(1000), origin="cdn"), DigestMismatch, 65),
    "content that never matches": (Fault(Replace(b"x" * (3 * MiB), keep_etag=True), path="model-00002"), DigestMismatch, 65),
    "a server that always fails": (Fault(Status(500), origin="cdn"), Unreachable, 69),
    "a Hub that always fails": (Fault(Status(502), origin="hub"), Unreachable, 69),
    "connections that are always reset": (Fault(Reset(), origin="cdn"), Unreachable, 69),
    "bodies that always stall": (Fault(Stall(after=0), origin="cdn"), Stalled, 69),
    "a limit beyond the patience": (Fault(rate_limited(retry_after=600), origin="cdn"), RateLimited, 75),
    "401 for ever": (Fault(Status(401), origin="hub"), Unauthorized, 77),
    "403 for ever": (Fault(Status(403), origin="hub"), Unauthorized, 77),
    "403 at the CDN for ever": (Fault(Status(403), origin="cdn"), Unauthorized, 77),
    "404 for ever": (Fault(Status(404), origin="hub"), NotFound, 66),
    "a listing that is no JSON": (Fault(Body(b"<html>"), path="/tree/"), BadResponse, 69),
    "a listing without end": (Fault(EndlessPages(2), path="/tree/"), BadResponse, 69),
    "a listing that goes on elsewhere": (Fault(NextLink("http://localhost:9/x"), path="/tree/"), BadResponse, 69),
    "redirects in circles": (Fault(Redirect("{target}"), path="/resolve/"), BadResponse, 69),
}


@pytest.mark.parametrize(("fault", "error", "code"), LASTING.values(), ids=LASTING)
async def test_a_permanent_fault_ends_in_its_error_and_publishes_nothing(
    origin: Origin, fetch: Fetcher, fault: Fault, error: type[FetchError], code: int
) -> None:
    origin.add_repo("org/model", FILES)
    origin.faults.add(fault)

    with pytest.raises(error) as caught:
        await fetch(retry_for=1.5)

    assert caught.value.exit_code == code
    assert caught.value.sentence().startswith(f"{caught.value.reason}: ")
    assert fetch.visible() == []


async def test_one_bad_file_leaves_the_others_resumable(origin: Origin, fetch: Fetcher) -> None:
    origin.add_repo("org/model", FILES)
    origin.faults.add(Fault(FlipBit(5), path="model-00002"))
    with pytest.raises(DigestMismatch):
        await fetch(max_concurrency=1)
    origin.faults.clear()

    artifact = await fetch()

    assert contents(artifact.path) == FILES
    assert artifact.bytes_fetched < artifact.bytes


async def test_a_mismatch_is_reported_and_refetched_a_bounded_number_of_times(origin: Origin, fetch: Fetcher) -> None:
    origin.add_repo("org/model", FILES)
    fault = origin.faults.add(Fault(FlipBit(5), path="model-00002"))
    with pytest.raises(DigestMismatch, match="00002"):
        await fetch()
    assert origin.faults.fired(fault) == 3
    assert [event.attempt for event in fetch.events if isinstance(event, Mismatched)] == [1, 2]


@pytest.mark.parametrize("path", ["../escape", "/etc/passwd", "a\\b", "nul\0", "config.json/x", ".fetcher/manifest.json"])
async def test_hostile_listings_are_refused_before_anything_is_fetched(origin: Origin, fetch: Fetcher, path: str) -> None:
    origin.add_repo("org/model", FILES)
    origin.faults.add(Fault(extra_files(path), path="/tree/"))

    with pytest.raises(HostilePath):
        await fetch()

    assert fetch.visible() == []
    assert not [request for request in origin.requests if "/resolve/" in request.path or request.origin == "cdn"]


async def test_expired_addresses_are_renewed_without_losing_progress(origin: Origin, fetch: Fetcher) -> None:
    origin.add_repo("org/model", FILES)
    origin.signer.uses = 1

    artifact = await fetch(max_concurrency=1)

    assert contents(artifact.path) == FILES
    assert artifact.bytes_fetched == artifact.bytes


async def test_content_that_changes_midway_is_never_mixed(origin: Origin, fetch: Fetcher) -> None:
    address = origin.add_file("/model.bin", FILES["model-00001-of-00002.safetensors"])
    new = FILES["model-00001-of-00002.safetensors"][::-1]
    origin.faults.add(Fault(Replace(new), path="/model.bin", nth=2))

    artifact = await fetch(address, max_concurrency=1)

    assert contents(artifact.path) == {"model.bin": new}


class TestCredentials:
    async def test_the_token_goes_to_the_hub_and_nowhere_else(
        self, origin: Origin, fetch: Fetcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        origin.add_repo("org/model", FILES, private=True, readers=["hf_secret"])
        monkeypatch.setenv("HF_TOKEN", "hf_secret\n")
        artifact = await fetch()
        assert contents(artifact.path) == FILES
        assert {request.token for request in origin.requests if request.origin == "hub"} == {"hf_secret"}
        assert {request.token for request in origin.requests if request.origin == "cdn"} == {None}

    async def test_an_empty_token_is_not_sent(self, origin: Origin, fetch: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
        origin.add_repo("org/model", FILES)
        monkeypatch.setenv("HF_TOKEN", " \n")
        await fetch()
        assert all("authorization" not in request.headers for request in origin.requests)

    async def test_a_private_repository_without_a_token_says_what_to_do(self, origin: Origin, fetch: Fetcher) -> None:
        origin.add_repo("org/model", FILES, private=True, readers=["hf_secret"])
        with pytest.raises(Unauthorized, match="HF_TOKEN"):
            await fetch()

    async def test_a_gated_repository_says_what_to_do(
        self, origin: Origin, fetch: Fetcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        origin.add_repo("org/model", FILES, gated=True, readers=["hf_other"])
        monkeypatch.setenv("HF_TOKEN", "hf_other2")
        origin.add_repo("org/else", {}, readers=["hf_other2"])
        with pytest.raises(GatedRepo, match="ask for it"):
            await fetch()

    async def test_a_downgrade_to_http_never_carries_the_token(self, fetch: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
        with Origin(lfs_threshold=MiB, tls=["hub"]) as origin:
            monkeypatch.setenv("HF_ENDPOINT", origin.endpoint)
            monkeypatch.setenv("SSL_CERT_FILE", str(origin.ca_file))
            monkeypatch.setenv("HF_TOKEN", "hf_secret")
            origin.add_repo("org/model", FILES, private=True, readers=["hf_secret"])
            artifact = await fetch()
            assert contents(artifact.path) == FILES
            assert {request.token for request in origin.requests if request.scheme == "http"} == {None}

    async def test_an_unpinned_file_is_not_fetched_after_a_downgrade(
        self, fetch: Fetcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Origin(tls=["cdn"]) as origin, Origin() as plain:
            monkeypatch.setenv("SSL_CERT_FILE", str(origin.ca_file))
            address = origin.add_file("/model.bin", b"weights")
            origin.faults.add(Fault(Redirect(plain.add_file("/model.bin", b"weights"), 302), origin="cdn"))
            with pytest.raises(Untrusted, match="pin"):
                await fetch(address)
            assert plain.requests == ()

    async def test_an_unknown_certificate_is_untrusted(self, fetch: Fetcher) -> None:
        with Origin(tls=["cdn"]) as origin, pytest.raises(Untrusted, match="certificate verify failed"):
            await fetch(origin.add_file("/model.bin", b"weights"))


@pytest.mark.parametrize(
    ("uri", "given"),
    [("hf://org/nothing", {}), ("hf://org/model@nothing", {}), ("hf://org/model", {"include": ("nothing",)})],
    ids=["repository", "revision", "selection"],
)
async def test_a_missing_repository_or_revision_is_not_found(
    origin: Origin, fetch: Fetcher, monkeypatch: pytest.MonkeyPatch, uri: str, given: dict[str, tuple[str]]
) -> None:
    origin.add_repo("org/model", FILES, readers=["hf_reader"])
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    with pytest.raises(NotFound):
        await fetch(uri, **given)
    assert fetch.visible() == []


async def test_a_missing_file_is_not_found(origin: Origin, fetch: Fetcher) -> None:
    origin.add_repo("org/model", FILES)
    with pytest.raises(NotFound):
        await fetch(f"{origin.endpoint}/org/model/resolve/main/nothing.bin")


async def test_listings_of_several_pages_are_read_to_the_end(fetch: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    with Origin(page_size=2, resolve_cache=True, redirect_status=307) as origin:
        monkeypatch.setenv("HF_ENDPOINT", origin.endpoint)
        files = {f"part/{number}.bin": bytes([number]) * 10 for number in range(9)}
        origin.add_repo("org/model", files)
        assert contents((await fetch()).path) == files


async def test_a_slow_listing_does_not_lose_the_lease(origin: Origin, fetch: Fetcher) -> None:
    """The lease is renewed before the first byte, so that others know that its owner is alive."""
    origin.add_repo("org/model", FILES)
    slow = origin.faults.add(Fault(Stall(seconds=3.0), path="/tree/", times=1))
    artifact = await fetch(lease_stale=4.0, timeout_stall=10.0)
    assert origin.faults.fired(slow) == 1
    assert contents(artifact.path) == FILES


async def test_retries_are_reported(origin: Origin, fetch: Fetcher) -> None:
    origin.add_repo("org/model", FILES)
    origin.faults.add(Fault(Status(503), origin="cdn", times=1))
    await fetch()
    assert [event.reason for event in fetch.events if isinstance(event, Retrying)] == ["Unreachable"]


def test_every_effect_of_the_matrix_is_an_effect() -> None:
    assert all(isinstance(fault.effect, Effect) for fault in CURED.values())


async def test_a_resumed_file_is_not_hashed_from_the_beginning(origin: Origin, fetch: Fetcher) -> None:
    origin.add_repo("org/model", {"model.safetensors": random_bytes("continued", 60 * MiB)})
    origin.throttle(total=40 * MiB)
    fetching = asyncio.ensure_future(fetch(max_concurrency=1))

    def hashed() -> int:
        return sum(event.bytes for event in list(fetch.events) if isinstance(event, BytesHashed))

    await asyncio.to_thread(wait_until, lambda: hashed() >= CHUNK_SIZE, "a hashed chunk")
    fetching.cancel()
    await asyncio.wait([fetching])
    before = hashed() // CHUNK_SIZE * CHUNK_SIZE
    fetch.events.clear()
    origin.throttle()
    assert (await fetch()).verified
    first = next(event for event in fetch.events if isinstance(event, BytesHashed | BytesReceived))
    assert isinstance(first, BytesHashed)
    assert first.bytes >= before
