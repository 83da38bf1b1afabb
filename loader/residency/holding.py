"""Weights kept in memory: locked where that is allowed, otherwise checked regularly and read again after reclaim.

Pages are reclaimed without memory pressure too (DAMON took a quarter in ten minutes). A checkpoint may be replaced under its
path at any time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import field, replace
from pathlib import Path

from fetcher.errors import FetchError
from fetcher.events import Pinned, Subscriber, Warned, silent
from fetcher.host.memory import memory_left
from fetcher.quantities import size
from fetcher.uncancelled import Stopped
from fetcher.values import dataclass
from loader.checkpoint.files import FileIdentity
from loader.errors import NotResident, from_os_error
from loader.filesystems import filesystem_of
from loader.residency.locking import lockable, raise_lock_limit
from loader.residency.model_files import Layout, ModelFile, layout, model_files
from loader.residency.page_cache import Residency
from loader.residency.paging import MappedRange
from loader.residency.reread_budget import RereadBudget
from loader.residency.warming import PASSES, bytes_in, known_to_lack, never, residency_of, warm, what_fits
from loader.residency.windows import Window, windows

_PAUSE_FACTOR = 19
"""The least pause, as a multiple of a check's processor time: 15 ms a GiB for files of this user, 100 for those of others.
So checks take 5 % of a processor at most, whatever the size of the model."""

_REREADS_AN_HOUR = 4
"""How many times the whole model may be read again. DAMON took a quarter of it in ten minutes: 1.5 times an hour."""


@dataclass(frozen=True, slots=True)
class State:
    """The state of a hold: `resident` of `total` bytes are in memory (None: unknown), and `locked` bytes are locked.

    Since the start, `rewarmed` bytes were reclaimed and read again, and the checkpoint was replaced `changes` times.
    `problem` is what failed in the last check, or None.
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
        """Every file under the paths is known to be in memory."""
        return self.checked > 0 and self.problem is None and self.resident == self.total


@dataclass(slots=True)
class _Held:
    """The held files, and the locks on their windows."""

    layout: Layout
    members: tuple[ModelFile, ...]
    plan: tuple[Window, ...]
    budget: RereadBudget
    locks: dict[Window, MappedRange] = field(default_factory=dict)
    warmed_before: bool = False
    warned: set[str] = field(default_factory=set)

    @property
    def unlocked(self) -> tuple[Window, ...]:
        return tuple(window for window in self.plan if window not in self.locks)

    @property
    def locked(self) -> int:
        return bytes_in(tuple(self.locks))

    def unchanged(self, paths: Sequence[str]) -> bool:
        """Whether the paths still hold the same files. Every check asks this, so it reads no headers: those of 90,000 tensors
        take half a second."""
        return self.layout == layout(paths) and all(_identity_at(member.path) == member.identity for member in self.members)

    def release_broken(self) -> None:
        """Release locks that lost their pages, so that these windows are read and locked again."""
        for window in [*self.locks]:
            if known_to_lack(self.members[window.number].residency(window.part, closely=True)):
                self.locks.pop(window).close()

    def release(self) -> None:
        for mapped_range in self.locks.values():
            mapped_range.close()
        self.locks.clear()


