"""The interface between the engine and a source.

A source turns a URI into a revision, a listing and bodies of byte ranges. It keeps addresses, tokens and their expiry to
itself. It never retries: it raises every failure as a `fetcher.errors.SourceError`, and `engine.retry` decides what to do.
`fetcher.testing.conformance` tests this contract.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from fetcher.artifact import ORIGIN, ByteRange, RemoteFile
from fetcher.artifact import Listing as Listing
from fetcher.events import Subscriber
from fetcher.values import dataclass

T = TypeVar("T")


class Asking(Protocol):
    """Makes one request of a sequence. `engine.retry` repeats that request alone, and counts its success as progress.

    So a listing of a hundred pages continues at the page that failed, and no source needs its own retries.
    """

    async def __call__(self, request: Callable[[], Awaitable[T]]) -> T:
        """Return the result of `request`, which makes one request and may be called again. Raises its errors."""
        ...


async def once(request: Callable[[], Awaitable[T]]) -> T:
    """An `Asking` that does not repeat the request."""
    return await request()


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The capabilities of a source.

    `local`: files have a path on this machine (`local_path`), so they can be cloned or linked. `in_place`: the artifact is
    already where it will be used; it is verified there and never written (`pvc://`).
    """

    local: bool = False
    in_place: bool = False


@dataclass(frozen=True, slots=True)
class Packing:
    """Listed files that are archives, by their paths, in order, at least one: their members are files of the artifact in their
    place.

    With `prefix`, they are the layers of an image: only members below it are files, without it in their paths, and a later
    layer can replace or remove files of earlier ones.
    """

    archives: tuple[str, ...]
    prefix: str = ""


@runtime_checkable
class Packed(Protocol):
    """A source whose listed files can be archives; `engine.unpacking` fetches and unpacks them."""

    async def packing(self, revision: str | None, ask: Asking = once) -> Packing | None:
        """Return which files of the listing at `revision` are archives; None without any. Raises SourceError."""
        ...


class Body(Protocol):
    """The bytes of one range, in order.

    `direct` is this body for a thread that reads from the kernel; None if the body supports only `readinto`.
    """

    @property
    def direct(self) -> DirectBody | None: ...

    async def readinto(self, buffer: memoryview) -> int:
        """Fill `buffer` from its start. Returns the number of bytes; 0 only at the body's proper end.

        Returns when the buffer is full, at the end, or, to show progress, a moment after the first byte. An error is raised
        after all earlier bytes were returned. `buffer` is never written after the call ends, also if it is cancelled. While
        no call is pending, the sender is held back. Raises SourceError.
        """
        ...


class DirectBody(Body, Protocol):
    """A body that a thread can read directly from the kernel."""

    async def readable(self, room: int) -> bool:
        """Wait for a worthwhile part of `room` bytes, or a moment longer for any bytes. False at the body's proper end.

        Raises the errors of `readinto`.
        """
        ...

    def read(self, buffer: memoryview) -> int:
        """Fill `buffer` with the available bytes, without waiting. Returns the number of bytes, which may be 0.

        May run on any thread while no other method of this body runs. The next `readable` raises its errors.
        """
        ...


def supplier_of(body: Body) -> str:
    """Who brings `body`: its `supplier`, which is the origin or the name of a mirror, and means nothing else. Without one it
    is the origin itself."""
    supplier: str = getattr(body, "supplier", ORIGIN)  # asking for a Protocol takes 15 us, a tenth of a small file
    return supplier


class Opening(Protocol):
    """Opens ranges of files, as `Source.open` does."""

    def open(self, file: RemoteFile, byte_range: ByteRange | None) -> AbstractAsyncContextManager[Body]: ...


class Turn(Opening, Protocol):
    """A range that is to be pulled now: the bytes of `part` of the file `path`. Only what is missing of it is asked for, by its
    own `open`: at `supplier`, which is the origin or means nothing else."""

    @property
    def path(self) -> str: ...

    @property
    def part(self) -> ByteRange: ...

    @property
    def supplier(self) -> str: ...

    def over(self) -> None:
        """Record that nothing of it is under way any more. Idempotent."""
        ...


class Guide(Protocol):
    """Who decides which range is pulled next: a source that knows who has which chunks. All methods run on one event loop."""

    def covers(self, path: str) -> bool:
        """Whether it decides about the file. Others come from the source, in the engine's own order."""
        ...

    def idle(self) -> bool:
        """Whether there is nothing to decide now: all files are for the engine's own order."""
        ...

    def left(self, path: str, pending: Sequence[ByteRange]) -> None:
        """Record which ranges of a file are missing, and not under way. Called after each change but those by `next`."""
        ...

    def next(self, *, connections: int, longest: int, among: Collection[str] | None) -> Turn | None:
        """Return what to pull now, of at most `longest` bytes or one chunk; None for nothing. `among`: only these files.

        `connections`: how many ranges are under way at most.
        """
        ...

    def watched(self, changed: Callable[[], None]) -> None:
        """Call `changed` when `next` may answer otherwise than before."""
        ...


