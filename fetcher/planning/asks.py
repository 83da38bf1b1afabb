"""What a node has under way in a swarm: which chunks, of whom, since when. Pure; times are passed in, in seconds."""

from __future__ import annotations

from collections import deque
from dataclasses import field
from functools import partial

from fetcher.artifact import ORIGIN
from fetcher.planning.bits import span
from fetcher.quantities import median
from fetcher.values import dataclass

LATE, LEAST_LATE = 5.0, 2.0
"""How many times longer than others a chunk may take, and seconds that are never too long. Connections that share a link are
not alike: of 1,800 chunks of 1 MiB between 8 nodes, half of which took 2.1 s, some took 24 s, and a node that had several of
them at a time came to half of the others' rate. Of 258 from the origin, half of which took 1.8 s, three took 11 to 16 s."""
COMPARED = 8
"""Chunks that must have come before another one can be late."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask `supplier` for `count` chunks of one file from `chunk` on; None is the origin."""

    chunk: int
    supplier: str | None
    count: int = 1

    @property
    def chunks(self) -> int:
        return span(self.chunk, self.count)

    @property
    def name(self) -> str:
        """Who brings it, as bodies and journals say it."""
        return ORIGIN if self.supplier is None else self.supplier


@dataclass(slots=True)
class UnderWay:
    """`chunks`: what is asked for now. `at_origin`, `at_peers`: requests."""

    chunks: int = 0
    at_origin: int = 0
    at_peers: int = 0
    _since: dict[int, float] = field(default_factory=dict)
    _of_origin: deque[float] = field(default_factory=partial(deque, maxlen=2 * COMPARED))
    _of_peers: deque[float] = field(default_factory=partial(deque, maxlen=2 * COMPARED))

    def begin(self, ask: Ask, now: float) -> None:
        self._since[ask.chunk] = now
        self.chunks |= ask.chunks
        if ask.supplier is None:
            self.at_origin += 1
        else:
            self.at_peers += 1

    def end(self, ask: Ask) -> float | None:
        """Returns since when it was under way; None if it was not."""
        since = self._since.pop(ask.chunk, None)
        if since is not None:
            self.chunks &= ~ask.chunks
            if ask.supplier is None:
                self.at_origin -= 1
            else:
                self.at_peers -= 1
        return since

    def came(self, ask: Ask, seconds: float) -> None:
        """Chunks have come in so many seconds."""
        self._times(ask).append(seconds / ask.count)

    @property
    def usual_of_peers(self) -> float:
        """The seconds that a chunk of a peer usually takes; 0 before any has come."""
        return median(self._of_peers) if self._of_peers else 0.0

    def _times(self, ask: Ask) -> deque[float]:
        """The seconds of the last chunks of the origin, or of all peers."""
        return self._of_origin if ask.supplier is None else self._of_peers

    def overdue(self, ask: Ask, now: float) -> bool:
        """Whether chunks take much longer than others did. They are asked for again then, over another connection."""
        since, times = self._since.get(ask.chunk), self._times(ask)
        if since is None or len(times) < COMPARED:
            return False
        return now - since > max(LEAST_LATE, LATE * median(times) * ask.count)
