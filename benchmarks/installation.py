"""What takes part has to be there: the peers' own environments below `.bench` in the checkout, so that what they need never
mixes with what we need, and programs of the distribution."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent
HOME = CHECKOUT / ".bench"
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"


def peers_python(comparison: str) -> Path:
    """The Python that has the peers of `benchmarks/<comparison>`; installs them when that was not done, or for other
    requirements.

    Raises CalledProcessError when pip fails.
    """
    requirements = Path(__file__).parent / comparison / "requirements.txt"
    directory = HOME / f"peers-{comparison}"
    python, stamp = directory / "bin" / "python", directory / "installed"
    wanted = requirements.read_text()
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing the peers into {directory}", file=sys.stderr)
        venv.create(directory, with_pip=True, clear=True)
        quiet = ["--quiet", "--disable-pip-version-check"]
        subprocess.run([python, "-m", "pip", "install", *quiet, "-r", requirements], check=True, stdout=sys.stderr)
        subprocess.run([python, "-m", "compileall", "-qq", directory / "lib"], check=False, stdout=sys.stderr)
        stamp.write_text(wanted)
    return python


def missing(program: str, package: str) -> str | None:
    """What to do where `program` is not there; `package` is Debian's that has it."""
    return None if shutil.which(program, path=PATH) else f"{program} is missing; on Debian: apt-get install {package}"
