"""What happens when a part of the lab is not on this machine: a skip that says why, or a failure.

A laptop without root or nginx still runs most tests. Continuous integration sets WEIGHTLIFT_REQUIRE_LAB=1, so that a
missing part cannot silently turn a check off.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sysconfig
from typing import NoReturn

import pytest

_PATH = os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
"""This environment's own programs, the user's, then those of root that a user's PATH lacks."""
_REQUIRED = os.environ.get("WEIGHTLIFT_REQUIRE_LAB") == "1"
"""Read once, at import: the environment of a test is cleaned."""


def missing(part: str, remedy: str) -> NoReturn:
    """End the running test, or the module that is being collected: skipped, or failed where the whole lab is required."""
    message = f"the lab has no {part}; {remedy}"
    if _REQUIRED:
        pytest.fail(f"{message} (WEIGHTLIFT_REQUIRE_LAB=1)", pytrace=False)
    pytest.skip(message, allow_module_level=True)


def program(name: str, *, package: str) -> str:
    """The path of a program."""
    return shutil.which(name, path=_PATH) or missing(name, f"on Debian: apt-get install {package}")


def require_package(name: str, *, extra: str) -> None:
    """A Python package that an extra of this project brings."""
    try:
        importlib.import_module(name)
    except ImportError:
        missing(f"Python package {name}", f"make setup EXTRAS=dev,{extra}")


def require_root(purpose: str) -> None:
    if os.geteuid() != 0:
        missing(f"root to {purpose}", "run as root, in a container or a virtual machine")
