"""How the descriptors that a process may open are shared out, so that no number of files exhausts them."""

from __future__ import annotations

from dataclasses import dataclass

SPARE = 40
"""Descriptors for everything that does not grow: journal, lease, directories, name resolution, threads that prepare."""
PER_CONNECTION = 2
"""Its socket, and the duplicate that a thread reads from."""
PER_HASH_THREAD = 16
"""A mapped file keeps a descriptor, and a thread hashes up to 16 files (`integrity.lanes.MOST`) together."""
MOST_FILES = 64
"""Begun files: 16 are received at once, as many are hashed, and the others wait for their sync."""


@dataclass(frozen=True, slots=True)
class DescriptorPlan:
    """At most so many of each at once; `files` are those that are begun and not yet complete."""

    connections: int
    hash_threads: int
    files: int


def plan_descriptors(free: int, *, connections: int, hash_threads: int) -> DescriptorPlan:
    """Within `free` descriptors, and at least one of each."""
    room = max(0, free - SPARE)
    files = max(1, min(MOST_FILES, room // 4))
    hashing = hash_threads_within(free, hash_threads)
    left = room - files - hashing * PER_HASH_THREAD
    return DescriptorPlan(max(1, min(connections, left // PER_CONNECTION)), hashing, files)


def hash_threads_within(free: int, threads: int) -> int:
    """How many of `threads` may hash: a quarter of the descriptors is theirs."""
    return max(1, min(threads, (free - SPARE) // 4 // PER_HASH_THREAD))
