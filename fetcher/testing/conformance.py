"""The contract of `fetcher.sources.base.Source` as a test suite for every source.

Subclass it in a test module to run the suite against your source::

    class TestFileSource(SourceConformance):
        @pytest.fixture
        def make_source(self, tmp_path):
            def make(files):
                write(tmp_path / "artifact", files)       # replaces earlier files
                return FileSource(tmp_path / "artifact")
            return make

        @pytest.fixture
        def missing_source(self, tmp_path):
            return FileSource(tmp_path / "absent")

Needs pytest with pytest-asyncio in auto mode.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import ClassVar, TypeVar

import pytest

from fetcher.artifact import ByteRange, Digest, Listing, RemoteFile
from fetcher.errors import BadResponse, ContentChanged, FetchError, MirrorFailed, NotFound, Refused, SourceError, Transient
from fetcher.sources.base import Source
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.effects import Header, LongBody, Status, WrongContentRange
from fetcher.testing.faults import Effect, Fault, Faults
from fetcher.testing.interruptions import Stall

T = TypeVar("T")
MakeSource = Callable[[Mapping[str, bytes]], Source]

_SIZE = 300_000
"""Bytes: several reads for any transport, and still fast."""

_TRIES = 10
"""Retries of one request. Where every second request is refused, requests that run beside it can each cost it one."""


async def read(source: Source, file: RemoteFile, byte_range: ByteRange | None = None) -> bytes:
    """Open the file and return all bytes of the body. Like the engine, ask for the rest again where a mirror failed."""
    buffer, content = memoryview(bytearray(50_000)), bytearray()
    rest = byte_range
    while True:
        with contextlib.suppress(MirrorFailed):
            async with source.open(file, rest) as body:
                while count := await body.readinto(buffer):
                    content += buffer[:count]
            return bytes(content)
        whole = byte_range or ByteRange(0, file.size or 0)
        rest = ByteRange(whole.start + len(content), whole.stop)


async def listing_of(source: Source) -> Listing:
    """Return the listing of the source at its resolved revision."""
    return await source.list(await source.resolve())


async def again_at_once(request: Callable[[], Awaitable[T]]) -> T:
    """A `sources.base.Asking` that retries a request at most `_TRIES` times, without delay."""
    for _ in range(_TRIES):
        with contextlib.suppress(Transient):
            return await request()
    return await request()


def _faults_of(faults: Faults | None) -> Faults:
    if faults is None:
        pytest.skip("this source has no server")
    return faults


def actual(digest: Digest, content: bytes) -> str:
    """Return the correct hex value of `digest` for `content`."""
    if digest.algorithm == "sha256":
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


class SourceConformance:
    """The test suite. Override both source fixtures, `faults` if the source has a server, and attributes that differ.

    `files` is the published artifact: a source of single files overrides it with one file. `secret` is the credential that
    `make_source` and `missing_source` give to the source, if it takes one. `missing_errors` are the errors allowed for an
    artifact that does not exist.
    """

    files: ClassVar[Mapping[str, bytes]] = {
        "config.json": b'{"model_type": "llama"}',
        "model.safetensors": random_bytes("conformance", _SIZE),
        "nested/folder/model.bin": random_bytes("nested", 1000),
    }
    secret: ClassVar[str | None] = None
    missing_errors: ClassVar[tuple[type[SourceError], ...]] = (NotFound,)

    @pytest.fixture
    def make_source(self) -> MakeSource:
        """Return a function that publishes exactly these files, always at the same place, and returns a new source for it."""
        raise NotImplementedError("a subclass provides this fixture")

    @pytest.fixture
    def missing_source(self) -> Source:
        """A source for a place where nothing is published."""
        raise NotImplementedError("a subclass provides this fixture")

    @pytest.fixture
    def faults(self) -> Faults | None:
        """The faults of the server behind both fixtures, or None for a source without a server."""
        return None

    @pytest.fixture
    def make(self, make_source: MakeSource) -> MakeSource:
        """What all tests use as `make_source`. Override it to run the suite with something in front of each source."""
        return make_source

    @pytest.fixture
    def missing(self, missing_source: Source) -> Source:
        """The same for `missing_source`."""
        return missing_source

    @property
    def largest(self) -> bytes:
        return max(self.files.values(), key=len)

    def file_in(self, listing: Listing) -> RemoteFile:
        """Return the entry of the largest file."""
        path = next(path for path, content in self.files.items() if content is self.largest)
        return next(file for file in listing.files if file.path == path)

    def changed(self) -> dict[str, bytes]:
        """Return files with the same names and sizes but other content."""
        return {path: random_bytes(f"other {path}", len(content)) for path, content in self.files.items()}

    # Listing

    async def test_every_file_is_listed_once_with_its_size(self, make: MakeSource) -> None:
        async with aclosing(make(self.files)) as source:
            listed = [(file.path, file.size) for file in (await listing_of(source)).files]
        assert sorted(listed) == sorted((path, len(content)) for path, content in self.files.items())

    async def test_listed_digests_match_the_content(self, make: MakeSource) -> None:
        async with aclosing(make(self.files)) as source:
            files = (await listing_of(source)).files
        for file in files:
            for digest in file.digests:
                assert digest.hex == actual(digest, self.files[file.path]), file.path

    async def test_the_listing_has_the_requested_revision(self, make: MakeSource) -> None:
        async with aclosing(make(self.files)) as source:
            revision = await source.resolve()
            assert (await source.list(revision)).revision == revision

    async def test_unchanged_files_keep_their_identity(self, make: MakeSource) -> None:
        async with aclosing(make(self.files)) as source, aclosing(make(self.files)) as again:
            before = {file.path: file.identity for file in (await listing_of(source)).files}
            assert before == {file.path: file.identity for file in (await listing_of(again)).files}

    async def test_changed_content_has_another_identity(self, make: MakeSource) -> None:
        async with aclosing(make(self.files)) as source:
            before = self.file_in(await listing_of(source)).identity
        async with aclosing(make(self.changed())) as source:
            after = self.file_in(await listing_of(source)).identity
        assert before is None or before != after

    # Revisions

    async def test_unchanged_content_resolves_to_the_same_revision(self, make: MakeSource) -> None:
        async with aclosing(make(self.files)) as source, aclosing(make(self.files)) as again:
            assert await source.resolve() == await again.resolve()

    async def test_changed_content_resolves_to_another_revision(self, make: MakeSource) -> None:
        async with aclosing(make(self.files)) as source:
            before = await source.resolve()
        async with aclosing(make(self.changed())) as source:
            after = await source.resolve()
        assert before is None or before != after

    # Bodies

    async def test_whole_files_arrive_bit_for_bit(self, make: MakeSource) -> None:
        async with aclosing(make(self.files)) as source:
            for file in (await listing_of(source)).files:
                assert await read(source, file) == self.files[file.path], file.path

    @pytest.mark.parametrize(
        ("start", "stop"),
        [(0, 1000), (0, 1), (70_001, 200_000), (_SIZE - 1, _SIZE), (_SIZE - 1000, _SIZE), (0, _SIZE)],
        ids=["start", "first byte", "middle", "last byte", "end", "everything"],
    )
    async def test_a_range_arrives_exactly(self, make: MakeSource, start: int, stop: int) -> None:
        async with aclosing(make(self.files)) as source:
            file = self.file_in(await listing_of(source))
            assert await read(source, file, ByteRange(start, stop)) == self.largest[start:stop]

    async def test_an_empty_file_is_listed_and_read(self, make: MakeSource) -> None:
        path = next(iter(self.files))
        async with aclosing(make({path: b""})) as source:
            (file,) = (await listing_of(source)).files
            assert (file.size, await read(source, file)) == (0, b"")

    async def test_many_ranges_can_be_open_concurrently(self, make: MakeSource) -> None:
        ranges = [ByteRange(start, start + 10_000) for start in range(0, _SIZE, 10_000)]
        async with aclosing(make(self.files)) as source:
            file = self.file_in(await listing_of(source))
            parts = await asyncio.gather(*(read(source, file, byte_range) for byte_range in ranges))
        assert b"".join(parts) == self.largest

    async def test_a_body_can_be_closed_before_its_end(self, make: MakeSource) -> None:
        async with aclosing(make(self.files)) as source:
            file = self.file_in(await listing_of(source))
            for _ in range(3):
                buffer = bytearray(1000)
                async with source.open(file, None) as body:
                    count = await body.readinto(memoryview(buffer))
                assert count > 0
                assert self.largest.startswith(buffer[:count])
            async with source.open(file, None):
                pass
            assert await read(source, file) == self.largest

    async def test_a_read_writes_only_the_bytes_that_it_returns(self, make: MakeSource) -> None:
        async with aclosing(make(self.files)) as source:
            file = self.file_in(await listing_of(source))
            buffer = bytearray(b"\xa5" * 4096)
            async with source.open(file, ByteRange(0, 1000)) as body:
                count = await body.readinto(memoryview(buffer))
                while more := await body.readinto(memoryview(buffer)[count:]):
                    count += more
            assert buffer == self.largest[:1000] + b"\xa5" * 3096

    async def test_a_cancelled_reader_gets_no_bytes_afterwards(self, make: MakeSource) -> None:
        async with aclosing(make(self.files)) as source:
            file = self.file_in(await listing_of(source))
            for turns in range(12):
                buffer = bytearray(_SIZE)
                async with source.open(file, None) as body:
                    reading = asyncio.ensure_future(body.readinto(memoryview(buffer)))
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    reading.cancel()
                    await asyncio.wait([reading])
                    before = bytes(buffer)
                    await asyncio.sleep(0.01)
                    assert buffer == before
            assert await read(source, file) == self.largest

    async def test_an_error_of_the_reader_propagates(self, make: MakeSource) -> None:
        async with aclosing(make(self.files)) as source:
            file = self.file_in(await listing_of(source))
            with pytest.raises(ZeroDivisionError):
                async with source.open(file, ByteRange(0, 1000)):
                    raise ZeroDivisionError
            assert await read(source, file, ByteRange(0, 1000)) == self.largest[:1000]

    # Errors

    async def test_changed_content_is_never_returned_for_a_listed_file(self, make: MakeSource) -> None:
        """A source that keeps old revisions serves the listed one. Any other source raises ContentChanged."""
        async with aclosing(make(self.files)) as source:
            file = self.file_in(await listing_of(source))
            async with aclosing(make(self.changed())):
                with contextlib.suppress(ContentChanged):
                    assert await read(source, file, ByteRange(1000, 2000)) == self.largest[1000:2000]

    async def test_an_artifact_that_does_not_exist_is_not_found(self, missing: Source) -> None:
        async with aclosing(missing) as source:
            with pytest.raises(self.missing_errors) as caught:
                await listing_of(source)
        assert not isinstance(caught.value, Transient)
        assert len(caught.value.sentence().splitlines()) == 1

    async def test_no_error_or_representation_shows_a_credential(self, make: MakeSource, missing: Source) -> None:
        if self.secret is None:
            pytest.skip("this source takes no credential")
        async with aclosing(make(self.files)) as source, aclosing(missing):
            with pytest.raises(FetchError) as caught:
                await listing_of(missing)
            shown = [repr(source), repr(missing), repr(await listing_of(source))]
        error: BaseException | None = caught.value
        while error is not None:
            shown += [str(error), repr(error)]
            error = error.__cause__ or error.__context__
        assert self.secret not in "\n".join(shown)

    # Slow, busy and refusing servers

    async def test_a_late_response_is_awaited(self, make: MakeSource, faults: Faults | None) -> None:
        async with aclosing(make(self.files)) as source:
            _faults_of(faults).add(Fault(Stall(seconds=0.7)))
            file = self.file_in(await listing_of(source))
            assert await read(source, file, ByteRange(1000, 2000)) == self.largest[1000:2000]

    @pytest.mark.parametrize("status", [429, 503])
    async def test_a_listing_resumes_at_the_failed_request(self, make: MakeSource, faults: Faults | None, status: int) -> None:
        """Every second request is refused: a listing that restarts after each failure never ends."""
        async with aclosing(make(self.files)) as source:
            _faults_of(faults).add(Fault(Status(status), every=2))
            listing = await source.list(await source.resolve(again_at_once), again_at_once)
        assert sorted(file.path for file in listing.files) == sorted(self.files)

    @pytest.mark.parametrize("effect", [WrongContentRange(shift=7), LongBody(100)], ids=["another range", "a longer body"])
    async def test_a_response_that_breaks_the_protocol_is_a_bad_response(
        self, make: MakeSource, faults: Faults | None, effect: Effect
    ) -> None:
        """The error names the requested range. The engine gives up on BadResponse within seconds."""
        async with aclosing(make(self.files)) as source:
            file = self.file_in(await listing_of(source))
            _faults_of(faults).add(Fault(effect))
            with pytest.raises(BadResponse, match="bytes=1000-1999 was requested"):
                await read(source, file, ByteRange(1000, 2000))

    async def test_the_error_message_of_the_server_is_reported(self, make: MakeSource, faults: Faults | None) -> None:
        async with aclosing(make(self.files)) as source:
            _faults_of(faults).add(Fault(Status(451, (("X-Error-Message", "not in your country"),))))
            with pytest.raises(Refused, match="not in your country"):
                await listing_of(source)

    async def test_validators_of_servers_can_differ_if_a_digest_is_known(self, make: MakeSource, faults: Faults | None) -> None:
        async with aclosing(make(self.files)) as source:
            listed = self.file_in(await listing_of(source))
            file = replace(listed, digests=(Digest("sha256", hashlib.sha256(self.largest).hexdigest()),))
            assert await read(source, file, ByteRange(500, 1000)) == self.largest[500:1000]
            for name in ("ETag", "Last-Modified"):
                _faults_of(faults).add(Fault(Header(name, '"of another replica"')))
            assert await read(source, file, ByteRange(1000, 2000)) == self.largest[1000:2000]

    # Closing

    async def test_a_source_can_be_closed_twice(self, make: MakeSource) -> None:
        source = make(self.files)
        await source.aclose()
        await source.aclose()

    async def test_closing_after_an_abandoned_body_returns(self, make: MakeSource) -> None:
        source = make(self.files)
        file = self.file_in(await listing_of(source))
        async with source.open(file, None) as body:
            await body.readinto(memoryview(bytearray(1000)))
        await source.aclose()

    async def test_the_local_path_of_a_file_has_its_content(self, make: MakeSource) -> None:
        async with aclosing(make(self.files)) as source:
            for file in (await listing_of(source)).files:
                path = source.local_path(file)
                assert (path is not None) == source.capabilities.local
                if path is not None:
                    assert path.read_bytes() == self.files[file.path]
