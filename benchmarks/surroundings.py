"""Where a figure was taken: machine, versions, commit. A figure without them can't be compared with anything."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

from benchmarks.measuring import GB

FLAGS = {"sha_ni": "SHA-NI", "avx2": "AVX2", "avx512f": "AVX-512"}
"""Names in /proc/cpuinfo that decide how fast SHA-256 is, and what they are called."""
OURS = ("aiohttp", "uvloop", "xxhash", "weightlift")


def machine() -> str:
    """Processors, their flags, memory, kernel and congestion control."""
    present = processor_flags()
    flags = ", ".join(f"{'' if name in present else 'no '}{label}" for name, label in FLAGS.items())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB
    control = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    model = _processor().get("model name", platform.machine())
    return f"{os.cpu_count()} x {model} ({flags}), {memory:.0f} GB, Linux {platform.release()}, TCP {control}"


def processor_flags() -> frozenset[str]:
    """As the kernel names them: `sha_ni`, `avx2`."""
    facts = _processor()
    return frozenset((facts.get("flags") or facts.get("Features") or "").split())


@cache
def _processor() -> dict[str, str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def versions(fetcher: str, peers: Path) -> dict[str, str]:
    """Of everything that takes part."""
    ours = {name: version(name) for name in OURS} | {
        "fetcher": first_line(fetcher, "--version"),
        "Python": platform.python_version(),
    }
    frozen = subprocess.run([peers, "-m", "pip", "freeze"], capture_output=True, text=True, check=True).stdout.split()
    wanted = ("hf_transfer==", "huggingface_hub==", "kserve-storage==", "hf-xet==", "httpx2==")
    theirs = dict(line.split("==") for line in frozen if line.startswith(wanted))
    tools = (
        ("nginx", "-v"),
        ("aria2c", "--version"),
        ("curl", "--version"),
        ("openssl", "version"),
        ("sha256sum", "--version"),
    )
    return ours | theirs | {words[0]: first_line(*words) for words in tools}


def commit() -> str:
    """The commit measured, and whether the tree differed from it."""
    return first_line("git", "describe", "--always", "--abbrev=10", "--dirty", "--exclude=*")


def first_line(*command: str) -> str:
    """What a program says first, of either stream."""
    executable = shutil.which(command[0], path=os.environ.get("PATH", os.defpath) + ":/usr/sbin")
    if executable is None:
        return "missing"
    ended = subprocess.run([executable, *command[1:]], capture_output=True, text=True, check=False)
    lines = (ended.stdout + ended.stderr).splitlines()
    return lines[0].strip() if lines else f"exit {ended.returncode}"
