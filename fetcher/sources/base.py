"""What the engine asks of a source, and all it knows of one.

A source turns a URI into a revision, a listing and bodies of byte ranges. It keeps addresses, tokens and their expiry to
itself, never retries, and classifies: whatever goes wrong is raised as one of `fetcher.errors.SourceError`
(`engine.retry` decides what follows). `fetcher.testing.conformance` is this contract as a test suite.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from fetcher.artifact import ByteRange, RemoteFile
from fetcher.artifact import Listing as Listing

T = TypeVar("T")


class Asking(Protocol):
    """How one request of a sequence is made: `engine.retry` repeats it alone, and counts its success as progress.

    So a listing of a hundred pages goes on at the page that failed, and no source retries anything itself.
    """

    async def __call__(self, request: Callable[[], Awaitable[T]]) -> T:
        """The result of `request`, which makes one request and may be called again. Raises as it does."""
        ...


async def once(request: Callable[[], Awaitable[T]]) -> T:
    """The `Asking` of those who repeat nothing."""
    return await request()


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a source can do, as data.

    `local`: files have a path on this machine (`local_path`), so they may be cloned or linked. `in_place`: the artifact
    already stands where it will be used; it is verified there and never written (`pvc://`).
    """

    local: bool = False
    in_place: bool = False


class Body(Protocol):
    """The bytes of one opening, in order.

    `direct` is this body as a thread can take it from the kernel; None when its bytes can only be handed out.
    """

    @property
    def direct(self) -> DirectBody | None: ...

    async def readinto(self, buffer: memoryview) -> int:
        """Fill `buffer` from its start; how many bytes have come, 0 only at the body's proper end.

        Returns when the buffer is full, at the end, or, so that progress shows, a moment after something has come. An error
        is raised when everything that came before it has been handed out. `buffer` is written to only until the call ends,
        cancelled or not; while none is pending the sender is held back.
        """
        ...


class DirectBody(Body, Protocol):
    """A body that a thread can take where it waits, in the kernel, instead of being handed it."""

    async def readable(self, room: int) -> bool:
        """Wait until a worthwhile part of `room` bytes is there, or anything a moment later; False at the body's proper end.

        Raises as `readinto`.
        """
        ...

    def read(self, buffer: memoryview) -> int:
        """Fill `buffer` with what is there, without waiting; how many bytes that is, perhaps none.

        On any thread, while nothing else of this body is called. What breaks it is raised by the next `readable`.
        """
        ...


class Source(Protocol):
    """One artifact at its source. Not thread-safe; all methods run on one event loop."""

    @property
    def capabilities(self) -> Capabilities: ...

    async def resolve(self) -> str | None:
        """The revision the source would serve now, by at most one request; None when it has no notion of one.

        Equal strings mean equal content. Raises SourceError.
        """
        ...

    async def list(self, revision: str | None, ask: Asking = once) -> Listing:
        """Every file at `revision` (what `resolve` returned). Paths are as the source says: the planner refuses bad ones.

        Each of its requests is made, and its answer judged, through `ask`; what is raised outside of it is final. Raises
        SourceError.
        """
        ...

    def open(self, file: RemoteFile, byte_range: ByteRange | None) -> AbstractAsyncContextManager[Body]:
        """The bytes of `byte_range` of `file`; the whole file when it is None.

        Before the first byte is handed out, status, Content-Range and total size were compared with what was asked for, and
        the validator of a part where the file has no digest. The body ends after `len(byte_range)` bytes (of the whole file:
        after its size, or at the sender's proper end when the size is unknown) or raises: a body that breaks off, extra bytes,
        a stall never pass as an end. A server that announces a shorter part, from the same start, ends it there, and the
        engine asks for the rest. Closing early is allowed at any time, costs at most the connection, and never waits for the
        sender. May be called concurrently for any files and ranges.

        Raises RangesUnsupported when the server sends the whole file instead of a part, ContentChanged when it serves
        other content than listed, Transient or a final SourceError otherwise.
        """
        ...

    def local_path(self, file: RemoteFile) -> Path | None:
        """Where `file` lies on this machine, when `capabilities.local`."""
        ...

    async def aclose(self) -> None:
        """Give back connections. Idempotent; no method may be called after it."""
        ...
