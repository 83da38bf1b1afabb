"""A candidate as a process of its own: it leads, and writes once for each line on stdin.

    python -m tests.cluster.client.leader URL NAMESPACE NAME SECONDS

Prints `leads`, and for each line `wrote` or `refused`. Ends with `lost` when it has lost the lease.
"""

from __future__ import annotations

import asyncio
import sys

from cluster.client import Api, ApiAccess
from cluster.client.endpoints import CONFIG_MAPS
from cluster.client.errors import NotLeading
from cluster.client.leading import Leadership, Timing


async def lead(url: str, namespace: str, name: str, seconds: int) -> None:
    async with Api(ApiAccess(url, None), manager="test") as api:
        timing = Timing(duration=seconds, deadline=seconds * 0.6, retry=0.2)
        leadership = Leadership(api, name=name, namespace=namespace, identity="a-process", timing=timing)
        api.guard = leadership.check
        await leadership.acquire()
        print("leads", flush=True)
        writing = asyncio.create_task(write(api, namespace, name))
        try:
            await leadership.keep()
        except NotLeading:
            await writing
            print("lost", flush=True)


async def write(api: Api, namespace: str, name: str) -> None:
    while await asyncio.to_thread(sys.stdin.readline):
        metadata = {"name": name, "namespace": namespace}
        document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"by": "a-process"}}
        try:
            await api.apply(CONFIG_MAPS, document)
            print("wrote", flush=True)
        except NotLeading:
            print("refused", flush=True)


if __name__ == "__main__":
    address, place, called, duration = sys.argv[1:]
    asyncio.run(lead(address, place, called, int(duration)))
