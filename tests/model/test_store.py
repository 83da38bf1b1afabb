"""Two and three processes on one root, in every order of their steps with few switches, and one of them may die anywhere.

Each actor runs the real functions of the store on a real filesystem. WEIGHTLIFT_MODEL_SECONDS bounds the time of each test (5
by default), WEIGHTLIFT_MODEL_SWITCHES the number of switches (2). A failure names its schedule.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from fetcher.artifact import ArtifactRef, Listing
from fetcher.engine.hits import find_hit
from fetcher.errors import FetchError, LeaseLost
from fetcher.integrity.digests import new_chunk_hasher
from fetcher.manifest import Manifest, ManifestFile
from fetcher.settings import Settings
from fetcher.store.catalog import find
from fetcher.store.contender import Contender
from fetcher.store.eviction import Keeping, doom
from fetcher.store.garbage import garbage
from fetcher.store.keyed import Keyed, finish_exchanges, finish_swaps
from fetcher.store.layout import Root, fence_of
from fetcher.store.lease import Lease, Watch
from fetcher.store.placement import seal
from fetcher.store.salvage import remove_unlisted_files
from tests.model.scheduling import Actor, Scheduler, Switch, hooked, pause, schedules, within

SECONDS = float(os.environ.get("WEIGHTLIFT_MODEL_SECONDS") or 5)
SWITCHES = int(os.environ.get("WEIGHTLIFT_MODEL_SWITCHES") or 2)
REF = ArtifactRef("hf://org/model")
PATHS = ("config.json", "model.safetensors")
STALE = 1e6
LEAST = 30
"""Schedules that are tried however slow the machine is."""
_RENAMES = 8
"""Renames whose replies are lost, one in each run. A writer makes about six."""
_PATIENCE = 300
"""Looks at a lease. Whoever has it needs fewer steps."""
LONG_AGO = 1_600_000_000.0
NOW = LONG_AGO + 1e6


class Store:
    """A root on a filesystem in memory, and what processes do to it. `pause` lets others go on in the middle of a step."""

    def __init__(self, root: Path, *, pause: Callable[[], None] = lambda: None) -> None:
        self.root = root
        self.final = root / REF.key
        self._pause = pause

    def write(self, version: str) -> str:
        """Publish `version` like a fetch: under the lease of its key. Return what happened."""
        contender = Contender(Root(self.root).staging, REF.key, stale=STALE)
        try:
            for _ in range(_PATIENCE):
                if isinstance(lease := contender.attempt(), Lease):
                    break
            else:
                return "waited in vain"
            try:
                return self._build(lease, version)
            except OSError:
                lease.renew()  # LeaseLost, if the next owner took the directory away
                raise
            finally:
                lease.release()
        except LeaseLost:
            return "lost"

    def _build(self, lease: Lease, version: str) -> str:
        placement = Keyed(self.root, REF.key)
        present = placement.present()
        if present is not None and present.revision == version:
            lease.dissolve()
            return "present"
        remove_unlisted_files(lease, ())
        lease.forget_previous_owners()
        for path in PATHS:
            descriptor = fence_of(lease.data / path).create(lease.data / path, 0o644)
            self._pause()
            os.write(descriptor, version.encode())
            os.close(descriptor)
        hasher = new_chunk_hasher()
        hasher.update(version.encode())
        files = [ManifestFile(path, len(version), (), (hasher.hexdigest(),), "v") for path in PATHS]
        manifest = Manifest.for_request(REF, revision=version, files=files, created="2026-01-01T00:00:00+00:00", version="0")
        lease.renew()
        with lease.fenced():
            seal(lease.data, manifest, mode=0o644)
        placement.place(lease, manifest, Listing(version, ()), lambda _: None)
        return "published"

    def evict(self) -> str:
        try:
            entry = find(self.root, REF.key)
            doomed, kept = doom(self.root, [entry], Keeping(self.root, NOW, 3600.0), stale=STALE, keep=lambda: None)
            for each in doomed:
                each.delete()
        except FetchError as error:
            return type(error).__name__
        return "evicted" if doomed else kept[REF.key]

    def hit(self) -> str:
        settings = Settings(cache_dir=self.root)
        return "hit" if find_hit(Keyed(self.root, REF.key), REF, settings) is not None else "miss"

    def age(self) -> None:
        (self.root / ".fetcher/usage").mkdir(parents=True, exist_ok=True)
        usage = self.root / ".fetcher/usage" / REF.key
        usage.touch()
        os.utime(usage, (LONG_AGO, LONG_AGO))

    def check(self) -> None:
        """What is visible is complete, and of one version."""
        if not self.final.exists():
            return
        manifest = Manifest.read(self.final / ".fetcher/manifest.json")
        assert manifest is not None, "a directory is visible without its manifest"
        assert {path: (self.final / path).read_text() for path in PATHS} == dict.fromkeys(PATHS, manifest.revision)

    def check_that_nothing_is_left(self) -> None:
        finish_swaps(self.root)
        finish_exchanges(self.root)
        self.age()
        assert self.write("last") == "published"
        self.check()
        for each in garbage(self.root, now=time.time() + 1e6, unused_for=0.0, gone=lambda _: False):
            each.delete()
        assert list((self.root / ".fetcher/staging").iterdir()) == []


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    shared = Path("/dev/shm") / f"weightlift-model-{os.getpid()}"  # noqa: S108  a filesystem in memory is fast
    yield shared if shared.parent.is_dir() else tmp_path / "root"
    shutil.rmtree(shared, ignore_errors=True)


def explore(
    root: Path,
    actors: Callable[[Store], Sequence[Actor]],
    judge: Callable[[Store, Sequence[object]], None],
    *,
    first: str | None,
    crashes: bool,
    switches: int = SWITCHES,
    seconds: float = SECONDS,
    lossy: bool = False,
) -> None:
    """Run all schedules that fit into the time. `lossy`: also lose the reply of each rename in turn.

    Raises AssertionError with the schedule that failed.
    """
    running: list[Scheduler | None] = [None]
    steps = [40]
    with hooked(lambda: running[0]):
        every = _all(steps, len(actors(Store(root))), crashes, switches)
        runs = ((schedule, lost) for schedule in every for lost in (range(_RENAMES) if lossy else (None,)))
        for schedule, lost in within(seconds, runs, least=LEAST):
            running[0] = None
            shutil.rmtree(root, ignore_errors=True)
            root.mkdir()
            store = Store(root, pause=lambda: pause(lambda: running[0]))
            if first is not None:
                assert store.write(first) == "published"
                store.age()
            scheduler = running[0] = Scheduler(actors(store), lost=lost)
            steps[0] = max(steps[0], scheduler.run(schedule))
            running[0] = None
            try:
                for result in scheduler.results:
                    allowed = OSError if scheduler.lost_in not in (None, "fetcher.store.lease") else ()
                    assert not isinstance(result, Exception) or isinstance(result, allowed), repr(result)
                store.check()
                judge(store, scheduler.results)
                store.check_that_nothing_is_left()
            except AssertionError as error:
                raise AssertionError(f"{error}\nafter {scheduler.results} by the schedule {schedule}, lost {lost}") from error


def _all(steps: Sequence[int], actors: int, crashes: bool, switches: int) -> Iterator[tuple[Switch, ...]]:
    """Yield all schedules. The first run, without switches, tells how many steps there are: `steps[0]`."""
    yield ()
    yield from (each for each in schedules(steps[0], actors, switches=switches, crashes=crashes) if each)


def a_hit_is_kept(store: Store, results: Sequence[object]) -> None:
    if "hit" in results:
        assert store.final.exists(), "an artifact disappeared after it was a hit"


def every_single_switch(root: Path) -> None:
    """An evictor and a hit, with every schedule of one switch: enough for each of the two mistakes below."""
    actors = lambda store: [store.evict, store.hit]  # noqa: E731
    explore(root, actors, a_hit_is_kept, first="one", crashes=False, switches=1, seconds=float("inf"))


class TestHitAndEviction:
    def test_a_hit_never_loses_its_artifact(self, root: Path) -> None:
        explore(root, lambda store: [store.evict, store.hit], a_hit_is_kept, first="one", crashes=False)

    def test_whoever_dies_leaves_the_artifact_or_nothing(self, root: Path) -> None:
        explore(root, lambda store: [store.evict, store.hit], a_hit_is_kept, first="one", crashes=True)

    def test_two_evictions_and_a_hit(self, root: Path) -> None:
        actors = lambda store: [store.evict, store.hit, store.evict]  # noqa: E731
        explore(root, actors, a_hit_is_kept, first="one", crashes=True)

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
        explore(root, actors, nothing_more, first=None, crashes=True)

    def test_three_writers_of_three_versions(self, root: Path) -> None:
        actors = lambda store: [lambda name=name: store.write(name) for name in ("two", "three", "four")]  # noqa: E731
        explore(root, actors, nothing_more, first="one", crashes=True)

    def test_an_owner_that_is_paused_for_too_long_changes_nothing_that_its_successor_publishes(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nobody waits for a heartbeat, so whoever is switched away from is taken over at once, and goes on later."""
        monkeypatch.setattr(Watch, "silence", lambda *_: float("inf"))
        seen: set[object] = set()

        def judge(_: Store, results: Sequence[object]) -> None:
            seen.update(results)

        actors = lambda store: [lambda: store.write("two"), lambda: store.write("three")]  # noqa: E731
        explore(root, actors, judge, first=None, crashes=False)
        assert seen >= {"lost", "published"}

    @pytest.mark.parametrize("first", [None, "one"])
    def test_a_rename_whose_reply_was_lost_costs_no_lease_and_shows_nothing_incomplete(
        self, root: Path, first: str | None
    ) -> None:
        actors = lambda store: [lambda: store.write("two"), lambda: store.write("three")]  # noqa: E731
        explore(root, actors, nothing_more, first=first, crashes=False, switches=1, lossy=True)

    def test_nor_does_it_lose_a_hit(self, root: Path) -> None:
        actors = lambda store: [store.evict, store.hit]  # noqa: E731
        explore(root, actors, a_hit_is_kept, first="one", crashes=False, switches=1, lossy=True)

    def test_the_model_finds_a_lease_that_believes_a_lost_reply(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        is_dir = Path.is_dir
        monkeypatch.setattr(Path, "is_dir", lambda path: not path.name.startswith("data.") and is_dir(path))
        actors = lambda store: [lambda: store.write("two"), lambda: store.write("three")]  # noqa: E731
        with pytest.raises(AssertionError, match="the reply was lost"):
            explore(root, actors, nothing_more, first=None, crashes=False, switches=1, lossy=True)

    def test_the_model_finds_a_successor_that_goes_on_in_an_inode_of_a_paused_owner(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A rename fences names, and no descriptors: the owner wakes up and writes into what is published."""

        class Reusing:
            def create(self, path: Path, mode: int) -> int:
                return os.open(path, os.O_WRONLY | os.O_CREAT, mode)

        monkeypatch.setattr(Watch, "silence", lambda *_: float("inf"))
        monkeypatch.setattr("tests.model.test_store.remove_unlisted_files", lambda *_: None)
        monkeypatch.setattr("tests.model.test_store.fence_of", lambda _: Reusing())
        actors = lambda store: [lambda: store.write("two"), lambda: store.write("three")]  # noqa: E731
        with pytest.raises(AssertionError, match=r"'(config\.json|model\.safetensors)'"):
            explore(root, actors, nothing_more, first=None, crashes=False, seconds=60)

    def test_two_writers_replace_a_version(self, root: Path) -> None:
        actors = lambda store: [lambda: store.write("two"), lambda: store.write("three")]  # noqa: E731
        explore(root, actors, nothing_more, first="one", crashes=True)

    def test_a_writer_and_an_evictor(self, root: Path) -> None:
        actors = lambda store: [lambda: store.write("two"), store.evict, store.hit]  # noqa: E731
        explore(root, actors, nothing_more, first="one", crashes=True)
