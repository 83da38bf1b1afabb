"""One file from nginx over loopback, by us and by what people use: is our plain path as fast as aiohttp's `iter_any` allows?

All contenders take turns in every round, so that a busy moment of the machine hits all alike. Source and destination lie in
memory (tmpfs): nothing is measured but receiving, checking and writing. Each copy is compared with the original and removed
before the next one, so two copies exist at most.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import trustme
import xxhash

from benchmarks.measuring import GB, Cost, Spread, commit, machine, run, versions
from tests.lab.nginx import running_nginx

MiB = 1024 * 1024
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - tmpfs is what is wanted; the directory in it is private
SMALL = 1024
"""Bytes of the file that tells what a contender's start and end cost."""


@dataclass(frozen=True, slots=True)
class Served:
    """A file at an address."""

    url: str
    size: int
    sha256: str
    xxh3: str


@dataclass(frozen=True, slots=True)
class Contender:
    """`command` makes the arguments that bring a file into a directory, over so many connections."""

    name: str
    command: Callable[[Served, Path, int], Sequence[str]]


_HF_TRANSFER = (
    "import sys, hf_transfer; url, path, connections = sys.argv[1:]; "
    "hf_transfer.download(url, path, int(connections), 10 * 1024 * 1024)"
)
"""In pieces of 10 MiB, as huggingface_hub called it while it did."""


def _bare(*flags: str) -> Callable[[Served, Path, int], Sequence[str]]:
    def command(file: Served, directory: Path, connections: int) -> Sequence[str]:
        numbers = [f"--size={file.size}", f"--connections={connections}"]
        return [sys.executable, "-m", "benchmarks.bare_loop", file.url, str(directory / "copy"), *numbers, *flags]

    return command


def _fetcher(*, pin: bool) -> Callable[[Served, Path, int], Sequence[str]]:
    def command(file: Served, directory: Path, connections: int) -> Sequence[str]:
        url = f"{file.url}#sha256={file.sha256}" if pin else file.url
        flags = [f"--dest={directory}", f"--max-concurrency={connections}", "--progress=none"]
        return [sys.executable, "-m", "fetcher", "fetch", url, *flags]

    return command


CONTENDERS = (
    Contender("bare `iter_any` loop", _bare()),
    Contender("bare `iter_any` loop, writes on threads", _bare("--threads")),
    Contender("`fetcher`, nothing to compare", _fetcher(pin=False)),
    Contender("`fetcher`, SHA-256 pinned", _fetcher(pin=True)),
    Contender(
        "`hf_transfer` (checks nothing)",
        lambda file, directory, connections: [
            sys.executable, "-c", _HF_TRANSFER, file.url, str(directory / "copy"), str(connections),
        ],
    ),
    Contender(
        "`curl`, one connection (checks nothing)",
        lambda file, directory, _: ["curl", "--silent", "--fail", "--output", str(directory / "copy"), file.url],
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Measured:
    """All rounds of one contender; `start` is what a file of a few bytes costs it."""

    name: str
    costs: tuple[Cost, ...]
    start: tuple[Cost, ...]


def measure(*, size: int, rounds: int, connections: int) -> list[Measured]:
    """Run every contender `rounds` times, in turn. Raises RuntimeError when one fails or delivers anything else."""
    costs: dict[str, list[Cost]] = {each.name: [] for each in CONTENDERS}
    start: dict[str, list[Cost]] = {each.name: [] for each in CONTENDERS}
    with _scratch() as scratch, _served(scratch, size) as (large, small):
        for number in range(rounds):
            # Another one begins each round, so that none always follows the same neighbour.
            first = number % len(CONTENDERS)
            for each in (*CONTENDERS[first:], *CONTENDERS[:first]):
                print(f"round {number + 1} of {rounds}: {each.name}", file=sys.stderr)
                start[each.name].append(_once(each, small, scratch, connections))
                costs[each.name].append(_once(each, large, scratch, connections))
    return [Measured(each.name, tuple(costs[each.name]), tuple(start[each.name])) for each in CONTENDERS]


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="weightlift-bench-", dir=SHARED_MEMORY) as directory:
        yield Path(directory)


@contextmanager
def _served(scratch: Path, size: int) -> Iterator[tuple[Served, Served]]:
    """A large and a small file of random bytes behind nginx."""
    published = scratch / "published"
    published.mkdir()
    chance = random.Random(20261121)  # noqa: S311 - must be repeatable, not secret
    digests = {name: _written(published / name, count, chance) for name, count in (("large", size), ("small", SMALL))}
    with redirect_stdout(sys.stderr), running_nginx(published, scratch / "nginx", authority=trustme.CA()) as server:
        large, small = (Served(f"{server.url}/{name}", *digests[name]) for name in ("large", "small"))
        yield large, small


def _written(path: Path, size: int, chance: random.Random) -> tuple[int, str, str]:
    pinned, compared, left = sha256(), xxhash.xxh3_128(), size
    with path.open("wb") as stream:
        while left:
            piece = chance.randbytes(min(left, 4 * MiB))
            for consumer in (stream.write, pinned.update, compared.update):
                consumer(piece)
            left -= len(piece)
    return size, pinned.hexdigest(), compared.hexdigest()


def _once(contender: Contender, file: Served, scratch: Path, connections: int) -> Cost:
    directory = scratch / "destination"
    directory.mkdir()
    try:
        cost = run(contender.command(file, directory, connections), log=scratch / "log")
        copy = max(directory.iterdir(), key=lambda path: path.is_file())
        if _digest(copy) != file.xxh3:
            raise RuntimeError(f"{contender.name} delivered something else than what is served")
        return cost
    finally:
        shutil.rmtree(directory)


def _digest(path: Path) -> str:
    hasher = xxhash.xxh3_128()
    with path.open("rb") as stream:
        while piece := stream.read(MiB):
            hasher.update(piece)
    return hasher.hexdigest()


def report(measured: Sequence[Measured], *, size: int, rounds: int, connections: int) -> str:
    """A Markdown table and what it takes to repeat it. Ratios are of medians, against the first contender."""
    walls = [Spread.of([cost.wall for cost in each.costs]) for each in measured]
    works = [Spread.of([cost.cpu * GB / size for cost in each.costs]) for each in measured]
    lines = [
        "| | wall seconds | ratio | CPU seconds per GB | ratio | GB/s | of it, start and end: wall, CPU seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for each, wall, work in zip(measured, walls, works, strict=True):
        start = Spread.of([cost.wall for cost in each.start]), Spread.of([cost.cpu for cost in each.start])
        lines.append(
            f"| {each.name} | {wall} | {wall.median / walls[0].median:.2f} | {work} | {work.median / works[0].median:.2f} "
            f"| {size / wall.median / GB:.2f} | {start[0].median:.2f}, {start[1].median:.2f} |"
        )
    setting = f"One file of {size / 2**20:,.0f} MiB from nginx over loopback, tmpfs to tmpfs, {connections} connections"
    lines += [
        "",
        f"{setting}; medians (least-most) of {rounds} interleaved rounds, each contender a process of its own.",
        f"Machine: {machine()}; load {os.getloadavg()[0]:.1f} at the end.",
        f"Versions: {versions()}. Commit: {commit()}.",
        f"Command: `python -m benchmarks fetch --size={size // MiB}Mi --rounds={rounds} --connections={connections}`.",
    ]
    return "\n".join(lines)
