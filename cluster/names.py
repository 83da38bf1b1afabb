"""Names on which controller and agents agree. Pure."""

from __future__ import annotations

import hashlib

AGENT_PORT = 9090
"""Where probes and Prometheus find an agent."""
PEER_PORT = 8650
"""Where agents serve each other."""
PEER_SECRET = "weightlift-peer-authority"  # noqa: S105 - its name
"""The Secret with who vouches for nodes, which the controller alone reads."""
AGENT_LABEL = "weightlift.dev/agent"
"""On the Leases of agents, with the value `true`."""
POOL_LABEL = "weightlift.dev/pool"
"""The pool of a NodeCache and of an agent's pod, as `short` writes it."""
_LEASE = "weightlift-agent."


def agents_of(pool: str) -> str:
    """Return the name of a pool's DaemonSet, and of the service account of its agents."""
    return short(f"weightlift-agent-{pool}")


def lease_of(node: str) -> str:
    """Return the name of the Lease by which the agent of a node shows that it lives."""
    return f"{_LEASE}{node}"


def node_of(lease: str) -> str | None:
    """Return the node whose agent has the Lease of this name; None if it is no agent's."""
    return lease.removeprefix(_LEASE) if lease.startswith(_LEASE) else None


def short(name: str) -> str:
    """Return `name` in at most 63 characters, the most of a label and of a pod's name; a digest keeps longer ones apart."""
    return name if len(name) <= 63 else f"{name[:54].rstrip('-.')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
