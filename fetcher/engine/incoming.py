"""One file of a transfer: its staged bytes and its hash frontier.

`write`, `damaged_chunks`, `sync` and `drop_hashed` block and run on threads; everything else runs on the event loop.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from fetcher.artifact import CHUNK_SIZE, ORIGIN, UNKNOWN, ByteRange, Checksum, Digest
from fetcher.engine.disputes import Disputes, Doubt, by_supplier
from fetcher.engine.retry import Violations
from fetcher.engine.states import Change, State, after
from fetcher.errors import DigestUnavailable
from fetcher.integrity.checksums import checkable, in_order
from fetcher.integrity.frontier import Frontier, Stretch, chunk_digest, read_pieces
from fetcher.integrity.hasher import Hasher
from fetcher.manifest import ManifestFile
from fetcher.planning.ranges import chunk_count, chunk_range, missing_ranges
from fetcher.store.ingest import StagedFile
from fetcher.store.journal import JournalledChunk, JournalledPart
from fetcher.store.pages import drop, finish_writing_back, start_writing_back

PART_SIZE = 4 * 1024 * 1024
"""Bytes between two journal records of a begun chunk. When 16 connections share 100 MB/s, the first chunk is finished after
2.7 s: without these records a kill after two seconds lost all 200 MB."""

STRETCH = 4 * CHUNK_SIZE
"""Maximum bytes hashed between two reports: a fraction of a second for a single file."""

SMALL = 512 * 1024
"""Bytes. A file up to this size is hashed by the thread that writes it, on every processor: to hand it to another thread and
report it costs 0.2 to 0.4 ms, as much as to hash 128 KiB without SHA extensions."""


@dataclass(slots=True)
class Cursor:
    """The place where one connection writes: `position` is the next byte, `hasher` the XXH3 and the CRCs of the begun chunk."""

    position: int
    hasher: Hasher
    noted: int = 0
    """The end of the begun chunk in its last journal record."""
    leaving: ByteRange = field(default=ByteRange(0, 0))
    """The bytes written last. The kernel is writing them from the page cache to the device."""
    frontier: Frontier | None = None
    """The frontier of the file while this connection holds it: the thread that writes also hashes (`Incoming.claim`)."""
    hashed_from: int = 0
    """The position of that frontier when it was claimed."""
    supplier: str = ORIGIN
    """Who brings the bytes of the begun chunk."""

    @property
    def chunk_start(self) -> int:
        """The first byte of the begun chunk; all from here to `position` are written."""
        return self.position // CHUNK_SIZE * CHUNK_SIZE

    def supplied_by(self, supplier: str) -> None:
        """Record who brings the next bytes. Of a chunk with bytes of two suppliers nobody knows who is to blame."""
        begun = self.position > self.chunk_start
        self.supplier = UNKNOWN if begun and supplier != self.supplier else supplier


class Incoming:
    """A staged file that is being filled, one of `streams`. `refetches` counts the mismatches.

    `in_line`: the thread that writes the next bytes of the file hashes them; otherwise only the follower hashes.
    """

    def __init__(self, staged: StagedFile, *, streams: int, in_line: bool = False, drop_pages: bool = False) -> None:
        self.staged = staged
        self.file = staged.file
        self.drops_pages = drop_pages
        self._in_line = in_line or (staged.size is not None and staged.size <= SMALL)
        self._streams = streams
        self._noting = threading.Lock()
        self.frontier = self._new_frontier()
        if self.frontier is not None and staged.state[0]:
            with suppress(DigestUnavailable):  # without the extension, hash from the beginning
                self.frontier.restore(*staged.state)
        self.state = State.OPEN
        self.entry: ManifestFile | None = None
        self.refetches = 0
        self.restarts = 0
        self.violations = Violations()
        self.brought = self._furthest = staged.held
        self._hashed_furthest = 0
        self.sync_failures = 0
        self._disputes = Disputes()
        self._partial = {
            index: Cursor(index * CHUNK_SIZE + length, hasher) for index, (length, hasher) in self.staged.parts.items()
        }
        self._contiguous = 0

    @property
    def path(self) -> str:
        return self.file.path

    @property
    def size(self) -> int | None:
        return self.staged.size

    @property
    def is_followed(self) -> bool:
        """Whether the follower hashes it, behind the threads that write."""
        return self.frontier is not None and not self._in_line

    @property
    def restarts_soon(self) -> bool:
        """Whether the file restarts once nobody uses it. Bytes received before that are discarded."""
        return self.state in (State.STOPPING, State.RESTARTING)

    @property
    def sealed(self) -> ManifestFile:
        """The manifest entry of the sealed file. Raises ValueError before it is sealed."""
        if self.state is not State.SEALED or self.entry is None:
            raise ValueError(f"{self.path} is {self.state.name}, not sealed")
        return self.entry

    def change(self, change: Change) -> None:
        """Enter the next state. Raises ValueError; see `states.after`."""
        self.state = after(self.state, change)

    @property
    def lag(self) -> int:
        """Bytes written but not yet hashed."""
        return max(0, self.staged.held - self.frontier.position) if self.frontier else 0

    @property
    def ready(self) -> int:
        """Bytes that could be hashed now."""
        return max(0, self.contiguous() - self.frontier.position) if self.frontier else 0

    @property
    def hashed(self) -> bool:
        return self.frontier is None or self.frontier.position == self.size

    def missing(self) -> list[ByteRange | None]:
        """Return the ranges to pull. None stands for the whole file, from a source without ranges."""
        if self.staged.complete:
            return []
        if self.size is None or not self.file.ranges:
            return [None]
        whole = missing_ranges(self.size, held=self.staged.chunks)
        return [each for byte_range in whole for each in self._without_parts(byte_range)]

    def _without_parts(self, byte_range: ByteRange) -> Iterator[ByteRange]:
        """Yield `byte_range` without the parts of begun chunks."""
        start = byte_range.start
        for index in sorted(self._partial):
            if byte_range.start <= index * CHUNK_SIZE < byte_range.stop:
                if start < index * CHUNK_SIZE:
                    yield ByteRange(start, index * CHUNK_SIZE)
                start = self._partial[index].position
        yield ByteRange(start, byte_range.stop)

    def cursor(self, start: int) -> Cursor:
        """Return a cursor at `start`. It continues a chunk that another connection left there.

        The digest has to be that of the bytes in the file, so a frontier beyond `start` is rewound.
        """
        if self.frontier is not None and start < self.frontier.position:
            self._rewind(start)
        partial = self._partial.pop(start // CHUNK_SIZE, None)
        if partial is not None and partial.position == start:
            return partial
        return Cursor(start, self.staged.crcs.new_hasher(start))

    def park(self, cursor: Cursor) -> int:
        """Keep the cursor of a connection that ended inside a chunk, for the next connection. Returns the dropped bytes.

        Only what the origin began is kept: so the chunks of a mirror are its own from the first byte to the last, and it can
        blame nobody else for bytes that differ.
        """
        begun = cursor.position - cursor.chunk_start
        if not begun or cursor.position == self.size:
            return 0
        if cursor.supplier == ORIGIN:
            self._partial[cursor.position // CHUNK_SIZE] = cursor
            self._note(cursor)
            return 0
        cursor.position, cursor.noted = cursor.chunk_start, 0
        cursor.hasher = self.staged.crcs.new_hasher(cursor.position)
        self.brought -= begun
        return begun

    def cursor_of_the_whole(self) -> Cursor:
        """Return a cursor at the beginning, for a source that sends no parts. What is held will be written again, so it is
        forgotten."""
        self.forget(list(self.staged.chunks))
        self._partial.clear()
        return self.cursor(0)

    def is_next(self, cursor: Cursor) -> bool:
        """Whether the bytes of `cursor` are next in the file's order and nobody hashes: the frontier is at the cursor, or
        behind it in the chunk that it has begun."""
        frontier = self.frontier if self._in_line else None
        return frontier is not None and frontier.free and cursor.chunk_start <= frontier.position <= cursor.position

    def claim(self, cursor: Cursor) -> None:
        """Give the frontier to `cursor`, until `release`, if it is next."""
        if self.frontier is not None and self.is_next(cursor) and self.frontier.take(cursor):
            cursor.frontier, cursor.hashed_from = self.frontier, self.frontier.position

    def release(self, cursor: Cursor) -> int:
        """Make the frontier free if `cursor` holds it. No thread may write then. Returns the number of bytes hashed."""
        frontier, cursor.frontier = cursor.frontier, None
        if frontier is None:
            return 0
        frontier.give_back(cursor)
        return frontier.position - cursor.hashed_from

    def write(self, cursor: Cursor, data: memoryview) -> int:
        """Write and hash `data` at the cursor, and record finished chunks. Returns their number. Raises OSError.

        The SHA-256 is that of the received bytes if the cursor holds the frontier. Damage on the way to the disk is then found
        by the XXH3 of the chunk, when the file is read.
        """
        self._catch_up(cursor)
        finished = 0
        while data:
            # No piece crosses the end of a chunk.
            piece = data[: CHUNK_SIZE - cursor.position % CHUNK_SIZE]
            self.staged.write(cursor.position, piece)
            cursor.hasher.update(piece)
            cursor.position += len(piece)
            if cursor.frontier is not None:
                cursor.frontier.update(piece)
            if self.drops_pages:
                self._push_out(cursor, ByteRange(cursor.position - len(piece), cursor.position))
            if cursor.position % CHUNK_SIZE == 0 or cursor.position == self.size:
                self._finish_chunk(cursor)
                finished += 1
            elif cursor.supplier == ORIGIN and cursor.position - cursor.noted >= PART_SIZE:
                self._note(cursor)
            data = data[len(piece) :]
        return finished

    def _catch_up(self, cursor: Cursor) -> None:
        """Hash what was written of the begun chunk before its cursor held the frontier: less than a chunk, in page cache."""
        frontier = cursor.frontier
        if frontier is None or frontier.position == cursor.position:
            return
        try:
            with self.staged.opened() as descriptor:
                for piece in read_pieces(descriptor, ByteRange(frontier.position, cursor.position)):
                    frontier.update(piece)
        except EOFError as error:
            raise OSError(errno.EIO, f"another process truncated the staged file: {error}", self.path) from error

    def _push_out(self, cursor: Cursor, written: ByteRange) -> None:
        with self.staged.opened() as descriptor:
            start_writing_back(descriptor, written)
            finish_writing_back(descriptor, cursor.leaving)
            if self.frontier is None or cursor.frontier is not None:  # nobody will read them to hash them
                drop(descriptor, cursor.leaving)
        cursor.leaving = written

    def _note(self, cursor: Cursor) -> None:
        index, length = divmod(cursor.position, CHUNK_SIZE)
        self.staged.note_part(index, JournalledPart(length, cursor.hasher.hexdigest()))
        cursor.noted = cursor.position

    def end_unsized(self, cursor: Cursor) -> None:
        """Set the size of a file of unknown size, after its last byte."""
        self.staged.size = cursor.position
        if cursor.position % CHUNK_SIZE:
            self._finish_chunk(cursor)

    def _finish_chunk(self, cursor: Cursor) -> None:
        index = (cursor.position - 1) // CHUNK_SIZE
        chunk = JournalledChunk(cursor.hasher.hexdigest(), supplier=cursor.supplier)
        self.staged.finish_chunk(index, chunk, cursor.hasher)
        cursor.hasher = self.staged.crcs.new_hasher(cursor.position)
        if cursor.frontier is not None:
            self.note_state(cursor.frontier)

    def advanced(self, count: int) -> int:
        """Record `count` written bytes, and return how many of them are new. Bytes fetched again are not progress."""
        self.brought += count
        further = max(0, self.brought - self._furthest)
        self._furthest += further
        return further

    def hashed_further(self) -> bool:
        """Record the position of the hash frontier, and return whether it has never been that far."""
        position = self.frontier.position if self.frontier else 0
        further = position > self._hashed_furthest
        self._hashed_furthest = max(position, self._hashed_furthest)
        return further

    def contiguous(self) -> int:
        """Return the length of the prefix without a gap."""
        while self._contiguous in self.staged.chunks:
            self._contiguous += 1
        return min(self._contiguous * CHUNK_SIZE, self.size if self.size is not None else self._contiguous * CHUNK_SIZE)

    def stretch(self) -> Stretch | None:
        """Return a bounded part of the bytes that can be hashed now, which holds the frontier until it is given back; None if
        there are none, or a connection hashes."""
        limit = self.contiguous()
        if self.frontier is None or self.frontier.position >= limit or not self.frontier.free:
            return None
        limit = min(limit, self.frontier.position + STRETCH)
        stretch = Stretch(self.path, self.frontier, self.staged.opened, limit)
        self.frontier.take(stretch)
        return stretch

    def note_state(self, frontier: Frontier) -> None:
        """Record the state of `frontier` in the journal, unless the file was rewound meanwhile. Called by its holder at the
        border of a chunk."""
        with self._noting:
            if frontier is self.frontier and (state := frontier.save()) is not None:
                self.staged.note_state(frontier.position, state)

    @property
    def checksums(self) -> tuple[Checksum, ...]:
        """The published checksums that `mismatch` compares."""
        return checkable(self.file)

    def mismatch(self) -> tuple[Digest | Checksum, str] | None:
        """Return the first expected digest or checksum that differs, and the actual one; None if all agree.

        Call it after the last byte, and after `compute_crcs` if any are missing.
        """
        return (self.frontier.mismatch() if self.frontier else None) or self.staged.crcs.mismatch()

    def damaged_chunks(self) -> list[int]:
        """Return the chunks that differ from what was received. The disk damaged them, so only they are fetched again."""
        size = self.size or 0
        with self.staged.opened() as descriptor:
            return [
                index
                for index in range(chunk_count(size))
                if chunk_digest(descriptor, chunk_range(index, size)) != self.staged.chunks.get(index)
            ]

    def brought_by(self, mirrors: Container[str]) -> dict[str, list[int]]:
        """Return the chunks that `mirrors` brought, by mirror."""
        return {name: chunks for name, chunks in by_supplier(self.staged.suppliers).items() if name in mirrors}

    def doubt(self) -> Doubt | None:
        """Return what to fetch again from the origin if the digest of this complete file is wrong; None if all is from it."""
        return self._disputes.doubt(self.staged.suppliers, self.staged.chunks)

    def forget_supplied(self, supplier: str, chunks: Sequence[int]) -> int:
        """Drop `chunks` of `supplier`, and remember what they were for `liars`. Returns the number of dropped bytes."""
        for index in chunks:
            self._disputes.drop(index, supplier, self.staged.chunks[index])
        return self.forget(chunks)

    def liars(self) -> set[str]:
        """Return the suppliers of dropped chunks that differ from those of this file, whose digest is right."""
        return self._disputes.liars(self.staged.chunks)

    def forget(self, chunks: Sequence[int]) -> int:
        """Drop `chunks` and restart hashing. Returns the number of dropped bytes."""
        before = self.staged.held
        for index in chunks:
            self.staged.drop_chunk(index)
        self._rewind()
        self.brought -= before - self.staged.held
        return before - self.staged.held

    def restart(self) -> int:
        """Discard everything and restart in a new inode. No writer may be active. Returns the number of discarded bytes."""
        held, self.brought = max(self.staged.held, self.brought), 0
        self.staged.file = self.file
        self.staged.restart()
        self.change(Change.RESTARTED)
        self.entry = None
        self._partial.clear()
        self._rewind()
        return held

    def sync(self) -> None:
        """Sync the written bytes with fdatasync(2). Raises OSError; then the file must be fetched again."""
        self._unless_closed(os.fdatasync)

    def drop_hashed(self, part: ByteRange) -> None:
        """Drop `part`, which the frontier has passed, from the page cache."""

        def drop_pages(descriptor: int) -> None:
            finish_writing_back(descriptor, part)
            drop(descriptor, part)

        self._unless_closed(drop_pages)

    def _unless_closed(self, call: Callable[[int], None]) -> None:
        """Call `call` with the descriptor. Ignores its errors if the file was sealed or restarted meanwhile."""
        handle = self.staged.handle
        try:
            with handle.opened() as descriptor:
                call(descriptor)
        except OSError:
            if not handle.closed:
                raise

    def _rewind(self, start: int = 0) -> None:
        """Hash again from the last recorded state that covers at most `start` bytes. A connection or thread that holds
        the former frontier moves one that no longer counts."""
        self._contiguous = 0
        with self._noting:
            self.frontier = self._new_frontier()
            position, state = self.staged.state
            if self.frontier is not None and 0 < position <= start:
                with suppress(DigestUnavailable):
                    self.frontier.restore(position, state)
                    return
            self.staged.note_state(0, b"")

    def _new_frontier(self) -> Frontier | None:
        return Frontier(self.file, streams=self._streams) if self.file.digests or in_order(self.file) else None
