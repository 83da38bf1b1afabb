"""Memory is used again when nobody looks at it, and never before."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loader.errors import TooLarge
from loader.kernel import PAGE
from loader.reading.arena import Arena
from loader.reading.blocks import HUGE
from tests.lab.availability import missing

pytestmark = pytest.mark.page_cache

Keep = Callable[[memoryview], object]
KEEPERS: dict[str, Keep] = {
    "the view": lambda view: view,
    "a part of it": lambda view: view[10:20],
    "an array": lambda view: np.frombuffer(view, dtype=np.uint8),
    "a reshaped part of an array": lambda view: np.frombuffer(view, dtype=np.uint16)[4:8].reshape(2, 2).T,
    "what it is a view of": lambda view: view.obj,
    "a part of what it is a view of": lambda view: np.asarray(view.obj)[5:6],
    "read-only": lambda view: view.toreadonly()[1:],
}


def address(view: memoryview) -> int:
    found: int = np.frombuffer(view, dtype=np.uint8).__array_interface__["data"][0]
    return found


class TestReuse:
    @pytest.mark.parametrize("keep", KEEPERS.values(), ids=KEEPERS)
    def test_whoever_holds_a_view_keeps_the_memory(self, keep: Keep) -> None:
        arena = Arena()
        first = arena.take(HUGE)
        first[:] = b"\1" * HUGE
        where = address(first)
        kept: Any = keep(first)
        del first
        others = [arena.take(HUGE) for _ in range(4)]
        for other in others:
            other[:] = b"\2" * HUGE
        assert where not in map(address, others)
        assert set(bytes(kept)) == {1}
        assert (arena.lent, arena.idle) == (5 * HUGE, 0)

    @pytest.mark.parametrize("keep", KEEPERS.values(), ids=KEEPERS)
    def test_with_the_last_view_it_is_there_again(self, keep: Keep) -> None:
        arena = Arena()
        view = arena.take(HUGE)
        where = address(view)
        kept = keep(view)
        del view, kept
        assert (arena.lent, arena.idle) == (0, HUGE)
        assert address(arena.take(HUGE)) == where

    def test_views_that_only_the_garbage_collector_finds(self) -> None:
        arena = Arena()
        loop: list[object] = [arena.take(HUGE)]
        loop.append(loop)
        del loop
        gc.collect()
        assert arena.idle == HUGE

    def test_collecting_garbage_inside_of_it_does_not_block_it(self) -> None:
        arena = Arena()
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                loop: list[object] = [arena.take(HUGE)]
                loop.append(loop)
                del loop
            before = gc.get_threshold()
            gc.set_threshold(1)
            gc.enable()
            worker = threading.Thread(target=lambda: [arena.take(HUGE) for _ in range(50)], daemon=True)
            worker.start()
            worker.join(60)
            gc.set_threshold(*before)
            assert not worker.is_alive()
        finally:
            gc.enable()

    def test_what_is_a_little_smaller_fits_and_what_is_much_smaller_does_not(self) -> None:
        arena = Arena()
        where = address(arena.take(10 * HUGE))
        assert address(arena.take(8 * HUGE)) == where
        small = arena.take(7 * HUGE)
        assert (arena.lent, arena.idle) == (7 * HUGE, 0), "what did not fit was unmapped"
        assert len(small) == 7 * HUGE

    def test_trimming_gives_back_what_is_idle_alone(self) -> None:
        arena = Arena()
        kept, gone = arena.take(HUGE), arena.take(HUGE)
        kept[:4] = b"kept"
        del gone
        arena.trim()
        assert (arena.lent, arena.idle) == (HUGE, 0)
        assert bytes(kept[:4]) == b"kept"

    def test_a_view_outlives_its_arena(self) -> None:
        arena = Arena()
        view = arena.take(HUGE)
        gone = weakref.ref(arena)
        del arena
        gc.collect()
        assert gone() is None
        view[:] = b"\3" * HUGE
        assert set(bytes(view)) == {3}


@given(st.lists(st.tuples(st.integers(16, 6 * HUGE), st.booleans()), max_size=30), st.data())
def test_what_is_looked_at_is_never_given_out_and_it_grows_no_larger_than_that(
    steps: list[tuple[int, bool]], data: st.DataObject
) -> None:
    arena = Arena()
    held: dict[int, memoryview] = {}
    most = 0
    for number, (size, drop) in enumerate(steps):
        if drop and held:
            del held[data.draw(st.sampled_from(sorted(held)))]
        held[number] = arena.take(size)
        held[number][:8] = held[number][-8:] = number.to_bytes(8, "little")
        most = max(most, sum(-(-len(view) // HUGE) * HUGE for view in held.values()))
        spans = sorted((address(view), address(view) + len(view)) for view in held.values())
        assert all(stop <= start for (_, stop), (start, _) in pairwise(spans))
        assert all(view[:8] == view[-8:] == number.to_bytes(8, "little") for number, view in held.items())
        assert arena.lent + arena.idle <= 1.25 * most


class TestMemory:
    def test_it_begins_on_a_huge_page(self) -> None:
        arena = Arena()
        views = [arena.take(size) for size in (1, PAGE, HUGE + 1)]
        assert [address(view) % HUGE for view in views] == [0, 0, 0]
        assert [len(view) for view in views] == [1, PAGE, HUGE + 1]

    def test_it_is_backed_by_huge_pages_where_the_kernel_has_them(self) -> None:
        if "[never]" in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text():
            missing("huge pages", "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled")
        view = Arena().take(8 * HUGE)
        before = huge_kib(address(view))  # the kernel may see one mapping in this and its neighbours
        view[:] = bytes(8 * HUGE)
        assert huge_kib(address(view)) - before == 8 * HUGE // 1024

    def test_nothing_needs_no_memory(self) -> None:
        arena = Arena()
        assert len(arena.take(0)) == 0
        assert (arena.lent, arena.idle) == (0, 0)

    @pytest.mark.parametrize("size", [1 << 60, 1 << 63, 1 << 70])
    def test_more_than_there_can_be_is_an_error_that_says_so(self, size: int) -> None:
        with pytest.raises(TooLarge, match=str(size)):
            Arena().take(size)


def huge_kib(where: int) -> int:
    """What /proc/self/smaps says of the mapping that holds this address."""
    inside = False
    with open("/proc/self/smaps") as file:
        for line in file:
            first, _, rest = line.partition(" ")
            if "-" in first:
                start, stop = (int(part, 16) for part in first.split("-"))
                inside = start <= where < stop
            elif inside and first == "AnonHugePages:":
                return int(rest.split()[0])
    raise AssertionError("it is not mapped")
