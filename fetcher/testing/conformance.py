"""The contract of `fetcher.sources.base.Source` as a test suite that every source passes.

Adopt it in a test module by subclassing; the methods then run against your source::

    class TestFileSource(SourceConformance):
        @pytest.fixture
        def make_source(self, tmp_path):
            def make(files):
                write(tmp_path / "artifact", files)       # replaces what was published there before
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
from fetcher.errors import BadResponse, ContentChanged, FetchError, NotFound, Refused, SourceError, Transient
from fetcher.sources.base import Source
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.effects import Header, LongBody, Status, WrongContentRange
from fetcher.testing.faults import Effect, Fault, Faults
from fetcher.testing.interruptions import Stall

T = TypeVar("T")
MakeSource = Callable[[Mapping[str, bytes]], Source]

_SIZE = 300_000
"""Bytes: several reads of any transport, and still quick."""


async def read(source: Source, file: RemoteFile, byte_range: ByteRange | None = None) -> bytes:
    """All bytes of one opening."""
    buffer, content = memoryview(bytearray(50_000)), bytearray()
    async with source.open(file, byte_range) as body:
        while count := await body.readinto(buffer):
            content += buffer[:count]
    return bytes(content)


async def listing_of(source: Source) -> Listing:
    """What the source lists at the revision that it resolves to."""
    return await source.list(await source.resolve())


async def again_at_once(request: Callable[[], Awaitable[T]]) -> T:
    """A `sources.base.Asking` that makes a request twice more at most."""
    for _ in range(2):
        with contextlib.suppress(Transient):
            return await request()
    return await request()


def _faults_of(faults: Faults | None) -> Faults:
    if faults is None:
        pytest.skip("this source asks no server")
    return faults


def actual(digest: Digest, content: bytes) -> str:
    """What `digest` ought to be."""
    if digest.algorithm == "sha256":
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


class SourceConformance:
    """Override the two fixtures, `faults` for a source that asks a server, and, where they differ, the attributes.

    `files` is the artifact published: a source of single files overrides it with one. `secret` is the credential that
    `make_source` and `missing_source` give to the source, if it takes one. `missing_errors` is what it may say of an
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
        """Publishes exactly these files, always at the same place, and returns a new source for that place."""
        raise NotImplementedError("a subclass provides this fixture")

    @pytest.fixture
    def missing_source(self) -> Source:
        """A source for a place where nothing is published."""
        raise NotImplementedError("a subclass provides this fixture")

    @pytest.fixture
    def faults(self) -> Faults | None:
        """Those of the server that both fixtures ask; None for a source that asks none."""
        return None

    @property
    def largest(self) -> bytes:
        return max(self.files.values(), key=len)

    def file_in(self, listing: Listing) -> RemoteFile:
        """The entry of the largest file."""
        path = next(path for path, content in self.files.items() if content is self.largest)
        return next(file for file in listing.files if file.path == path)

    def changed(self) -> dict[str, bytes]:
        """Other files of the same names and sizes."""
        return {path: random_bytes(f"other {path}", len(content)) for path, content in self.files.items()}

    # Listing

    async def test_every_file_is_listed_once_with_its_size(self, make_source: MakeSource) -> None:
        async with aclosing(make_source(self.files)) as source:
            listed = [(file.path, file.size) for file in (await listing_of(source)).files]
        assert sorted(listed) == sorted((path, len(content)) for path, content in self.files.items())

    async def test_listed_digests_are_those_of_the_content(self, make_source: MakeSource) -> None:
        async with aclosing(make_source(self.files)) as source:
            files = (await listing_of(source)).files
        for file in files:
            for digest in file.digests:
                assert digest.hex == actual(digest, self.files[file.path]), file.path

    async def test_the_listing_names_the_revision_it_was_asked_for(self, make_source: MakeSource) -> None:
        async with aclosing(make_source(self.files)) as source:
            revision = await source.resolve()
            assert (await source.list(revision)).revision == revision

    async def test_files_keep_their_identity_while_their_content_stays(self, make_source: MakeSource) -> None:
        async with aclosing(make_source(self.files)) as source, aclosing(make_source(self.files)) as again:
            before = {file.path: file.identity for file in (await listing_of(source)).files}
            assert before == {file.path: file.identity for file in (await listing_of(again)).files}

    async def test_changed_content_has_another_identity(self, make_source: MakeSource) -> None:
        async with aclosing(make_source(self.files)) as source:
            before = self.file_in(await listing_of(source)).identity
        async with aclosing(make_source(self.changed())) as source:
            after = self.file_in(await listing_of(source)).identity
        assert before is None or before != after

    # Revisions

    async def test_unchanged_content_resolves_to_the_same_revision(self, make_source: MakeSource) -> None:
        async with aclosing(make_source(self.files)) as source, aclosing(make_source(self.files)) as again:
            assert await source.resolve() == await again.resolve()

    async def test_changed_content_resolves_to_another_revision(self, make_source: MakeSource) -> None:
        async with aclosing(make_source(self.files)) as source:
            before = await source.resolve()
        async with aclosing(make_source(self.changed())) as source:
            after = await source.resolve()
        assert before is None or before != after

    # Bodies

    async def test_whole_files_arrive_bit_for_bit(self, make_source: MakeSource) -> None:
        async with aclosing(make_source(self.files)) as source:
            for file in (await listing_of(source)).files:
                assert await read(source, file) == self.files[file.path], file.path

    @pytest.mark.parametrize(
        ("start", "stop"),
        [(0, 1000), (0, 1), (70_001, 200_000), (_SIZE - 1, _SIZE), (_SIZE - 1000, _SIZE), (0, _SIZE)],
        ids=["start", "first byte", "middle", "last byte", "end", "everything"],
    )
    async def test_a_range_arrives_exactly(self, make_source: MakeSource, start: int, stop: int) -> None:
        async with aclosing(make_source(self.files)) as source:
            file = self.file_in(await listing_of(source))
            assert await read(source, file, ByteRange(start, stop)) == self.largest[start:stop]

    async def test_an_empty_file_is_listed_and_read(self, make_source: MakeSource) -> None:
        path = next(iter(self.files))
        async with aclosing(make_source({path: b""})) as source:
            (file,) = (await listing_of(source)).files
            assert (file.size, await read(source, file)) == (0, b"")

    async def test_many_ranges_may_be_open_at_once(self, make_source: MakeSource) -> None:
        ranges = [ByteRange(start, start + 10_000) for start in range(0, _SIZE, 10_000)]
        async with aclosing(make_source(self.files)) as source:
            file = self.file_in(await listing_of(source))
            parts = await asyncio.gather(*(read(source, file, byte_range) for byte_range in ranges))
        assert b"".join(parts) == self.largest

    async def test_a_body_may_be_left_before_its_end(self, make_source: MakeSource) -> None:
        async with aclosing(make_source(self.files)) as source:
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

    async def test_nothing_is_written_behind_what_is_returned(self, make_source: MakeSource) -> None:
        async with aclosing(make_source(self.files)) as source:
            file = self.file_in(await listing_of(source))
            buffer = bytearray(b"\xa5" * 4096)
            async with source.open(file, ByteRange(0, 1000)) as body:
                count = await body.readinto(memoryview(buffer))
                while more := await body.readinto(memoryview(buffer)[count:]):
                    count += more
            assert buffer == self.largest[:1000] + b"\xa5" * 3096

    async def test_a_cancelled_reader_gets_no_bytes_afterwards(self, make_source: MakeSource) -> None:
        async with aclosing(make_source(self.files)) as source:
            file = self.file_in(await listing_of(source))
            for turns in range(12):
                buffer = bytearray(_SIZE)
                async with source.open(file, None) as body:
                    reading = asyncio.ensure_future(body.readinto(memoryview(buffer)))
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    reading.cancel()
                    await asyncio.wait([reading])
                    left = bytes(buffer)
                    await asyncio.sleep(0.01)
                    assert buffer == left
            assert await read(source, file) == self.largest

    async def test_an_error_of_the_reader_passes_through(self, make_source: MakeSource) -> None:
        async with aclosing(make_source(self.files)) as source:
            file = self.file_in(await listing_of(source))
            with pytest.raises(ZeroDivisionError):
                async with source.open(file, ByteRange(0, 1000)):
                    raise ZeroDivisionError
            assert await read(source, file, ByteRange(0, 1000)) == self.largest[:1000]

    # What goes wrong

    async def test_other_content_never_passes_for_what_was_listed(self, make_source: MakeSource) -> None:
        """A source that keeps old revisions goes on serving the listed one; any other notices."""
        async with aclosing(make_source(self.files)) as source:
            file = self.file_in(await listing_of(source))
            async with aclosing(make_source(self.changed())):
                with contextlib.suppress(ContentChanged):
                    assert await read(source, file, ByteRange(1000, 2000)) == self.largest[1000:2000]

    async def test_an_artifact_that_does_not_exist_is_not_found(self, missing_source: Source) -> None:
        async with aclosing(missing_source) as source:
            with pytest.raises(self.missing_errors) as caught:
                await listing_of(source)
        assert not isinstance(caught.value, Transient)
        assert len(caught.value.sentence().splitlines()) == 1

    async def test_no_error_or_representation_shows_a_credential(self, make_source: MakeSource, missing_source: Source) -> None:
        if self.secret is None:
            pytest.skip("this source takes no credential")
        async with aclosing(make_source(self.files)) as source, aclosing(missing_source) as missing:
            with pytest.raises(FetchError) as caught:
                await listing_of(missing)
            shown = [repr(source), repr(missing), repr(await listing_of(source))]
        error: BaseException | None = caught.value
        while error is not None:
            shown += [str(error), repr(error)]
            error = error.__cause__ or error.__context__
        assert self.secret not in "\n".join(shown)

    # A server that is slow, busy, or says no

    async def test_a_late_answer_is_waited_for(self, make_source: MakeSource, faults: Faults | None) -> None:
        async with aclosing(make_source(self.files)) as source:
            _faults_of(faults).add(Fault(Stall(seconds=0.7)))
            file = self.file_in(await listing_of(source))
            assert await read(source, file, ByteRange(1000, 2000)) == self.largest[1000:2000]

    @pytest.mark.parametrize("status", [429, 503])
    async def test_a_listing_goes_on_at_the_request_that_failed(
        self, make_source: MakeSource, faults: Faults | None, status: int
    ) -> None:
        """With every other request refused, a listing that began anew each time would never end."""
        async with aclosing(make_source(self.files)) as source:
            _faults_of(faults).add(Fault(Status(status), every=2))
            listing = await source.list(await again_at_once(source.resolve), again_at_once)
        assert sorted(file.path for file in listing.files) == sorted(self.files)

    @pytest.mark.parametrize("effect", [WrongContentRange(shift=7), LongBody(100)], ids=["another range", "a longer body"])
    async def test_an_answer_that_breaks_the_protocol_is_said_to_do_so(
        self, make_source: MakeSource, faults: Faults | None, effect: Effect
    ) -> None:
        """As BadResponse, which the engine gives up within seconds, with what was asked for."""
        async with aclosing(make_source(self.files)) as source:
            file = self.file_in(await listing_of(source))
            _faults_of(faults).add(Fault(effect))
            with pytest.raises(BadResponse, match="bytes=1000-1999 was requested"):
                await read(source, file, ByteRange(1000, 2000))

    async def test_what_the_server_says_of_its_error_is_said(self, make_source: MakeSource, faults: Faults | None) -> None:
        async with aclosing(make_source(self.files)) as source:
            _faults_of(faults).add(Fault(Status(451, (("X-Error-Message", "not in your country"),))))
            with pytest.raises(Refused, match="not in your country"):
                await listing_of(source)

    async def test_where_a_digest_decides_servers_may_differ_in_their_validators(
        self, make_source: MakeSource, faults: Faults | None
    ) -> None:
        async with aclosing(make_source(self.files)) as source:
            listed = self.file_in(await listing_of(source))
            file = replace(listed, digests=(Digest("sha256", hashlib.sha256(self.largest).hexdigest()),))
            assert await read(source, file, ByteRange(500, 1000)) == self.largest[500:1000]
            for name in ("ETag", "Last-Modified"):
                _faults_of(faults).add(Fault(Header(name, '"of another replica"')))
            assert await read(source, file, ByteRange(1000, 2000)) == self.largest[1000:2000]

    # Ends

    async def test_closing_twice_is_closing_once(self, make_source: MakeSource) -> None:
        source = make_source(self.files)
        await source.aclose()
        await source.aclose()

    async def test_closing_after_an_abandoned_body_returns(self, make_source: MakeSource) -> None:
        source = make_source(self.files)
        file = self.file_in(await listing_of(source))
        async with source.open(file, None) as body:
            await body.readinto(memoryview(bytearray(1000)))
        await source.aclose()

    async def test_local_files_have_a_path_that_holds_their_content(self, make_source: MakeSource) -> None:
        async with aclosing(make_source(self.files)) as source:
            for file in (await listing_of(source)).files:
                path = source.local_path(file)
                assert (path is not None) == source.capabilities.local
                if path is not None:
                    assert path.read_bytes() == self.files[file.path]
