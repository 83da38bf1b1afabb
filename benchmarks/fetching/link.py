"""A link between two network namespaces: a round trip of 20 ms, a total rate, and a cap for each connection.

`tunlink.c` carries the packets. The cap is nginx's `limit_rate`, so that congestion control does not change it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

ROUND_TRIP = 20.0
"""Milliseconds."""
RATE = 2_000
"""Mbit/s in each direction."""
QUEUE = 16
"""Maximum queue in MB in each direction: about three times the data in flight."""
CAP = RATE * 1_000_000 // 8 // 3
"""Bytes a second of one connection: a third of the link."""


@dataclass(frozen=True, slots=True)
class Link:
    """A link. `host` is the server's address; `server` and `client` are the command prefixes for each namespace."""

    host: str
    server: tuple[str, ...]
    client: tuple[str, ...]


def unavailable() -> str | None:
    """Return why the link cannot be created and what to do, or None."""
    if os.geteuid() != 0:
        return "a network namespace needs root; run as root"
    if not Path("/dev/net/tun").exists():
        return "/dev/net/tun is missing; load the kernel's tun module"
    for program, package in (("cc", "gcc libc6-dev"), ("ip", "iproute2")):
        if shutil.which(program) is None:
            return f"{program} is missing; on Debian: apt-get install {package}"
    return None


@contextmanager
def linked(workspace: Path) -> Iterator[Link]:
    """Create two namespaces and the link between them, until the block ends. Raises RuntimeError."""
    workspace.mkdir(parents=True, exist_ok=True)
    program = workspace / "tunlink"
    source = Path(__file__).with_name("tunlink.c")
    subprocess.run(["cc", "-O2", "-pthread", "-o", program, source], check=True)
    server, client = (f"weightlift-{os.getpid()}-{end}" for end in ("server", "client"))
    ends = [server, "10.77.0.1/24", client, "10.77.0.2/24"]
    numbers = [str(ROUND_TRIP / 2), str(RATE), str(QUEUE)]
    with ExitStack() as stack:
        for name in (server, client):
            subprocess.run(["ip", "netns", "add", name], check=True)
            stack.callback(subprocess.run, ["ip", "netns", "delete", name], check=True)
        process = stack.enter_context(subprocess.Popen([program, *ends, *numbers], stdout=subprocess.PIPE))
        stack.callback(process.kill)
        if process.stdout is None or process.stdout.readline() != b"up\n":
            raise RuntimeError("tunlink did not start the link")
        yield Link("10.77.0.1", ("ip", "netns", "exec", server), ("ip", "netns", "exec", client))
