"""A fetch under way, as another process sees it: its lease, and its journal as that grows.

What an owner has recorded counts while its lease counts: until it releases the lease, dies, publishes, is taken over, or is
silent for half of the time after which others may take over. From then on it counts its own lease as lost.

While the owner publishes, its heartbeat and its journal are gone already. What they said goes on counting until the rename.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from fetcher.artifact import ByteRange, published_content
from fetcher.errors import NewerFormat
from fetcher.planning.ranges import chunk_count, chunk_range
from fetcher.store.beneath import open_beneath
from fetcher.store.journal import LARGEST, Journalled, take
from fetcher.store.layout import base_of
from fetcher.store.lease import Watch, default_stale_time, monotonic, observe
from fetcher.values import dataclass

_STEP = 1024 * 1024
"""Bytes of a journal that are read at once, and the longest line that is one."""


@dataclass(frozen=True, slots=True)
class StagedChunk:
    """`part` of the staged file at `path`, with its XXH3-128 in the journal. `authenticated`: a credential was used."""

    path: Path
    part: ByteRange
    xxh3: str
    authenticated: bool

    def open(self) -> int:
        """Return a descriptor of its file. Raises OSError."""
        return open_beneath(base_of(self.path), self.path, os.O_RDONLY)

    def is_of(self, status: os.stat_result) -> bool:
        """Whether its path still names the file with this status. Raises OSError."""
        descriptor = open_beneath(base_of(self.path), self.path, os.O_PATH)
        try:
            return os.path.samestat(status, os.fstat(descriptor))
        finally:
            os.close(descriptor)


class Following:
    """The fetch whose lease is `directory`. For one thread at a time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._watch = Watch()
        self._stale: float | None = None
        self._owner: str | None = None
        self._tail: _Tail | None = None

    def look(self) -> Journalled | None:
        """Return what the fetch has recorded by now, in one object that grows; None while nobody fetches here."""
        try:
            owner = self._present_owner()
            if owner != self._owner:
                self._owner = owner
                self._tail = _Tail(self._directory / f"journal.{owner}") if owner is not None else None
            if self._tail is None:
                return None
            self._tail.advance()
        except (OSError, NewerFormat):
            self._owner = self._tail = None
            return None
        return self._tail.journalled

    def changed(self) -> set[str]:
        """Return the paths about which something was recorded since the last call, and forget them."""
        if self._tail is None:
            return set()
        changed, self._tail.changed = self._tail.changed, set()
        return changed

    def chunk(self, listing: str, path: str, index: int) -> StagedChunk | None:
        """Look again, and return a chunk that others may have now; None if it is none."""
        return self._recorded(self.look(), listing, path, index)

    def still(self, chunk: StagedChunk, listing: str, path: str, index: int) -> bool:
        """Whether nothing was recorded since a moment ago by which `chunk` is another one, or none. The lease is not looked at
        again: that took a tenth of what a server of a swarm took of a processor."""
        if self._tail is None:
            return False
        try:
            self._tail.advance()
        except (OSError, NewerFormat):
            return False
        return self._recorded(self._tail.journalled, listing, path, index) == chunk

    def _recorded(self, journalled: Journalled | None, listing: str, path: str, index: int) -> StagedChunk | None:
        file = journalled.files.get(path) if journalled is not None and journalled.listing == listing else None
        content = published_content(file.identity) if file is not None else None
        if journalled is None or file is None or content is None or not 0 <= index < chunk_count(content[0]):
            return None
        if (xxh3 := file.passed_on(index)) is None:
            return None
        place = self._directory / f"data.{self._owner}" / path
        return StagedChunk(place, chunk_range(index, content[0]), xxh3, journalled.authenticated)

    def _present_owner(self) -> str | None:
        """Who holds the lease, and has not given it up. Raises OSError."""
        seen = observe(self._directory)
        if seen is None or seen.owner is None or seen.abandoned or seen.evicting:
            return None
        if self._stale is None:
            self._stale = default_stale_time(self._directory)
        return seen.owner if self._watch.silence(seen, monotonic()) < self._stale / 2 else None


class _Tail:
    """The journal at `path`, read as far as it is written. `changed`: paths about which something new was recorded."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._rest = b""
        self.journalled = Journalled()
        self.changed: set[str] = set()

    def advance(self) -> None:
        """Read what was appended. Raises NewerFormat, and OSError if the journal is none."""
        try:
            descriptor = open_beneath(base_of(self._path), self._path, os.O_RDONLY)
        except FileNotFoundError:
            return  # not yet, or no longer
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(f"{self._path} is no regular file")
            while self._read < LARGEST and (data := os.pread(descriptor, _STEP, self._read)):
                self._read += len(data)
                *lines, self._rest = (self._rest + data).split(b"\n")
                if len(self._rest) > _STEP:
                    raise OSError(f"{self._path} has no lines")
                for line in lines:
                    self._take(line)
        finally:
            os.close(descriptor)

    def _take(self, line: bytes) -> None:
        match take(self.journalled, line, what=str(self._path)):
            case ["listing", *_]:  # also the same one again: what is still right is recorded again after it
                self.changed.update(self.journalled.files)
                self.journalled.files.clear()
            case [_, str(path), *_]:
                self.changed.add(path)
