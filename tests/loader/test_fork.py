"""A process forks while it reads, as DataLoader and servers do: nothing hangs, and the child gets a clear error."""

from __future__ import annotations

import multiprocessing
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import loader
from loader.reading.arena import Arena
from loader.tensors.arrays import Array
from tests.loader.conftest import in_child

pytestmark = pytest.mark.page_cache

WAYS = ["buffered", "direct", "mmap"]
Way = pytest.mark.parametrize("way", WAYS)


def forked(look: Callable[[], str]) -> str:
    return in_child(lambda: None, look)


def continued(tensors: Iterator[tuple[str, Array]]) -> str:
    try:
        next(tensors)
    except RuntimeError as error:
        return str(error)
    return "no error"


def names(weights: loader.Weights) -> list[str]:
    return sorted(name for name, _ in weights.tensors())


@Way
@pytest.mark.parametrize("threads", [0, 2])
def test_a_child_that_continues_its_parents_iterator_gets_an_error(model: Path, way: str, threads: int) -> None:
    weights = loader.open(model, strategy=way, threads=threads)  # type: ignore[arg-type]
    tensors = weights.tensors()
    first, _ = next(tensors)
    assert "belongs to the process that started it" in forked(lambda: continued(tensors))
    rest = [name for name, _ in tensors]
    assert sorted([first, *rest]) == sorted(weights.checkpoint.tensors), "the parent continues"


@Way
def test_a_child_can_read_what_its_parent_is_reading(model: Path, way: str) -> None:
    weights = loader.open(model, strategy=way, threads=2)  # type: ignore[arg-type]
    tensors = weights.tensors()
    next(tensors)
    assert forked(lambda: ",".join(names(weights))) == ",".join(sorted(weights.checkpoint.tensors))


def test_a_child_can_delete_its_parents_iterator(model: Path) -> None:
    tensors = loader.open(model, threads=2).tensors()
    next(tensors)

    def drop() -> str:
        nonlocal tensors
        del tensors
        return "dropped"

    assert forked(drop) == "dropped"


def test_an_arena_works_in_the_child_if_its_lock_was_held_at_the_fork() -> None:
    arena = Arena()
    with arena._lock:  # noqa: SLF001  a thread of the parent may hold it
        assert forked(lambda: str(len(arena.take(4096)))) == "4096"


def test_no_thread_is_left_for_a_fork_after_reading(model: Path) -> None:
    before = threading.active_count()
    weights = loader.open(model, threads=2)
    names(weights)
    assert threading.active_count() == before
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(_count, [str(model)] * 2) == [len(weights.checkpoint.tensors)] * 2


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_open_weights_can_be_sent_to_a_spawned_process(model: Path, method: str) -> None:
    weights = loader.open(model, strategy="buffered", threads=2)
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.map(names, [weights]) == [sorted(weights.checkpoint.tensors)]


def test_unpickled_weights_are_equal_and_immutable(model: Path) -> None:
    weights = loader.open(model, strategy="buffered", threads=2)
    again = pickle.loads(pickle.dumps(weights))  # noqa: S301  our own
    assert (again.checkpoint, again.way, again.part) == (weights.checkpoint, weights.way, weights.part)
    with pytest.raises(TypeError):
        again.checkpoint.tensors["new"] = None


@pytest.mark.parametrize("end", ["read to its end", "closed", "abandoned"])
def test_an_ended_reading_leaves_no_thread_that_a_fork_would_warn_of(model: Path, end: str) -> None:
    """Python 3.12 warns if a process with threads forks; `-W error` turns that into an error."""
    before = threading.active_count()
    tensors = loader.open(model, threads=2).stream()
    next(tensors)
    if end == "read to its end":
        list(tensors)
    elif end == "closed":
        tensors.close()
    del tensors
    assert threading.active_count() == before


def _count(path: str) -> int:
    return len(names(loader.open(path)))
