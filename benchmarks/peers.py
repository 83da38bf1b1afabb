"""What fetcher is measured against, each in a process of its own: `python peers.py NAME URL DIRECTORY CONNECTIONS`."""

from __future__ import annotations

import asyncio
import os
import sys

RANGE = 16 * 1024 * 1024
BATCH = 4 * 1024 * 1024


async def iter_any(url: str, path: str, connections: int) -> None:
    """What aiohttp's ordinary body path allows: ranges over a few connections, large writes, nothing checked, no thread."""
    import aiohttp

    connector = aiohttp.TCPConnector(limit=connections)
    async with aiohttp.ClientSession(connector=connector, read_bufsize=256 * 1024) as session:
        async with session.head(url) as head:
            size = int(head.headers["Content-Length"])
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        os.truncate(descriptor, size)
        ranges = iter(range(0, size, RANGE))

        async def pull() -> None:
            for start in ranges:
                stop, position = min(start + RANGE, size), start
                async with session.get(url, headers={"Range": f"bytes={start}-{stop - 1}"}) as response:
                    batch: list[bytes] = []
                    gathered = 0
                    async for piece in response.content.iter_any():
                        batch.append(piece)
                        gathered += len(piece)
                        if gathered >= BATCH or position + gathered == stop:
                            os.pwritev(descriptor, batch, position)
                            position, batch, gathered = position + gathered, [], 0

        await asyncio.gather(*(pull() for _ in range(connections)))
        os.close(descriptor)


def main(name: str, url: str, directory: str, connections: str) -> None:
    path = os.path.join(directory, "model.bin")
    if name == "iter_any":
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(iter_any(url, path, int(connections)))
    else:
        import hf_transfer

        hf_transfer.download(url, path, int(connections), RANGE, parallel_failures=3, max_retries=5)


if __name__ == "__main__":
    main(*sys.argv[1:])
