"""A virtual machine: Debian's user-mode Linux, booted on the host's root filesystem (read-only).

It has a real NFSv4.2 server and client, which the host's kernel lacks. Its one processor is slow: test behaviour on it, never
speed.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.lab.availability import impossible, missing, program

_INIT = Path(__file__).with_name("uml_init.sh")
_NEEDED = {
    "linux.uml": "user-mode-linux",
    "modprobe": "kmod",
    "exportfs": "nfs-kernel-server",
    "rpc.nfsd": "nfs-kernel-server",
    "mount.nfs4": "nfs-common",
}


def played_on_nfs(command: Sequence[str | Path], out: Path, *, timeout: float) -> None:
    """Run `command` in the guest to its end. It can write only to `out`, a directory of the host.

    Raises AssertionError with its output if it fails or takes longer than `timeout` seconds.
    """
    if "amx_tile" in _processor_flags():
        # It offers ptrace a buffer of 2,696 bytes for the registers, and with AMX the host's kernel demands 11,008 (EFAULT).
        impossible("user-mode Linux 6.1 cannot run on a processor with AMX; test NFS on another one")
    linux, *_ = [program(name, package=package) for name, package in _NEEDED.items()]
    words = [str(word) for word in command]
    if any(character in word for word in [*words, str(out)] for character in " ,"):
        missing("path without spaces and commas", "the kernel's command line has no quotes; move the checkout")
    options = ["root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", f"init={_INIT}", f"script={','.join(words)}"]
    guest = subprocess.Popen(
        [linux, "mem=1G", *options, f"out={out}", "con=null", "con0=null,fd:1", "quiet", f"umid=weightlift{os.getpid()}"],
        env={**os.environ, "TMPDIR": "/dev/shm"},  # noqa: S108 - the guest's memory
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        console, _ = guest.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(guest.pid, signal.SIGKILL)
        console, _ = guest.communicate()
    code = out / "code"
    assert code.exists(), f"the guest did not finish:\n{console}\n{_text(out / 'log')}"
    assert code.read_text().strip() == "0", f"{' '.join(words)} failed in the guest:\n{_text(out / 'log')}"


def _processor_flags() -> set[str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return {flag for line in lines if line.startswith("flags") for flag in line.split()}


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
