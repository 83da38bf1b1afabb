"""Runs actors one step at a time, and explores in which order their steps can happen.

An actor is a function in a thread of its own. It stops before every system call that changes or reads names below a root
(`fetcher.store.beneath`), and the scheduler says who goes on. A schedule is a list of switches: after so many steps, another
actor goes on. All schedules with few switches are tried: most mistakes of concurrent programs need only one or two (Musuvathi
and Qadeer, CHESS, 2008). A rename may also report an error although it succeeded, as on NFS when the reply was lost.
"""

from __future__ import annotations

import errno
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

from fetcher.store import lease as leases

T = TypeVar("T")
Actor = Callable[[], object]
HOOKED = (
    "open_beneath",
    "read_beneath",
    "make_directories",
    "rename",
    "remove",
    "remove_directory",
    "remove_tree",
    "replace_file",
)
_MODULES = (
    "fetcher.store.beneath", "fetcher.store.lease", "fetcher.store.heartbeat", "fetcher.store.keyed", "fetcher.store.eviction",
    "fetcher.store.claims", "fetcher.store.in_use", "fetcher.store.ballast", "fetcher.store.layout",
)  # fmt: skip
_ALSO = (
    ("fetcher.engine.hits", "renew"),
    ("fetcher.engine.hits", "being_evicted"),
    ("fetcher.engine.hits", "matching_manifest"),
    ("fetcher.store.eviction", "last_used"),
    ("fetcher.store.keyed", "exchange"),
    ("fetcher.store.lease", "observe"),
)
_MOST_STEPS = 2_000
"""Steps of one actor. An actor that polls for a lease is given up then: it would wait for ever."""


class Crashed(BaseException):
    """Ends the thread of an actor that is never scheduled again."""


@dataclass(frozen=True, slots=True)
class Switch:
    """After `step` steps in all, `actor` goes on. `crash`: the actor that ran until then never does."""

    step: int
    actor: int
    crash: bool = False


class Scheduler:
    """One run of all actors by one schedule. `lost`: the number of the rename whose reply is lost, from 0; None for none.

    `lost_in` is the module that made it.
    """

    def __init__(self, actors: Sequence[Actor], *, lost: int | None = None) -> None:
        self._lost = lost
        self.lost_in: str | None = None
        self._turn = threading.Condition()
        self._running: int | None = None
        self._stopped = [True] * len(actors)
        self._ended = [False] * len(actors)
        self._crashed = [False] * len(actors)
        self._owners: list[set[str]] = [set() for _ in actors]
        self.results: list[object] = [None] * len(actors)
        self._threads = [
            threading.Thread(target=self._act, args=(index, actor), daemon=True) for index, actor in enumerate(actors)
        ]
        self._index = {thread: index for index, thread in enumerate(self._threads)}

    def run(self, schedule: Sequence[Switch]) -> int:
        """Run the actors, the first one first. Return the number of steps."""
        for thread in self._threads:
            thread.start()
        pending, current, steps = list(schedule), 0, 0
        while not all(ended or crashed for ended, crashed in zip(self._ended, self._crashed, strict=True)):
            if pending and steps >= pending[0].step:
                switch = pending.pop(0)
                if switch.crash and not self._ended[current]:
                    self._crash(current)
                current = switch.actor
            if self._ended[current] or self._crashed[current]:
                left = [index for index, _ in enumerate(self._threads) if not (self._ended[index] or self._crashed[index])]
                if not left:
                    break
                current = left[0]
            self._step(current)
            steps += 1
            # An actor that waits for another one would run alone for ever.
            if steps % 50 == 0:
                current = (current + 1) % len(self._threads)
            assert steps < _MOST_STEPS, "the actors wait for each other"
        self._finish()
        return steps

    def pause(self) -> None:
        """Called by hooks: stop the calling actor until it is its turn again. Other threads go on."""
        index = self._index.get(threading.current_thread())
        if index is None:
            return
        with self._turn:
            self._stopped[index] = True
            self._running = None
            self._turn.notify_all()
            self._turn.wait_for(lambda: self._running == index)
            self._stopped[index] = False
        if self._crashed[index]:
            raise Crashed

    def answer(self, module: str) -> None:
        """Called after each rename. Raises FileNotFoundError if its reply is lost: a second try finds nothing to rename."""
        if self._lost is not None and threading.current_thread() in self._index:
            self._lost -= 1
            if self._lost < 0:
                self._lost, self.lost_in = None, module
                raise FileNotFoundError(errno.ENOENT, "the reply was lost")

    def owns(self, owner: str) -> None:
        if (index := self._index.get(threading.current_thread())) is not None:
            self._owners[index].add(owner)

    def _act(self, index: int, actor: Actor) -> None:
        try:
            self.pause()
            self.results[index] = actor()
        except Crashed:
            pass
        except Exception as error:  # noqa: BLE001  the test looks at it
            self.results[index] = error
        with self._turn:
            self._ended[index] = self._stopped[index] = True
            self._running = None
            self._turn.notify_all()

    def _step(self, index: int) -> None:
        with self._turn:
            self._turn.wait_for(lambda: self._stopped[index])
            self._running = index
            self._stopped[index] = False
            self._turn.notify_all()
            assert self._turn.wait_for(lambda: self._stopped[index], timeout=30), "an actor blocks outside of a system call"

    def _crash(self, index: int) -> None:
        """Never schedule the actor again. Its leases have no owner any more, as after SIGKILL."""
        self._crashed[index] = True
        for owner in self._owners[index]:
            leases._HELD.discard(owner)  # noqa: SLF001  the kernel's part in this model

    def _finish(self) -> None:
        """End the threads of crashed actors. Their hooks raise, so nothing they clean up on the way changes the root."""
        for index, crashed in enumerate(self._crashed):
            while crashed and not self._ended[index]:
                self._step(index)
        for thread in self._threads:
            thread.join()

    @property
    def dead(self) -> bool:
        """Whether the calling thread is an actor that has crashed."""
        index = self._index.get(threading.current_thread())
        return index is not None and self._crashed[index]


