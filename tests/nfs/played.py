"""The scenarios that run in the guest: `python -m tests.nfs.played OUT`.

/mnt/n is the NFS mount, and /mnt/d the directory that its server exports. Each scenario returns its observations. They are
written to OUT/seen.json under the scenario's name, and `test_nfs` checks them.
"""

from __future__ import annotations

import json
import os
import random
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
from tests.crash.mixture import IDLE, LIMIT, Mixture, publish
from tests.crash.together import occupied, run_together, watching
from tests.lab.chaos import Chaos
from tests.lab.command import FETCHER, run_command, run_fetcher, run_loader

MiB = 1024 * 1024
URI, SLOW = "hf://org/model", "hf://org/slow"
NFS, SERVER = Path("/mnt/n"), Path("/mnt/d")
_TIMEOUT = 300.0  # seconds: the guest has one slow processor, where Python takes two seconds to start

Seen = dict[str, Any]


def main(out: Path) -> None:
    published = make_checkpoint(SERVER / "published", shards=2, shard_size=6 * MiB)
    with Origin(lfs_threshold=MiB) as origin:
        origin.add_repo("org/model", {path.name: path.read_bytes() for path in published.iterdir()})
        origin.add_repo("org/slow", {"model.safetensors": random_bytes("slow", 40 * MiB)})
        os.environ["HF_ENDPOINT"] = origin.endpoint
        seen = {scenario.__name__: _observed(scenario) for scenario in SCENARIOS}
    (out / "seen.json").write_text(json.dumps(seen))


def _observed(scenario: Callable[[], Seen]) -> Seen:
    try:
        return scenario()
    except Exception:  # noqa: BLE001  the scenario's test fails with this traceback
        return {"failed": traceback.format_exc()}


def two_writers_fetch_every_byte_once() -> Seen:
    command = [*FETCHER, "fetch", URI, "--cache-dir", str(NFS / "cache"), "--json", "--progress", "none"]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    results = [json.loads(writer.communicate(timeout=_TIMEOUT)[0]) for writer in writers]
    verified = run_fetcher("verify", "--cache-dir", NFS / "cache", "--full", timeout=_TIMEOUT)
    return {
        "cached": [each["cached"] for each in results],
        "fetched": sum(each["bytes_fetched"] for each in results),
        "size": results[0]["bytes"],
        "verified": verified.returncode,
        "left": [str(path) for path in (NFS / "cache/.fetcher/staging").rglob("*")],
    }


def a_fetch_continues_in_the_inodes_of_a_dead_owner_on_this_host() -> Seen:
    """The next fetch continues at once, in the same inode: the owner is proven dead."""
    root = NFS / "dead"
    inode = _killed(root)
    again = run_fetcher("fetch", SLOW, "--cache-dir", root, "--json", timeout=_TIMEOUT)
    result = json.loads(again.stdout)
    return {"reused": result["bytes_reused"], "same_inode": _inode(Path(result["path"])) == inode}


def a_fetch_copies_the_chunks_of_a_silent_owner_elsewhere() -> Seen:
    """The next fetch waits for the heartbeat and uses a new inode: as on another node, nothing proves the owner's death."""
    root = NFS / "elsewhere"
    inode = _killed(root, within=("unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", '"$@"; true', "sh"))
    again = run_fetcher("fetch", SLOW, "--cache-dir", root, "--json", "--lease-stale", "6s", timeout=_TIMEOUT)
    result = json.loads(again.stdout)
    verified = run_fetcher("verify", "--cache-dir", root, "--full", timeout=_TIMEOUT)
    return {
        "reused": result["bytes_reused"],
        "same_inode": _inode(Path(result["path"])) == inode,
        "verified": verified.returncode,
        "stderr": again.stderr,
    }


def _killed(root: Path, within: tuple[str, ...] = ()) -> int:
    """Kill a fetch after some chunks; return the inode that it wrote to."""
    victim = [
        sys.executable,
        "-m",
        "tests.crash.victim",
        json.dumps({"uri": SLOW, "cache_dir": str(root), "kill_on": "FileVerified"}),
    ]
    ended = subprocess.run([*within, *victim], check=False, capture_output=True, timeout=_TIMEOUT)
    staged = list((root / ".fetcher/staging").rglob("model.safetensors"))
    assert len(staged) == 1, ended
    return staged[0].stat().st_ino


