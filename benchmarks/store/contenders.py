"""The contenders and their commands. A peer with several ways continues with the fastest of its first runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import downloading
from benchmarks.publishing import MiB
from benchmarks.store.servers import PLAIN, PREFIX

CLIENTS = Path(__file__).parent / "clients"
CONNECTIONS = 16
SOURCE = f"s3://{PLAIN}/{PREFIX}"


@dataclass(frozen=True, slots=True)
class Task:
    """The input of a command. `peers`: the Python of the peers' environment. `total`: bytes of all files."""

    fetcher: str
    peers: Path
    addresses: Path
    destination: Path
    files: int
    total: int

    def program(self, name: str) -> str:
        """Return the path of a peer's program."""
        return str(self.peers.with_name(name))


Command = Callable[[Task], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Contender:
    """A contender. `ways` is never empty. `verified`: what it compares every file with."""

    name: str
    ways: tuple[Command, ...]
    verified: str = "no"


def fetch(bucket: str, *flags: str) -> Command:
    def command(task: Task) -> Sequence[str]:
        words = [f"s3://{bucket}/{PREFIX}", f"--dest={task.destination}", f"--max-concurrency={CONNECTIONS}"]
        return [task.fetcher, "fetch", *words, "--progress=none", *flags]

    return command


def s5cmd(part: int) -> Command:
    """s5cmd with parts of `part` MiB; its connections are those of each file times the files."""

    def command(task: Task) -> Sequence[str]:
        numbers = [f"--concurrency={max(1, CONNECTIONS // task.files)}", f"--part-size={part}"]
        return [task.program("s5cmd"), "--log=error", "cp", *numbers, f"{SOURCE}/*", f"{task.destination}/"]

    return command


def rclone(streams: int) -> Command:
    """rclone with `streams` for each file; it compares MD5 unless it is told not to."""

    def command(task: Task) -> Sequence[str]:
        files = max(1, CONNECTIONS // max(1, streams))
        numbers = [f"--transfers={files}", f"--checkers={files}", f"--multi-thread-streams={streams}", "--ignore-checksum"]
        return [task.program("rclone"), "copy", f"store:{PLAIN}/{PREFIX}", str(task.destination), *numbers]

    return command


def aws(task: Task) -> Sequence[str]:
    return [task.program("aws"), "s3", "cp", "--recursive", "--only-show-errors", SOURCE, str(task.destination)]


def obstore(part: int) -> Command:
    def command(task: Task) -> Sequence[str]:
        numbers = [f"--part={part * MiB}", f"--workers={CONNECTIONS}"]
        return [str(task.peers), str(CLIENTS / "obstore_files.py"), PLAIN, PREFIX, str(task.destination), *numbers]

    return command


def kserve(task: Task) -> Sequence[str]:
    return downloading.kserve(str(task.peers), SOURCE, task.destination)


def bare_loop(task: Task) -> Sequence[str]:
    return downloading.bare_loop(task.addresses, task.destination, connections=CONNECTIONS, total=task.total)


FETCHER, CRC64NVME, CRC32C = "fetcher", "fetcher, CRC64NVME", "fetcher, CRC32C"
S5CMD, RCLONE, AWS, OBSTORE, KSERVE, BARE_LOOP = "s5cmd", "rclone", "aws", "obstore", "kserve-storage", "bare loop"
PEERS = (S5CMD, RCLONE, AWS, OBSTORE, KSERVE)
CONTENDERS = {
    each.name: each
    for each in (
        Contender(FETCHER, (fetch(PLAIN),), "MD5 if the ETag is one"),
        Contender(CRC64NVME, (fetch("crc64nvme", "--require-checksums"),), "CRC64NVME"),
        Contender(CRC32C, (fetch("crc32c", "--require-checksums"),), "CRC32C"),
        Contender(S5CMD, (s5cmd(16), s5cmd(50))),
        Contender(RCLONE, (rclone(1), rclone(4))),
        Contender(AWS, (aws,)),
        Contender(OBSTORE, (obstore(8), obstore(32))),
        Contender(KSERVE, (kserve,)),
        Contender(BARE_LOOP, (bare_loop,)),
    )
}
