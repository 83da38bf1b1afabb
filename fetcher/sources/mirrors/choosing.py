"""Which mirrors a source gets: peers and caches, by their addresses."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from fetcher.artifact import ArtifactRef
from fetcher.peers import ANSWER, MOST, PeerTls, Secret, addresses_of, connected
from fetcher.planning.memory import READ_BUFFER
from fetcher.settings import Settings, is_served
from fetcher.sources.base import Asking, Derived, Packed, Packing, Source, once
from fetcher.sources.mirrors.fetch import Peers
from fetcher.sources.mirrors.mirror import Mirror
from fetcher.sources.mirrors.mirrored import STALL, MirroredSource
from fetcher.sources.mirrors.swarmed import SwarmedSource
from fetcher.transport.client import HttpTransport


def mirrored(source: Source, ref: ArtifactRef, settings: Settings, environ: Mapping[str, str]) -> Source:
    """Return `source` with the mirrors of `settings`; itself without any. Raises ConfigurationError."""
    named = list(dict.fromkeys(settings.mirrors))
    caches = [Mirror(url) for url in named if not is_served(url)]
    peers = [url for url in named if is_served(url)]
    made = source
    if caches:
        made = MirroredSource(made, caches, _transport(settings, environ))
    if peers or settings.peers is not None:
        made = SwarmedSource(
            made,
            _peers(peers, settings, environ),
            key=ref.key,
            names=peers or ["peers"],
            passed_on=settings.node is not None,
        )
    return MirroredPackedSource(source, source, made) if made is not source and isinstance(source, Packed) else made


class MirroredPackedSource(Derived):
    """The same for a source whose listed files can be archives. Those are nobody's but the origin's: a node keeps what it has
    unpacked, and a cache has no address of a registry. Without any, it is `mirrored`."""

    def __init__(self, source: Source, packed: Packed, mirrored: Source) -> None:
        super().__init__(mirrored)
        self._plain = source
        self._mirrored = mirrored
        self._packed = packed

    async def packing(self, revision: str | None, ask: Asking = once) -> Packing | None:
        packing = await self._packed.packing(revision, ask)
        self._source = self._mirrored if packing is None else self._plain
        return packing

    async def aclose(self) -> None:
        await self._mirrored.aclose()


def _peers(named: list[str], settings: Settings, environ: Mapping[str, str]) -> Peers:
    secret = Secret(settings.mirror_secret_file) if settings.mirror_secret_file is not None else None
    if secret is not None:
        secret.check()
    tls = PeerTls(settings.mirror_ca, settings.mirror_cert, settings.mirror_key)
    names: dict[str, str] = {}
    connecting = partial(connected, environ=environ, tls=tls if tls.files else None, names=names)
    return Peers(
        addresses_of(named),
        settings.peers,
        secret,
        partial(connecting, connections=MOST, stall=ANSWER),
        connecting(connections=settings.max_concurrency, stall=min(STALL, settings.timeout_stall)),
        names,
    )


def _transport(settings: Settings, environ: Mapping[str, str]) -> HttpTransport:
    return HttpTransport(
        connections=settings.max_concurrency,
        timeout_stall=min(STALL, settings.timeout_stall),
        read_buffer=READ_BUFFER,
        environ=environ,
    )
