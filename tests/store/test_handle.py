"""A staged inode is open while a thread uses it, and no other file gets its descriptor's number until then."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fetcher.store.handle import Handle


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(b"content")
    return tmp_path / "file"


def handle_of(path: Path) -> Handle:
    return Handle(lambda: os.open(path, os.O_RDWR | os.O_CLOEXEC))


def is_open(path: Path) -> bool:
    links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    return any(os.path.realpath(link) == str(path) for link in links if os.path.lexists(link))


def test_the_inode_is_open_only_while_it_is_used(path: Path) -> None:
    handle = handle_of(path)
    assert not is_open(path)
    with handle.opened() as outer, handle.opened() as inner:
        assert inner == outer
        assert is_open(path)
    assert not is_open(path)


def test_a_kept_inode_stays_open_until_close(path: Path) -> None:
    handle = handle_of(path)
    handle.keep()
    with handle.opened() as first:
        pass
    assert is_open(path)
    with handle.opened() as second:
        assert second == first
    handle.close()
    assert not is_open(path)


def test_the_descriptor_is_closed_after_its_last_user(path: Path) -> None:
    """A sync runs on another thread: a file that is opened meanwhile must not get its descriptor's number."""
    handle, inside, may_end = handle_of(path), threading.Event(), threading.Event()

    def sync() -> bytes:
        with handle.opened() as descriptor:
            inside.set()
            assert may_end.wait(30)
            os.fsync(descriptor)
            return os.pread(descriptor, 7, 0)

    with ThreadPoolExecutor(1) as pool:
        syncing = pool.submit(sync)
        assert inside.wait(30)
        handle.close()
        others = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
        may_end.set()
        assert syncing.result() == b"content"
    for other in others:
        os.close(other)
    assert not is_open(path)


def test_a_closed_handle_cannot_be_opened_again(path: Path) -> None:
    handle = handle_of(path)
    handle.close()
    with pytest.raises(OSError, match="closed"), handle.opened():
        pass
    assert not is_open(path)


def test_a_failure_to_open_is_raised_and_can_be_retried(path: Path) -> None:
    handle = handle_of(path)
    away = path.rename(path.with_name("away"))
    with pytest.raises(FileNotFoundError), handle.opened():
        pass
    away.rename(path)
    with handle.opened() as descriptor:
        assert os.pread(descriptor, 7, 0) == b"content"


def test_many_threads_share_one_descriptor(path: Path) -> None:
    handle = handle_of(path)

    def read(_: int) -> bytes:
        with handle.opened() as descriptor:
            return os.pread(descriptor, 7, 0)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(read, range(2000))) == {b"content"}
    assert not is_open(path)
