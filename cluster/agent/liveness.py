"""The sign of life of this agent: a Lease that it renews. The controller watches it change, by its own clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from cluster.client import Api
from cluster.client.endpoints import LEASES
from cluster.client.errors import ApiError, Missing

EVERY = 60.0
"""Seconds between two renewals. The controller waits for five of them."""
LABEL = "weightlift.dev/agent"


def lease_name(node: str) -> str:
    """Return the name of the Lease of a node's agent."""
    return f"weightlift-agent.{node}"


async def stay_alive(api: Api, node: str, namespace: str, *, on_problem: Callable[[ApiError], None]) -> None:
    """Renew the Lease until cancelled."""
    while True:
        try:
            await _renew(api, node, namespace, datetime.now(UTC))
        except ApiError as error:
            on_problem(error)
            await asyncio.sleep(EVERY / 6)
        else:
            await asyncio.sleep(EVERY)


async def _renew(api: Api, node: str, namespace: str, moment: datetime) -> None:
    """Write the Lease; create it if it does not exist. Raises ApiError."""
    renewed = _lease(node, namespace, moment)
    try:
        there = await api.get(LEASES, lease_name(node), namespace)
    except Missing:
        await api.create(LEASES, renewed)
        return
    metadata = {**there["metadata"], "labels": {**(there["metadata"].get("labels") or {}), LABEL: "true"}}
    await api.replace(LEASES, {**renewed, "metadata": metadata})


def _lease(node: str, namespace: str, moment: datetime) -> dict[str, Any]:
    return {
        "apiVersion": LEASES.api_version,
        "kind": LEASES.kind,
        "metadata": {"name": lease_name(node), "namespace": namespace, "labels": {LABEL: "true"}},
        "spec": {
            "holderIdentity": node,
            "leaseDurationSeconds": int(5 * EVERY),
            "renewTime": moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        },
    }
