"""A packed artifact in a bounded cache: its archives and its unpacked files have room before they are written."""

from __future__ import annotations

import gzip
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

import fetcher
from fetcher.artifact import ArtifactRef
from fetcher.cache import init, pin
from fetcher.errors import OutOfSpace
from fetcher.events import Event, Evicted, Planned, Unpacked
from fetcher.quantities import Amount
from fetcher.store.archives import archives_of, fetched_in
from fetcher.store.lease import acquire
from fetcher.store.limits import CacheLimits
from fetcher.store.occupancy import occupancy
from fetcher.testing.checkpoint import random_bytes
from tests.cli.conftest import last_line
from tests.cli.test_bounded import LONG_AGO
from tests.lab.command import run_command, run_fetcher
from tests.lab.fixtures import MakeFilesystem
from tests.lab.front import Front, in_front_of
from tests.lab.registry import Registry, registry
from tests.sources.test_oci import push_image, push_oras, tarred, tree

MiB = 1024 * 1024
WEIGHTS = random_bytes("room", 8 * MiB)
"""Compresses to no less."""
_NUMBERS = count()

VICTIM = """
import os, signal, sys
from fetcher.archives import members
from fetcher.cli import main

count, unchanged = int(sys.argv[1]), members.Extraction.add

def add(self, name, size, content):
    unchanged(self, name, size, content)
    if len(self.files) == count:
        os.kill(os.getpid(), signal.SIGKILL)

members.Extraction.add = add
sys.exit(main(sys.argv[2:]))
"""
"""Kills itself after the given number of unpacked members."""

