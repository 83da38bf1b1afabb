"""One reading of a remote file: its ranges into the memory of blocks, compared on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fetcher.artifact import ByteRange, RemoteFile
from loader.reading.arena import Arena
from loader.reading.blocks import Block

if TYPE_CHECKING:
    from fetcher.api import OpenArtifact


class RemoteReading:
    """A `loader.reading.blocks.Remote`, and its own access. `head`: the bytes of the file that were read before.

    With `whole`, every other byte of it is read, in the order of the file, and the file is compared with what is published of
    it. Then `check` raises before the last block is delivered.
    """

    fallback: str | None = None

    def __init__(self, path: str, artifact: OpenArtifact, file: RemoteFile, head: bytes, *, whole: bool) -> None:
        self.path = path
        self._artifact = artifact
        self._file = file
        self._running = artifact.running()
        self._comparison = artifact.comparison(file) if whole else None
        if self._comparison is not None:
            hasher = self._comparison.new_hasher(0)
            hasher.update(head)
            self._comparison.add(0, head, hasher)

    def access(self) -> RemoteReading:
        return self

    def memory(self, block: Block, arena: Arena) -> memoryview:
        return arena.take(block.span)

    def fill(self, memory: memoryview, origin: int, start: int, stop: int) -> None:
        """See `loader.reading.access.Access`. Raises SourceError."""
        into = memory[start - origin : stop - origin]
        if self._comparison is None:
            self._artifact.read(self._file, ByteRange(start, stop), into, running=self._running)
            return
        hasher = self._comparison.new_hasher(start)
        self._artifact.read(self._file, ByteRange(start, stop), into, hasher.update, self._running)
        self._comparison.add(start, into, hasher)

    def check(self) -> None:
        """Raise DigestMismatch if the file came whole, and differs from what is published of it."""
        if self._comparison is not None:
            self._comparison.check()

    def stop(self) -> None:
        """See `loader.reading.access.Access`: their threads raise CancelledError, which nobody takes any more."""
        self._running.end()

    def close(self) -> None:
        """Nothing: connections belong to the artifact."""
