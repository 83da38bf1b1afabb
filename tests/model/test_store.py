"""Two and three processes on one root, in every order of their steps with few switches and at most one fault.

A process may die anywhere, be paused until others have taken its lease, or lose the reply of a rename. Each actor runs the
real functions of the store on a real filesystem. WEIGHTLIFT_MODEL_SECONDS bounds the time of each test (3 by default),
WEIGHTLIFT_MODEL_SWITCHES the number of switches (2). A failure names its schedule.
"""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

from fetcher.store import contender as contenders
from fetcher.store import lease as leases
from fetcher.store.eviction import Keeping
from tests.model.scheduling import LEAST, SECONDS, SWITCHES, Actor, Fault, Scheduler, Switch, hooked, schedules, within
from tests.model.store import Store


def explore(
    root: Path,
    actors: Callable[[Store], Sequence[Actor]],
    judge: Callable[[Store, Sequence[object]], None],
    *,
    first: str | None,
    faults: Sequence[Fault] = (),
    network: bool = False,
    switches: int = SWITCHES,
    seconds: float = SECONDS,
) -> None:
    """Run all schedules that fit into the time. Raises AssertionError with the schedule that failed."""
    running: list[Scheduler | None] = [None]
    steps = [40]
    with hooked(lambda: running[0], network=network):
        for schedule in within(seconds, _all(steps, len(actors(Store(root))), faults, switches), least=LEAST):
            running[0] = None
            shutil.rmtree(root, ignore_errors=True)
            root.mkdir()
            store = Store(root)
            if first is not None:
                assert store.write(first) == "published"
                store.age()
            scheduler = running[0] = Scheduler(actors(store))
            steps[0] = max(steps[0], scheduler.run(schedule))
            running[0] = None
            try:
                for result in scheduler.results:
                    assert not isinstance(result, Exception), repr(result)
                store.check()
                judge(store, scheduler.results)
                store.check_that_nothing_is_left()
            except AssertionError as error:
                raise AssertionError(f"{error}\nafter {scheduler.results} by the schedule {schedule}") from error


def _all(steps: Sequence[int], actors: int, faults: Sequence[Fault], switches: int) -> Iterator[tuple[Switch, ...]]:
    """Yield all schedules. The first run, without switches, tells how many steps there are: `steps[0]`."""
    yield ()
    yield from (each for each in schedules(steps[0], actors, switches=switches, faults=faults) if each)


def a_hit_is_kept(store: Store, results: Sequence[object]) -> None:
    if "hit" in results:
        assert store.final.exists(), "an artifact disappeared after it was a hit"


def every_single_switch(root: Path) -> None:
    """An evictor and a hit, with every schedule of one switch: enough for each of the two mistakes below."""
    actors = lambda store: [store.evict, store.hit]  # noqa: E731
    explore(root, actors, a_hit_is_kept, first="one", switches=1, seconds=float("inf"))


