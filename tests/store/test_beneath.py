"""No link below a base is followed, and no change succeeds after the lease is lost, with openat2 and without it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fetcher.store import beneath
from fetcher.store.beneath import Fence, read_beneath


@pytest.fixture(
    params=[None, errno.ENOSYS, errno.EPERM, errno.EINVAL], ids=["openat2", "ENOSYS", "EPERM", "EINVAL"], autouse=True
)
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test with openat2, and with each error that refuses it."""
    if request.param is None:
        return

    def refused(*_: object) -> int:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(beneath, "_openat2", refused)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_bytes(b"theirs")
    (tmp_path / "base").mkdir()
    return tmp_path / "base"


def untouched(base: Path) -> bool:
    outside = base.parent / "outside"
    return [path.name for path in outside.iterdir()] == ["file"] and (outside / "file").read_bytes() == b"theirs"


CHANGES: dict[str, Callable[[Path], None]] = {
    "create": lambda base: beneath.write_new(base, base / "sub" / "new", b"x", mode=0o644),
    "replace": lambda base: beneath.replace_file(base, base / "sub" / "file", b"x", mode=0o644),
    "mkdir": lambda base: beneath.make_directories(base, base / "sub" / "deeper"),
    "remove": lambda base: beneath.remove(base, base / "sub" / "file"),
    "rename from": lambda base: beneath.rename(base, base / "sub" / "file", base, base / "mine"),
    "rename to": lambda base: beneath.rename(base, base / "mine", base, base / "sub" / "file"),
    "sync": lambda base: beneath.sync(base, base / "sub"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize(
    "target", ["../outside", "../nowhere", "../outside/file", "sub"], ids=["there", "dangling", "file", "loop"]
)
def test_a_link_that_replaces_a_directory_is_refused(base: Path, change: Callable[[Path], None], target: str) -> None:
    (base / "mine").write_bytes(b"ours")
    (base / "sub").symlink_to(target)
    with pytest.raises(OSError, match=r"Errno (20|40)") as raised:
        change(base)
    assert raised.value.errno in (errno.ELOOP, errno.ENOTDIR)
    assert untouched(base)


def test_a_link_that_replaces_a_file_is_replaced_or_refused_and_never_followed(base: Path) -> None:
    (base / "record").symlink_to("../outside/file")
    with pytest.raises(FileExistsError):
        beneath.write_new(base, base / "record", b"x", mode=0o644)
    beneath.replace_file(base, base / "record", b"ours", mode=0o644)
    assert not (base / "record").is_symlink()
    assert (base / "record").read_bytes() == b"ours"
    assert untouched(base)


def test_links_above_the_base_are_followed(base: Path) -> None:
    (base.parent / "alias").symlink_to("base")
    alias = base.parent / "alias"
    beneath.make_directories(alias, alias / "a" / "b")
    beneath.replace_file(alias, alias / "a" / "b" / "c", b"x", mode=0o644)
    assert (base / "a" / "b" / "c").read_bytes() == b"x"


def test_removing_a_tree_removes_its_links_and_keeps_their_targets(base: Path) -> None:
    (base / "tree").mkdir()
    (base / "tree" / "link").symlink_to("../../outside")
    beneath.remove_tree(base, base / "tree")
    assert not (base / "tree").exists()
    assert untouched(base)


def test_a_fifo_that_replaces_a_file_does_not_block(base: Path) -> None:
    os.mkfifo(base / "record")
    with pytest.raises(OSError, match="not a regular file"):
        beneath.read_beneath(base, base / "record", limit=10)


def test_a_draft_that_cannot_be_renamed_is_removed(base: Path) -> None:
    (base / "taken" / "full").mkdir(parents=True)
    with pytest.raises(OSError, match=r"taken|directory"):
        beneath.replace_file(base, base / "taken", b"x", mode=0o644)
    assert [path.name for path in base.iterdir()] == ["taken"]


def test_every_call_closes_its_descriptors(base: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    beneath.make_directories(base, base / "a" / "b")
    beneath.replace_file(base, base / "a" / "b" / "c", b"x", mode=0o644)
    beneath.rename(base, base / "a" / "b" / "c", base, base / "d")
    beneath.remove_tree(base, base / "a")
    assert len(os.listdir("/proc/self/fd")) == before


FENCED: dict[str, Callable[[Fence, Path], object]] = {
    "create": lambda fence, base: fence.create(base / "key" / "data.me" / "new", 0o644),
    "create nested": lambda fence, base: fence.create(base / "key" / "data.me" / "sub" / "new", 0o644),
    "mkdir": lambda fence, base: fence.make_directories(base / "key" / "data.me" / "more"),
    "mkdir nested": lambda fence, base: fence.make_directories(base / "key" / "data.me" / "sub" / "more"),
    "doom": lambda fence, base: fence.doom(base, base / "published" / "file"),
    "place": lambda fence, base: fence.place(base / "key" / "data.me" / "file", base, base / "published" / "file"),
    "place nested": lambda fence, base: fence.place(
        base / "key" / "data.me" / "sub" / "file", base, base / "published" / "file"
    ),
    "replace": lambda fence, base: fence.replace_file(base, base / "published" / "file", b"stale", mode=0o644),
    "link": lambda fence, base: fence.link("stale", base, base / "published" / "file"),
}


@pytest.fixture
def fence(base: Path) -> Fence:
    data = base / "key" / "data.me"
    for directory in (data / "sub", base / "published"):
        directory.mkdir(parents=True)
    for path in (data / "file", data / "sub" / "file", base / "published" / "file"):
        path.write_bytes(b"first")
    return Fence(base, data)


@pytest.mark.parametrize("change", FENCED.values(), ids=FENCED)
def test_a_change_succeeds_while_the_lease_is_held(base: Path, fence: Fence, change: Callable[[Fence, Path], object]) -> None:
    opened = change(fence, base)
    if isinstance(opened, int):
        os.close(opened)
    assert not [path for path in (base / "key" / "data.me").iterdir() if "-" in path.name]


@pytest.mark.parametrize("moment", ["before", "once the parent is open"])
@pytest.mark.parametrize("change", FENCED.values(), ids=FENCED)
def test_published_files_do_not_change_after_the_lease_is_lost(
    base: Path, fence: Fence, change: Callable[[Fence, Path], object], moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The successor publishes the directory before the call, or between opening a directory and using it."""
    data, final = base / "key" / "data.me", base / "final"
    opening = beneath.open_beneath

    def taken_after(under: Path, path: Path, flags: int, mode: int = 0) -> int:
        descriptor = opening(under, path, flags, mode)
        if path != data.parent and data.exists():
            data.rename(final)
            for stranger in [path for path in final.iterdir() if path.name not in ("file", "sub")]:
                stranger.unlink()  # a successor removes unlisted files
        return descriptor

    if moment == "before":
        data.rename(final)
    else:
        monkeypatch.setattr(beneath, "open_beneath", taken_after)
    try:
        opened = change(fence, base)
    except FileNotFoundError:
        opened = None
    if not final.exists():
        # The change was a single call, before the takeover.
        data.rename(final)
        if isinstance(opened, int):
            os.close(opened)
        return
    assert sorted(path.relative_to(final).as_posix() for path in final.rglob("*")) == ["file", "sub", "sub/file"]
    assert (base / "published" / "file").read_bytes() == b"first"


def test_reading_a_small_file_with_a_large_limit_takes_little_memory(tmp_path: Path) -> None:
    (tmp_path / "record").write_bytes(b"short")
    assert read_beneath(tmp_path, tmp_path / "record", limit=1 << 60) == b"short"
    assert read_beneath(tmp_path, tmp_path / "record", limit=3) == b"sho"


def test_threads_that_make_one_staged_directory_all_find_it(tmp_path: Path) -> None:
    data = tmp_path / "lease" / "data.owner"
    data.mkdir(parents=True)
    fence = Fence(tmp_path, data)

    def make(name: tuple[int, int]) -> None:
        directory = data / f"{name[0]}" / "below"
        fence.make_directories(directory)
        os.close(fence.create(directory / f"{name[1]}", 0o644))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(make, ((depth, number) for depth in range(50) for number in range(8))))
    assert all(len(list((data / f"{depth}" / "below").iterdir())) == 8 for depth in range(50))
