"""This node among its peers: its key and its certificate, the server of what it has, and whom its fetches ask.

The private key is made here, and lies in a directory of this process alone. The NodeCache's status has the public one, and its
specification the certificate for it. Serving begins with that.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from pathlib import Path

from cluster.agent.config import Config
from cluster.agent.notices import Notices
from cluster.agent.rights import Rights
from cluster.agent.states import Announced, Problem
from cluster.client import Api
from cluster.resources import NodeCacheSpec, Peers
from fetcher.errors import ConfigurationError
from fetcher.serving import CertificateFiles, Server, Serving, ServingLimits
from fetcher.settings import Settings
from fetcher.telemetry.exposition import Metric
from fetcher.uncancelled import run_uncancelled

MEMORY = 128 * 1024 * 1024
"""Bytes for connections and uploads, beside a fetch's own buffers in what the pod requests."""
_UPLOADS = 64
"""Files sent at a time: up to 16 to each node that asks, and 16 nodes are told of this one for each model. Measured: 1.03 MiB
each, and 21 KiB for a connection. So they take half of the memory, and 1,024 connections less than the other half."""
_AGAIN = 30.0
"""Seconds until it is tried again to listen."""
_DRAIN = 5.0
"""Seconds for uploads to end when the agent does."""


class Peering:
    """`on_change` is called when the status says something else."""

    def __init__(self, api: Api, config: Config, *, notices: Notices, on_change: Callable[[], None]) -> None:
        self._api = api
        self._config = config
        self._notices = notices
        self._on_change = on_change
        self._spec = NodeCacheSpec("")
        self._marks: Mapping[str, str] = {}
        self._looked = asyncio.Event()
        self._files: CertificateFiles | None = None
        self._served: Peers | None = None
        self._server: Server | None = None
        self._key = ""
        self.announced: Announced | None = None

    def look(self, spec: NodeCacheSpec) -> None:
        """Take the specification of the node."""
        if spec is not self._spec:
            self._spec = spec
            self._marks = {key: each.mark for key, each in spec.artifacts.items()}
            self._looked.set()

    @property
    def on(self) -> bool:
        """Whether the pool of this node has peers on, also while it cannot meet any."""
        return self._spec.peers is not None

    def joined(self, settings: Settings, key: str) -> Settings:
        """Return the settings of a fetch that asks the peers for the artifact `key` too: those of each moment."""
        files, server = self._files, self._server
        if files is None or self._served is None:
            return settings
        return replace(
            settings,
            peers=lambda: self._spec.peers.addresses.get(key, ()) if self._spec.peers is not None else (),
            node=(server.node or None) if server is not None else None,
            mirror_ca=files.client_ca,
            mirror_cert=files.chain,
            mirror_key=files.key,
        )

    def metrics(self) -> list[Metric]:
        """Return what the server counts; nothing before it serves."""
        return self._server.counts.metrics() if self._server is not None else []

    async def run(self) -> None:
        """Serve as the NodeCache says, until cancelled."""
        with ExitStack() as stack:
            try:
                while True:
                    await self._looked.wait()
                    self._looked.clear()
                    if not await self._follow(stack):
                        await asyncio.sleep(_AGAIN)
                        self._looked.set()
            finally:
                await self._end()

    async def _follow(self, stack: ExitStack) -> bool:
        """Do what the specification says now. Return whether nothing is left to do."""
        peers = self._spec.peers
        if peers is None:
            if self.announced is not None:
                self.announced = None
                self._on_change()
            await self._end()
            return True
        if self._config.peer_address is None:
            self._notices.problem("peers", Problem("NoPeerAddress", "peers are on; give the agent its --peer-address"))
            return True
        files = self._files
        if files is None:
            made, self._key = await run_uncancelled(self._made, stack)
            files = self._files = made
        if self.announced is None:
            self.announced = Announced(address_of(self._config.peer_address, self._config.peer_port), self._key)
            self._on_change()
        if peers.certificate is None or not is_for(peers, self._key):
            return True
        identity = replace(peers, addresses={})
        if identity != self._served:
            await run_uncancelled(partial(_kept, files, peers))
            self._served = identity
        return self._server is not None or await self._begin(files)

    async def _begin(self, files: CertificateFiles) -> bool:
        config = self._config
        serving = Serving(
            root=config.root,
            address=config.peer_address or "",
            port=config.peer_port,
            authorization=Rights(self._api, asyncio.get_running_loop(), lambda: self._marks),
            certificates=files,
            named=True,
            limits=ServingLimits(_UPLOADS, config.peer_rate, MEMORY),
        )
        warn = partial(self._warned, ConfigurationError.reason)
        try:
            self._server = await run_uncancelled(partial(Server, serving, warn=warn))
        except ConfigurationError as error:
            self._notices.problem("peers", Problem(error.reason, error.message))
            return False
        self._notices.problem("peers", None)
        self._notices.note("peers", f"served at {self._server.where}")
        return True

    def _warned(self, reason: str, message: str) -> None:
        self._notices.problem("certificates", Problem(reason, message))

    def _made(self, stack: ExitStack) -> tuple[CertificateFiles, str]:
        from cluster.certificates import new_key  # late: cryptography takes 13 MiB

        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="weightlift-peers-")))
        files = CertificateFiles(directory / "node.pem", directory / "node-key.pem", directory / "authority.pem")
        private, public = new_key()
        files.key.touch(mode=0o600)
        files.key.write_bytes(private)
        return files, public

    async def _end(self) -> None:
        if (server := self._server) is not None:
            self._server = self._served = None
            await run_uncancelled(server.drain, _DRAIN)


def is_for(peers: Peers, key: str) -> bool:
    """Whether the certificate is for this public key, and not for that of a former process."""
    from cluster.certificates import is_of  # late: cryptography takes 13 MiB

    return is_of(peers.certificate, key)


def address_of(host: str, port: int) -> str:
    """Return the base URL of a node. Raises ConfigurationError for what is no IP address."""
    try:
        ip = ip_address(host)
    except ValueError:
        raise ConfigurationError(f"{host} is no IP address; --peer-address is the one of this pod") from None
    return f"https://[{ip}]:{port}" if ip.version == 6 else f"https://{ip}:{port}"


def _kept(files: CertificateFiles, peers: Peers) -> None:
    """Write what the server and fetches read: first whom to trust, since a new authority vouches for the new certificate."""
    if files.client_ca is not None:
        _replaced(files.client_ca, peers.authority)
    _replaced(files.chain, peers.certificate or "")


def _replaced(path: Path, text: str) -> None:
    draft = path.with_name("draft")
    draft.write_text(text)
    draft.replace(path)
