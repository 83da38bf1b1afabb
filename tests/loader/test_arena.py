"""Memory is reused after its last view is released, and never before."""

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
    "the base of the view": lambda view: view.obj,
    "a part of the base": lambda view: np.asarray(view.obj)[5:6],
    "read-only": lambda view: view.toreadonly()[1:],
}


def address(view: memoryview) -> int:
    found: int = np.frombuffer(view, dtype=np.uint8).__array_interface__["data"][0]
    return found


class TestReuse:
    @pytest.mark.parametrize("keep", KEEPERS.values(), ids=KEEPERS)
    def test_any_view_keeps_the_memory(self, keep: Keep) -> None:
        arena = Arena()
        first = arena.take(HUGE)
        first[:] = b"\1" * HUGE
        place = address(first)
        kept: Any = keep(first)
        del first
        others = [arena.take(HUGE) for _ in range(4)]
        for other in others:
            other[:] = b"\2" * HUGE
        assert place not in map(address, others)
        assert set(bytes(kept)) == {1}
        assert (arena.lent, arena.idle) == (5 * HUGE, 0)

    @pytest.mark.parametrize("keep", KEEPERS.values(), ids=KEEPERS)
    def test_memory_is_reused_after_the_last_view_is_released(self, keep: Keep) -> None:
        arena = Arena()
        view = arena.take(HUGE)
        place = address(view)
        kept = keep(view)
        del view, kept
        assert (arena.lent, arena.idle) == (0, HUGE)
        assert address(arena.take(HUGE)) == place

    def test_memory_is_reused_after_the_garbage_collector_released_a_view(self) -> None:
        arena = Arena()
        loop: list[object] = [arena.take(HUGE)]
        loop.append(loop)
        del loop
        gc.collect()
        assert arena.idle == HUGE

    def test_garbage_collection_during_a_take_causes_no_deadlock(self) -> None:
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

    def test_a_region_is_reused_for_a_slightly_smaller_request_but_not_for_a_much_smaller_one(self) -> None:
        arena = Arena()
        place = address(arena.take(10 * HUGE))
        assert address(arena.take(8 * HUGE)) == place
        small = arena.take(7 * HUGE)
        assert (arena.lent, arena.idle) == (7 * HUGE, 0), "the region that did not fit was unmapped"
        assert len(small) == 7 * HUGE

    def test_trim_returns_only_idle_memory(self) -> None:
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
def test_memory_in_use_is_never_given_out_again_and_the_arena_stays_bounded(
    steps: list[tuple[int, bool]], data: st.DataObject
) -> None:
    arena = Arena()
    held: dict[int, memoryview] = {}
    peak = 0
    for number, (size, drop) in enumerate(steps):
        if drop and held:
            del held[data.draw(st.sampled_from(sorted(held)))]
        held[number] = arena.take(size)
        held[number][:8] = held[number][-8:] = number.to_bytes(8, "little")
        peak = max(peak, sum(-(-len(view) // HUGE) * HUGE for view in held.values()))
        spans = sorted((address(view), address(view) + len(view)) for view in held.values())
        assert all(stop <= start for (_, stop), (start, _) in pairwise(spans))
        assert all(view[:8] == view[-8:] == number.to_bytes(8, "little") for number, view in held.items())
        assert arena.lent + arena.idle <= 1.25 * peak


class TestMemory:
    def test_memory_begins_on_a_huge_page(self) -> None:
        arena = Arena()
        views = [arena.take(size) for size in (1, PAGE, HUGE + 1)]
        assert [address(view) % HUGE for view in views] == [0, 0, 0]
        assert [len(view) for view in views] == [1, PAGE, HUGE + 1]

    def test_memory_is_backed_by_huge_pages_if_the_kernel_has_them(self) -> None:
        if "[never]" in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text():
            missing("huge pages", "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled")
        view = Arena().take(8 * HUGE)
        before = huge_kib(address(view))  # the kernel may merge this mapping with its neighbours
        view[:] = bytes(8 * HUGE)
        assert huge_kib(address(view)) - before == 8 * HUGE // 1024

    def test_zero_bytes_take_no_memory(self) -> None:
        arena = Arena()
        assert len(arena.take(0)) == 0
        assert (arena.lent, arena.idle) == (0, 0)

    @pytest.mark.parametrize("size", [1 << 60, 1 << 63, 1 << 70])
    def test_an_impossible_size_is_an_error_that_names_it(self, size: int) -> None:
        with pytest.raises(TooLarge, match=str(size)):
            Arena().take(size)


def huge_kib(place: int) -> int:
    """Return AnonHugePages in KiB of the mapping that contains this address."""
    in_mapping = False
    with open("/proc/self/smaps") as file:
        for line in file:
            first, _, rest = line.partition(" ")
            if "-" in first:
                start, stop = (int(part, 16) for part in first.split("-"))
                in_mapping = start <= place < stop
            elif in_mapping and first == "AnonHugePages:":
                return int(rest.split()[0])
    raise AssertionError("it is not mapped")
