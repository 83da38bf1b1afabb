"""The peers' own environment, `.bench/peers` in the checkout: what they need never mixes with what the fetcher needs."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
CHECKOUT = Path(__file__).parent.parent
HOME = CHECKOUT / ".bench"


def peers_python() -> Path:
    """The Python that has the peers; installs them when that was not done, or for other requirements.

    Raises CalledProcessError when pip fails.
    """
    directory = HOME / "peers"
    python, stamp = directory / "bin" / "python", directory / "installed"
    wanted = REQUIREMENTS.read_text()
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing the peers into {directory}", file=sys.stderr)
        venv.create(directory, with_pip=True, clear=True)
        quiet = ["--quiet", "--disable-pip-version-check"]
        subprocess.run([python, "-m", "pip", "install", *quiet, "-r", REQUIREMENTS], check=True, stdout=sys.stderr)
        subprocess.run([python, "-m", "compileall", "-q", directory / "lib"], check=False, stdout=sys.stderr)
        stamp.write_text(wanted)
    return python
