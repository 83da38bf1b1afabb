"""How an agent runs: what its options say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cluster.agent.fetching import Means
from cluster.names import PEER_PORT


@dataclass(frozen=True, slots=True)
class Config:
    """Times in seconds, rates in bytes per second.

    `service_account`: None for the one that the controller makes for the pool's agents. `peer_address`: the IP address at which
    peers reach this node; None: it meets none. `peer_rate`: the most that is sent to them.
    """

    node: str
    namespace: str
    service_account: str | None
    means: Means
    allow_loopback: bool
    status_interval: float
    survey_interval: float
    recheck_interval: float
    scrub_interval: float
    scrub_rate: float | None
    warm_interval: float
    orphan_grace: float
    peer_address: str | None = None
    peer_port: int = PEER_PORT
    peer_rate: float | None = None

    @property
    def root(self) -> Path:
        return self.means.root
