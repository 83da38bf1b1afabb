"""A mixture of commands on one bounded cache, and the models that they fetch, damage, adopt and load."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from fetcher.artifact import ArtifactRef
from fetcher.testing.checkpoint import make_checkpoint, random_bytes
from fetcher.testing.origin import Origin
from tests.lab.chaos import Chaos
from tests.lab.command import FETCHER, LOADER

MiB = 1024 * 1024
LIMIT = 24 * MiB
IDLE = 2.0
"""Seconds of --min-idle. A reader opens its files well within them."""
PATIENCE = 6.0
"""Seconds without a heartbeat on network filesystems, for which every eviction waits. An owner renews every 2 s."""
MOVING, DAMAGED, TENSORS = "org/m0", "org/m1", "org/tensors"
SHARED = "shared.safetensors"
SHARING = ("org/m4", "org/m5")
"""Two models with one file in common, which `--dedupe` takes from the other one."""
_SIZES = {f"org/m{number}": (3 + number) * MiB for number in range(6)}
MODELS = (*_SIZES, TENSORS)
_HASTY = str(Path(__file__).with_name("hasty.py"))

READER = """
import os, sys, time
import fetcher
from pathlib import Path
uri, root, seconds, patience, repaired = sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4], sys.argv[5]
if patience:
    from fetcher.store import lease
    lease.STALE_NETWORK = float(patience)
try:
    artifact = fetcher.fetch(uri, cache_dir=root, retry_for=20.0, lease_wait=30.0)
    directory = os.open(artifact.path, os.O_RDONLY)
    held = [path.open("rb") for path in Path(artifact.path).glob("*.safetensors")]
except (fetcher.FetchError, OSError) as error:
    sys.exit(getattr(error, "exit_code", 1))
if not artifact.use_recorded or not held or not Path(artifact.path).exists(): sys.exit(0)
time.sleep(seconds)
if repaired:
    # A repair replaces a damaged file, and keeps the directory. An eviction takes the directory.
    kept = os.path.exists(artifact.path) and os.path.samestat(os.stat(artifact.path), os.fstat(directory))
    if not kept: print("disappeared", artifact.path, flush=True)
    sys.exit(0 if kept else 99)
# FUSE and NFS keep a removed file that is open under another name, so its links tell nothing there.
gone = [each.name for each in held if (not os.path.exists(each.name) if patience else os.fstat(each.fileno()).st_nlink == 0)]
if gone: print("disappeared", *gone, flush=True); sys.exit(99)
"""


def publish(origin: Origin, workspace: Path) -> None:
    """Add all models to `origin`. What `adopt` takes is in `workspace`/adopted."""
    for name, size in _SIZES.items():
        files = {"config.json": b"{}", "model.safetensors": random_bytes(name, size)}
        if name in SHARING:
            files = {"config.json": b"{}", "model.safetensors": random_bytes(name, MiB), SHARED: random_bytes("s", 5 * MiB)}
        origin.add_repo(name, files)
    checkpoint = make_checkpoint(workspace / "checkpoint", shards=2, shard_size=2 * MiB)
    origin.add_repo(TENSORS, {path.name: path.read_bytes() for path in checkpoint.iterdir()})
    adopted = workspace / "adopted"
    adopted.mkdir()
    (adopted / "config.json").write_bytes(b"{}")
    (adopted / "model.safetensors").write_bytes(random_bytes("org/m2", _SIZES["org/m2"]))


def move(origin: Origin, number: int) -> None:
    """Publish another version of MOVING."""
    weights = random_bytes(f"moving-{number}", _SIZES[MOVING])
    origin.add_repo(MOVING, {"config.json": b"{}", "model.safetensors": weights})


def damage(root: Path) -> None:
    """Change one byte of DAMAGED if it is in the cache, as a bad disk does. Nothing shares its blocks."""
    try:
        with (root / ArtifactRef(f"hf://{DAMAGED}").key / "model.safetensors").open("r+b") as stream:
            stream.write(b"\xff")
    except FileNotFoundError:
        pass


@dataclass(frozen=True, slots=True)
class Mixture:
    """Commands chosen by chance for the cache `root`.

    `network`: its filesystem does not tell who reads a file. There an artifact is kept only while it is recently used, so a
    reader reads for less than IDLE. `rm` names an artifact, so there it keeps what was used within an hour.
    """

    root: Path
    workspace: Path
    network: bool

    def choose(self, chaos: Chaos) -> list[list[str]]:
        """Return one command, or the commands of two parts that belong together."""
        name = chaos.random.choice(MODELS)
        uri, cache = f"hf://{name}", ["--cache-dir", str(self.root)]
        patience = ["--retry-for", "20", "--lease-wait", "30"]
        fetching = [*cache, "--min-idle", str(IDLE), *patience]
        fetch = [*self.fetcher, "fetch", uri, *fetching]
        reading = chaos.random.uniform(0.5, IDLE / 2 if self.network else 3)
        patient, repaired = str(PATIENCE) if self.network else "", "repaired" if name == DAMAGED else ""
        read = [sys.executable, "-c", READER, uri, str(self.root), str(reading), patient, repaired]
        tensors = str(self.root / ArtifactRef(f"hf://{TENSORS}").key)
        return chaos.random.choice(
            [
                [fetch],
                [fetch],
                [read],
                [read],
                [[*self.fetcher, "fetch", f"hf://{MOVING}", "--refresh", "on-change", *fetching]],
                [[*self.fetcher, "fetch", f"hf://{chaos.random.choice(SHARING)}", "--dedupe", "link", *fetching]],
                [[*fetch, "--part", f"{part}/2"] for part in range(2)],
                [[*self.fetcher, "adopt", str(self.workspace / "adopted"), "--uri", "hf://org/m2", *cache, *patience]],
                [[*self.fetcher, "verify", f"hf://{DAMAGED}", "--repair", *cache, *patience]],
                [[*self.fetcher, "verify", *cache]],
                [[*self.fetcher, "gc", "--unused-for", "3600", *cache]],
                [[*self.fetcher, "pin", uri, "--for", "3s", *cache]],
                [[*self.fetcher, "list", *cache]],
                [[*LOADER, "load", tensors]],
                [[*LOADER, "warm", tensors]],
                [[*self.fetcher, "prune", "--to", "12Mi", "--min-idle", str(IDLE), *cache]],
                [[*self.fetcher, "rm", uri, *cache]],
            ]
        )

    @property
    def fetcher(self) -> list[str]:
        """The words that run `fetcher`."""
        return [sys.executable, _HASTY, str(PATIENCE), "fetcher"] if self.network else list(FETCHER)
