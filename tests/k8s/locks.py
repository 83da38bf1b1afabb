"""Read a lock file: the version of each package, bound to digests."""

from __future__ import annotations

from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def pinned(path: Path) -> dict[str, str]:
    """Return the version of each package. Raises ValueError for a line without an exact version or a digest."""
    versions: dict[str, str] = {}
    for entry in _entries(path.read_text()):
        words = entry.split()
        requirement = Requirement(words[0])
        (specifier,) = requirement.specifier
        if specifier.operator != "==" or not words[1:] or not all(word.startswith("--hash=sha256:") for word in words[1:]):
            raise ValueError(f"{path}: {words[0]} is not bound to a version and its digests")
        versions[canonicalize_name(requirement.name)] = specifier.version
    return versions


def _entries(text: str) -> list[str]:
    """Return the lines without comments, with continuation lines joined."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return "\n".join(lines).replace("\\\n", " ").splitlines()
