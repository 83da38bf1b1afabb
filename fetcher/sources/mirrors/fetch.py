"""What a fetch with peers is of, and where they are: values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field

from fetcher.artifact import RemoteFile
from fetcher.peers import Addresses, Secret, Told
from fetcher.transport.client import HttpTransport
from fetcher.values import dataclass


@dataclass(frozen=True, slots=True)
class Fetch:
    """What is fetched: all `files`, under the cache `key`. `node`: the identity of this node's root. `passed_on`: whether a
    server is known to pass on what is fetched."""

    key: str
    files: Sequence[RemoteFile]
    listing: str
    node: str | None
    passed_on: bool

    @property
    def shared(self) -> Mapping[str, int]:
        """The bytes of each file that may come from peers, in an order that all nodes have: those with a digest."""
        return {each.path: each.size for each in sorted(self.files, key=_path) if each.digests and each.size is not None}


@dataclass(frozen=True, slots=True)
class Peers:
    """Where peers are. They are asked for maps by what `asking` returns, for chunks by `transport`; both know `names`."""

    given: Addresses
    told: Told | None
    secret: Secret | None
    asking: Callable[[], HttpTransport]
    transport: HttpTransport
    names: dict[str, str] = field(default_factory=dict)


def _path(file: RemoteFile) -> str:
    return file.path
