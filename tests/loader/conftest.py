"""Fixtures: files that are warm or cold as a test needs, and code run as another user."""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import random
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
import xxhash

from fetcher.artifact import ArtifactRef
from fetcher.manifest import RELATIVE_PATH, Manifest, ManifestFile
from fetcher.testing.checkpoint import make_checkpoint
from loader.cli import main
from loader.kernel import PAGE
from loader.residency.page_cache import measure, together
from tests.lab.availability import require_root
from tests.lab.filesystems import SmallFilesystem
from tests.lab.fixtures import MakeFilesystem

MiB = 1024 * 1024
NOBODY = 65532
"""The UID of containers: owner of no file and member of no group."""

Result = TypeVar("Result")


@pytest.fixture
def volume(small_filesystem: MakeFilesystem) -> SmallFilesystem:
    return small_filesystem("ext4", size=64 * MiB)


def written(path: Path, size: int) -> Path:
    """Write a file of random bytes, synced and still in the page cache."""
    with path.open("wb") as file:
        file.write(random.Random(size).randbytes(size))
        file.flush()
        os.fsync(file.fileno())
    return path


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def make_cold(path: Path) -> None:
    """Drop the file's pages. Mapped and locked pages stay."""
    with opened(path) as fd:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def make_warm(path: Path, pages: Iterable[int] | None = None) -> None:
    """Read the whole file, or only these pages without read-ahead."""
    with opened(path) as fd:
        if pages is None:
            while os.read(fd, MiB):
                pass
            return
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        for page in pages:
            os.pread(fd, PAGE, page * PAGE)


def run_loader_as_nobody(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `loader` as UID 65532, in a forked child: only the owner may be able to read the interpreter's files. So modules that
    are imported late are imported before the fork."""
    importlib.import_module("fetcher.telemetry.log")
    importlib.import_module("loader.cli.holding")
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:

        def look() -> int:
            os.dup2(stdout.fileno(), 1)
            os.dup2(stderr.fileno(), 2)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
            return main([*map(str, words)])

        code = as_nobody(look)
        stdout.seek(0)
        stderr.seek(0)
        return subprocess.CompletedProcess([*map(str, words)], code, stdout.read(), stderr.read())


def as_nobody(look: Callable[[], Result]) -> Result:
    """Return the result of `look` in a child process of UID 65532. Open descriptors stay open."""
    require_root("become another user")
    return in_child(_become_nobody, look)


def in_child(become: Callable[[], object], look: Callable[[], Result]) -> Result:
    """Return the result of `look` in a child process that calls `become` first."""
    receiver, sender = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork of a process with threads: the child only calls `look`
        child = os.fork()
    if child == 0:
        _look(become, look, sender)
    os.close(sender)
    with os.fdopen(receiver, "rb") as answer:
        text = answer.read()
    os.waitpid(child, 0)
    succeeded, result = pickle.loads(text)  # noqa: S301  our own child wrote it
    if not succeeded:
        pytest.fail(result)
    returned: Result = result
    return returned


def _become_nobody() -> None:
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def _look(become: Callable[[], object], look: Callable[[], object], sender: int) -> None:
    try:
        become()
        answer: tuple[bool, object] = (True, look())
    except BaseException:  # noqa: BLE001  sent to the parent
        answer = (False, traceback.format_exc())
    try:
        os.write(sender, pickle.dumps(answer))
    finally:
        os._exit(0)


@pytest.fixture
def mount() -> Iterator[Callable[..., Path]]:
    """`mount(point, *arguments)`: run mount(8), and unmount at the end of the test."""
    require_root("mount")
    points: list[Path] = []

    def run(point: Path, *arguments: str | Path) -> Path:
        point.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", *map(str, arguments), str(point)], check=True, capture_output=True)
        points.append(point)
        return point

    yield run
    for point in reversed(points):
        subprocess.run(["umount", "--lazy", str(point)], check=True, capture_output=True)


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory on disk that every user can enter. /tmp is memory on many machines, and pytest's directories are private."""
    with tempfile.TemporaryDirectory(prefix="weightlift-", dir="/var/tmp") as name:
        os.chmod(name, 0o755)  # noqa: S103
        yield Path(name)


@pytest.fixture
def model(public: Path) -> Path:
    """A cold checkpoint: two shards of 4 MiB, config and tokenizer."""
    made = make_checkpoint(public / "model", shards=2, shard_size=4 * MiB)
    cool(made)
    return made


def cool(directory: Path) -> None:
    for path in directory.rglob("*"):
        if path.is_file():
            make_cold(path)


def resident(path: Path) -> float:
    """Return the resident share of a file, or of all files in a directory, measured as their owner."""
    measured = []
    for each in [path] if path.is_file() else sorted(path.iterdir()):
        if each.is_file():
            with opened(each) as fd:
                measured.append(measure(fd))
    return together(measured).fraction or 0.0


def add_manifest(directory: Path, *, chunk_size: int = MiB, revision: str = "1") -> Manifest:
    """Write the manifest of a fetch of these files."""
    files = []
    for path in sorted(directory.rglob("*")):
        if path.is_file() and ".fetcher" not in path.parts:
            content = path.read_bytes()
            starts = range(0, len(content), chunk_size)
            chunks = tuple(xxhash.xxh3_128_hexdigest(content[start : start + chunk_size]) for start in starts)
            files.append(ManifestFile(str(path.relative_to(directory)), len(content), (), chunks))
    ref = ArtifactRef("hf://org/model")
    manifest = replace(Manifest.for_request(ref, revision=revision, files=files, created="", version=""), chunk_size=chunk_size)
    (directory / RELATIVE_PATH).parent.mkdir(exist_ok=True)
    (directory / RELATIVE_PATH).write_bytes(manifest.to_bytes())
    return manifest


@pytest.fixture
def nothing_left_behind() -> Iterator[None]:
    """Check that a reading leaves no thread and no descriptor, however it ended."""
    gc.collect()
    before = open_shards()
    yield
    gc.collect()  # a traceback's frames may hold views of a mapping
    assert not readers()
    assert open_shards() <= before


def readers() -> list[str]:
    """Return the names of the reading threads."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("read-")]


def open_shards() -> set[str]:
    """Return the open descriptors of safetensors files."""
    descriptors = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the directory itself
            descriptors.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
    return {each for each in descriptors if ".safetensors" in each}
