"""Several nodes on one machine: a network namespace each, with a link of its own to the server's namespace.

A link is a veth pair. `tbf` limits what the server sends into it, as the network card of a node would.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

CLONE_NEWNET = 0x40000000
SERVER = "10.78.0.1"
"""The server's address, which every node reaches."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node. `words` begin a command that runs on it."""

    words: tuple[str, ...]


def unavailable() -> str | None:
    """Return why nodes cannot be made and what to do, or None."""
    if os.geteuid() != 0:
        return "a network namespace needs root; run as root"
    if shutil.which("ip") is None or shutil.which("tc") is None:
        return "ip or tc is missing; on Debian: apt-get install iproute2"
    return None


def move_to_new_namespace() -> None:
    """Move this process to a network namespace of its own, where it is the server. It never returns. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "cannot make a network namespace")
    _run("ip link set lo up")
    _run(f"ip address add {SERVER}/32 dev lo")


@contextmanager
def nodes(count: int, *, rate: int) -> Iterator[list[Node]]:
    """Make `count` nodes that receive `rate` bytes a second each from the server, this process, until the block ends."""
    with ExitStack() as stack:
        yield [_node(stack, number, rate) for number in range(count)]


def _node(stack: ExitStack, number: int, rate: int) -> Node:
    name, ours, theirs = f"weightlift-{os.getpid()}-{number}", f"10.78.{number + 1}.1", f"10.78.{number + 1}.2"
    _run(f"ip netns add {name}")
    stack.callback(_run, f"ip netns delete {name}")
    _run(f"ip link add link{number} type veth peer name link netns {name}")
    _run(f"ip address add {ours}/30 dev link{number}")
    _run(f"ip link set link{number} up")
    # A burst of 10 ms, and at least what the kernel sends between two ticks of its clock.
    _run(f"tc qdisc add dev link{number} root tbf rate {rate * 8}bit burst {max(rate // 100, 256 * 1024)} latency 50ms")
    for command in ("link set lo up", f"address add {theirs}/30 dev link", "link set dev link up"):
        _run(f"ip -n {name} {command}")
    _run(f"ip -n {name} route add default via {ours}")
    return Node(("ip", "netns", "exec", name))


def _run(command: str) -> None:
    subprocess.run(command.split(), check=True)
