"""One limit for all buffers: buffers as large as possible, and fewer connections if the smallest do not fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.planning.memory import HASH_BUFFER, READ_BUFFER, KiB, MemoryPlan, MiB, plan_memory, thread_buffer

LARGEST, SMALLEST = 4 * MiB, 128 * KiB
PARSER = (2 * READ_BUFFER + 256 * KiB) * 3 // 2
"""Bytes that aiohttp holds per connection, and half as much for fragmentation."""


@pytest.mark.parametrize(
    ("limit", "connections", "hash_threads", "plan"),
    [
        (256 * MiB, 4, 1, MemoryPlan(4, 4 * MiB)),
        (256 * MiB, 32, 1, MemoryPlan(32, 2 * MiB)),
        (256 * MiB, 64, 1, MemoryPlan(64, 1 * MiB)),
        (256 * MiB, 200, 1, MemoryPlan(200, 256 * KiB)),
        (256 * MiB, 1024, 1, MemoryPlan(302, 128 * KiB)),
        (64 * MiB, 32, 2, MemoryPlan(32, 512 * KiB)),
        (16 * MiB, 32, 2, MemoryPlan(12, 128 * KiB)),
        (16 * MiB, 32, 64, MemoryPlan(1, 128 * KiB)),
    ],
)
def test_a_limit_determines_buffers_and_connections(limit: int, connections: int, hash_threads: int, plan: MemoryPlan) -> None:
    assert plan_memory(limit, connections=connections, hash_threads=hash_threads, write_threads=2) == plan


def test_a_limit_is_used_to_the_last_byte() -> None:
    exact = 8 * (2 * LARGEST + PARSER) + 3 * HASH_BUFFER + 2 * 4 * MiB
    assert plan_memory(exact, connections=8, hash_threads=3, write_threads=2) == MemoryPlan(8, LARGEST)
    assert plan_memory(exact - 1, connections=8, hash_threads=3, write_threads=2) == MemoryPlan(8, LARGEST // 2)


@pytest.mark.parametrize(
    ("limit", "threads", "buffer"),
    [(256 * MiB, 3, 4 * MiB), (256 * MiB, 16, 2 * MiB), (256 * MiB, 17, MiB), (64 * MiB, 3, 2 * MiB), (16 * MiB, 3, MiB)],
)
def test_writing_threads_have_large_buffers_within_an_eighth_of_the_limit(limit: int, threads: int, buffer: int) -> None:
    assert thread_buffer(limit, threads) == buffer


@given(st.integers(1, 1024), st.sampled_from([SMALLEST, MiB, LARGEST]))
def test_the_total_counts_all_buffers_and_the_parser(connections: int, buffer: int) -> None:
    plan = MemoryPlan(connections, buffer)
    assert plan.buffers == 2 * connections
    assert plan.total == plan.buffers * buffer + connections * PARSER


@given(st.integers(16 * MiB, 8192 * MiB), st.integers(1, 1024), st.integers(1, 64))
def test_the_plan_is_the_largest_that_fits(limit: int, connections: int, hash_threads: int) -> None:
    plan = plan_memory(limit, connections=connections, hash_threads=hash_threads, write_threads=2)
    left = limit - hash_threads * HASH_BUFFER - 2 * thread_buffer(limit, 2)
    assert 1 <= plan.connections <= connections
    assert plan.total <= left or plan == MemoryPlan(1, SMALLEST)
    if plan.buffer < LARGEST:
        assert MemoryPlan(connections, 2 * plan.buffer).total > left
    if plan.connections < connections:
        assert plan.buffer == SMALLEST
        assert MemoryPlan(plan.connections + 1, SMALLEST).total > left
