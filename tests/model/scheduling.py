"""Runs actors one step at a time, and explores in which order their steps can happen.

An actor is a function in a thread of its own. It stops before every system call that changes or reads names below a root
(`fetcher.store.beneath`), and the scheduler says who goes on. A schedule is a list of switches: after so many steps, another
actor goes on. The actor that ran until then may die there, be paused for longer than the others' patience, or lose the reply
of a rename that was done. All schedules with few switches are tried: most mistakes of concurrent programs need only one or
two (Musuvathi and Qadeer, CHESS, 2008).
"""

from __future__ import annotations

import errno
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from fetcher.store import lease as leases

SECONDS = float(os.environ.get("WEIGHTLIFT_MODEL_SECONDS") or 3)
SWITCHES = int(os.environ.get("WEIGHTLIFT_MODEL_SWITCHES") or 2)
LEAST = 30
"""Schedules that are tried however slow the machine is."""

Actor = Callable[[], object]
Fault = Literal["none", "crash", "pause", "lost reply"]
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
    ("tests.model.store", "fill"),
)
_MOST_STEPS = 2_000
"""Steps of one actor. An actor that polls for a lease is given up then: it would wait for ever."""


class Crashed(BaseException):
    """Ends the thread of an actor that is never scheduled again."""


@dataclass(frozen=True, slots=True)
class Switch:
    """After `step` steps in all, `actor` goes on. `fault` hits the actor that ran until then.

    `crash`: it never goes on. `pause`: the others count it as gone, until a later switch to it or the end of all others.
    `lost reply`: its next rename is done and reports an error.
    """

    step: int
    actor: int
    fault: Fault = "none"


class Scheduler:
    """One run of all actors by one schedule."""

    def __init__(self, actors: Sequence[Actor]) -> None:
        self._turn = threading.Condition()
        self._running: int | None = None
        self._stopped = [False] * len(actors)
        self._ended = [False] * len(actors)
        self._crashed = [False] * len(actors)
        self._paused = [False] * len(actors)
        self._losing = [False] * len(actors)
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
                self._hit(current, switch.fault)
                current = switch.actor
                self._paused[current] = False
            if not self._goes_on(current):
                left = [index for index, _ in enumerate(self._threads) if not (self._ended[index] or self._crashed[index])]
                if not left:
                    break
                current = next(filter(self._goes_on, left), left[0])
                self._paused[current] = False
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
            self._stop(index)
            self._turn.wait_for(lambda: self._running == index)
            self._stopped[index] = False
        if self._crashed[index]:
            raise Crashed

    def owns(self, owner: str) -> None:
        if (index := self._index.get(threading.current_thread())) is not None:
            self._owners[index].add(owner)

    def silent(self, owner: str | None) -> bool:
        """Whether the owner's heartbeat does not change any more: its actor is dead, paused or at its end."""
        return all(
            self._crashed[index] or self._paused[index] or self._ended[index]
            for index, owners in enumerate(self._owners)
            if owner in owners
        )

    def reply_is_lost(self) -> bool:
        """Whether the reply of this rename of the calling actor is lost. Only one is."""
        index = self._index.get(threading.current_thread())
        if index is None or not self._losing[index]:
            return False
        self._losing[index] = False
        return True

    def _goes_on(self, index: int) -> bool:
        return not (self._ended[index] or self._crashed[index] or self._paused[index])

    def _hit(self, index: int, fault: Fault) -> None:
        if self._ended[index]:
            return
        if fault == "crash":
            self._crash(index)
        self._paused[index] = fault == "pause"
        self._losing[index] = fault == "lost reply"

    def _act(self, index: int, actor: Actor) -> None:
        try:
            self.pause()
            self.results[index] = actor()
        except Crashed:
            pass
        except Exception as error:  # noqa: BLE001  the test looks at it
            self.results[index] = error
        with self._turn:
            self._ended[index] = True
            self._stop(index)

    def _stop(self, index: int) -> None:
        """An actor that has only just begun, late on a busy machine, takes the turn from no other one."""
        self._stopped[index] = True
        if self._running == index:
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
def hooked(scheduler: Callable[[], Scheduler | None], *, network: bool) -> Iterator[None]:
    """Make every hooked call stop first. After a crash it raises, whatever handler or `finally` calls it.

    `network`: the actors are on different nodes. Locks do nothing, no death is proven, and nobody can tell who reads a file.
    """
    import importlib

    with pytest.MonkeyPatch.context() as patch:
        for path, name in (*((module, name) for module in _MODULES for name in HOOKED), *_ALSO):
            module = importlib.import_module(path)
            if (call := getattr(module, name, None)) is not None and not hasattr(call, "hooked"):
                patch.setattr(module, name, _stopping(call, scheduler))
        # The threads of one process take turns here. Actors are different processes.
        patch.setattr("fetcher.store.beneath._MAKING", nullcontext())
        new_owner = leases._new_owner  # noqa: SLF001

        def owned() -> Any:
            owner = new_owner()
            if (running := scheduler()) is not None:
                running.owns(str(owner))
            return owner

        patch.setattr(leases, "_new_owner", owned)
        patch.setattr("fetcher.store.contender.time.sleep", lambda _: _pause(scheduler))
        patch.setattr(leases.Watch, "silence", lambda _, seen, __: _silence(scheduler(), seen.owner))
        if network:
            patch.setattr(leases, "_dead", lambda *_: False)
            for user in ("fetcher.store.heartbeat", "fetcher.store.in_use"):
                patch.setattr(f"{user}.of_this_kernel", lambda _: False)
            patch.setattr("fetcher.store.eviction.network_filesystem", lambda _: "nfs")
            patch.setattr("fetcher.store.eviction._wait", lambda *_: _pause(scheduler))
            patch.setattr("fetcher.store.keyed.exchange", lambda *_: False)
        yield


