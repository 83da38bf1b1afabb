"""Install the peers in their own environments below `.bench` in the checkout, and find programs of the distribution."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
import venv
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent
HOME = CHECKOUT / ".bench"
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"


def peers_python(comparison: str) -> Path:
    """Return the Python with the peers of `benchmarks/<comparison>`. Installs them first if needed.

    Waits while another process installs them. Raises CalledProcessError if pip fails.
    """
    requirements = Path(__file__).parent / comparison / "requirements.txt"
    directory = HOME / f"peers-{comparison}"
    HOME.mkdir(exist_ok=True)
    with (HOME / f"peers-{comparison}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _install(directory, requirements)
    return directory / "bin" / "python"


def _install(directory: Path, requirements: Path) -> None:
    python, stamp = directory / "bin" / "python", directory / "installed"
    wanted = requirements.read_text()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"installing the peers into {directory}", file=sys.stderr)
    venv.create(directory, with_pip=True, clear=True)
    quiet = ["--quiet", "--disable-pip-version-check"]
    subprocess.run([python, "-m", "pip", "install", *quiet, "-r", requirements], check=True, stdout=sys.stderr)
    subprocess.run([python, "-m", "compileall", "-qq", directory / "lib"], check=False, stdout=sys.stderr)
    stamp.write_text(wanted)


def missing(program: str, package: str) -> str | None:
    """Return the remedy if `program` is missing, or None; `package` is its Debian package."""
    return None if shutil.which(program, path=PATH) else f"{program} is missing; on Debian: apt-get install {package}"
