"""A root of the model, and what processes do to it: the real functions of the store."""

from __future__ import annotations

import os
import time
from pathlib import Path

from fetcher.artifact import ArtifactRef, Listing, RemoteFile
from fetcher.engine.hits import find_hit
from fetcher.errors import CacheBusy, FetchError, LeaseLost
from fetcher.events import silent
from fetcher.integrity.digests import new_chunk_hasher
from fetcher.manifest import Manifest, ManifestFile
from fetcher.quantities import parse_amount
from fetcher.settings import Settings
from fetcher.store.accounting import MARGIN
from fetcher.store.beneath import make_directories
from fetcher.store.catalog import find
from fetcher.store.contender import Contender
from fetcher.store.eviction import Keeping, doom
from fetcher.store.garbage import garbage
from fetcher.store.keyed import Keyed, finish_exchanges, finish_swaps
from fetcher.store.layout import Root, fence_of
from fetcher.store.lease import Lease
from fetcher.store.limits import CacheLimits
from fetcher.store.occupancy import allocated_bytes
from fetcher.store.placement import seal
from fetcher.store.room import Room
from fetcher.store.salvage import remove_unlisted_files

REF = ArtifactRef("hf://org/model")
PATHS = ("config.json", "model.safetensors")
STALE = 1e6
_PATIENCE = 300
"""Looks at a lease. Its owner needs fewer steps."""
SIZE = 4 * 1024 * 1024
LONG_AGO = 1_600_000_000.0
NOW = LONG_AGO + 1e6


def fill(descriptor: int, version: str) -> None:
    """Write a file of `version`, through a descriptor that a takeover does not close."""
    os.ftruncate(descriptor, len(version))
    os.pwrite(descriptor, version.encode(), 0)


def _listed(version: str) -> list[RemoteFile]:
    return [RemoteFile(path, len(version)) for path in PATHS]


def _opened(path: Path) -> int:
    """Open a staged file: in the inode that is there, or in a new one. A takeover leaves only inodes that may be reused."""
    try:
        return fence_of(path).create(path, 0o644)
    except FileExistsError:
        return os.open(path, os.O_WRONLY)


class Store:
    """A root on a filesystem in memory, and what processes do to it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.final = root / REF.key

    def write(self, version: str) -> str:
        """Publish `version` like a fetch: under the lease of its key. Return what happened."""
        contender = Contender(Root(self.root).staging, REF.key, stale=STALE)
        try:
            for _ in range(_PATIENCE):
                if isinstance(lease := contender.attempt(), Lease):
                    break
            else:
                return "waited in vain"
            try:
                return self._build(lease, version)
            except BaseException:
                lease.release()
                raise
        except LeaseLost:
            return "lost"
        except OSError:
            return "failed"

    def _build(self, lease: Lease, version: str) -> str:
        placement = Keyed(self.root, REF.key)
        present = placement.present()
        if present is not None and present.revision == version:
            lease.dissolve()
            return "present"
        hasher = new_chunk_hasher()
        hasher.update(version.encode())
        files = [ManifestFile(path, len(version), (), (hasher.hexdigest(),), "v") for path in PATHS]
        with lease.fenced():
            remove_unlisted_files(lease, _listed(version) if lease.inodes_reusable else ())
            lease.forget_previous_owners()
            for path in PATHS:
                descriptor = _opened(lease.data / path)
                try:
                    fill(descriptor, version)
                finally:
                    os.close(descriptor)
        manifest = Manifest.for_request(REF, revision=version, files=files, created="2026-01-01T00:00:00+00:00", version="0")
        lease.renew()
        with lease.fenced():
            seal(lease.data, manifest, mode=0o644)
        placement.place(lease, manifest, Listing(version, ()), lambda _: None)
        return "published"

    def evict(self) -> str:
        try:
            entry = find(self.root, REF.key)
            doomed, kept = doom(self.root, [entry], Keeping(self.root, NOW, 3600.0), stale=STALE, keep=lambda: None)
            for each in doomed:
                each.delete()
        except (FetchError, OSError) as error:
            return type(error).__name__
        return "evicted" if doomed else kept[REF.key]

    def hit(self) -> str:
        settings = Settings(cache_dir=self.root)
        return "hit" if find_hit(Keyed(self.root, REF.key), REF, settings) is not None else "miss"

    def age(self) -> None:
        (self.root / ".fetcher/usage").mkdir(parents=True, exist_ok=True)
        usage = self.root / ".fetcher/usage" / REF.key
        usage.touch()
        os.utime(usage, (LONG_AGO, LONG_AGO))

    def check(self) -> None:
        """What is visible is complete, and of one version."""
        if not self.final.exists():
            return
        manifest = Manifest.read(self.final / ".fetcher/manifest.json")
        assert manifest is not None, "a directory is visible without its manifest"
        found = {path: (self.final / path).read_text() for path in PATHS}
        assert found == dict.fromkeys(PATHS, manifest.revision), f"{manifest.revision} is visible with {found}"

    def check_that_nothing_is_left(self) -> None:
        finish_swaps(self.root)
        finish_exchanges(self.root)
        self.age()
        assert self.write("last") == "published", "the key cannot be written any more"
        self.check()
        for each in garbage(self.root, now=time.time() + 1e6, unused_for=0.0, gone=lambda _: False):
            each.delete()
        left = [each.name for each in (self.root / ".fetcher/staging").iterdir()]
        assert left == [], f"{left} is left in staging"


class BoundedStore(Store):
    """A root with room for two artifacts of SIZE bytes, besides the margin of every decision."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.largest = 0

    def fetch(self, ref: ArtifactRef) -> str:
        """Publish an artifact of SIZE bytes, whose room is made first. Return what happened."""
        staging = Root(self.root).staging
        make_directories(self.root, staging)
        if not isinstance(lease := Contender(staging, ref.key, stale=STALE).attempt(), Lease):
            return "leased"
        limits = CacheLimits(max_size=parse_amount(str(2 * SIZE + MARGIN)), min_idle=3600.0)
        room = Room(self.root, ref.key, lease, lambda: limits, CacheLimits(), False, lambda: False, silent)
        try:
            room.make(SIZE)
            self._publish(lease, ref)
        except CacheBusy:
            lease.dissolve()
            return "busy"
        except BaseException:
            lease.release()
            raise
        return "published"

    def _publish(self, lease: Lease, ref: ArtifactRef) -> None:
        path = lease.data / "model.safetensors"
        descriptor = fence_of(path).create(path, 0o644)
        os.posix_fallocate(descriptor, 0, SIZE)
        os.close(descriptor)
        self.measure()
        file = ManifestFile("model.safetensors", SIZE, (), (new_chunk_hasher().hexdigest(),), "v")
        manifest = Manifest.for_request(ref, revision="one", files=[file], created="2026-01-01T00:00:00+00:00", version="0")
        lease.renew()
        seal(lease.data, manifest, mode=0o644)
        Keyed(self.root, ref.key).place(lease, manifest, Listing("one", ()), lambda _: None)
        Root(self.root).touch_usage(ref.key)
        self.measure()

    def measure(self) -> None:
        self.largest = max(self.largest, allocated_bytes(self.root))
