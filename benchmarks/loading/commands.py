"""The commands that load: for each library, the settings that its users know to be fast, and tools that warm or copy files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.installation import CHECKOUT, PATH
from benchmarks.loading.checkpoint import Checkpoint
from benchmarks.loading.clients.timed import MEMORY
from benchmarks.surroundings import mask

CLIENTS = "benchmarks.loading.clients"


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs under test. `loader`: the command. `peers`: the Python of the peers' environment."""

    loader: str
    peers: str


@dataclass(frozen=True, slots=True)
class Data:
    """The same tensors in `shards`, in one file, and in tensorizer's format."""

    shards: Checkpoint
    one: Checkpoint
    tensorized: Path

    def files(self) -> list[Path]:
        """Return all existing files."""
        files = [*self.shards.files, *self.one.files, self.tensorized]
        return [file for file in files if file.exists()]


@dataclass(frozen=True, slots=True)
class Task:
    """The input of a command. `outcome`: the file for a client's result. `copy`: the directory for copies."""

    data: Data
    outcome: Path
    copy: Path
    programs: Programs


Command = Callable[[Task], Sequence[str]]


def environment(home: Path, *, memory: int = 0) -> dict[str, str]:
    """Return the environment of every contender. Of the user's variables it has OpenSSL's mask only.

    `memory`: bytes that a client populates before its clock starts.
    """
    return {
        MEMORY: str(memory),
        "PATH": PATH,
        "HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "PYTHONPATH": str(CHECKOUT),
        "RUNAI_STREAMER_LOG_LEVEL": "ERROR",
        **mask(),
    }


def ours(strategy: str, take: str, *, one: bool = False) -> Command:
    def command(task: Task) -> Sequence[str]:
        source = task.data.one if one else task.data.shards
        flags = [f"--strategy={strategy}", f"--take={take}"]
        return [sys.executable, "-m", f"{CLIENTS}.ours", str(task.outcome), str(source.directory), *flags]

    return command


def peer(client: str, *flags: str, variables: Mapping[str, str] | None = None, one: bool = False) -> Command:
    """A client that loads the directory of the checkpoint; `variables` are its settings in the environment."""

    def command(task: Task) -> Sequence[str]:
        source = (task.data.one if one else task.data.shards).directory
        prefix = ["env", *(f"{name}={value}" for name, value in variables.items())] if variables else []
        return [*prefix, task.programs.peers, "-m", f"{CLIENTS}.{client}", str(task.outcome), str(source), *flags]

    return command


def tensorized(*flags: str) -> Command:
    def command(task: Task) -> Sequence[str]:
        words = [task.programs.peers, "-m", f"{CLIENTS}.tensorized", str(task.outcome), str(task.data.tensorized)]
        return [*words, *flags]

    return command


def warm(task: Task) -> Sequence[str]:
    return [task.programs.loader, "warm", str(task.data.shards.directory), "--progress=none"]


def vmtouch(task: Task) -> Sequence[str]:
    return ["vmtouch", "-q", "-t", str(task.data.shards.directory)]


def cat(task: Task) -> Sequence[str]:
    return ["sh", "-c", 'cat "$0"/*.safetensors > /dev/null', str(task.data.shards.directory)]


def copy(task: Task) -> Sequence[str]:
    return [task.programs.loader, "copy", str(task.data.shards.directory), str(task.copy), "--progress=none"]


def copy_by_cp(task: Task) -> Sequence[str]:
    return ["cp", "-r", str(task.data.shards.directory), str(task.copy)]
