"""Files whose pages are there or not as a test says, and the eyes of somebody who does not own them."""

from __future__ import annotations

import gc
import os
import pickle
import random
import subprocess
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import pytest

from loader.kernel import PAGE
from tests.lab.availability import require_root
from tests.lab.filesystems import SmallFilesystem
from tests.lab.fixtures import MakeFilesystem

MiB = 1024 * 1024
NOBODY = 65532
"""Who containers run as: neither owner nor member of anything."""

Result = TypeVar("Result")


@pytest.fixture
def volume(small_filesystem: MakeFilesystem) -> SmallFilesystem:
    return small_filesystem("ext4", size=64 * MiB)


def written(path: Path, size: int) -> Path:
    """A file of noise, on disk and in the page cache."""
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
    """What is clean is given up; mapped and locked pages stay."""
    with opened(path) as fd:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def make_warm(path: Path, pages: Iterable[int] | None = None) -> None:
    """Read all of it, or these pages and no neighbours of theirs."""
    with opened(path) as fd:
        if pages is None:
            while os.read(fd, MiB):
                pass
            return
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        for page in pages:
            os.pread(fd, PAGE, page * PAGE)


def as_nobody(look: Callable[[], Result]) -> Result:
    """What `look` returns in a process of UID 65532; descriptors that are open remain so."""
    require_root("become another user")
    return in_child(_become_nobody, look)


def in_child(become: Callable[[], object], look: Callable[[], Result]) -> Result:
    """What `look` returns in a process that did `become` something first."""
    receiver, sender = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the child of a process with threads: it does nothing but look
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
    except BaseException:  # noqa: BLE001  it is told to the parent
        answer = (False, traceback.format_exc())
    try:
        os.write(sender, pickle.dumps(answer))
    finally:
        os._exit(0)


@pytest.fixture
def mount() -> Iterator[Callable[..., Path]]:
    """`mount(point, *arguments)`: run mount(8), until the test ends."""
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
def nothing_left_behind() -> Iterator[None]:
    """However a reading ended: no thread, no descriptor."""
    gc.collect()
    before = open_shards()
    yield
    gc.collect()  # views of a mapping may be in the frames of a traceback
    assert not readers()
    assert open_shards() <= before


def readers() -> list[str]:
    """The threads of readings."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("read-")]


def open_shards() -> set[str]:
    """Descriptors of safetensors files."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the directory itself
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
    return {each for each in found if ".safetensors" in each}
