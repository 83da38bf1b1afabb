"""Measure a cache with many artifacts: what a list costs with and without summaries, and a hit beside 10 or 1,000 artifacts.

`python -m benchmarks.cache`. A root of 1,000 artifacts with 50,000 chunks each takes 2 GB; their files are holes.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.installation import HOME
from fetcher.artifact import CHUNK_SIZE, ArtifactRef, Digest
from fetcher.manifest import RELATIVE_PATH, Manifest, ManifestFile
from fetcher.store.catalog import entries

FILES = 16
FEW = 10


def make_root(root: Path, *, artifacts: int, chunks: int) -> None:
    """Create complete artifacts `hf://org/0`, `hf://org/1` and so on, of `chunks` chunks in 16 files without content."""
    each = chunks // FILES
    for number in range(artifacts):
        files = [_file(number, position, each) for position in range(FILES)]
        ref = ArtifactRef(f"hf://org/{number}")
        manifest = Manifest.for_request(ref, revision="a" * 40, files=files, created="2026-01-01T00:00:00+00:00", version="0")
        record = root / ref.key / RELATIVE_PATH
        record.parent.mkdir(parents=True)
        record.write_bytes(manifest.to_bytes())
        for file in files:
            with (root / ref.key / file.path).open("wb") as stream:
                stream.truncate(file.size)


def _file(number: int, position: int, chunks: int) -> ManifestFile:
    digest = Digest("sha256", f"{number:032x}{position:032x}")
    return ManifestFile(f"model-{position:05}.safetensors", chunks * CHUNK_SIZE, (digest,), tuple(_chunks(chunks)))


def _chunks(count: int) -> Iterator[str]:
    return (f"{index:032x}" for index in range(count))


def medians(calls: dict[str, Callable[[], object]], *, rounds: int) -> dict[str, float]:
    """Return the median seconds of each call. The calls take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(each) for name, each in seconds.items()}


def compare(directory: Path, *, artifacts: int, chunks: int, rounds: int) -> str:
    """Return the report: medians in seconds and their ratios."""
    with _roots(directory, artifacts, chunks) as (few, many):
        entries(few, on_newer=lambda _: None)  # the summaries are written once
        entries(many, on_newer=lambda _: None)
        records = list(many.glob(f"*/{RELATIVE_PATH}"))
        lists = medians(
            {
                "every manifest read": lambda: [Manifest.read(record) for record in records],
                "entries": lambda: entries(many, on_newer=lambda _: None),
                "fetcher list": lambda: _run("list", "--cache-dir", many),
            },
            rounds=max(3, rounds // 10),
        )
        hits = medians(
            {
                "hit beside few": lambda: _run("fetch", "hf://org/0", "--cache-dir", few),
                "hit beside many": lambda: _run("fetch", "hf://org/0", "--cache-dir", many),
            },
            rounds=rounds,
        )
    lines = [f"{name:20} {seconds:.3f} s" for name, seconds in (lists | hits).items()]
    ratios = {
        "entries to manifests": lists["entries"] / lists["every manifest read"],
        f"hit {artifacts} to {FEW}": hits["hit beside many"] / hits["hit beside few"],
    }
    return "\n".join([*lines, *(f"{name:20} {ratio:.4f}" for name, ratio in ratios.items())])


@contextmanager
def _roots(directory: Path, artifacts: int, chunks: int) -> Iterator[tuple[Path, Path]]:
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory) as temporary:
        few, many = Path(temporary, "few"), Path(temporary, "many")
        make_root(few, artifacts=FEW, chunks=chunks)
        make_root(many, artifacts=artifacts, chunks=chunks)
        yield few, many


def _run(*words: str | Path) -> None:
    command = [sys.executable, "-m", "fetcher", *map(str, words)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cache", description=__doc__)
    parser.add_argument("--artifacts", type=int, default=1000, help="artifacts of the large root")
    parser.add_argument("--chunks", type=int, default=50_000, help="chunks of each artifact")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--disk", type=Path, default=HOME, help="directory on the disk to measure")
    arguments = parser.parse_args()
    sizes = {name: getattr(arguments, name) for name in ("artifacts", "chunks", "rounds")}
    print(compare(arguments.disk.resolve(), **sizes))


if __name__ == "__main__":
    main()
