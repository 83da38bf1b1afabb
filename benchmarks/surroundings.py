"""The surroundings of a measurement: machine, versions, commit. Without them results cannot be compared."""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from benchmarks.measuring import GB

FLAGS = {"sha_ni": "SHA-NI", "sha2": "SHA2", "avx2": "AVX2", "avx512f": "AVX-512"}
"""Flags in /proc/cpuinfo that determine the speed of SHA-256, and their usual names; `sha2` is arm64's."""
SHA_EXTENSIONS = frozenset({"sha_ni", "sha2"})
OPENSSL_MASK = "OPENSSL_ia32cap"
"""The variable by which OpenSSL is told to ignore extensions that the processor has."""
_SHA_BIT = 1 << 29
"""SHA-NI in the second word of that variable: EBX of CPUID's leaf 7, as OPENSSL_ia32cap(3) has it."""
OURS = ("weightlift", "aiohttp", "uvloop", "xxhash", "numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The facts that a reader needs to judge and repeat a report.

    `conditions`: conditions of every run. `skipped`: scenarios that were not run, with the reason.
    """

    command: str
    machine: str
    hashing: str
    versions: dict[str, str]
    commit: str
    rounds: str
    scale: float
    date: str
    conditions: str
    skipped: dict[str, str]

    @classmethod
    def here(cls, *, versions: dict[str, str], rounds: str, scale: float, conditions: str) -> Setting:
        """Return the setting of this machine, commit, command line and day."""
        return cls(
            command=shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
            machine=machine(),
            hashing="; ".join(filter(None, (hashing(processor_flags(), os.environ), openssl_rate()))),
            versions=versions,
            commit=commit(),
            rounds=rounds,
            scale=scale,
            date=datetime.now(UTC).date().isoformat(),
            conditions=conditions,
            skipped={},
        )


def machine() -> str:
    """Return processors, their flags, memory, kernel and congestion control as text."""
    flags = flags_in_words(processor_flags())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB
    control = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    model = _processor().get("model name", platform.machine())
    return f"{os.cpu_count()} x {model} ({flags}), {memory:.0f} GB, Linux {platform.release()}, TCP {control}"


def flags_in_words(present: Collection[str]) -> str:
    """Return which of the flags that matter are there and which are not. Those of the other architecture are left out."""
    foreign = "sha_ni avx2 avx512f" if platform.machine() == "aarch64" else "sha2"
    known = {name: label for name, label in FLAGS.items() if name not in foreign.split()}
    return ", ".join(f"{'' if name in present else 'no '}{label}" for name, label in known.items())


def hashing(present: Collection[str], environ: Mapping[str, str]) -> str:
    """Return whether SHA-256 is computed with SHA extensions in this run, for the head of a report.

    A processor can be made to look like an older one to OpenSSL, and so to hashlib and `openssl dgst`, by `OPENSSL_ia32cap`.
    Such a run is marked: `sha256sum` and our own code do not always follow that variable.
    """
    if mask := environ.get(OPENSSL_MASK):
        return f"**SHA extensions hidden from OpenSSL by {OPENSSL_MASK}={mask}: not a run of a processor without them**"
    return "with SHA extensions" if SHA_EXTENSIONS & set(present) else "without SHA extensions"


def mask() -> dict[str, str]:
    """Return OpenSSL's mask as a part of a contender's environment, if it is set here."""
    return {OPENSSL_MASK: os.environ[OPENSSL_MASK]} if os.environ.get(OPENSSL_MASK) else {}


def flags_for_openssl(present: Collection[str], environ: Mapping[str, str]) -> frozenset[str]:
    """Return the flags that OpenSSL uses: those that are there, without SHA extensions that its mask hides."""
    return frozenset(present) - (SHA_EXTENSIONS if _hides_sha(environ.get(OPENSSL_MASK, "")) else frozenset())


def _hides_sha(mask: str) -> bool:
    """Whether the mask takes SHA-NI away: by `~` and its bit, or by a word without it. OpenSSL ignores what is no number."""
    word = mask.partition(":")[2].partition(":")[0]
    try:
        return bool(int(word.removeprefix("~"), 0) & _SHA_BIT) == word.startswith("~")
    except ValueError:
        return False


def openssl_speed() -> float | None:
    """Return the bytes a second that one core hashes by `openssl speed`, in large blocks; None without openssl."""
    words = ("speed", "-seconds", "1", "-bytes", "1048576", "-evp", "sha256")
    match = re.search(r"^SHA2?-?256 +(\d+\.\d+)k", _output("openssl", *words), re.MULTILINE | re.IGNORECASE)
    return float(match[1]) * 1000 if match else None


def openssl_rate() -> str:
    """Return `openssl_speed` in words; empty without openssl."""
    speed = openssl_speed()
    return f"one core's `openssl speed -evp sha256`: {speed / GB:.2f} GB/s" if speed else ""


def processor_flags() -> frozenset[str]:
    """Return the processor's flags with the kernel's names, such as `sha_ni`."""
    facts = _processor()
    return frozenset((facts.get("flags") or facts.get("Features") or "").split())


@cache
def _processor() -> dict[str, str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def versions(command: str, peers: Path, *, theirs: Sequence[str], tools: Sequence[str]) -> dict[str, str]:
    """Return the versions of Python, our packages, the peers' packages `theirs`, and the programs `tools`."""
    ours = _installed(Path(command).with_name("python"), OURS)
    return {"Python": platform.python_version()} | ours | _installed(peers, theirs) | {name: _version(name) for name in tools}


def commit() -> str:
    """Return the measured commit, marked if the tree differs from it."""
    return _output("git", "describe", "--always", "--abbrev=10", "--dirty", "--exclude=*") or "no repository"


def _installed(python: Path, names: Sequence[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed in an environment."""
    script = "import importlib.metadata as m; [print(d.name, d.version) for d in m.distributions()]"
    lines = (line.split() for line in _output(str(python), "-c", script).splitlines())
    return {name: text for name, text in lines if name in names}


def _version(program: str) -> str:
    """Return the first version number in the program's output, which can be an error message."""
    flag = {"nginx": "-v", "openssl": "version"}.get(program, "--version")
    match = re.search(r"\d+(\.\d+)+\w*", _output(program, flag, failing=True))
    return match[0] if match else "missing"


def _output(program: str, *words: str, failing: bool = False) -> str:
    """Return stdout and stderr; empty if the program is missing or, unless `failing`, if it fails."""
    executable = shutil.which(program, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin")
    if executable is None:
        return ""
    ended = subprocess.run([executable, *words], capture_output=True, text=True, check=False)
    return (ended.stdout + ended.stderr).strip() if failing or ended.returncode == 0 else ""
