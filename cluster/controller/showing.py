"""What a ModelCache shows of its artifact in a table: texts that are read at a glance. Pure."""

from __future__ import annotations

import re

from cluster.resources.model import Found

_COMMIT = 7
"""Characters of a commit, as git and the Hub shorten it."""
_DIGEST = 12
"""Characters of a digest, as registries shorten it, and of any other revision."""


def shown(found: Found | None) -> tuple[str | None, str | None]:
    """Return size and revision of an artifact in short; None for what is not known."""
    if found is None:
        return None, None
    return in_short(found.bytes) if found.bytes else None, abbreviated(found.revision)


def in_short(count: int) -> str:
    """Return a number of bytes as a quantity of Kubernetes, such as 130.4Gi."""
    value = float(count)
    for unit in ("", "Ki", "Mi", "Gi"):
        if round(value, 1) < 1024:
            return _with_unit(value, unit)
        value /= 1024
    return _with_unit(value, "Ti")


def abbreviated(revision: str | None) -> str | None:
    """Return the beginning of a commit, of a digest, whose algorithm stays, or of another revision. None without one."""
    if not revision:
        return None
    if re.fullmatch("[0-9a-f]{40}", revision):
        return revision[:_COMMIT]
    algorithm, colon, digest = revision.rpartition(":")
    return f"{algorithm}{colon}{digest[:_DIGEST]}" if re.fullmatch("[0-9a-f]{32,}", digest) else revision[:_DIGEST]


def _with_unit(value: float, unit: str) -> str:
    return f"{value:.1f}".removesuffix(".0") + unit
