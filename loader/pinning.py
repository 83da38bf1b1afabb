"""Weights kept in memory: locked where that is allowed, else looked after and read again when they were reclaimed.

Pages go without memory pressure too (DAMON took a quarter in ten minutes), and a checkpoint may be replaced under its path.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fetcher.errors import FetchError
from fetcher.events import Pinned, Subscriber, Warned, silent
from fetcher.host.memory import memory_left
from fetcher.quantities import size
from loader.allowance import Allowance
from loader.contents import Layout, Member, layout, members
from loader.errors import NotResident, from_os_error
from loader.files import FileIdentity
from loader.filesystems import filesystem_of
from loader.locking import lockable, raise_lock_limit
from loader.paging import Stretch
from loader.residency import Residency
from loader.warming import PASSES, bytes_in, known_to_lack, residency_of, warm, what_fits
from loader.windows import Window, windows

_LEAST_PAUSE = 19
"""Times the processor time of looking: 15 ms a GiB for one's own files, 100 for others'. So looking takes 5 % of a processor
at most, however much there is to look at."""

_TIMES_AN_HOUR = 4
"""So often the whole may be read again. DAMON took a quarter of it in ten minutes, which is 1.5 times."""


@dataclass(frozen=True, slots=True)
class State:
    """How things stand: `resident` of `total` bytes are in memory (None: nothing tells), `locked` of them for good.

    `rewarmed` bytes were reclaimed and read again, the checkpoint was replaced `changes` times, since the start. `problem`:
    what was in the way at last.
    """

    files: int = 0
    total: int = 0
    resident: int | None = 0
    locked: int = 0
    rewarmed: int = 0
    changes: int = 0
    checked: float = 0.0
    problem: str | None = None

    @property
    def ready(self) -> bool:
        """Everything that stands under the paths now is known to be in memory."""
        return self.checked > 0 and self.problem is None and self.resident == self.total


@dataclass(slots=True)
class _Held:
    """The files as they were found, and which of their windows are locked, by what."""

    layout: Layout
    members: tuple[Member, ...]
    plan: tuple[Window, ...]
    allowance: Allowance
    locks: dict[Window, Stretch] = field(default_factory=dict)
    warm_once: bool = False
    told: set[str] = field(default_factory=set)

    @property
    def loose(self) -> tuple[Window, ...]:
        return tuple(window for window in self.plan if window not in self.locks)

    @property
    def locked(self) -> int:
        return bytes_in(tuple(self.locks))

    def stands(self, paths: Sequence[str]) -> bool:
        """Whether the very same files are there. Looked at each time, so without reading headers, which takes half a second of
        90,000 tensors."""
        return self.layout == layout(paths) and all(_identity(member.path) == member.identity for member in self.members)

    def release_broken(self) -> None:
        """Let go of locks that keep nothing any more, so that their windows are read and locked anew."""
        for window in [*self.locks]:
            if known_to_lack(self.members[window.number].residency(window.part, closely=True)):
                self.locks.pop(window).close()

    def release(self) -> None:
        for stretch in self.locks.values():
            stretch.close()
        self.locks.clear()


class Pin:
    """`check` again and again, and `close`. Used by one thread."""

    def __init__(
        self, paths: Sequence[str], *, threads: int, on_event: Subscriber, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._paths = tuple(paths)
        self._threads = threads
        self._on_event = on_event
        self._clock = clock
        self._held: _Held | None = None
        self._read_something = False
        self._looking = 0.0
        self.state = State()

    def check(self) -> State:
        """One round: follow a replaced checkpoint, bring in what is missing, lock what may be locked, look.

        Raises what `members` and `warm` do the first time, unless trying again may help; later that is a problem, which the
        next round may find gone.
        """
        began, before = time.process_time(), self.state
        try:
            self._keep(self._follow())
        except FetchError as error:
            if not before.checked and not error.retryable:
                raise
            self._trouble(error)
        self.state = replace(self.state, checked=time.time())
        self._looking = time.process_time() - began
        self._tell(before)
        return self.state

    def pause(self, interval: float) -> float:
        """Seconds until the next round."""
        return interval if self._read_something else max(interval, self._looking * _LEAST_PAUSE)

    def close(self) -> None:
        if self._held is not None:
            self._held.release()

    def _follow(self) -> _Held:
        """What stands under the paths now. What was held is let go as soon as something else does: both may not fit."""
        held = self._held
        if held is not None and held.stands(self._paths):
            return held
        seen, chosen = layout(self._paths), members(self._paths)
        if held is not None and held.members == chosen:  # another name came or went beside them
            held.layout = seen
            return held
        if held is not None:
            held.release()
            self._held = None
            self.state = replace(self.state, resident=0, locked=0, changes=self.state.changes + 1)
        plan = tuple(windows([member.size for member in chosen]))
        if not all(filesystem_of(Path(member.path)).memory for member in chosen):  # which needs no more of it
            what_fits(plan, memory_left().pages, partial=False)
        self._held = _Held(seen, chosen, plan, Allowance(_TIMES_AN_HOUR * bytes_in(plan), self._clock))
        self.state = replace(self.state, files=len(chosen), total=bytes_in(plan), resident=0)
        return self._held

    def _keep(self, held: _Held) -> None:
        seen = self._look(held)
        failure: NotResident | None = None
        if not seen.complete:
            if not self._may_read(held, seen):
                return
            failure = self._read(held, seen.missing)
        if self._lock(held) or not seen.complete:
            seen = residency_of(held.members, held.plan, threads=self._threads)
        self._see(held, seen)
        self.state = replace(self.state, problem=None)
        if failure is not None and not seen.complete:
            raise failure
        if seen.method in ("sampled", "unknown"):
            self._warn(held, "Unknown", "whether all is in memory can't be told here, so this is never called ready")

    def _look(self, held: _Held) -> Residency:
        """At all of it: a lock keeps nothing that the filesystem itself gives up. While something is read again, nobody is told
        that it is there."""
        seen = residency_of(held.members, held.plan, threads=self._threads)
        if known_to_lack(seen):
            held.release_broken()
        self._read_something = False
        self._see(held, seen)
        return seen

    def _see(self, held: _Held, seen: Residency) -> None:
        self.state = replace(self.state, resident=seen.resident, locked=held.locked)

    def _may_read(self, held: _Held, seen: Residency) -> bool:
        """The first time always, again within the allowance. A storage that is read for ever serves nobody else."""
        if not held.warm_once or held.allowance.has(seen.missing):
            return True
        problem = (
            f"what is read is reclaimed at once: {_TIMES_AN_HOUR} times the model was read again within an hour, so it is read "
            "less often from now on; raise the memory limit, allow locking (CAP_IPC_LOCK), or use `loader copy`"
        )
        self._warn(held, NotResident.reason, problem)
        self.state = replace(self.state, problem=f"{NotResident.reason}: {problem}")
        return False

    def _read(self, held: _Held, missing: int) -> NotResident | None:
        """Bring in what is not locked. An error that it did not stay is returned: locking may still hold it."""
        again, held.warm_once, self._read_something = held.warm_once, True, True
        if again:
            held.allowance.spend(missing)
            if self.state.resident is not None:
                self.state = replace(self.state, rewarmed=self.state.rewarmed + missing)
        try:
            warm(held.members, held.loose, threads=self._threads, on_event=silent if again else self._on_event)
        except NotResident as error:
            if again:
                held.allowance.spend(missing * (PASSES - 1))
            return error
        return None

    def _lock(self, held: _Held) -> int:
        """As much as may be locked, from the beginning on; how many windows that was."""
        raise_lock_limit()
        bound, before = lockable(), len(held.locks)
        left = bound.bytes
        for window in held.loose:
            if window.size > left:
                self._not_locked(held, bound.reason)
                break
            try:
                held.locks[window] = _locked(held.members[window.number], window)
            except OSError as error:
                self._not_locked(held, (error.strerror or str(error)).lower())
                break
            left -= window.size
        return len(held.locks) - before

    def _not_locked(self, held: _Held, reason: str) -> None:
        loose = size(bytes_in(held.loose))
        self._warn(held, "NotLocked", f"{loose} can't be locked ({reason}); what is reclaimed of them is read again")

    def _trouble(self, error: FetchError) -> None:
        sentence = error.sentence()
        if sentence != self.state.problem:
            self._on_event(Warned(error.reason, error.message))
        self.state = replace(self.state, problem=sentence)

    def _warn(self, held: _Held, reason: str, message: str) -> None:
        if reason not in held.told:
            held.told.add(reason)
            self._on_event(Warned(reason, message))

    def _tell(self, before: State) -> None:
        now = self.state
        if (now.ready, now.locked, now.rewarmed) != (before.ready, before.locked, before.rewarmed):
            self._on_event(Pinned(now.ready, now.resident, now.locked, now.total, now.rewarmed))


def _locked(member: Member, window: Window) -> Stretch:
    """Raises OSError where it can't be mapped or locked."""
    with member.identity.opened(member.path) as descriptor:
        stretch = Stretch(descriptor, window.part.start, window.size)
    try:
        stretch.lock()
    except OSError:
        stretch.close()
        raise
    return stretch


def _identity(path: str) -> FileIdentity:
    try:
        return FileIdentity.of(path)
    except OSError as error:
        raise from_os_error(error, doing="look at the size", path=path) from error
