"""Waiting, retrying and giving up: progress, slow connections, and temporary errors."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fetcher.artifact import ArtifactRef, ByteRange, RemoteFile
from fetcher.engine import fetch as engine_fetch
from fetcher.engine.transfer import RESTARTS
from fetcher.errors import (
    ConfigurationError,
    FetchError,
    NotFound,
    RateLimited,
    Refused,
    Stalled,
    TooManyOpenFiles,
    Transient,
    Unauthorized,
    Unreachable,
)
from fetcher.events import BytesReceived, Event, Retrying, silent
from fetcher.settings import Settings
from fetcher.sources.base import Body
from fetcher.sources.local import LocalSource
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.effects import Chunked, FlipBit, IgnoreRange, Redirect, Status, rate_limited
from fetcher.testing.faults import Effect, Fault
from fetcher.testing.interruptions import Finish, Reset, Stall, Trickle
from fetcher.testing.origin import Origin
from tests.engine.conftest import FILES, Fetcher, MiB, contents


def retries(fetch: Fetcher) -> list[str]:
    return [event.reason for event in fetch.events if isinstance(event, Retrying)]


class TestLateAnswers:
    """Connections are compared within a third of the stall timeout, at least a second."""

    @pytest.mark.parametrize("connections", [1, 4])
    async def test_a_late_answer_within_the_stall_timeout_is_not_retried(
        self, origin: Origin, fetch: Fetcher, connections: int
    ) -> None:
        origin.add_repo("org/model", FILES)
        origin.faults.add(Fault(Stall(seconds=2.0), origin="cdn"))
        artifact = await fetch(max_concurrency=connections, timeout_stall=3.5)
        assert contents(artifact.path) == FILES
        assert retries(fetch) == []

    async def test_one_late_connection_among_fast_ones_is_not_retried(self, origin: Origin, fetch: Fetcher) -> None:
        origin.add_repo("org/model", FILES)
        origin.faults.add(Fault(Stall(seconds=2.5), origin="cdn", path="model-00002", times=1))
        await fetch(timeout_stall=3.5)
        assert retries(fetch) == []

    async def test_a_late_first_byte_is_not_retried(self, origin: Origin, fetch: Fetcher) -> None:
        origin.add_repo("org/model", FILES)
        origin.faults.add(Fault(Stall(after=0, seconds=2.0), origin="cdn"))
        await fetch(max_concurrency=2, timeout_stall=3.5)
        assert retries(fetch) == []

    async def test_a_late_redirect_target_is_not_retried(self, origin: Origin, fetch: Fetcher) -> None:
        content = random_bytes("late", 3 * MiB)
        target = origin.add_file("/target.bin", content)
        address = origin.add_file("/model.bin", content)
        origin.faults.add(Fault(Redirect(target), path="^/model.bin"))
        origin.faults.add(Fault(Stall(seconds=2.0), path="^/target.bin"))
        artifact = await fetch(address, max_concurrency=1, timeout_stall=3.5)
        assert contents(artifact.path) == {"model.bin": content}
        assert retries(fetch) == []

    async def test_an_answer_after_the_stall_timeout_is_a_stall(self, origin: Origin, fetch: Fetcher) -> None:
        origin.add_repo("org/model", FILES)
        origin.faults.add(Fault(Stall(seconds=5.0), origin="cdn", times=1))
        await fetch(timeout_stall=1.0)
        assert retries(fetch) == ["Stalled"]


class TestTrickles:
    async def test_a_trickle_on_the_last_file_is_replaced_after_a_stall_timeout(self, origin: Origin, fetch: Fetcher) -> None:
        origin.add_repo("org/model", {"model.safetensors": random_bytes("only", 2 * MiB)})
        origin.faults.add(Fault(Trickle(after=1000, size=100, interval=0.1), origin="cdn", times=1))
        began = time.monotonic()
        await fetch(max_concurrency=1, timeout_stall=1.5)
        (event,) = [event for event in fetch.events if isinstance(event, Retrying)]
        assert time.monotonic() - began >= 1.5
        assert "received only" in event.message

    @pytest.mark.parametrize(
        ("connections", "files", "size"),
        [(1, 1, 2 * MiB), (3, 3, 2 * MiB), (2, 2, 300 * 1024), (8, 9, 2 * MiB), (4, 1, 40 * MiB)],
        ids=["one", "three", "small files", "more files than connections", "ranges of one file"],
    )
    async def test_an_endless_trickle_is_given_up(
        self, origin: Origin, fetch: Fetcher, connections: int, files: int, size: int
    ) -> None:
        """Neither bytes that come again nor their hashing renew the patience."""
        content = {f"model-{number}.safetensors": random_bytes(f"{number}", size) for number in range(files)}
        origin.add_repo("org/model", content)
        origin.faults.add(Fault(Trickle(after=0, size=100, interval=0.1), path=r"\.safetensors"))
        with pytest.raises(Stalled, match="without progress"):
            await fetch(max_concurrency=connections, timeout_stall=1.0, retry_for=3.0)

    async def test_a_slow_link_is_not_a_trickle(self, origin: Origin, fetch: Fetcher) -> None:
        files = {"small.safetensors": random_bytes("s", MiB), "large.safetensors": random_bytes("l", 2 * MiB)}
        origin.add_repo("org/model", files)
        origin.faults.add(Fault(Trickle(size=30_000, interval=0.05), origin="cdn", path="large"))
        await fetch(max_concurrency=2, timeout_stall=1.5)
        assert retries(fetch) == []

    async def test_a_rate_limit_is_not_a_trickle(self, origin: Origin, fetch: Fetcher) -> None:
        origin.add_repo("org/model", {"config.json": random_bytes("c", 60_000)})
        await fetch(max_concurrency=1, timeout_stall=1.0, limit_rate=20_000.0)
        assert retries(fetch) == []


REFUSALS: dict[str, Effect] = {
    "429": rate_limited(),
    "429 with Retry-After": rate_limited(retry_after=0),
    "503": Status(503),
    "503 with Retry-After": Status(503, (("Retry-After", "0"),)),
    "a reset": Reset(),
}


class TestSequences:
    """Each request is retried separately. Every other request fails, so a sequence that restarted would never end."""

    @pytest.fixture(autouse=True)
    def short_delays(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("fetcher.engine.retry.FIRST_DELAY", 0.05)

    @pytest.mark.parametrize("pages", [2, 10])
    @pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
    async def test_a_listing_resumes_at_the_failed_page(
        self, fetch: Fetcher, monkeypatch: pytest.MonkeyPatch, pages: int, refusal: Effect
    ) -> None:
        with Origin(page_size=2) as origin:
            monkeypatch.setenv("HF_ENDPOINT", origin.endpoint)
            files = {f"{number}.txt": bytes([number]) for number in range(2 * pages)}
            origin.add_repo("org/model", files)
            origin.faults.add(Fault(refusal, path="/tree/", every=2))
            artifact = await fetch(retry_for=3.0)
            assert contents(artifact.path) == files
            listed = [request for request in origin.requests if "/tree/" in request.path]
            assert len(listed) == 2 * pages

    async def test_a_fetch_succeeds_if_every_other_request_fails(self, fetch: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
        with Origin(page_size=3, resolve_cache=True, lfs_threshold=MiB) as origin:
            monkeypatch.setenv("HF_ENDPOINT", origin.endpoint)
            origin.add_repo("org/model", FILES)
            origin.faults.add(Fault(Status(503), every=2))
            assert contents((await fetch(max_concurrency=1, retry_for=10.0)).path) == FILES

    @pytest.mark.parametrize("refusal", [Status(503), Reset()], ids=["503", "a reset"])
    async def test_a_chain_of_redirects_resumes_at_the_failed_address(
        self, origin: Origin, fetch: Fetcher, refusal: Effect
    ) -> None:
        content = random_bytes("chain", 1000)
        last = origin.add_file("/d.bin", content)
        for name, target in (("c", "d"), ("b", "c"), ("a", "b")):
            origin.add_file(f"/{name}.bin", b"")
            origin.faults.add(Fault(refusal, path=f"^/{target}.bin", times=1))
            origin.faults.add(Fault(Redirect(last.replace("/d.bin", f"/{target}.bin")), path=f"^/{name}.bin"))
        artifact = await fetch(last.replace("/d.bin", "/a.bin"), retry_for=5.0)
        assert contents(artifact.path) == {"a.bin": content}
        assert [request.path for request in origin.requests].count("/a.bin") == 1

    async def test_a_redirect_is_requested_again_if_its_target_stays_down(self, origin: Origin, fetch: Fetcher) -> None:
        """The next redirect can lead to another replica."""
        down, up = origin.add_file("/down.bin", b"x"), origin.add_file("/up.bin", b"weights")
        address = origin.add_file("/model.bin", b"")
        origin.faults.add(Fault(Status(503), path="^/down.bin"))
        origin.faults.add(Fault(Redirect(down), path="^/model.bin", times=1))
        origin.faults.add(Fault(Redirect(up), path="^/model.bin"))
        assert contents((await fetch(address, retry_for=5.0)).path) == {"model.bin": b"weights"}

    async def test_a_page_that_always_fails_is_given_up(self, fetch: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
        with Origin(page_size=2) as origin:
            monkeypatch.setenv("HF_ENDPOINT", origin.endpoint)
            origin.add_repo("org/model", {f"{number}.txt": b"" for number in range(6)})
            origin.faults.add(Fault(Status(503), path="/tree/", nth=3))
            with pytest.raises(Unreachable, match="without progress"):
                await fetch(retry_for=1.0)


class TestProgress:
    @pytest.mark.parametrize("known", [True, False], ids=["size known", "size unknown"])
    async def test_a_server_without_ranges_that_keeps_breaking_off_is_given_up(
        self, origin: Origin, fetch: Fetcher, known: bool
    ) -> None:
        address = origin.add_file("/model.bin", random_bytes("broken", 4 * MiB))
        origin.faults.add(Fault(IgnoreRange()))
        if not known:
            origin.faults.add(Fault(Chunked()))
        origin.faults.add(Fault(Finish(after=3 * MiB)))
        with pytest.raises(Transient, match=f"broke off {RESTARTS + 1} times|without progress"):
            await fetch(address, retry_for=2.0)
        received = sum(event.bytes for event in fetch.events if isinstance(event, BytesReceived))
        assert received <= (RESTARTS + 1) * 3 * MiB

    async def test_restarts_are_bounded_for_any_retry_time(
        self, origin: Origin, fetch: Fetcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("fetcher.engine.retry.FIRST_DELAY", 0.001)
        address = origin.add_file("/model.bin", random_bytes("broken", MiB))
        origin.faults.add(Fault(IgnoreRange()))
        broken = origin.faults.add(Fault(Finish(after=MiB // 2)))
        with pytest.raises(Transient, match=f"broke off {RESTARTS + 1} times") as caught:
            await fetch(address, retry_for=3600.0)
        assert caught.value.exit_code == 69
        assert origin.faults.fired(broken) == RESTARTS + 1

    async def test_a_server_without_ranges_can_break_off_a_few_times(self, origin: Origin, fetch: Fetcher) -> None:
        content = random_bytes("cured", 2 * MiB)
        address = origin.add_file("/model.bin", content)
        origin.faults.add(Fault(IgnoreRange()))
        origin.faults.add(Fault(Finish(after=MiB), times=3))
        assert contents((await fetch(address)).path) == {"model.bin": content}

    async def test_a_refetch_after_a_mismatch_succeeds(self, origin: Origin, fetch: Fetcher) -> None:
        origin.add_repo("org/model", FILES)
        origin.faults.add(Fault(FlipBit(1000), origin="cdn", path="model-00001", times=1))
        assert contents((await fetch(max_concurrency=1)).path) == FILES


FINAL: dict[int, type[FetchError]] = {
    400: Refused, 402: Refused, 405: Refused, 406: Refused, 414: Refused, 422: Refused, 451: Refused, 501: Refused,
    407: ConfigurationError, 511: ConfigurationError,
}  # fmt: skip


class TestFinalAnswers:
    @pytest.mark.parametrize("where", ["/revision/", "/tree/", "/resolve/", "/blob/"])
    @pytest.mark.parametrize("status", FINAL)
    async def test_a_final_status_is_not_retried(self, origin: Origin, fetch: Fetcher, status: int, where: str) -> None:
        origin.add_repo("org/model", {"model.safetensors": random_bytes("final", 2 * MiB)})
        refused = origin.faults.add(Fault(Status(status), path=where))
        with pytest.raises(FINAL[status]) as caught:
            await fetch(max_concurrency=1)
        assert not caught.value.retryable
        assert origin.faults.fired(refused) == 1
        assert retries(fetch) == []

    @pytest.mark.parametrize("status", [400, 405, 451])
    async def test_a_final_status_of_a_plain_address_is_refused(self, origin: Origin, fetch: Fetcher, status: int) -> None:
        address = origin.add_file("/model.bin", b"weights")
        origin.faults.add(Fault(Status(status)))
        with pytest.raises(Refused) as caught:
            await fetch(address)
        assert caught.value.exit_code == 77

    @pytest.mark.parametrize("status", [408, 409, 421, 423, 425, 429, 499, 500, 502, 503, 504, 520])
    async def test_a_temporary_status_is_retried(self, origin: Origin, fetch: Fetcher, status: int) -> None:
        address = origin.add_file("/model.bin", b"weights")
        origin.faults.add(Fault(Status(status), times=1))
        assert contents((await fetch(address)).path) == {"model.bin": b"weights"}


COMPLAINTS: dict[str, Effect] = {
    "a header": Status(401, (("X-Error-Message", "token is expired"),)),
    "the Hub's JSON": Status(401, (("Content-Type", "application/json"),), b'{"error": "token is expired"}'),
    "a gateway's JSON": Status(401, (), b'{"code": 7, "message": "token is expired"}'),
    "OAuth": Status(401, (), b'{"error": "invalid_token", "error_description": "token is expired"}'),
    "a registry's JSON": Status(401, (), b'{"errors": [{"code": "DENIED", "message": "token is expired"}]}'),
    "XML": Status(401, (), b"<?xml?><Error><Code>Expired</Code><Message>token is expired</Message></Error>"),
    "text": Status(401, (("Content-Type", "text/plain"),), b"token is expired\n"),
}


class TestServersWords:
    @pytest.mark.parametrize("answer", COMPLAINTS.values(), ids=COMPLAINTS)
    async def test_the_message_quotes_the_server_and_names_the_origin_of_the_token(
        self, origin: Origin, fetch: Fetcher, monkeypatch: pytest.MonkeyPatch, answer: Effect
    ) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_expired")
        origin.add_repo("org/model", FILES, readers=["hf_expired"])
        origin.faults.add(Fault(answer, path="/tree/"))
        with pytest.raises(Unauthorized, match="token is expired") as caught:
            await fetch()
        assert "(from HF_TOKEN)" in caught.value.message
        assert "set HF_TOKEN" not in caught.value.message
        assert "hf_expired" not in caught.value.sentence()

    async def test_the_message_says_that_no_credentials_were_sent(self, origin: Origin, fetch: Fetcher) -> None:
        origin.add_repo("org/model", FILES, private=True)
        with pytest.raises(Unauthorized, match=r'says ".*Invalid username or password"; no credentials were sent'):
            await fetch()

    async def test_the_message_names_credentials_in_the_address(self, origin: Origin, fetch: Fetcher) -> None:
        address = origin.add_file("/model.bin", b"x").replace("http://", "http://user:pa55word@")
        origin.faults.add(Fault(Status(403, (), b'{"message": "user:pa55word has no access"}')))
        with pytest.raises(Unauthorized, match="from the address") as caught:
            await fetch(address)
        assert "pa55word" not in caught.value.sentence()

    @pytest.mark.parametrize(("status", "error"), [(404, NotFound), (429, RateLimited), (451, Refused), (503, Unreachable)])
    async def test_every_status_quotes_the_server(
        self, origin: Origin, fetch: Fetcher, status: int, error: type[FetchError]
    ) -> None:
        address = origin.add_file("/model.bin", b"x")
        origin.faults.add(Fault(Status(status, (("X-Error-Code", "Odd"), ("X-Error-Message", "come back on Monday")))))
        with pytest.raises(error, match='says "Odd: come back on Monday"'):
            await fetch(address, retry_for=0.2)

    async def test_a_long_error_body_is_shortened(self, origin: Origin, fetch: Fetcher) -> None:
        address = origin.add_file("/model.bin", b"x")
        origin.faults.add(Fault(Status(400, (), b"x y " * MiB)))
        with pytest.raises(Refused) as caught:
            await fetch(address)
        assert len(caught.value.sentence()) < 500


class TestProxies:
    @pytest.mark.parametrize("status", [407, 403, 405])
    async def test_a_proxy_that_refuses_the_tunnel_is_a_configuration_error(
        self, fetch: Fetcher, monkeypatch: pytest.MonkeyPatch, status: int
    ) -> None:
        requests = 0

        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal requests
            requests += 1
            await reader.readuntil(b"\r\n\r\n")
            writer.write(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode())
            writer.close()

        server = await asyncio.start_server(refuse, "127.0.0.1", 0)
        for name in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        async with server:
            with pytest.raises(ConfigurationError, match="HTTPS_PROXY") as caught:
                await fetch("https://weights.invalid/model.bin")
        assert (caught.value.exit_code, requests) == (78, 1)
        assert str(status) in caught.value.message


class Failing(LocalSource):
    """A directory whose files raise `error` the first time they are opened, or after their first bytes."""

    def __init__(self, path: Path, error: OSError, *, opening: bool) -> None:
        super().__init__(path)
        self._error: OSError | None = error
        self._opening = opening

    def local_path(self, file: RemoteFile) -> Path | None:
        return None  # nothing is cloned

    @asynccontextmanager
    async def open(self, file: RemoteFile, byte_range: ByteRange | None) -> AsyncIterator[Body]:
        error, self._error = self._error, None
        if error and self._opening:
            raise error
        source = LocalSource(self._path)
        async with source.open(file, byte_range) as body:
            yield Broken(body, error) if error else body


class Broken:
    """A thousand bytes, then the error."""

    direct = None

    def __init__(self, body: Body, error: OSError) -> None:
        self._body, self._error, self._left = body, error, 1000

    async def readinto(self, buffer: memoryview) -> int:
        if not self._left:
            raise self._error
        count = await self._body.readinto(buffer[: self._left])
        self._left -= count
        return count


@pytest.mark.parametrize("opening", [True, False], ids=["while it opens", "after its first bytes"])
@pytest.mark.parametrize(
    "error",
    [TimeoutError(110, "timed out"), ConnectionResetError(104, "reset"), BrokenPipeError(32, "pipe"), OSError(113, "no route"),
     FileNotFoundError(2, "gone"), PermissionError(1, "not permitted"), InterruptedError(4, "interrupted")],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
async def test_an_os_error_of_a_source_is_not_a_disk_error(tmp_path: Path, error: OSError, opening: bool) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.bin").write_bytes(b"weights" * 1000)
    events: list[Event] = []
    settings = Settings(cache_dir=tmp_path / "cache", retry_for=5.0)
    source = Failing(tmp_path / "model", error, opening=opening)
    artifact = await engine_fetch(ArtifactRef(str(tmp_path / "model")), settings, events.append, source=source)
    assert contents(artifact.path) == {"weights.bin": b"weights" * 1000}
    (retried,) = [event for event in events if isinstance(event, Retrying)]
    assert retried.reason == "Unreachable"
    assert "slower" not in retried.message


@pytest.mark.parametrize("opening", [True, False], ids=["while it opens", "after its first bytes"])
async def test_a_source_without_free_descriptors_is_not_retried(tmp_path: Path, opening: bool) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.bin").write_bytes(b"weights" * 1000)
    source = Failing(tmp_path / "model", OSError(errno.EMFILE, "Too many open files"), opening=opening)
    settings = Settings(cache_dir=tmp_path / "cache", retry_for=600.0)
    with pytest.raises(TooManyOpenFiles, match="ulimit -n"):
        await engine_fetch(ArtifactRef(str(tmp_path / "model")), settings, silent, source=source)