@contextmanager
def hooked(scheduler: Callable[[], Scheduler | None]) -> Iterator[None]:
    """Make every hooked call stop first. After a crash it raises, whatever handler or `finally` calls it."""
    import importlib

    with pytest.MonkeyPatch.context() as patch:
        for path, name in (*((module, name) for module in _MODULES for name in HOOKED), *_ALSO):
            module = importlib.import_module(path)
            if (call := getattr(module, name, None)) is not None and not hasattr(call, "hooked"):
                patch.setattr(module, name, _stopping(call, scheduler, path if name == "rename" else None))
        # The threads of one process take turns here. Actors are different processes.
        patch.setattr("fetcher.store.beneath._MAKING", nullcontext())
        new_owner = leases._new_owner  # noqa: SLF001

        def owned() -> Any:
            owner = new_owner()
            if (running := scheduler()) is not None:
                running.owns(str(owner))
            return owner

        patch.setattr(leases, "_new_owner", owned)
        patch.setattr("fetcher.store.contender.time.sleep", lambda _: pause(scheduler))
        yield


def pause(scheduler: Callable[[], Scheduler | None]) -> None:
    if (running := scheduler()) is not None:
        running.pause()


def _stopping(
    call: Callable[..., Any], scheduler: Callable[[], Scheduler | None], renames_in: str | None
) -> Callable[..., Any]:
    def stopping(*arguments: Any, **more: Any) -> Any:
        running = scheduler()
        if running is not None:
            if running.dead:
                raise Crashed
            running.pause()
        result = call(*arguments, **more)
        if running is not None and renames_in is not None:
            running.answer(renames_in)
        return result

    stopping.hooked = True  # type: ignore[attr-defined]
    return stopping


def schedules(steps: int, actors: int, *, switches: int, crashes: bool) -> Iterator[tuple[Switch, ...]]:
    """Yield every schedule with at most `switches` switches among the first `steps` steps, those with few first."""
    yield ()
    kinds = (False, True) if crashes else (False,)
    for number in range(1, switches + 1):
        for places in itertools.combinations(range(1, steps + 1), number):
            for chosen in itertools.product(itertools.product(range(actors), kinds), repeat=number):
                if sum(crash for _, crash in chosen) <= 1:
                    yield tuple(Switch(step, actor, crash) for step, (actor, crash) in zip(places, chosen, strict=True))


def within(seconds: float, items: Iterator[T], *, least: int) -> Iterator[T]:
    """Yield items until the time is over, and at least `least` of them."""
    until = time.monotonic() + seconds
    for number, item in enumerate(items):
        if number >= least and time.monotonic() > until:
            return
        yield item
