"""Real cgroups below the cgroup of the tests, of v1 or v2 as the machine has them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fetcher.host.cgroups import cgroup_directories
from fetcher.host.mounts import parse_mounts
from tests.lab.availability import missing, require_root


@contextmanager
def made_cgroup(controller: str, *, v1: Mapping[str, str], v2: Mapping[str, str]) -> Iterator[Path]:
    """Create a cgroup with these limits (file → text). It must contain no process at the end."""
    require_root("make a cgroup")
    mounts = parse_mounts(Path("/proc/self/mountinfo").read_text())
    own = Path(next(iter(cgroup_directories(Path("/proc/self/cgroup").read_text(), mounts, controller))))
    group = own / f"weightlift-{os.getpid()}"
    limits = v2 if (own / "cgroup.controllers").exists() else v1
    try:
        group.mkdir()
    except OSError as error:
        missing("new cgroup", f"the kernel or the container refuses it: {error}")
    try:
        for name, text in limits.items():
            if not (group / name).exists():
                missing(f"{controller} controller in a new cgroup", "enable it in cgroup.subtree_control")
            (group / name).write_text(text)
        yield group
    finally:
        group.rmdir()


def in_group(group: Path) -> list[str]:
    """Return a command prefix that starts a command in a cgroup."""
    return ["bash", "-c", 'echo $$ > "$0" && exec "$@"', str(group / "cgroup.procs")]
