"""What is played in the guest, where /mnt/n is NFS and /mnt/d is what its server serves: `python -m tests.nfs.played OUT`.

Each play returns what it saw; OUT/seen.json has it by the play's name, for `test_nfs` to judge.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import xxhash

import loader
from fetcher.errors import FetchError
from fetcher.testing.checkpoint import make_checkpoint, random_bytes
from fetcher.testing.origin import Origin
from loader.tensors.arrays import Raw
from tests.lab.command import FETCHER, run_fetcher, run_loader

MiB = 1024 * 1024
URI, SLOW = "hf://org/model", "hf://org/slow"
NFS, SERVER = Path("/mnt/n"), Path("/mnt/d")
_PATIENT = 300.0  # seconds: one slow processor, whose interpreter takes two to start

Seen = dict[str, Any]


def main(out: Path) -> None:
    published = make_checkpoint(SERVER / "published", shards=2, shard_size=6 * MiB)
    with Origin(lfs_threshold=MiB) as origin:
        origin.add_repo("org/model", {path.name: path.read_bytes() for path in published.iterdir()})
        origin.add_repo("org/slow", {"model.safetensors": random_bytes("slow", 40 * MiB)})
        os.environ["HF_ENDPOINT"] = origin.endpoint
        seen = {play.__name__: _played(play) for play in PLAYS}
    (out / "seen.json").write_text(json.dumps(seen))


def _played(play: Callable[[], Seen]) -> Seen:
    try:
        return play()
    except Exception:  # noqa: BLE001  the test that asks for it fails with this
        return {"failed": traceback.format_exc()}


def two_writers() -> Seen:
    command = [*FETCHER, "fetch", URI, "--cache-dir", str(NFS / "cache"), "--json", "--progress", "none"]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [json.loads(writer.communicate(timeout=_PATIENT)[0]) for writer in writers]
    verified = run_fetcher("verify", "--cache-dir", NFS / "cache", "--full", timeout=_PATIENT)
    return {
        "cached": [each["cached"] for each in told],
        "fetched": sum(each["bytes_fetched"] for each in told),
        "size": told[0]["bytes"],
        "verified": verified.returncode,
        "left": [str(path) for path in (NFS / "cache/.fetcher/staging").rglob("*")],
    }


def a_dead_owner_of_this_host() -> Seen:
    """It is proven dead: whoever comes next goes on at once, in the files that are there."""
    root = NFS / "dead"
    inode = _killed(root)
    again = run_fetcher("fetch", SLOW, "--cache-dir", root, "--json", timeout=_PATIENT)
    told = json.loads(again.stdout)
    return {"reused": told["bytes_reused"], "same_inode": _inode(Path(told["path"])) == inode}


def a_dead_owner_elsewhere() -> Seen:
    """As from another node, nothing proves its death: its heartbeat must stand still, and no file that it may hold open is
    published."""
    root = NFS / "elsewhere"
    inode = _killed(root, within=("unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", '"$@"; true', "sh"))
    again = run_fetcher("fetch", SLOW, "--cache-dir", root, "--json", "--lease-stale", "6s", timeout=_PATIENT)
    told = json.loads(again.stdout)
    verified = run_fetcher("verify", "--cache-dir", root, "--full", timeout=_PATIENT)
    return {
        "reused": told["bytes_reused"],
        "same_inode": _inode(Path(told["path"])) == inode,
        "verified": verified.returncode,
        "said": again.stderr,
    }


def _killed(root: Path, within: tuple[str, ...] = ()) -> int:
    """A fetch that was killed after some chunks; the inode that it wrote to."""
    victim = [
        sys.executable,
        "-m",
        "tests.crash.victim",
        json.dumps({"uri": SLOW, "cache_dir": str(root), "kill_on": "FileVerified"}),
    ]
    ended = subprocess.run([*within, *victim], check=False, capture_output=True, timeout=_PATIENT)
    staged = list((root / ".fetcher/staging").rglob("model.safetensors"))
    assert len(staged) == 1, ended
    return staged[0].stat().st_ino


def _inode(artifact: Path) -> int:
    return (artifact / "model.safetensors").stat().st_ino


def in_place() -> Seen:
    target = NFS / "mounted"
    done = run_fetcher("fetch", URI, "--dest", target, "--json", timeout=_PATIENT)
    return {"code": done.returncode, "names": sorted(path.name for path in target.iterdir())}


def residency() -> Seen:
    model = NFS / "published"
    told: Seen = {}
    for step, words in {"cold": ["drop"], "warm": ["warm"], "status": ["status"], "evicted": ["drop"]}.items():
        told[step] = json.loads(run_loader(*words, model, "--json", timeout=_PATIENT).stdout)
    return told


def tensors() -> Seen:
    """Each strategy's digest of all tensors, and that of the bytes on the server."""
    found = {"server": _digest(SERVER / "published", "buffered")}
    for strategy in ("auto", "buffered", "direct", "mmap"):
        found[strategy] = _digest(NFS / "published", strategy)
    return found


def _digest(model: Path, strategy: Any) -> str:
    hasher = xxhash.xxh3_128()
    for name, array in loader.open(model, strategy=strategy).tensors():
        hasher.update(name.encode())
        hasher.update((array.data if isinstance(array, Raw) else array).tobytes())
    return hasher.hexdigest()


def copied_into_memory() -> Seen:
    (key,) = (path for path in (NFS / "cache").iterdir() if not path.name.startswith("."))
    target = Path(os.environ["TMPDIR"]) / "model"
    done = run_loader("copy", key, target, "--json", timeout=_PATIENT)
    return {"told": json.loads(done.stdout), "names": sorted(path.name for path in target.iterdir())}


def removed_on_the_server() -> Seen:
    """What is not in the client's cache is gone with the file: an error that another try may cure, never wrong bytes."""
    shutil.copytree(SERVER / "published", SERVER / "second")
    weights = loader.open(NFS / "second")
    with weights.checkpoint.shards[0].identity.opened(weights.checkpoint.shards[0].path):
        for path in list((SERVER / "second").glob("*.safetensors")):
            path.unlink()
        try:
            weights.load()
        except FetchError as error:
            return {"reason": error.reason, "retryable": error.retryable, "message": str(error)}
    return {"reason": None}


PLAYS: tuple[Callable[[], Seen], ...] = (
    two_writers,
    a_dead_owner_of_this_host,
    a_dead_owner_elsewhere,
    in_place,
    residency,
    tensors,
    copied_into_memory,
    removed_on_the_server,
)

if __name__ == "__main__":
    main(Path(sys.argv[1]))
