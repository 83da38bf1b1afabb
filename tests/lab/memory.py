"""The memory of a process, as the kernel counts it."""

from __future__ import annotations

import subprocess
from pathlib import Path


def most_resident(process: subprocess.Popen[str]) -> int:
    """The most resident bytes that a process has had; 0 if it has just ended."""
    _, _, found = Path(f"/proc/{process.pid}/status").read_text().partition("VmHWM:")
    return int(found.split()[0]) * 1024 if found else 0
