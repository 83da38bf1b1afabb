"""Threads that read blocks in order, a bounded amount ahead of the consumer.

A thread claims the next block when the window has room for it, opens its file, takes memory and divides the block into pieces.
Any free thread reads a piece. The thread that reads the last piece of a block checks that the file has not changed.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import field

from fetcher.values import dataclass
from loader.reading.access import Access, open_access
from loader.reading.arena import Arena
from loader.reading.blocks import PIECE, Block, Remote, Source
from loader.reading.strategy import Mode


@dataclass(slots=True, eq=False)
class _File:
    """A file with `blocks` blocks still to read."""

    source: Source | Remote
    blocks: int = 0
    access: Access | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self, mode: Mode) -> Access:
        with self.lock:
            if self.access is None:
                self.access = open_access(self.source, mode)
            return self.access

    def stop(self) -> None:
        with self.lock:
            if self.access is not None:
                self.access.stop()

    def close(self) -> None:
        if self.access is not None:
            self.access.close()
            self.access = None


@dataclass(slots=True, eq=False)
class _BlockInProgress:
    """A block that is being read, with `missing` pieces still to read."""

    number: int
    block: Block
    access: Access
    memory: memoryview
    missing: int = 0


@dataclass(frozen=True, slots=True)
class _Piece:
    progress: _BlockInProgress
    start: int
    stop: int

    def fill(self) -> None:
        progress = self.progress
        progress.access.fill(progress.memory, progress.block.origin, self.start, self.stop)


class ReadAhead:
    """Reads `blocks` in order into memory of `arena`, at most `window` bytes ahead (None: no limit). A larger block is read
    alone.

    `ahead`: bytes of memory read or being read and not yet released by `taken`. `fallbacks`: for each file that is not read by
    `mode`, the reason.
    """

    def __init__(self, blocks: Sequence[Block], *, window: int | None, mode: Mode, arena: Arena) -> None:
        self.ahead = 0
        self.fallbacks: dict[str, str] = {}
        self._blocks = blocks
        self._files = _files(blocks)
        self._window = window
        self._mode = mode
        self._arena = arena
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._claimed = 0
        self._opening = 0
        self._pieces: deque[_Piece] = deque()
        self._complete: dict[int, memoryview] = {}
        self._error: BaseException | None = None
        self._closed = False

    def start(self, threads: int) -> None:
        """Start up to `threads` threads, no more than there are pieces."""
        for number in range(min(threads, sum(1 + block.span // PIECE for block in self._blocks))):
            # A daemon, so that a reading that is never closed does not keep the interpreter alive.
            thread = threading.Thread(target=self._work, name=f"read-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        """Stop, wait for the pieces that are being read, and close the files."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for file in self._files.values():
            file.stop()
        for thread in self._threads:
            thread.join()
        for file in self._files.values():
            file.close()
        self._pieces.clear()
        self._complete.clear()

    def take(self, number: int) -> memoryview:
        """Wait until block `number` is read, and return its memory from its `origin` on. Raises the first error of any thread
        at once. Without threads, the calling thread reads the block."""
        while not self._threads and number not in self._complete and self._read_piece():
            pass
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or number in self._complete)
            if self._error is not None:
                raise self._error
            if self._closed:
                raise RuntimeError("the reading was closed")
            return self._complete.pop(number)

    def taken(self, block: Block) -> None:
        """Release the block's share of the window."""
        with self._changed:
            self.ahead -= block.footprint
            self._changed.notify_all()

    @property
    def _stopped(self) -> bool:
        return self._closed or self._error is not None

    def _work(self) -> None:
        try:
            while self._read_piece():
                pass
        except BaseException as error:  # noqa: BLE001  raised by the next `take`
            with self._changed:
                self._error = self._error or error
                self._changed.notify_all()

    def _read_piece(self) -> bool:
        """Returns False if no piece is left."""
        if (piece := self._next_piece()) is None:
            return False
        piece.fill()
        self._finish_piece(piece.progress)
        return True

    def _next_piece(self) -> _Piece | None:
        """Return the next piece, or None if nothing is left. Waits while the window is full."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._pieces or self._all_opened or self._has_room)
                if self._stopped:
                    return None
                if self._pieces:
                    return self._pieces.popleft()
                if self._all_opened:
                    return None
                number = self._claim_block()
            self._open_block(number)

    @property
    def _all_opened(self) -> bool:
        return self._claimed == len(self._blocks) and not self._opening

    @property
    def _has_room(self) -> bool:
        if self._claimed == len(self._blocks):
            return False
        footprint = self._blocks[self._claimed].footprint
        return self._window is None or self.ahead == 0 or self.ahead + footprint <= self._window

    def _claim_block(self) -> int:
        number = self._claimed
        self._claimed += 1
        self._opening += 1
        self.ahead += self._blocks[number].footprint
        return number

    def _open_block(self, number: int) -> None:
        """Open the file and queue the pieces. Without the lock, because opening may wait for a network."""
        block = self._blocks[number]
        pieces: Sequence[_Piece] = ()
        if block.span:
            access = self._files[id(block.source)].open(self._mode)
            progress = _BlockInProgress(number, block, access, access.memory(block, self._arena))
            pieces = [_Piece(progress, start, stop) for start, stop in block.pieces()]
            progress.missing = len(pieces)
            self._note_fallback(progress)
        with self._changed:
            self._opening -= 1
            self._pieces.extend(pieces)
            if not pieces:
                self._complete[number] = memoryview(b"")
            self._changed.notify_all()

    def _finish_piece(self, progress: _BlockInProgress) -> None:
        with self._changed:
            progress.missing -= 1
            if progress.missing:
                return
        self._note_fallback(progress)
        progress.access.check()
        file = self._files[id(progress.block.source)]
        with self._changed:
            file.blocks -= 1
            last = file.blocks == 0
            self._complete[progress.number] = progress.memory
            self._changed.notify_all()
        if last:
            file.close()

    def _note_fallback(self, progress: _BlockInProgress) -> None:
        if progress.access.fallback:
            self.fallbacks[progress.block.source.path] = progress.access.fallback


def _files(blocks: Iterable[Block]) -> dict[int, _File]:
    """Keyed by object identity: two equal sources may have seen different files at one path."""
    files: dict[int, _File] = {}
    for block in blocks:
        if block.span:
            files.setdefault(id(block.source), _File(block.source)).blocks += 1
    return files
