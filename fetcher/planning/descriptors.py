"""Shares out the file descriptors of the process, so that no number of files exhausts them."""

from __future__ import annotations

from fetcher.values import dataclass

SPARE = 40
"""Descriptors for everything of constant number: journal, lease, directories, name resolution, threads that prepare."""
PER_CONNECTION = 2
"""The socket, and the duplicate that a thread reads from."""
PER_HASH_THREAD = 16
"""A mapped file keeps a descriptor, and a thread hashes up to 16 files (`integrity.lanes.MOST`) together."""
MOST_FILES = 64
"""Begun files: 16 are received, 16 are hashed, and the others wait for their sync."""


@dataclass(frozen=True, slots=True)
class DescriptorPlan:
    """The maximum number of each. `files` are begun and not yet complete."""

    connections: int
    hash_threads: int
    files: int


def plan_descriptors(free: int, *, connections: int, hash_threads: int) -> DescriptorPlan:
    """Return a plan within `free` descriptors, with at least one of each."""
    room = max(0, free - SPARE)
    files = max(1, min(MOST_FILES, room // 4))
    hashing = hash_threads_within(free, hash_threads)
    rest = room - files - hashing * PER_HASH_THREAD
    return DescriptorPlan(max(1, min(connections, rest // PER_CONNECTION)), hashing, files)


def hash_threads_within(free: int, threads: int) -> int:
    """Return how many of `threads` can hash with a quarter of the `free` descriptors, at least one."""
    return max(1, min(threads, (free - SPARE) // 4 // PER_HASH_THREAD))
