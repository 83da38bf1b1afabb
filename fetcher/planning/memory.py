"""How `--memory-limit` is shared out: every buffer that grows with the number of connections comes out of one budget."""

from __future__ import annotations

from dataclasses import dataclass

KiB = 1024
MiB = 1024 * KiB

READ_BUFFERS = (256 * KiB, 128 * KiB, 64 * KiB)
"""What aiohttp may hold a connection, in bytes: its reader pauses at twice this, and one more socket read (256 KiB in uvloop)
can follow, so a connection costs 2 x this + 256 KiB before our own batch."""

_SOCKET_READ = 256 * KiB
_BATCHES = (4 * MiB, 2 * MiB, MiB, 512 * KiB, 256 * KiB)
_HASH_BUFFER = 1 * MiB
_ALLOCATOR_SLACK = 1.5
"""Pieces of many sizes leave holes: at 64 connections resident memory was up to 1.4 times the bytes held."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """`connections` at most at once; a batch of `batch` bytes is gathered before it is written; sizes in bytes."""

    connections: int
    read_buffer: int
    batch: int

    @property
    def total(self) -> int:
        return int(self.connections * _per_connection(self.read_buffer, self.batch))


def plan_memory(limit: int, *, connections: int, hash_threads: int) -> MemoryPlan:
    """The largest buffers within `limit` bytes; fewer connections where even the smallest do not fit."""
    budget = limit - hash_threads * _HASH_BUFFER
    for batch in _BATCHES:
        for read_buffer in READ_BUFFERS:
            if connections * _per_connection(read_buffer, batch) <= budget:
                return MemoryPlan(connections, read_buffer, batch)
    smallest = _per_connection(READ_BUFFERS[-1], _BATCHES[-1])
    return MemoryPlan(max(1, int(budget // smallest)), READ_BUFFERS[-1], _BATCHES[-1])


def _per_connection(read_buffer: int, batch: int) -> float:
    # Two batches: one is being written while the next one fills.
    return (2 * read_buffer + _SOCKET_READ + 2 * batch) * _ALLOCATOR_SLACK
