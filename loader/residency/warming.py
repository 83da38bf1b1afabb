"""Reads files into the page cache: in windows, a bounded number at a time, in the order in which an engine reads them.

Resident windows are skipped. Residency is measured again after reading, because the kernel may have reclaimed pages meanwhile.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

from fetcher.events import BytesLoaded, LoadEnded, LoadPlanned, Subscriber, silent
from fetcher.host.memory import Bound
from fetcher.quantities import size
from fetcher.uncancelled import Stopped
from fetcher.values import dataclass
from loader.errors import NotResident, TooLarge
from loader.filesystems import filesystem_of
from loader.kernel import PAGE, cache_counts, mincore_is_reliable
from loader.residency.model_files import ModelFile
from loader.residency.mount_check import refuse_dropped_pages
from loader.residency.page_cache import Residency, glance, measure, together
from loader.residency.paging import MappedRange
from loader.residency.windows import Window, fitting, joined
from loader.workers import OwnBuffer, run_on_threads

Means = Literal["preadv", "populate"]
"""`preadv`: reads into a scratch buffer. `populate`: MADV_POPULATE_READ, without copying."""

PASSES = 3
"""Number of passes. If memory is tight, the kernel may reclaim early pages for late ones; the next pass reads them again."""

_PIECE = 8 * 1024 * 1024
"""Bytes of one preadv. Large, because the kernel reads no further than asked where read-ahead is small (NFS)."""

_POPULATED = frozenset({"ext4", "xfs", "btrfs", "f2fs"})
"""Local filesystems on which page faults read ahead as far as reads do. On a network each fault waits for one small read."""

_CERTAIN = ("memory", "mincore", "faults", "cachestat")
"""The methods that never report a resident page as missing."""


@dataclass(frozen=True, slots=True)
class Warmed:
    """The result of a warming: `read` of `bytes` bytes in `files` files were read, by `means`, in `seconds` seconds."""

    files: int
    bytes: int
    read: int
    seconds: float
    before: Residency
    after: Residency
    means: tuple[Means, ...]


def what_fits(plan: Sequence[Window], left: Bound, *, partial: bool) -> tuple[Window, ...]:
    """Return the windows that memory has room for. Raises TooLarge if some do not fit, or with `partial` if none fits."""
    fitted = fitting(plan, left.bytes)
    if len(fitted) == len(plan) or (partial and fitted):
        return fitted
    needed, fits = bytes_in(plan), bytes_in(fitted)
    remedy = "raise that limit" + (f", or warm the first {size(fits)} with `loader warm --partial`" if fitted else "")
    raise TooLarge(f"cannot keep {size(needed)} in memory: there is room for {size(left.bytes)} ({left.reason}); {remedy}")


def never() -> bool:
    """Nobody asks to stop."""
    return False


def warm(
    chosen: Sequence[ModelFile],
    plan: Sequence[Window],
    *,
    threads: int,
    on_event: Subscriber,
    stopped: Callable[[], bool] = never,
) -> Warmed:
    """Read the windows of `plan`, parts of the files `chosen`, into the page cache, and wait until they are resident.

    Raises NotResident if pages are known to be missing afterwards, PagesDropped if the mount drops them, NotFound, NotReadable,
    LocalIOError, FileReplaced; Stopped, within a window, once `stopped` says so.
    """
    began, files = time.monotonic(), len({window.number for window in plan})
    before = residency_of(chosen, plan, threads=threads, closely=False)
    after = residency_of(chosen, plan, threads=threads) if before.complete else before
    work = _Warming(chosen, on_event, stopped)
    on_event(LoadPlanned("warming", files, before.total, before.total if after.complete else 0))
    for attempt in range(PASSES):
        if after.complete:
            break
        run_on_threads(plan, work.insist if attempt else work.bring_in, threads=threads)
        after = residency_of(chosen, plan, threads=threads)
        if not known_to_lack(after):
            break
    on_event(LoadEnded())
    if not after.complete:
        refuse_dropped_pages(chosen[number] for number in {window.number for window in plan})
    if known_to_lack(after):
        raise NotResident(
            f"{size(after.missing)} of {size(after.total)} did not stay in memory after {PASSES} passes: they were reclaimed, "
            "for example by a memory limit or a DAMON scheme; lock them with `loader hold`"
        )
    return Warmed(files, before.total, work.read, time.monotonic() - began, before, after, tuple(sorted(work.means)))


def bring_in(chosen: Sequence[ModelFile], plan: Iterable[Window], *, threads: int) -> None:
    """Read the windows once, without checking that they stay: a reader follows. Raises as `warm`, except NotResident."""
    run_on_threads(plan, _Warming(chosen, silent).bring_in, threads=threads)


def residency_of(chosen: Sequence[ModelFile], plan: Sequence[Window], *, threads: int, closely: bool = True) -> Residency:
    """Return how much of the windows is in memory, by several threads: 15 ms a GiB make 12 s for 800 GiB."""
    measured: list[Residency] = []

    def look(mapped: Window) -> None:
        measured.append(chosen[mapped.number].residency(mapped.part, closely=closely))

    run_on_threads(joined(plan), look, threads=threads)
    return together(measured)


def known_to_lack(measured: Residency) -> bool:
    """Return whether pages are certainly missing."""
    return measured.method in _CERTAIN and not measured.complete


def bytes_in(plan: Sequence[Window]) -> int:
    """Return the size of all windows together, in bytes."""
    return sum(window.size for window in plan)


class _Warming:
    """State shared by the threads: the bytes read, and a buffer for each thread."""

    def __init__(self, chosen: Sequence[ModelFile], on_event: Subscriber, stopped: Callable[[], bool] = never) -> None:
        self._chosen = chosen
        self._on_event = on_event
        self._stopped = stopped
        self._lock = threading.Lock()
        self._buffer = OwnBuffer(_PIECE)
        self._kinds: dict[int, str] = {}
        self.read = 0
        self.means: set[Means] = set()

    def bring_in(self, window: Window) -> None:
        """The first pass: skip windows that are cached or already being read, by read-ahead or another process."""
        self._read_unless(window, _is_cached)
        with self._lock:
            self._on_event(BytesLoaded(self._chosen[window.number].path, window.size))

    def insist(self, window: Window) -> None:
        """A later pass: wait for pages that are being read, and read reclaimed ones again."""
        self._read_unless(window, _is_resident)

    def _read_unless(self, window: Window, skip: Callable[[int, Window], bool]) -> None:
        if self._stopped():
            raise Stopped
        member = self._chosen[window.number]
        with member.opened() as descriptor:
            if skip(descriptor, window):
                return
            means = self._populate(descriptor, window, member) or self._read(descriptor, window)
            member.identity.check(descriptor, path=member.path)
        with self._lock:
            self.read += window.size
            self.means.add(means)

    def _populate(self, descriptor: int, window: Window, member: ModelFile) -> Means | None:
        """None if this filesystem or this attempt does not allow it. Then `_read` reads the window or reports the error."""
        if self._kind(member) not in _POPULATED:
            return None
        try:
            with MappedRange(descriptor, window.part.start, window.size) as mapped:
                mapped.populate()
        except OSError:
            return None
        return "populate"

    def _read(self, descriptor: int, window: Window) -> Means:
        buffer = self._buffer.mine
        position = window.part.start
        while position < window.part.stop:
            count = os.preadv(descriptor, [buffer[: window.part.stop - position]], position)
            if count == 0:
                break  # the file was truncated; the identity check reports it
            position += count
        return "preadv"

    def _kind(self, member: ModelFile) -> str:
        """Looked up once for each filesystem: a node may have thousands of mounts."""
        device = member.identity.device
        if device not in self._kinds:
            self._kinds[device] = filesystem_of(Path(member.path)).kind
        return self._kinds[device]


def _is_cached(descriptor: int, window: Window) -> bool:
    """False where only sampling could tell: that disturbs a cold file more than it costs to read a warm one."""
    cheap = cache_counts(descriptor, 0, PAGE) is not None or mincore_is_reliable(descriptor)
    return cheap and glance(descriptor, window.part).complete


def _is_resident(descriptor: int, window: Window) -> bool:
    return mincore_is_reliable(descriptor) and measure(descriptor, window.part).complete