class Source(Protocol):
    """One artifact at its source. Not thread-safe; all methods run on one event loop."""

    @property
    def capabilities(self) -> Capabilities: ...

    async def resolve(self, ask: Asking = once) -> str | None:
        """Return the revision that the source serves now; None if the source has no revisions.

        Equal strings mean equal content. Every request runs through `ask`. Raises SourceError.
        """
        ...

    async def list(self, revision: str | None, ask: Asking = once) -> Listing:
        """List every file at `revision`, the result of `resolve`. Paths are unchecked: the planner refuses bad ones.

        Every request, including the check of its answer, runs through `ask`. An error outside `ask` is final. Raises
        SourceError.
        """
        ...

    async def describe(self, files: Sequence[RemoteFile], ask: Asking = once) -> Sequence[RemoteFile]:
        """Return `files`, which were listed and selected, with the digests and checksums that cost a request for each file.

        Every request runs through `ask`, several at a time. Raises SourceError.
        """
        ...

    def open(self, file: RemoteFile, byte_range: ByteRange | None) -> AbstractAsyncContextManager[Body]:
        """Open the bytes of `byte_range` of `file`, or the whole file if it is None.

        Before the first byte, status, Content-Range and total size are compared with the request. So is the validator of a
        part if the file has no digest. The body ends after `len(byte_range)` bytes (a whole file: after its size, or at the
        sender's proper end if the size is unknown) or raises an error. A truncated body, extra bytes or a stall never count as
        the end. If the server announces a shorter part from the same start, the body ends there, and the engine requests the
        rest. A body may be closed early at any time; this never waits for the sender, and costs the connection at most. May be
        called concurrently for any files and ranges.

        Raises RangesUnsupported if the server sends the whole file instead of a part, ContentChanged if it serves other
        content than listed, MirrorFailed if somebody else is to be asked, otherwise Transient or a final SourceError.
        """
        ...

    def address(self, file: RemoteFile) -> str | None:
        """The web address of `file`, for caches in front of the source; None without one that everybody may know."""
        ...

    def mirrors(self, file: RemoteFile) -> Sequence[str]:
        """The suppliers other than the origin that may bring bytes of `file`, a file that was described."""
        ...

    def begin(
        self, files: Sequence[RemoteFile], *, listing: str | None, node: str | None, on_event: Subscriber
    ) -> Guide | None:
        """Record that `files` are fetched from now on, with the user's pins among their digests. Again after a new listing.

        `listing`: their digest, by which others know them; None while it is not known (`artifact.known_listing`).
        `node`: the identity of the cache root, which its server tells to others; None if there is none. Returns who decides
        which range comes next, until the source is closed; None if the engine does.
        """
        ...

    def disputed(self, file: RemoteFile, suspects: Collection[str]) -> None:
        """Record that the digest of `file` is wrong, and that its bytes of `suspects` are suspected, if of anybody yet.

        From now on the origin brings `file`, and `suspects` are asked for nothing, until it is `judged`.
        """
        ...

    def judged(self, file: RemoteFile, suppliers: Collection[str], liars: Collection[str]) -> None:
        """Record that the digest of `file` is right: `suppliers` brought its bytes, and only `liars` had sent other ones. They
        are asked no more."""
        ...

    def local_path(self, file: RemoteFile) -> Path | None:
        """The path of `file` on this machine if `capabilities.local`; None if it has none."""
        ...

    async def aclose(self) -> None:
        """Close all connections. Idempotent; no method may be called after it."""
        ...


class Unmirrored:
    """What sources have in common that bring all bytes themselves."""

    def address(self, file: RemoteFile) -> str | None:
        return None

    def mirrors(self, file: RemoteFile) -> Sequence[str]:
        return ()

    def begin(
        self, files: Sequence[RemoteFile], *, listing: str | None, node: str | None, on_event: Subscriber
    ) -> Guide | None:
        return None

    def disputed(self, file: RemoteFile, suspects: Collection[str]) -> None:
        """Nobody else is asked anyway."""

    def judged(self, file: RemoteFile, suppliers: Collection[str], liars: Collection[str]) -> None:
        """Nobody was suspected."""


class Remote(Unmirrored):
    """What sources on other machines have in common: no file has a path here, and the listing tells all that is published.

    A source overrides what differs.
    """

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities()

    def local_path(self, file: RemoteFile) -> Path | None:
        return None

    async def describe(self, files: Sequence[RemoteFile], ask: Asking = once) -> Sequence[RemoteFile]:
        return files


class Derived:
    """A source made of another one. What a subclass does not override is that of `source`."""

    def __init__(self, source: Source) -> None:
        self._source = source

    @property
    def capabilities(self) -> Capabilities:
        return self._source.capabilities

    def local_path(self, file: RemoteFile) -> Path | None:
        return self._source.local_path(file)

    async def resolve(self, ask: Asking = once) -> str | None:
        return await self._source.resolve(ask)

    async def list(self, revision: str | None, ask: Asking = once) -> Listing:
        return await self._source.list(revision, ask)

    async def describe(self, files: Sequence[RemoteFile], ask: Asking = once) -> Sequence[RemoteFile]:
        return await self._source.describe(files, ask)

    def open(self, file: RemoteFile, byte_range: ByteRange | None) -> AbstractAsyncContextManager[Body]:
        return self._source.open(file, byte_range)

    def address(self, file: RemoteFile) -> str | None:
        return self._source.address(file)

    def mirrors(self, file: RemoteFile) -> Sequence[str]:
        return self._source.mirrors(file)

    def begin(
        self, files: Sequence[RemoteFile], *, listing: str | None, node: str | None, on_event: Subscriber
    ) -> Guide | None:
        return self._source.begin(files, listing=listing, node=node, on_event=on_event)

    def disputed(self, file: RemoteFile, suspects: Collection[str]) -> None:
        self._source.disputed(file, suspects)

    def judged(self, file: RemoteFile, suppliers: Collection[str], liars: Collection[str]) -> None:
        self._source.judged(file, suppliers, liars)

    async def aclose(self) -> None:
        await self._source.aclose()