VICTIM_OF_A_STEP = """
import asyncio, os, signal, sys
from pathlib import Path
from fetcher import engine
from fetcher.artifact import ArtifactRef
from fetcher.settings import Settings

def step(name):
    if name == sys.argv[1]:
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(engine.fetch(ArtifactRef(sys.argv[2]), Settings(cache_dir=Path(sys.argv[3])), step=step))
"""
"""Kills itself after the given step of the commit."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def front(server: Registry) -> Iterator[Front]:
    with in_front_of(server.host, server.port) as running:
        yield running


class Cache:
    """A root, and a registry with packed artifacts."""

    def __init__(self, root: Path, server: Registry, front: Front) -> None:
        self.root = root
        self._server = server
        self._front = front

    def limit(self, *, max_size: int | None = None, min_free: int | None = None) -> None:
        size, free = (None if each is None else Amount(each) for each in (max_size, min_free))
        init(self.root, CacheLimits(size, free))

    def push(self, *layers: bytes) -> str:
        """Push an image, and return its address."""
        repository = f"org/room-{next(_NUMBERS)}"
        push_image(self._server, repository, layers)
        return f"oci://127.0.0.1:{self._front.own_port}/{repository}:v1"

    def push_files(self, files: dict[str, bytes]) -> str:
        """Push an artifact that is not packed, and return its address."""
        repository = f"org/room-{next(_NUMBERS)}"
        push_oras(self._server, repository, files)
        return f"oci://127.0.0.1:{self._front.own_port}/{repository}:v1"

    def model(self, name: str, size: int, *, idle: bool = True) -> str:
        """Fetch a plain model, and return its key. An idle one was last used long ago."""
        source = self.root.parent / name
        source.mkdir()
        (source / "model.bin").write_bytes(os.urandom(size))
        key = ArtifactRef(str(source)).key
        fetcher.fetch(str(source), cache_dir=self.root)
        if idle:
            os.utime(self.root / ".fetcher/usage" / key, (LONG_AGO, LONG_AGO))
        return key

    def fetch(self, uri: str, *words: str) -> subprocess.CompletedProcess[str]:
        return run_fetcher("fetch", uri, "--cache-dir", self.root, *words)

    @property
    def layers_asked(self) -> int:
        """How many requests came for layers."""
        return sum("/blobs/" in request.target for request in self._front.requests)

    def left(self) -> set[str]:
        """The names of what was fetched, unpacked or staged, and not published."""
        private = self.root / ".fetcher"
        return {path.name for name in ("archive", "staging") for path in (private / name).rglob("*") if path.is_file()}


@pytest.fixture
def cache(tmp_path: Path, server: Registry, front: Front) -> Cache:
    return Cache(tmp_path / "cache", server, front)


def used(root: Path) -> int:
    """The bytes that the files below `root` allocate, each inode once. What disappears meanwhile counts as nothing."""
    inodes: dict[int, int] = {}
    for above, _, names in os.walk(root):
        for name in names:
            try:
                status = os.lstat(os.path.join(above, name))
            except FileNotFoundError:
                continue
            inodes[status.st_ino] = status.st_blocks * 512
    return sum(inodes.values())


class Largest:
    value = 0


@contextmanager
def sampled(measure: Callable[[], int]) -> Iterator[Largest]:
    """Measure again and again during the block. The largest value is complete at its end."""
    largest, done = Largest(), threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            largest.value = max(largest.value, measure())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield largest
    finally:
        done.set()
        thread.join()
        largest.value = max(largest.value, measure())


def many(number: int, size: int) -> dict[str, bytes]:
    """Members of an image: so many files of the model, each of `size` bytes."""
    return {f"models/{each:03}": random_bytes(f"many {each}", size) for each in range(number)}


class TestLimit:
    @pytest.mark.parametrize("members", [{"models/a": WEIGHTS}, many(256, 32 * 1024)], ids=["one file", "many files"])
    def test_an_idle_artifact_makes_room_and_the_limit_holds_at_every_moment(
        self, members: dict[str, bytes], cache: Cache
    ) -> None:
        uri, limit = cache.push(tarred(members)), 22 * MiB
        cache.limit(max_size=limit)
        idle = cache.model("idle", 6 * MiB)  # its room is needed for the unpacked files, not for the archive
        with sampled(lambda: used(cache.root)) as largest:
            done = cache.fetch(uri, "--progress", "log")
        assert done.returncode == 0, done.stderr
        assert tree(Path(done.stdout.strip())) == {path.removeprefix("models/"): each for path, each in members.items()}
        assert f"evicted {idle}" in done.stderr
        assert 16 * MiB <= largest.value <= limit
        assert not cache.left()

    def test_archives_without_room_are_not_fetched(self, cache: Cache) -> None:
        uri = cache.push(tarred({"models/a": WEIGHTS}))
        cache.limit(max_size=20 * MiB)
        pin(cache.root, cache.model("pinned", 12 * MiB), seconds=None)
        done = cache.fetch(uri)
        assert (done.returncode, last_line(done.stderr).partition(" ")[0]) == (73, "OutOfSpace:")
        assert "needed 8.0 MiB" in done.stderr
        assert cache.layers_asked == 0
        assert not cache.left()

    def test_unpacked_files_without_room_leave_nothing_behind(self, cache: Cache) -> None:
        uri, limit = cache.push(tarred({"models/small": b"1", "models/a": WEIGHTS})), 20 * MiB
        cache.limit(max_size=limit)
        pinned = cache.model("pinned", 6 * MiB)
        pin(cache.root, pinned, seconds=None)
        with sampled(lambda: used(cache.root)) as largest:
            done = cache.fetch(uri)
        assert (done.returncode, last_line(done.stderr).partition(" ")[0]) == (73, "OutOfSpace:")
        assert largest.value <= limit
        assert not cache.left()
        assert (cache.root / pinned).exists()

    def test_archives_stay_resumable_where_waiting_helps(self, cache: Cache) -> None:
        uri = cache.push(tarred({"models/a": WEIGHTS}))
        cache.limit(max_size=20 * MiB)
        busy = cache.model("busy", 6 * MiB, idle=False)
        done = cache.fetch(uri)
        assert (done.returncode, last_line(done.stderr).partition(" ")[0]) == (75, "CacheBusy:")
        os.utime(cache.root / ".fetcher/usage" / busy, (LONG_AGO, LONG_AGO))
        asked = cache.layers_asked
        done = cache.fetch(uri)
        assert (done.returncode, cache.layers_asked) == (0, asked), done.stderr
        assert not cache.left()

    def test_free_space_is_kept_too(self, server: Registry, front: Front, small_filesystem: MakeFilesystem) -> None:
        filesystem = small_filesystem("ext4", size=64 * MiB)
        cache = Cache(filesystem.path / "cache", server, front)
        idle, kept = cache.model("idle", 16 * MiB), 20 * MiB
        (filesystem.path / "idle/model.bin").unlink()
        filler = filesystem.path / "filler"
        filler.write_bytes(os.urandom(filesystem.free() - kept - 10 * MiB))  # the archive has room beside it
        cache.limit(min_free=kept)
        uri = cache.push(tarred({"models/a": WEIGHTS}))
        with sampled(lambda: 64 * MiB - filesystem.free()) as largest:
            done = cache.fetch(uri)
        assert done.returncode == 0, done.stderr
        assert not (cache.root / idle).exists()
        assert largest.value <= 64 * MiB - kept

    def test_others_see_the_promise_for_archives_and_unpacked_files_once(self, cache: Cache) -> None:
        """Between unpacking and staging, and while the unpacked files have two names."""
        uri, seen = cache.push(tarred({"models/a": WEIGHTS})), []
        cache.limit(max_size=40 * MiB)

        def look(event: Event) -> None:
            if isinstance(event, Unpacked | Planned):
                (staged,) = occupancy(cache.root, now=LONG_AGO, min_idle=0.0).staged
                seen.append((type(event).__name__, staged.allocated, staged.promised))

        fetcher.fetch(uri, cache_dir=cache.root, on_event=look)
        assert [name for name, _, _ in seen] == ["Planned", "Unpacked", "Planned"], "the archive, its files, the artifact"
        assert all(16 * MiB <= allocated < 17 * MiB for _, allocated, _ in seen[1:])
        assert seen[0][2] >= 8 * MiB, "before the first byte"
        assert max(promised for _, _, promised in seen) < 40 * MiB

    def test_a_file_that_another_artifact_has_too_is_not_copied_from_there(self, cache: Cache) -> None:
        """Where the filesystem cannot clone, a copy would need room for a third time."""
        raw = cache.push_files({"a": WEIGHTS})
        cache.limit(max_size=29 * MiB)
        assert cache.fetch(raw).returncode == 0
        done = cache.fetch(cache.push(tarred({"models/a": WEIGHTS})))
        assert done.returncode == 0, done.stderr

    def test_a_refusal_tells_of_unfinished_fetches_and_how_they_are_removed(self, cache: Cache) -> None:
        cache.limit(max_size=12 * MiB)
        lease = acquire(cache.root / ".fetcher/staging", "0" * 16, stale=60.0)
        assert lease is not None
        directory = fetched_in(archives_of(lease.directory))
        directory.mkdir(parents=True)
        (directory / "layer.tar").write_bytes(WEIGHTS)
        lease.release()
        uri = cache.push(tarred({"models/a": WEIGHTS}))
        done = cache.fetch(uri)
        assert (done.returncode, "unfinished fetches 8.0 MiB" in done.stderr) == (73, True), done.stderr
        assert "remove unfinished fetches with fetcher gc --unused-for 0" in last_line(done.stderr)
        assert run_fetcher("gc", "--unused-for", "0", "--cache-dir", cache.root).returncode == 0
        cache.limit(max_size=20 * MiB)
        assert cache.fetch(uri).returncode == 0


class TestRepair:
    """A repair unpacks the artifact once more, beside the damaged one."""

    def damaged(self, cache: Cache) -> Path:
        done = cache.fetch(cache.push(tarred({"models/a": WEIGHTS})))
        path = Path(done.stdout.strip())
        (path / "a").unlink()
        (path / "a").write_bytes(WEIGHTS[:-1] + b"?")
        return path

    def test_it_makes_room_first(self, cache: Cache) -> None:
        path, limit = self.damaged(cache), 36 * MiB
        idle = cache.model("idle", 8 * MiB)
        cache.limit(max_size=limit)
        with sampled(lambda: used(cache.root)) as largest:
            done = run_fetcher("verify", path, "--repair")
        assert done.returncode == 0, done.stderr
        assert (path / "a").read_bytes() == WEIGHTS
        assert largest.value <= limit
        assert not (cache.root / idle).exists()
        assert not cache.left()

    @pytest.mark.parametrize("limit", [14 * MiB, 22 * MiB], ids=["for the archive", "for its files"])
    def test_without_room_nothing_changes(self, limit: int, cache: Cache) -> None:
        path = self.damaged(cache)
        cache.limit(max_size=limit)
        with sampled(lambda: used(cache.root)) as largest:
            done = run_fetcher("verify", path, "--repair")
        assert (done.returncode, "OutOfSpace" in done.stderr) == (73, True), done.stderr
        assert largest.value <= limit
        assert not cache.left()
        assert (path / "a").exists()


class TestBombs:
    def bomb(self, members: int, size: int) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for number in range(members):
                member = tarfile.TarInfo(f"models/{number}")
                member.size = size
                archive.addfile(member, io.BytesIO(bytes(size)))
        return gzip.compress(buffer.getvalue())

    @pytest.mark.parametrize(("members", "size"), [(1, 64 * MiB), (256, MiB // 4)])
    def test_an_archive_that_unpacks_to_a_thousand_times_its_size_is_stopped_at_the_limit(
        self, members: int, size: int, cache: Cache
    ) -> None:
        packed = self.bomb(members, size)
        assert len(packed) * 500 < members * size
        uri, limit = cache.push(packed), 16 * MiB
        cache.limit(max_size=limit)
        with sampled(lambda: used(cache.root)) as largest:
            done = cache.fetch(uri)
        assert (done.returncode, last_line(done.stderr).partition(" ")[0]) == (73, "OutOfSpace:")
        assert largest.value <= limit
        assert not cache.left()


class TestLayers:
    def test_files_that_later_layers_replace_need_room_only_until_then(self, cache: Cache) -> None:
        contents = [random_bytes(f"version {number}", 6 * MiB) for number in range(3)]
        uri, limit = cache.push(*(tarred({"models/a": content}) for content in contents)), 34 * MiB
        cache.limit(max_size=limit)  # three archives, two of the three files, and the margin
        with sampled(lambda: used(cache.root)) as largest:
            done = cache.fetch(uri)
        assert done.returncode == 0, done.stderr
        assert tree(Path(done.stdout.strip())) == {"a": contents[-1]}
        assert largest.value <= limit

    def test_a_file_that_another_path_still_leads_to_is_not_removed(self, cache: Cache) -> None:
        layers: Sequence[bytes] = (
            tarred({"models/a": b"first", "models/b": b"second"}),
            tarred({"models/hard": ("hard", "models/a"), "models/soft": ("symbolic", "b"), "models/.wh.a": b""}),
        )
        done = cache.fetch(cache.push(*layers))
        assert tree(Path(done.stdout.strip())) == {"b": b"second", "hard": b"first", "soft": b"second"}, done.stderr


class TestMeanwhile:
    def test_a_limit_that_is_lowered_during_the_fetch_of_the_archives_counts_for_unpacking(self, cache: Cache) -> None:
        uri, lowered = cache.push(tarred({"models/a": WEIGHTS})), 12 * MiB
        cache.limit(max_size=40 * MiB)

        def lower(event: Event) -> None:
            if isinstance(event, Planned):
                cache.limit(max_size=lowered)

        with sampled(lambda: used(cache.root)) as largest, pytest.raises(OutOfSpace):
            fetcher.fetch(uri, cache_dir=cache.root, on_event=lower)
        assert largest.value <= lowered
        assert not cache.left()

    def test_the_unpacked_files_of_a_killed_process_make_room_for_another_artifact(self, cache: Cache) -> None:
        uri, limit = cache.push(tarred(many(8, MiB))), 22 * MiB
        cache.limit(max_size=limit)
        killed = run_command((sys.executable, "-c", VICTIM, "7"), "fetch", uri, "--cache-dir", str(cache.root))
        assert killed.returncode == -signal.SIGKILL
        assert used(cache.root) >= 15 * MiB
        with sampled(lambda: used(cache.root)) as largest:
            other = cache.model("other", 8 * MiB)
        assert largest.value <= limit
        asked, events = cache.layers_asked, list[Event]()
        fetcher.fetch(uri, cache_dir=cache.root, on_event=events.append)
        assert cache.layers_asked == asked, "the archive was kept"
        assert [each.key for each in events if isinstance(each, Evicted)] == [other]
        assert not cache.left()

    @pytest.mark.parametrize("step", ["sealing", "sealed", "renamed"])
    def test_after_a_kill_during_the_commit_no_archive_is_fetched_again_and_none_stays_for_good(
        self, step: str, cache: Cache
    ) -> None:
        uri = cache.push(tarred({"models/a": WEIGHTS}))
        killed = run_command((sys.executable, "-c", VICTIM_OF_A_STEP, step), uri, str(cache.root))
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        asked = cache.layers_asked
        done = cache.fetch(uri)
        assert (done.returncode, cache.layers_asked) == (0, asked), done.stderr
        assert tree(Path(done.stdout.strip())) == {"a": WEIGHTS}
        assert run_fetcher("gc", "--unused-for", "0", "--cache-dir", cache.root).returncode == 0
        assert not cache.left()
