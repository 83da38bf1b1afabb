"""Starts the filesystem that fails on demand (`tests.lab.faultfs`) as a process of its own, and tells it what to do."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tests.lab.availability import missing, program, require_root
from tests.lab.filesystems import is_mounted
from tests.lab.waiting import wait_until

if TYPE_CHECKING:
    from tests.lab.faultfs import Pages, Rule

_PROJECT = Path(__file__).parents[2]


Names = Literal["exact", "fold", "preserve"]


@dataclass(frozen=True, slots=True)
class FaultFilesystem:
    """`path` is where faults happen; `source` is the same directory without them, to look at what really arrived."""

    path: Path
    source: Path
    rules: Path
    server: int = 0
    """The PID of the process that answers."""

    def lose_server(self) -> None:
        """From now on everything there is ENOTCONN, until it is unmounted."""
        os.kill(self.server, signal.SIGKILL)
        wait_until(self._is_lost, "the mount notices")

    def unmount(self) -> None:
        """What is open stays open; the directory below shows again, empty."""
        subprocess.run(["umount", "--lazy", str(self.path)], check=True, capture_output=True)

    def _is_lost(self) -> bool:
        try:
            os.listdir(self.path)
        except OSError as error:
            return error.errno == errno.ENOTCONN
        return False

    def obey(self, *rules: Rule) -> None:
        """From the next operation on, these rules and no others. Counts start anew."""
        new = self.rules.with_suffix(".new")
        new.write_text(json.dumps([asdict(rule) for rule in rules]))
        new.replace(self.rules)


@contextmanager
def fault_filesystem(workspace: Path, *, pages: Pages = "uncached", names: Names = "exact") -> Iterator[FaultFilesystem]:
    """Mounted in `workspace`, without any fault to begin with; unmounted whatever happens. `pages`: what the mount does to the
    page cache. `names`: whether case and Unicode form of a name mean nothing, and are kept (preserve) or not (fold)."""
    require_root("mount a FUSE filesystem")
    program("fusermount3", package="fuse3")
    if not os.path.exists("/dev/fuse"):
        missing("/dev/fuse", "load the kernel's fuse module, or pass the device into the container")
    filesystem = FaultFilesystem(workspace / "mount", workspace / "source", workspace / "rules.json")
    filesystem.path.mkdir(parents=True)
    filesystem.source.mkdir()
    filesystem.obey()
    process = _started(filesystem, pages, *([] if names == "exact" else [names]))
    try:
        wait_until(lambda: process.poll() is not None or is_mounted(filesystem.path), "the FUSE mount appears")
        if process.poll() is not None:
            missing("working FUSE", f"the mount failed: {(workspace / 'log').read_text().strip()}")
        yield replace(filesystem, server=process.pid)
    finally:
        _stop(process, filesystem.path)


def _started(filesystem: FaultFilesystem, *options: str) -> subprocess.Popen[bytes]:
    paths = map(str, (filesystem.source, filesystem.path, filesystem.rules))
    with (filesystem.rules.parent / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.lab.faultfs", *paths, *options],
            cwd=_PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def _stop(process: subprocess.Popen[bytes], mount: Path) -> None:
    """Unmounting ends the process; with a file still open it does not, and is killed, so that nobody waits for ever."""
    if subprocess.run(["umount", str(mount)], capture_output=True, check=False).returncode:
        process.kill()
        subprocess.run(["umount", "--lazy", str(mount)], capture_output=True, check=False)
    process.wait(timeout=10)
