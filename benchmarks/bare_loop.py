"""The least that a download with aiohttp can be: ranges, `iter_any`, large writes at offsets; no checks, digests or retries.

It is what the fetcher's plain path is measured against. `--threads` writes on threads, as the fetcher does; without it the
event loop itself writes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor

import aiohttp
import uvloop

MiB = 1024 * 1024
RANGE, BATCH, READ_BUFFER = 64 * MiB, 4 * MiB, MiB // 4
"""Bytes: the same as the fetcher takes for 4 connections and its default memory limit."""


async def download(url: str, path: str, *, size: int, connections: int, writers: Executor | None) -> None:
    """`url`, of `size` bytes, to `path`."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    starts = iter(range(0, size, RANGE))
    timeout = aiohttp.ClientTimeout(total=None)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, read_bufsize=READ_BUFFER, auto_decompress=False) as session,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(connections):
                group.create_task(_connection(session, url, descriptor, starts, size=size, writers=writers))
    finally:
        os.close(descriptor)


async def _connection(
    session: aiohttp.ClientSession, url: str, descriptor: int, starts: Iterator[int], *, size: int, writers: Executor | None
) -> None:
    for start in starts:
        stop = min(start + RANGE, size)
        async with session.get(url, headers={"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}) as answer:
            answer.raise_for_status()
            await _receive(answer, descriptor, start, writers=writers)


async def _receive(answer: aiohttp.ClientResponse, descriptor: int, offset: int, *, writers: Executor | None) -> None:
    batch: list[bytes] = []
    gathered = 0
    writing: asyncio.Future[None] | None = None
    async for piece in answer.content.iter_any():
        batch.append(piece)
        gathered += len(piece)
        if gathered >= BATCH:
            if writing is not None:
                await writing
            writing = _write(descriptor, batch, offset, writers=writers)
            offset, batch, gathered = offset + gathered, [], 0
    if writing is not None:
        await writing
    if (last := _write(descriptor, batch, offset, writers=writers)) is not None:
        await last


def _write(descriptor: int, batch: list[bytes], offset: int, *, writers: Executor | None) -> asyncio.Future[None] | None:
    if writers is None:
        _write_all(descriptor, batch, offset)
        return None
    return asyncio.get_running_loop().run_in_executor(writers, _write_all, descriptor, batch, offset)


def _write_all(descriptor: int, batch: list[bytes], offset: int) -> None:
    for at in range(0, len(batch), 1024):
        group = batch[at : at + 1024]
        wanted = sum(map(len, group))
        if os.pwritev(descriptor, group, offset) != wanted:
            raise OSError(f"a short write at byte {offset:,}")
        offset += wanted


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("path")
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--threads", action="store_true")
    given = parser.parse_args()
    with ThreadPoolExecutor(3) as pool:
        writers = pool if given.threads else None
        uvloop.run(download(given.url, given.path, size=given.size, connections=given.connections, writers=writers))


if __name__ == "__main__":
    main()
