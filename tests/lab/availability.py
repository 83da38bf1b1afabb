"""Skip or fail tests if a part of the lab is missing on this machine.

A laptop without root or nginx can still run most tests. Continuous integration sets WEIGHTLIFT_REQUIRE_LAB=1, so that a
missing part cannot silently disable a test.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sysconfig
from typing import NoReturn

import pytest

_PATH = os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
"""Programs of this environment, of the user, and of root, in this order. The PATH of a user lacks those of root."""
_REQUIRED = os.environ.get("WEIGHTLIFT_REQUIRE_LAB") == "1"
"""Read at import, because the environment of a test is cleaned."""


def missing(part: str, remedy: str) -> NoReturn:
    """Skip the running test or the module that is being collected. Fail instead if the whole lab is required."""
    message = f"the lab has no {part}; {remedy}"
    if _REQUIRED:
        pytest.fail(f"{message} (WEIGHTLIFT_REQUIRE_LAB=1)", pytrace=False)
    pytest.skip(message, allow_module_level=True)


def impossible(why: str) -> NoReturn:
    """Skip the running test: no package can give this machine what it lacks."""
    pytest.skip(why, allow_module_level=True)


def program(name: str, *, package: str) -> str:
    """Return the path of a program."""
    return shutil.which(name, path=_PATH) or missing(name, f"on Debian: apt-get install {package}")


def require_package(name: str, *, extra: str) -> None:
    """Require a Python package that an extra of this project installs."""
    try:
        importlib.import_module(name)
    except ImportError:
        missing(f"Python package {name}", f"make setup EXTRAS=dev,{extra}")


def require_root(purpose: str) -> None:
    if os.geteuid() != 0:
        missing(f"root to {purpose}", "run as root, in a container or a virtual machine")
