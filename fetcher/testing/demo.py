"""`make demo`: fetch, verify, warm and load a model with the command line.

Without an argument, an origin in a separate process serves a generated sharded checkpoint.
`python -m fetcher.testing.demo hf://org/model` fetches from the Hub instead.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fetcher.quantities import size
from fetcher.telemetry.wording import duration
from fetcher.testing.checkpoint import make_checkpoint

MiB = 1024 * 1024
SHARDS, SHARD_SIZE = 4, 256 * MiB
"""1 GiB: large enough to measure a rate, small enough for a laptop."""


def main(arguments: Sequence[str]) -> int:
    """Run the demo. Returns the exit code of the first step that fails, else 0."""
    with tempfile.TemporaryDirectory(prefix="weightlift-demo-", dir=_roomy()) as scratch:
        try:
            if arguments:
                return _tour(arguments[0], Path(scratch), os.environ)
            with _served(Path(scratch)) as (uri, environ):
                return _tour(uri, Path(scratch), environ)
        except subprocess.CalledProcessError as error:
            print(f"failed with exit code {error.returncode}", file=sys.stderr)
            return error.returncode


def _tour(uri: str, scratch: Path, environ: Any) -> int:
    cache = scratch / "cache"
    _say("Fetch: download the model to a verified, complete directory")
    first = _fetch(uri, cache, environ)
    path = Path(first["path"])
    _say("Fetch again: the cached model needs no network")
    began = os.times()
    _fetch(uri, cache, environ)
    ended = os.times()
    cpu = ended.children_user + ended.children_system - began.children_user - began.children_system
    print(f"  the whole process took {cpu:.2f} s of CPU time")
    _say("Verify: compare the files with their manifest")
    _run("fetcher", ["verify", first["cache_key"], "--cache-dir", str(cache)], environ)
    _run("fetcher", ["verify", first["cache_key"], "--cache-dir", str(cache), "--full"], environ)
    _say("Warm: read the files into the page cache before an engine needs them")
    _run("loader", ["drop", str(path)], environ)
    _run("loader", ["warm", str(path)], environ)
    _say("Load: read every tensor as an engine does")
    _run("loader", ["load", str(path)], environ)
    _say("Result")
    rate = first["bytes_fetched"] / max(first["seconds"], 1e-3)
    checked = "every digest compared" if first["verified"] else "not all files have a published digest"
    print(f"  {first['files']} files, {size(first['bytes'])} in {duration(first['seconds'])}: {size(rate)}/s, {checked}")
    for entry in sorted(path.iterdir()):
        print(f"  {path.name}/{entry.name}")
    return 0


@contextmanager
def _served(scratch: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Serve a generated checkpoint by an origin on loopback until the block ends."""
    _say(f"Origin: a Hub on loopback that serves {SHARDS} shards of {size(SHARD_SIZE)}")
    published = make_checkpoint(scratch / "published", shards=SHARDS, shard_size=SHARD_SIZE)
    command = [sys.executable, "-m", "fetcher.testing", str(published), "--repo", "demo/model"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as origin:  # noqa: S603 - our own module
        try:
            served = json.loads(origin.stdout.readline() if origin.stdout else "")
            print(f"  {served['endpoint']} (Hub), {served['cdn_endpoint']} (CDN), commit {served['commit'][:12]}")
            yield "hf://demo/model", {**os.environ, "HF_ENDPOINT": served["endpoint"]}
        finally:
            origin.terminate()
            origin.wait(timeout=10)


def _fetch(uri: str, cache: Path, environ: Any) -> dict[str, Any]:
    print(f"  $ fetcher fetch {uri} --cache-dir {cache} --json", flush=True)
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "fetcher", "fetch", uri, "--cache-dir", str(cache), "--json"],
        env=environ,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _run(command: str, arguments: Sequence[str], environ: Any) -> None:
    print(f"  $ {command} {' '.join(arguments)}", flush=True)
    subprocess.run([sys.executable, "-m", command, *arguments], env=environ, check=True)  # noqa: S603 - our own command


def _roomy() -> str | None:
    """Return the parent directory for the demo's files: None for the temporary directory, unless it lacks space."""
    return None if shutil.disk_usage(tempfile.gettempdir()).free > 4 * SHARDS * SHARD_SIZE else str(Path.cwd())


def _say(text: str) -> None:
    print(f"\n{text}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
