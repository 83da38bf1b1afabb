"""A root with two artifacts, one of them fetched with a credential, and servers of it in this process."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fetcher.artifact import ArtifactRef
from fetcher.cache.offer import Offer
from fetcher.cache.offering import Offers
from fetcher.manifest import RELATIVE_PATH, Manifest
from fetcher.serving import Server, Serving
from fetcher.testing.checkpoint import random_bytes
from tests.lab.command import run_fetcher
from tests.serving.peer import Peer

MiB = 1024 * 1024
WEIGHTS = random_bytes("weights", 5 * MiB + 3)
CONFIG = b"{}"


@dataclass(frozen=True, slots=True)
class Cache:
    """A root with the artifact `key`; `private` needs a right."""

    root: Path
    key: str
    private: str

    @property
    def offer(self) -> Offer:
        offer = Offers(self.root).find(self.key)
        assert offer is not None
        return offer

    @property
    def directory(self) -> Path:
        return self.root / self.key

    def path(self, name: str) -> str:
        """The path of a file in an address."""
        return f"/v1/{self.key}/{self.offer.listing}/{name}"


@pytest.fixture(scope="session")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    place = tmp_path_factory.mktemp("serving")
    root, keys = place / "root", []
    for name in ("model", "private"):
        model = place / name
        (model / "sub dir").mkdir(parents=True)
        (model / "model.safetensors").write_bytes(WEIGHTS)
        (model / "config.json").write_bytes(CONFIG)
        (model / "empty").write_bytes(b"")
        (model / "sub dir" / "näme#?%41").write_bytes(b"name")
        done = run_fetcher("fetch", model, "--cache-dir", root)
        assert done.returncode == 0, done.stderr
        keys.append(ArtifactRef(str(model)).key)
    with_a_credential(root / keys[1])
    return Cache(root, *keys)


@pytest.fixture
def cache(fetched: Cache, tmp_path: Path) -> Cache:
    """A copy for one test."""
    return Cache(Path(shutil.copytree(fetched.root, tmp_path / "root")), fetched.key, fetched.private)


def with_a_credential(directory: Path) -> None:
    """Make it an artifact that was fetched with a credential."""
    record = directory / RELATIVE_PATH
    manifest = Manifest.read(record)
    assert manifest is not None
    record.write_bytes(manifest.to_bytes().replace(b'"authenticated": false', b'"authenticated": true'))


Start = Callable[..., "Running"]


@dataclass(frozen=True, slots=True)
class Running:
    """A server, and what it has warned of. Its peers are closed with `stack`."""

    server: Server
    warnings: list[str]
    stack: ExitStack

    def peer(self, **settings: Any) -> Peer:
        return self.stack.enter_context(Peer(self.server.where, **settings))


@pytest.fixture
def start(cache: Cache) -> Iterator[Start]:
    """Start a server of the root with the given fields of `Serving`."""
    with ExitStack() as stack:

        def started(**fields: Any) -> Running:
            warnings: list[str] = []
            server = Server(Serving(root=fields.pop("root", cache.root), **fields), warn=warnings.append)
            stack.callback(server.drain, 0.0)
            return Running(server, warnings, stack)

        yield started


@pytest.fixture
def peer(start: Start) -> Iterator[Peer]:
    """A peer of a server that everybody on this machine may ask."""
    with start().peer() as peer:
        yield peer
