"""What happens when a part of the lab is not on this machine: a skip that says why, or a failure.

A laptop without root or nginx still runs most tests. Continuous integration sets WEIGHTLIFT_REQUIRE_LAB=1, so that a
missing part cannot silently turn a check off.
"""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

_SYSTEM_PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
_REQUIRED = os.environ.get("WEIGHTLIFT_REQUIRE_LAB") == "1"
"""Read once, at import: the environment of a test is cleaned."""


def missing(part: str, remedy: str) -> NoReturn:
    """End the running test: skipped, or failed where the whole lab is required."""
    message = f"the lab has no {part}; {remedy}"
    if _REQUIRED:
        pytest.fail(f"{message} (WEIGHTLIFT_REQUIRE_LAB=1)", pytrace=False)
    pytest.skip(message)


def program(name: str, *, package: str) -> str:
    """The path of a system program, sbin included."""
    return shutil.which(name, path=_SYSTEM_PATH) or missing(name, f"on Debian: apt-get install {package}")


def require_root(purpose: str) -> None:
    if os.geteuid() != 0:
        missing(f"root to {purpose}", "run as root, in a container or a virtual machine")
