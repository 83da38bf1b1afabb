"""Several nodes on one machine: a network namespace each, with a link of its own.

A link is a veth pair. `tbf` limits what is sent into an end of it, as the network card of a node would. `nodes` are linked to
the namespace of this process; `machines` to a switch between them, each limited in both directions at both ends.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

CLONE_NEWNET = 0x40000000
SERVER = "10.78.0.1"
"""The address of this process, which all of `nodes` reach."""
MOST = 250
"""Machines on a switch at most: they are numbered in the last byte of their addresses."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node. `words` begin a command that runs on it; `address` is its own."""

    words: tuple[str, ...]
    address: str


@dataclass(frozen=True, slots=True)
class Machine(Node):
    """A node at the port `port` of a switch, which is in the namespace `switch`."""

    switch: str
    port: str

    def plug(self, *, in_: bool) -> None:
        """Plug the link in again, or out. Nobody is told: packets vanish."""
        _run(f"ip -n {self.switch} link set {self.port} {'up' if in_ else 'down'}")


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


@contextmanager
def machines(rates: Sequence[int]) -> Iterator[list[Machine]]:
    """Make machines that reach each other through a switch, until the block ends. `rates`: bytes a second of each link."""
    if len(rates) > MOST:
        raise ValueError(f"{len(rates)} machines do not fit on a switch of {MOST}")
    with ExitStack() as stack:
        switch = _namespace(stack, "switch")
        _run(f"ip -n {switch} link add switch type bridge")
        _run(f"ip -n {switch} link set switch up")
        yield [_machine(stack, switch, number, rate) for number, rate in enumerate(rates)]


def _node(stack: ExitStack, number: int, rate: int) -> Node:
    name, ours, theirs = _namespace(stack, f"{number}"), f"10.78.{number + 1}.1", f"10.78.{number + 1}.2"
    _run(f"ip link add link{number} type veth peer name link netns {name}")
    _run(f"ip address add {ours}/30 dev link{number}")
    _run(f"ip link set link{number} up")
    _limit(f"link{number}", rate)
    _run(f"ip -n {name} address add {theirs}/30 dev link")
    _run(f"ip -n {name} link set dev link up")
    _run(f"ip -n {name} route add default via {ours}")
    return Node(_inside(name), theirs)


def _machine(stack: ExitStack, switch: str, number: int, rate: int) -> Machine:
    name, port, address = _namespace(stack, f"{number}"), f"port{number}", f"10.79.0.{number + 1}"
    _run(f"ip -n {switch} link add {port} type veth peer name link netns {name}")
    _run(f"ip -n {switch} link set {port} master switch up")
    _run(f"ip -n {name} address add {address}/24 dev link")
    _run(f"ip -n {name} link set dev link up")
    _limit(port, rate, within=switch)
    _limit("link", rate, within=name)
    return Machine(_inside(name), address, switch, port)


def _namespace(stack: ExitStack, name: str) -> str:
    name = f"weightlift-{os.getpid()}-{name}"
    _run(f"ip netns add {name}")
    stack.callback(_run, f"ip netns delete {name}")
    _run(f"ip -n {name} link set lo up")
    return name


def _limit(link: str, rate: int, *, within: str | None = None) -> None:
    """Limit what is sent into `link`. The burst is 10 ms, and at least what the kernel sends between two ticks of its clock."""
    where = f"-n {within} " if within else ""
    _run(f"tc {where}qdisc add dev {link} root tbf rate {rate * 8}bit burst {max(rate // 100, 256 * 1024)} latency 50ms")


def _inside(name: str) -> tuple[str, ...]:
    return ("ip", "netns", "exec", name)


def _run(command: str) -> None:
    subprocess.run(command.split(), check=True)
