"""What one server may hold: connections, threads, memory. Pure."""

from __future__ import annotations

from fetcher.errors import ConfigurationError
from fetcher.serving.sending import BUFFER
from fetcher.values import dataclass

PER_CONNECTION = 64 * 1024
"""Bytes of an idle connection at most; measured: 1 KiB, 17 KiB with TLS, and 21 KiB with a client's certificate."""
MOST_CONNECTIONS = 1024
OTHER_ANSWERS = 4
"""Threads for requests that send no file, so that uploads do not keep peers from maps, refusals and tokens."""


@dataclass(frozen=True, slots=True)
class Times:
    """How long a connection may take, in seconds.

    `first`: for the handshake, and for a request from its first byte to its last. `idle`: between two requests; a peer has the
    next one within seconds. `poll`: for a change; less than the 30 to 60 after which proxies end a silent connection. `tick`:
    between two looks at these. `look`: between two looks at what waiting peers want to know. A look at each event took a third
    of a server's processor time in a swarm of eight.
    """

    first: float = 10.0
    idle: float = 60.0
    poll: float = 25.0
    tick: float = 0.5
    look: float = 0.1


@dataclass(frozen=True, slots=True)
class ServingLimits:
    """`uploads`: files sent at a time. `rate`: bytes a second for all of them; None for no limit. `memory` in bytes.

    A fetch makes up to 16 requests to a peer, and a caller has half of the uploads at most (`places`): with 64, each of three
    that fetch from one server has its 16.
    """

    uploads: int = 64
    rate: float | None = None
    memory: int = 128 * 1024 * 1024

    @property
    def connections(self) -> int:
        """The connections that the memory allows beside the buffers of uploads. Raises ConfigurationError if too few."""
        left = self.memory - self.uploads * BUFFER
        number = min(MOST_CONNECTIONS, left // PER_CONNECTION)
        if number < 2 * self.uploads:
            raise ConfigurationError(
                f"{self.uploads} uploads do not fit in this memory; lower --max-uploads or raise --memory-limit"
            )
        return number