def _inode(artifact: Path) -> int:
    return (artifact / "model.safetensors").stat().st_ino


def a_fetch_fills_a_destination_in_place() -> Seen:
    target = NFS / "mounted"
    done = run_fetcher("fetch", URI, "--dest", target, "--json", timeout=_TIMEOUT)
    return {"code": done.returncode, "names": sorted(path.name for path in target.iterdir())}


def warm_and_drop_change_the_residency() -> Seen:
    model = NFS / "published"
    results: Seen = {}
    for step, words in {"cold": ["drop"], "warm": ["warm"], "status": ["status"], "evicted": ["drop"]}.items():
        results[step] = json.loads(run_loader(*words, model, "--json", timeout=_TIMEOUT).stdout)
    return results


def every_strategy_reads_the_same_tensors() -> Seen:
    """The digest of all tensors by each strategy, and the digest of the files on the server."""
    digests = {"server": _digest(SERVER / "published", "buffered")}
    for strategy in ("auto", "buffered", "direct", "mmap"):
        digests[strategy] = _digest(NFS / "published", strategy)
    return digests


def _digest(model: Path, strategy: Any) -> str:
    hasher = xxhash.xxh3_128()
    for name, array in loader.open(model, strategy=strategy).tensors():
        hasher.update(name.encode())
        hasher.update((array.data if isinstance(array, Raw) else array).tobytes())
    return hasher.hexdigest()


def a_copy_into_memory_is_verified() -> Seen:
    (key,) = (path for path in (NFS / "cache").iterdir() if not path.name.startswith("."))
    target = Path(os.environ["TMPDIR"]) / "model"
    done = run_loader("copy", key, target, "--json", timeout=_TIMEOUT)
    return {"result": json.loads(done.stdout), "names": sorted(path.name for path in target.iterdir())}


def loading_a_file_that_was_removed_on_the_server_fails() -> Seen:
    """Uncached pages of a removed file are gone: loading it fails, and never returns wrong bytes."""
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


def processes_share_a_bounded_cache() -> Seen:
    """A few commands at the same time, some of them killed. The guest is too slow for many."""
    root, workspace = NFS / "bounded", Path(os.environ["TMPDIR"]) / "bounded"
    workspace.mkdir()
    mixture = Mixture(root, workspace, network=True)
    with Origin(lfs_threshold=MiB) as origin:
        os.environ["HF_ENDPOINT"] = origin.endpoint
        publish(origin, workspace)
        root.mkdir()
        run_fetcher("init", root, "--max-size", str(LIMIT), "--min-idle", str(IDLE), timeout=_TIMEOUT)
        with watching(root, lambda: occupied(root)) as observed:
            run_together(mixture, origin, Chaos(1, random.Random(1), None), observed, rounds=4)
        commands = {
            "repaired": ["verify", "--repair"],
            "verified": ["verify", "--full"],
            "collected": ["gc", "--unused-for", "0"],
        }
        codes = {
            name: run_command(mixture.fetcher, *words, "--cache-dir", str(root), timeout=_TIMEOUT).returncode
            for name, words in commands.items()
        }
    left = [str(path) for path in (root / ".fetcher/staging").iterdir()]
    return {"problems": observed.problems, "codes": codes, "left": left, "within": observed.largest <= LIMIT + 4 * MiB}


SCENARIOS: tuple[Callable[[], Seen], ...] = (
    two_writers_fetch_every_byte_once,
    a_fetch_continues_in_the_inodes_of_a_dead_owner_on_this_host,
    a_fetch_copies_the_chunks_of_a_silent_owner_elsewhere,
    a_fetch_fills_a_destination_in_place,
    warm_and_drop_change_the_residency,
    every_strategy_reads_the_same_tensors,
    a_copy_into_memory_is_verified,
    loading_a_file_that_was_removed_on_the_server_fails,
    processes_share_a_bounded_cache,
)

if __name__ == "__main__":
    main(Path(sys.argv[1]))