class TestHitAndEviction:
    def test_a_hit_never_loses_its_artifact(self, root: Path) -> None:
        explore(root, lambda store: [store.evict, store.hit], a_hit_is_kept, first="one")

    def test_whoever_dies_leaves_the_artifact_or_nothing(self, root: Path) -> None:
        explore(root, lambda store: [store.evict, store.hit], a_hit_is_kept, first="one", faults=["crash"])

    def test_two_evictions_and_a_hit(self, root: Path) -> None:
        actors = lambda store: [store.evict, store.hit, store.evict]  # noqa: E731
        explore(root, actors, a_hit_is_kept, first="one", faults=["crash"])

    def test_the_model_finds_an_evictor_that_does_not_look_again(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Keeping, "reason", lambda *_: None)
        with pytest.raises(AssertionError, match="disappeared"):
            every_single_switch(root)

    def test_the_model_finds_a_hit_that_does_not_look_for_the_evictor(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("fetcher.engine.hits.being_evicted", lambda _: False)
        with pytest.raises(AssertionError, match="disappeared"):
            every_single_switch(root)


def nothing_more(store: Store, results: Sequence[object]) -> None:
    """What is visible was checked already."""


class TestWriters:
    def test_two_writers_of_two_versions(self, root: Path) -> None:
        actors = lambda store: [lambda: store.write("two"), lambda: store.write("three")]  # noqa: E731
        explore(root, actors, nothing_more, first=None, faults=["crash"])

    def test_two_writers_replace_a_version(self, root: Path) -> None:
        actors = lambda store: [lambda: store.write("two"), lambda: store.write("three")]  # noqa: E731
        explore(root, actors, nothing_more, first="one", faults=["crash"])

    def test_a_writer_and_an_evictor(self, root: Path) -> None:
        actors = lambda store: [lambda: store.write("two"), store.evict, store.hit]  # noqa: E731
        explore(root, actors, nothing_more, first="one", faults=["crash"])

    def test_three_writers_of_one_key(self, root: Path) -> None:
        explore(root, three_writers, nothing_more, first=None, faults=["crash"])


def three_writers(store: Store) -> list[Actor]:
    return [lambda: store.write("two"), lambda: store.write("three"), lambda: store.write("four")]


def two_writers(store: Store) -> list[Actor]:
    return [lambda: store.write("two"), lambda: store.write("three")]


class TestPausedOwners:
    """An owner sleeps until another one took its lease, and then goes on. It never changes what is published."""

    def test_two_writers(self, root: Path) -> None:
        explore(root, two_writers, nothing_more, first=None, faults=["pause"])

    def test_three_writers_replace_a_version(self, root: Path) -> None:
        explore(root, three_writers, nothing_more, first="one", faults=["pause"])

    def test_an_evictor_a_writer_and_a_hit(self, root: Path) -> None:
        actors = lambda store: [store.evict, lambda: store.write("two"), store.hit]  # noqa: E731
        explore(root, actors, nothing_more, first="one", faults=["pause"])

    def test_the_model_finds_a_takeover_that_keeps_the_inodes_of_a_living_owner(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        broken = changed(leases.take_over, "inodes_reusable = complete and all(", "inodes_reusable = complete or all(")
        monkeypatch.setattr(contenders, "take_over", broken)
        with pytest.raises(AssertionError, match="is visible with"):
            explore(root, two_writers, nothing_more, first=None, faults=["pause"], switches=1, seconds=float("inf"))


class TestNetworkFilesystems:
    """Processes of different nodes: locks do nothing, no death is proven, and no directories are exchanged."""

    def test_two_writers_replace_a_version(self, root: Path) -> None:
        explore(root, two_writers, nothing_more, first="one", faults=["crash", "pause"], network=True)

    def test_a_hit_never_loses_its_artifact(self, root: Path) -> None:
        explore(root, lambda store: [store.evict, store.hit], a_hit_is_kept, first="one", faults=["crash"], network=True)


def something_is_published(store: Store, _: Sequence[object]) -> None:
    assert store.final.exists(), "a lost reply lost the artifact"


class TestLostReplies:
    """A rename was done and reports an error, as after a repeated request to an NFS server."""

    def test_a_writer_and_a_hit(self, root: Path) -> None:
        actors = lambda store: [lambda: store.write("two"), store.hit]  # noqa: E731
        explore(root, actors, something_is_published, first=None, faults=["lost reply"], network=True)

    def test_two_writers_replace_a_version(self, root: Path) -> None:
        explore(root, two_writers, something_is_published, first="one", faults=["lost reply"], network=True)

    def test_a_writer_and_an_evictor(self, root: Path) -> None:
        actors = lambda store: [lambda: store.write("two"), store.evict, store.hit]  # noqa: E731
        explore(root, actors, nothing_more, first="one", faults=["lost reply"], network=True)

    def test_the_model_finds_an_acquisition_that_believes_the_reply(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        broken = changed(leases.acquire, 'if not (directory / f"data.{owner}").is_dir():', "if True:")
        monkeypatch.setattr(contenders, "acquire", broken)
        actors = lambda store: [lambda: store.write("two"), store.hit]  # noqa: E731
        with pytest.raises(AssertionError, match="lost the artifact"):
            explore(root, actors, something_is_published, first=None, faults=["lost reply"], switches=1, seconds=float("inf"))


def changed(function: Callable[..., object], old: str, new: str) -> Callable[..., object]:
    """Return `function` of the leases with `old` in its source replaced by `new`. What it calls can still be hooked."""
    source = inspect.getsource(function)
    assert old in source
    scope: dict[str, Any] = {**vars(leases)}
    exec(source.replace(old, new), scope)  # noqa: S102  our own source
    result = FunctionType(scope[function.__name__].__code__, vars(leases))
    result.__kwdefaults__ = scope[function.__name__].__kwdefaults__
    return result
