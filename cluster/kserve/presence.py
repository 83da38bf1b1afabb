"""Whether KServe's own agent runs: two agents would remove each other's files below `models/`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cluster.client import Api
from cluster.client.endpoints import DAEMON_SETS
from cluster.kserve.names import AGENT
from fetcher.errors import FetchError

_MARK = "control-plane"
"""The label of KServe's own parts. Its value for the agent is the DaemonSet's usual name."""


class KServeAgentPresent(FetchError):
    """KServe's own agent of local models is installed."""

    reason = "KServeAgentPresent"
    exit_code = 78


def agents_among(daemon_sets: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of KServe's agents among DaemonSets, by name or by label. Pure."""
    found = []
    for each in daemon_sets:
        metadata = each.get("metadata") or {}
        if metadata.get("name") == AGENT or (metadata.get("labels") or {}).get(_MARK) == AGENT:
            found.append(str(metadata.get("name")))
    return sorted(found)


async def refuse_beside_kserves_agent(api: Api, namespace: str) -> None:
    """Raise KServeAgentPresent if KServe's agent is installed in `namespace`, ApiError if that cannot be known."""
    found = agents_among((await api.list(DAEMON_SETS, namespace)).items)
    if found:
        raise KServeAgentPresent(
            f"DaemonSet {namespace}/{found[0]} is KServe's own agent, and each would remove what the other fetches; remove it "
            f"first: kubectl -n {namespace} delete daemonset {found[0]}"
        )