def _silence(running: Scheduler | None, owner: str | None) -> float:
    """Seconds without a heartbeat. After the run, all processes are gone."""
    return float("inf") if running is None or running.silent(owner) else 0.0


def _pause(scheduler: Callable[[], Scheduler | None]) -> None:
    if (running := scheduler()) is not None:
        running.pause()


def _stopping(call: Callable[..., Any], scheduler: Callable[[], Scheduler | None]) -> Callable[..., Any]:
    def stopping(*arguments: Any, **more: Any) -> Any:
        running = scheduler()
        if running is not None:
            if running.dead:
                raise Crashed
            running.pause()
        result = call(*arguments, **more)
        if call.__name__ == "rename" and running is not None and running.reply_is_lost():
            # An NFS client repeats the request, and the server has forgotten that it did the first one.
            raise FileNotFoundError(errno.ENOENT, "the reply was lost", str(arguments[1]))
        return result

    stopping.hooked = True  # type: ignore[attr-defined]
    return stopping


def schedules(steps: int, actors: int, *, switches: int, faults: Sequence[Fault]) -> Iterator[tuple[Switch, ...]]:
    """Yield every schedule with at most `switches` switches among the first `steps` steps, those with few first.

    Each has at most one of the `faults`.
    """
    yield ()
    kinds: tuple[Fault, ...] = ("none", *faults)
    for number in range(1, switches + 1):
        for places in itertools.combinations(range(1, steps + 1), number):
            for chosen in itertools.product(itertools.product(range(actors), kinds), repeat=number):
                if sum(fault != "none" for _, fault in chosen) <= 1:
                    yield tuple(Switch(step, actor, fault) for step, (actor, fault) in zip(places, chosen, strict=True))


def within(seconds: float, items: Iterator[tuple[Switch, ...]], *, least: int) -> Iterator[tuple[Switch, ...]]:
    """Yield items until the time is over, and at least `least` of them."""
    until = time.monotonic() + seconds
    for number, item in enumerate(items):
        if number >= least and time.monotonic() > until:
            return
        yield item
