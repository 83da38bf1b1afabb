"""Write the image's bill of materials as CycloneDX, with Debian and Python packages. `bill_of_materials.py VERSION FILE`

It runs in the build stage that has both, with the Python of the tools' environment. It needs two tools, one for each kind:
Debian's vulnerabilities are filed by source package, and only debsbom lists source packages.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

TOOLS = Path(sys.executable).parent


def main(version: str, target: Path) -> None:
    with TemporaryDirectory() as directory:
        bill = merged(_of_python(Path(directory)), _of_debian(Path(directory)), version, Path(directory))
    if sys.base_prefix != "/usr":
        bill["components"].append(interpreter())
    text = json.dumps(bill, indent=1)
    if problem := JsonStrictValidator(SchemaVersion.from_version(bill["specVersion"])).validate_str(text):
        raise SystemExit(f"the bill of materials is invalid CycloneDX: {problem}")
    target.write_text(text)


def interpreter() -> dict[str, Any]:
    """Return the entry of Python itself, if it is not a Debian package: the Python images compile it."""
    version = platform.python_version()
    cpe = f"cpe:2.3:a:python:python:{version}:*:*:*:*:*:*:*"
    return {"type": "application", "name": "python", "version": version, "purl": f"pkg:generic/python@{version}", "cpe": cpe}


def merged(python: Path, debian: Path, version: str, directory: Path) -> dict[str, Any]:
    result = directory / "merged.cdx.json"
    about = ["--distro-name=weightlift", f"--distro-version={version}"]
    _run("debsbom", "merge", "--sbom-type=cdx", "--omit-roots", *about, f"--out={result}", python, debian)
    bill: dict[str, Any] = json.loads(result.read_text())
    return bill


def _of_python(directory: Path) -> Path:
    # debsbom needs a subject to merge a list. Any subject will do, because the image replaces it.
    subject, result = directory / "pyproject.toml", directory / "python.cdx.json"
    subject.write_text('[project]\nname = "environment"\nversion = "0"\n')
    _run("cyclonedx-py", "environment", "--pyproject", subject, "--output-file", result, "/opt/weightlift/bin/python")
    return result


def _of_debian(directory: Path) -> Path:
    result = directory / "debian.cdx.json"
    _run("debsbom", "generate", "--sbom-type=cdx", "--distro-name=debian", f"--out={result}")
    return result


def _run(tool: str, *words: str | Path) -> None:
    # The tools warn that the subject of a list has no dependencies. The merge removes the subject.
    subprocess.run([TOOLS / tool, *words], check=True, env={**os.environ, "PYTHONWARNINGS": "ignore"})


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
