"""Shares out `--memory-limit`: every buffer that grows with the number of connections comes out of one budget."""

from __future__ import annotations

from fetcher.values import dataclass

KiB = 1024
MiB = 1024 * KiB

READ_BUFFER = 64 * KiB
"""Bytes per connection that aiohttp's parser buffers: it pauses at twice this, and one more socket read (256 KiB in uvloop) can
follow. Only heads and bodies on the ordinary path pass through the parser."""

_PARSER = int((2 * READ_BUFFER + 256 * KiB) * 1.5)
"""Pieces of many sizes leave holes: at 64 connections resident memory was up to 1.4 times the bytes held."""
_BUFFERS = (4 * MiB, 2 * MiB, MiB, 512 * KiB, 256 * KiB, 128 * KiB)
HASH_BUFFER = 2 * MiB
"""Bytes per hashing thread: 128 KiB for each of 16 files, or all for one file. Less makes switches between threads visible."""
_THREAD_BUFFERS = (4 * MiB, 2 * MiB, MiB)
"""Bytes per writing thread, which reads from the kernel and writes to the file. Threads wait for the interpreter at every call.
So 4 MiB instead of 1 took 8 % less time without digests, and 13 % less with them (2 x EPYC, medians of 11 and 7 rounds)."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """At most `connections`, and `buffers` of `buffer` bytes: each connection fills one while a thread writes the other."""

    connections: int
    buffer: int

    @property
    def buffers(self) -> int:
        return 2 * self.connections

    @property
    def total(self) -> int:
        return self.connections * _per_connection(self.buffer)


def thread_buffer(limit: int, write_threads: int) -> int:
    """Return the bytes for each writing thread: together at most an eighth of `limit`, but each 1 MiB at least."""
    fitting = (each for each in _THREAD_BUFFERS if write_threads * each <= limit // 8)
    return next(fitting, _THREAD_BUFFERS[-1])


def plan_memory(limit: int, *, connections: int, hash_threads: int, write_threads: int) -> MemoryPlan:
    """Return the largest buffers within `limit` bytes, or fewer connections if even the smallest buffers do not fit."""
    budget = limit - hash_threads * HASH_BUFFER - write_threads * thread_buffer(limit, write_threads)
    for buffer in _BUFFERS:
        if connections * _per_connection(buffer) <= budget:
            return MemoryPlan(connections, buffer)
    smallest = _BUFFERS[-1]
    return MemoryPlan(max(1, budget // _per_connection(smallest)), smallest)


def _per_connection(buffer: int) -> int:
    return 2 * buffer + _PARSER
