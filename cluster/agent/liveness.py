"""The sign of life of this agent: a Lease that it renews. The controller watches it change, by its own clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from cluster.client import Api
from cluster.client.endpoints import LEASES
from cluster.client.errors import ApiError, Missing
from cluster.names import AGENT_LABEL, lease_of
from cluster.resources.moments import now_precisely

EVERY = 60.0
"""Seconds between two renewals. The controller waits for five of them."""


async def stay_alive(api: Api, node: str, namespace: str, *, on_problem: Callable[[ApiError], None]) -> None:
    """Renew the Lease until cancelled."""
    while True:
        try:
            await _renew(api, node, namespace)
        except ApiError as error:
            on_problem(error)
            await asyncio.sleep(EVERY / 6)
        else:
            await asyncio.sleep(EVERY)


async def _renew(api: Api, node: str, namespace: str) -> None:
    """Write the Lease; create it if it does not exist. Raises ApiError."""
    renewed = _lease(node, namespace)
    try:
        there = await api.get(LEASES, lease_of(node), namespace)
    except Missing:
        await api.create(LEASES, renewed)
        return
    metadata = {**there["metadata"], "labels": {**(there["metadata"].get("labels") or {}), AGENT_LABEL: "true"}}
    await api.replace(LEASES, {**renewed, "metadata": metadata})


def _lease(node: str, namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": LEASES.api_version,
        "kind": LEASES.kind,
        "metadata": {"name": lease_of(node), "namespace": namespace, "labels": {AGENT_LABEL: "true"}},
        "spec": {
            "holderIdentity": node,
            "leaseDurationSeconds": int(5 * EVERY),
            "renewTime": now_precisely(),
        },
    }
