"""Processes that keep a file's pages in memory by mapping it, as far as /proc shows them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from fetcher.values import dataclass
from loader.residency.model_files import ModelFile

_MAPPING = re.compile(r"^[0-9a-f]+-[0-9a-f]+ \S{4} [0-9a-f]+ ([0-9a-f]+):([0-9a-f]+) ([0-9]+)\s*(.*)$")


@dataclass(frozen=True, slots=True)
class Holder:
    pid: int
    command: str
    locked: bool

    def __str__(self) -> str:
        return f"{'locked' if self.locked else 'mapped'} by {self.command} (PID {self.pid})"


def holders(member: ModelFile, proc: Path = Path("/proc")) -> list[Holder]:
    """Return the processes that map the file. Only processes of this PID namespace with readable mappings are seen."""
    holding = []
    for entry in sorted(path for path in proc.iterdir() if path.name.isdigit()):
        with suppress(OSError):  # the process has ended, or belongs to another user
            if any(_is_of(line, member) for line in (entry / "maps").read_text(errors="replace").splitlines()):
                locked = any(flags & {"lo"} for flags in _flags(entry, member))
                holding.append(Holder(int(entry.name), (entry / "comm").read_text().strip(), locked))
    return holding


def _is_of(line: str, member: ModelFile) -> bool:
    """btrfs and overlays show another device in `maps` than in stat, so the path is compared as well."""
    match = _MAPPING.match(line)
    if match is None or int(match[3]) != member.identity.inode:
        return False
    device = os.makedev(int(match[1], 16), int(match[2], 16))
    return device == member.identity.device or match[4] == os.path.realpath(member.path)


def _flags(process: Path, member: ModelFile) -> Iterator[set[str]]:
    in_file = False
    for line in (process / "smaps").read_text(errors="replace").splitlines():
        if _MAPPING.match(line):
            in_file = _is_of(line, member)
        elif in_file and line.startswith("VmFlags:"):
            yield set(line.split()[1:])
