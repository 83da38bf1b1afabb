"""Start the filesystem that fails on demand (`tests.lab.faultfs`) as a process, and set its rules."""

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
    """A mounted filesystem. Faults occur at `path`; `source` is the directory behind it, without faults."""

    path: Path
    source: Path
    rules: Path
    server: int = 0
    """PID of the filesystem's process."""

    def lose_server(self) -> None:
        """Kill the process: every operation fails with ENOTCONN until the filesystem is unmounted."""
        os.kill(self.server, signal.SIGKILL)
        wait_until(self._is_lost, "the mount is disconnected")

    def unmount(self) -> None:
        """Unmount lazily: open files stay open, and the empty directory below becomes visible."""
        subprocess.run(["umount", "--lazy", str(self.path)], check=True, capture_output=True)

    def _is_lost(self) -> bool:
        try:
            os.listdir(self.path)
        except OSError as error:
            return error.errno == errno.ENOTCONN
        return False

    def obey(self, *rules: Rule) -> None:
        """Replace all rules, from the next operation on. Resets all counts."""
        new = self.rules.with_suffix(".new")
        new.write_text(json.dumps([asdict(rule) for rule in rules]))
        new.replace(self.rules)


@contextmanager
def fault_filesystem(workspace: Path, *, pages: Pages = "uncached", names: Names = "exact") -> Iterator[FaultFilesystem]:
    """Mount the filesystem in `workspace`, without faults, and always unmount it. `pages`: its page-cache behaviour.

    `names`: `fold` and `preserve` ignore case and Unicode form of names; `preserve` keeps the first spelling.
    """
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
    """Unmount, which ends the process. If a file is still open, kill the process, so that no reader waits for ever."""
    if subprocess.run(["umount", str(mount)], capture_output=True, check=False).returncode:
        process.kill()
        subprocess.run(["umount", "--lazy", str(mount)], capture_output=True, check=False)
    process.wait(timeout=10)
