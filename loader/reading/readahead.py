"""The threads that read blocks in order, a bounded amount ahead of whoever takes them.

A thread claims the next block that the window has room for, opens its file, takes memory and cuts it into pieces; whichever
thread is free reads a piece. Who read the last one of a block looks whether the file is still the same.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from loader.reading.access import Buffered, open_access
from loader.reading.arena import Arena
from loader.reading.blocks import PIECE, Block, Source
from loader.reading.strategy import Strategy


@dataclass(slots=True, eq=False)
class _File:
    """A file while `blocks` of it are still to be read."""

    source: Source
    blocks: int = 0
    access: Buffered | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self, mode: Strategy) -> Buffered:
        with self.lock:
            if self.access is None:
                self.access = open_access(self.source, mode)
            return self.access

    def close(self) -> None:
        if self.access is not None:
            self.access.close()
            self.access = None


@dataclass(slots=True, eq=False)
class _Filling:
    """A block that is being read; `missing` pieces of it are not there yet."""

    number: int
    block: Block
    access: Buffered
    memory: memoryview
    missing: int = 0


@dataclass(frozen=True, slots=True)
class _Piece:
    filling: _Filling
    start: int
    stop: int

    def fill(self) -> None:
        filling = self.filling
        filling.access.fill(filling.memory, filling.block.origin, self.start, self.stop)


class ReadAhead:
    """`blocks` come into memory of `arena`, in order, `window` bytes ahead at most; a block that is larger comes alone.

    `ahead`: bytes of memory that are read or being read, and not yet let go by `taken`. `fallbacks`: which files are read in
    another way than `mode`, and why.
    """

    def __init__(self, blocks: Sequence[Block], *, window: int | None, mode: Strategy, arena: Arena) -> None:
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
        self._beginning = 0
        self._pieces: deque[_Piece] = deque()
        self._whole: dict[int, memoryview] = {}
        self._error: BaseException | None = None
        self._closed = False

    def start(self, threads: int) -> None:
        for number in range(min(threads, sum(1 + block.span // PIECE for block in self._blocks))):
            # A daemon, for a reading that nobody closes must not keep the interpreter from ending.
            thread = threading.Thread(target=self._work, name=f"read-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        """Stop after the pieces that are being read, and wait for that."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        for file in self._files.values():
            file.close()
        self._pieces.clear()
        self._whole.clear()

    def take(self, number: int) -> memoryview:
        """The memory of a block, from its `origin` on, once it is whole. Raises the first error of any thread, at once.

        Without threads it is read here and now."""
        while not self._threads and number not in self._whole and self._read_piece():
            pass
        with self._changed:
            self._changed.wait_for(lambda: self._ended or number in self._whole)
            if self._error is not None:
                raise self._error
            if self._closed:
                raise RuntimeError("the reading was closed")
            return self._whole.pop(number)

    def taken(self, block: Block) -> None:
        """The window has room again."""
        with self._changed:
            self.ahead -= block.footprint
            self._changed.notify_all()

    @property
    def _ended(self) -> bool:
        return self._closed or self._error is not None

    def _work(self) -> None:
        try:
            while self._read_piece():
                pass
        except BaseException as error:  # noqa: BLE001  whoever takes the next block gets it
            with self._changed:
                self._error = self._error or error
                self._changed.notify_all()

    def _read_piece(self) -> bool:
        """False when none is left."""
        if (piece := self._next_piece()) is None:
            return False
        piece.fill()
        self._filled(piece.filling)
        return True

    def _next_piece(self) -> _Piece | None:
        """The next one; None when nothing is left to do. Waits while the window is full."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ended or self._pieces or self._all_begun or self._has_room)
                if self._ended:
                    return None
                if self._pieces:
                    return self._pieces.popleft()
                if self._all_begun:
                    return None
                number = self._claim()
            self._begin(number)

    @property
    def _all_begun(self) -> bool:
        return self._claimed == len(self._blocks) and not self._beginning

    @property
    def _has_room(self) -> bool:
        if self._claimed == len(self._blocks):
            return False
        footprint = self._blocks[self._claimed].footprint
        return self._window is None or self.ahead == 0 or self.ahead + footprint <= self._window

    def _claim(self) -> int:
        number = self._claimed
        self._claimed += 1
        self._beginning += 1
        self.ahead += self._blocks[number].footprint
        return number

    def _begin(self, number: int) -> None:
        """Opening a file may wait for a network: nobody else has to."""
        block = self._blocks[number]
        pieces: Sequence[_Piece] = ()
        if block.span:
            access = self._files[id(block.source)].open(self._mode)
            filling = _Filling(number, block, access, access.memory(block, self._arena))
            pieces = [_Piece(filling, start, stop) for start, stop in block.pieces()]
            filling.missing = len(pieces)
            self._note(filling)
        with self._changed:
            self._beginning -= 1
            self._pieces.extend(pieces)
            if not pieces:
                self._whole[number] = memoryview(b"")
            self._changed.notify_all()

    def _filled(self, filling: _Filling) -> None:
        with self._changed:
            filling.missing -= 1
            if filling.missing:
                return
        self._note(filling)
        filling.access.check()
        file = self._files[id(filling.block.source)]
        with self._changed:
            file.blocks -= 1
            done = file.blocks == 0
            self._whole[filling.number] = filling.memory
            self._changed.notify_all()
        if done:
            file.close()

    def _note(self, filling: _Filling) -> None:
        if filling.access.fallback:
            self.fallbacks[filling.block.source.path] = filling.access.fallback


def _files(blocks: Iterable[Block]) -> dict[int, _File]:
    """By identity: two that are equal may be two looks at one path."""
    files: dict[int, _File] = {}
    for block in blocks:
        if block.span:
            files.setdefault(id(block.source), _File(block.source)).blocks += 1
    return files
