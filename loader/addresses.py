"""What to say when an address is given where a path is meant: `loader` reads files, `fetcher` brings them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from fetcher.artifact import ArtifactRef, redact
from fetcher.errors import NotFound
from fetcher.manifest import RELATIVE_PATH

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/{1,2}(?=[^/])")
"""A Path makes one slash of two."""


def absent(path: str, why: str = "", *, environ: Mapping[str, str] = os.environ) -> NotFound:
    """The error for a `path` that is not there; `why` says more of it. For an address it names the command that fetches it, or
    the directory where it is already."""
    if (match := _ADDRESS.match(path)) is None:
        return NotFound(f"there is no {path}{why}", path=path)
    uri = f"{match[1]}://{path[match.end() :]}"
    shown = redact(uri)
    if (cached := _in_cache(uri, environ)) is not None:
        return NotFound(f"{shown} is an address, and loader reads files; it was fetched to {cached}: name that directory")
    return NotFound(
        f"{shown} is an address, and loader reads files; fetch it first, and name the path that `fetcher fetch` prints"
    )


def _in_cache(uri: str, environ: Mapping[str, str]) -> Path | None:
    """Where `fetcher` puts it unless told otherwise (`fetcher.settings.default_cache_dir`), if it is there."""
    root = environ.get("FETCHER_CACHE_DIR")
    if not root:
        base = environ.get("XDG_CACHE_HOME") or os.path.join(environ.get("HOME", "/nonexistent"), ".cache")
        root = os.path.join(base, "weightlift")
    directory = Path(root) / ArtifactRef(uri).key
    return directory if (directory / RELATIVE_PATH).is_file() else None