class Hold:
    """Call `check` repeatedly, with `pause` between, then `close`. Not safe for use from several threads, but for `state`,
    which is replaced and never changed.

    `lock`: False to keep the pages by reading them again only. `stopped`: whether a check shall end early, asked by threads.
    """

    def __init__(
        self,
        paths: Sequence[str],
        *,
        threads: int,
        on_event: Subscriber,
        lock: bool = True,
        stopped: Callable[[], bool] = never,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._paths = tuple(paths)
        self._threads = threads
        self._on_event = on_event
        self._wants_lock = lock
        self._stopped = stopped
        self._clock = clock
        self._held: _Held | None = None
        self._did_read = False
        self._check_cost = 0.0
        self.state = State()

    def check(self) -> State:
        """Follow a replaced checkpoint, read missing pages, lock what the limits allow, and measure. Returns the new state.

        The first check raises the errors of `model_files` and `warm`, unless they are temporary. Later errors become
        `State.problem`, and the next check tries again. Raises Stopped if it was asked to.
        """
        began, before = time.process_time(), self.state
        try:
            self._keep_in_memory(self._follow())
        except FetchError as error:
            if not before.checked and not error.retryable:
                raise
            self._note_problem(error)
        self.state = replace(self.state, checked=time.time())
        self._check_cost = time.process_time() - began
        self._report_change(before)
        return self.state

    def pause(self, interval: float) -> float:
        """Return the seconds until the next check, given the configured `interval` in seconds."""
        return interval if self._did_read else max(interval, self._check_cost * _PAUSE_FACTOR)

    def close(self) -> None:
        if self._held is not None:
            self._held.release()

    def _follow(self) -> _Held:
        """The files under the paths now. If they changed, the old ones are released first: both may not fit."""
        held = self._held
        if held is not None and held.unchanged(self._paths):
            return held
        seen, chosen = layout(self._paths), model_files(self._paths)
        if held is not None and held.members == chosen:  # another file was added or removed in the directory
            held.layout = seen
            return held
        if held is not None:
            held.release()
            self._held = None
            self.state = replace(self.state, resident=0, locked=0, changes=self.state.changes + 1)
        plan = tuple(windows([member.size for member in chosen]))
        if not all(filesystem_of(Path(member.path)).memory for member in chosen):  # files of tmpfs are memory already
            what_fits(plan, memory_left().pages, partial=False)
        self._held = _Held(seen, chosen, plan, RereadBudget(_REREADS_AN_HOUR * bytes_in(plan), self._clock))
        self.state = replace(self.state, files=len(chosen), total=bytes_in(plan), resident=0)
        return self._held

    def _keep_in_memory(self, held: _Held) -> None:
        seen = self._measure(held)
        failure: NotResident | None = None
        if not seen.complete:
            if not self._is_allowed_to_read(held, seen):
                return
            failure = self._read(held, seen.missing)
        held.warmed_before = True  # also if all was in memory already: what is missing later was reclaimed
        if self._lock(held) or not seen.complete:
            seen = residency_of(held.members, held.plan, threads=self._threads)
        self._record(held, seen)
        self.state = replace(self.state, problem=None)
        if failure is not None and not seen.complete:
            raise failure
        if seen.method in ("sampled", "unknown"):
            self._warn(held, "Unknown", "the kernel does not show which pages are in memory, so the model is never ready")

    def _measure(self, held: _Held) -> Residency:
        """Measure every window: a lock does not keep pages that the filesystem itself drops. The state shows the loss while
        missing pages are read again."""
        seen = residency_of(held.members, held.plan, threads=self._threads)
        if known_to_lack(seen):
            held.release_broken()
        self._did_read = False
        self._record(held, seen)
        return seen

    def _record(self, held: _Held, seen: Residency) -> None:
        self.state = replace(self.state, resident=seen.resident, locked=held.locked)

    def _is_allowed_to_read(self, held: _Held, seen: Residency) -> bool:
        """The first reading is always allowed. Later ones need the budget, so a hold does not load storage forever."""
        if not held.warmed_before or held.budget.has(seen.missing):
            return True
        problem = (
            f"pages are reclaimed as fast as they are read: the model was read again {_REREADS_AN_HOUR} times within an hour, "
            "so it is now read less often; raise the memory limit, allow locking (CAP_IPC_LOCK), or use `loader copy`"
        )
        self._warn(held, NotResident.reason, problem)
        self.state = replace(self.state, problem=f"{NotResident.reason}: {problem}")
        return False

    def _read(self, held: _Held, missing: int) -> NotResident | None:
        """Warm the windows that are not locked. NotResident is returned, not raised: locking may still keep the pages."""
        rereading, self._did_read = held.warmed_before, True
        if rereading:
            held.budget.spend(missing)
            if self.state.resident is not None:
                self.state = replace(self.state, rewarmed=self.state.rewarmed + missing)
        on_event = silent if rereading else self._on_event
        try:
            warm(held.members, held.unlocked, threads=self._threads, on_event=on_event, stopped=self._stopped)
        except NotResident as error:
            if rereading:
                held.budget.spend(missing * (PASSES - 1))
            return error
        return None

    def _lock(self, held: _Held) -> int:
        """Lock as many windows as the limit allows, in order. Returns how many were locked."""
        if not self._wants_lock:
            return 0
        raise_lock_limit()
        bound, before = lockable(), len(held.locks)
        remaining = bound.bytes
        for window in held.unlocked:
            if self._stopped():
                raise Stopped
            if window.size > remaining:
                self._not_locked(held, bound.reason)
                break
            try:
                held.locks[window] = _locked(held.members[window.number], window)
            except OSError as error:
                self._not_locked(held, (error.strerror or str(error)).lower())
                break
            remaining -= window.size
        return len(held.locks) - before

    def _not_locked(self, held: _Held, reason: str) -> None:
        unlocked = size(bytes_in(held.unlocked))
        self._warn(held, "NotLocked", f"{unlocked} can't be locked ({reason}); pages that are reclaimed are read again")

    def _note_problem(self, error: FetchError) -> None:
        sentence = error.sentence()
        if sentence != self.state.problem:
            self._on_event(Warned(error.reason, error.message))
        self.state = replace(self.state, problem=sentence)

    def _warn(self, held: _Held, reason: str, message: str) -> None:
        if reason not in held.warned:
            held.warned.add(reason)
            self._on_event(Warned(reason, message))

    def _report_change(self, before: State) -> None:
        now = self.state
        if (now.ready, now.locked, now.rewarmed) != (before.ready, before.locked, before.rewarmed):
            self._on_event(Pinned(now.ready, now.resident, now.locked, now.total, now.rewarmed))


def _locked(member: ModelFile, window: Window) -> MappedRange:
    """Raises OSError if the window can't be mapped or locked."""
    with member.identity.opened(member.path) as descriptor:
        mapped_range = MappedRange(descriptor, window.part.start, window.size)
    try:
        mapped_range.lock()
    except OSError:
        mapped_range.close()
        raise
    return mapped_range


def _identity_at(path: str) -> FileIdentity:
    try:
        return FileIdentity.of(path)
    except OSError as error:
        raise from_os_error(error, doing="look at the size", path=path) from error
